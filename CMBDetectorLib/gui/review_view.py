"""What a reader sees of a review: card, buttons, slider, table and lines of text, brought up to date together."""

from __future__ import annotations

import datetime
import html
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from CMBDetectorLib.gui.candidate_card import CandidateCard
from CMBDetectorLib.gui.candidate_table import CandidateTable
from CMBDetectorLib.gui.keys import KeyTable
from CMBDetectorLib.gui.plain_text import plain_tip
from CMBDetectorLib.gui.review_session import ReviewSession
from CMBDetectorLib.gui.score_slider import ScoreSlider
from CMBDetectorLib.gui.verdict_buttons import Possible, VerdictButtons
from CMBDetectorLib.models.bundle import RESOURCES
from CMBDetectorLib.review.finding import Finding, State
from CMBDetectorLib.review.log import FoundReview
from CMBDetectorLib.volume import Volume


class ReviewView:
    """Shows a session (``None``: there is nothing to review); decides nothing.

    ``handlers`` are the actions of the buttons by name, ``on_selected`` gets the id of a row that the reader chose,
    ``on_threshold`` the score.
    """

    def __init__(
        self,
        keys: KeyTable,
        handlers: Mapping[str, Callable[[], Any]],
        on_selected: Callable[[str], None],
        on_threshold: Callable[[float], None],
    ) -> None:
        self.widget = slicer.util.loadUI(str(RESOURCES / "UI" / "ReviewPanel.ui"))
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self.card = CandidateCard()
        self.table = CandidateTable(on_selected)
        self.slider = ScoreSlider(on_threshold)
        self.buttons = VerdictButtons(keys, handlers)
        for place, part in (
            (self.ui.cardPlace, self.card),
            (self.ui.buttonsPlace, self.buttons),
            (self.ui.sliderPlace, self.slider),
            (self.ui.tablePlace, self.table),
        ):
            layout = qt.QVBoxLayout(place)
            layout.setContentsMargins(0, 0, 0, 0)
            layout.addWidget(part.widget)

    def say(self, message: str) -> None:
        """Show a sentence, or take it away."""
        self.ui.messageLabel.text = message
        self.ui.messageLabel.setVisible(bool(message))

    def offer(self, found: FoundReview | None, session: ReviewSession | None) -> None:
        """Offer a review that the disk holds, or take the offer away; ``session`` is what it would replace."""
        self.ui.resumeFrame.setVisible(found is not None)
        if found is None:
            return
        words = _(
            "A review of this scan by {reader} was left on {date}: {done} of {all} judged (found by {model} {version})."
        )
        text = words.format(
            reader=found.reader,
            date=_local_time(found.last_change),
            done=found.reviewed,
            all=found.total,
            model=found.model_name,
            version=found.model_version,
        )
        if session is not None and session.review.detection.model.get("checksum") != found.model_checksum:
            text += " " + _("Its candidates would take the place of those shown now.")
        self.ui.resumeLabel.text = text

    def show_all(self, session: ReviewSession | None, scan: Volume | None) -> None:
        """Make everything anew for another session; the pictures are taken from ``scan``."""
        findings = session.review.findings if session is not None else []
        self.table.show(findings, session.review.number if session is not None else (lambda key: 0))
        self.card.set_scan(scan if session is not None else None)
        if session is not None:
            model = session.review.detection.model
            shown = float(session.review.detection.settings.get("threshold", 0.5))
            self.slider.set_marks({_("default"): shown, **model.get("operating_points", {})})
            self.slider.set_threshold(session.shown.threshold)
            self.table.set_threshold(session.shown.threshold)
        self.table.select(session.current if session is not None else None)
        self._show_model(session)
        self.show_card(session)
        self.show_counts(session)
        self.show_buttons(session)

    def _show_model(self, session: ReviewSession | None) -> None:
        """Say which networks found the candidates: the active model may be another one by now."""
        label = self.ui.modelLabel
        label.setVisible(session is not None)
        if session is None:
            return
        model = {key: str(value or "") for key, value in session.review.detection.model.items()}
        words = _("Found by {name} {version}, checksum {checksum}")
        known = {key: html.escape(model.get(key) or "?") for key in ("name", "version", "checksum")}
        known["checksum"] = known["checksum"][:12]
        label.text = f"<small>{words.format(**known)}</small>"
        label.toolTip = plain_tip("\n".join(model[key] for key in ("checksum", "training_data") if model.get(key)))

    def show_changed(self, session: ReviewSession, key: str) -> None:
        """Show what was done to the finding ``key``."""
        self.table.update(session.review[key])
        if key == session.current:
            self.show_card(session)
        self.show_counts(session)
        self.show_buttons(session)

    def show_card(self, session: ReviewSession | None) -> None:
        """Show the current finding."""
        key = session.current if session is not None else None
        self.ui.commentEdit.enabled = key is not None
        if key is None:
            self.card.show(None)
            self.ui.commentEdit.text = ""
            return
        review = session.review
        following = review.next_unreviewed(key, self.table.order())
        self.card.show(review[key], review.number(key), "", review[following] if following is not None else None)
        self.ui.commentEdit.text = review[key].comment

    def show_counts(self, session: ReviewSession | None) -> None:
        """Show how much is judged."""
        if session is None:
            self.ui.progressLabel.text = _("No candidates yet: detect in this scan first.")
            return
        review, threshold = session.review, session.shown.threshold
        visible = [f for f in review.findings if review.is_visible(f, threshold)]
        judged = sum(f.is_reviewed for f in visible)
        self.slider.set_counts(len(visible), len(review.findings) - len(visible))
        words = (State.ACCEPTED, _("accepted")), (State.REJECTED, _("rejected")), (State.UNSURE, _("unsure"))
        counts = ", ".join(f"{review.count(state)} {word}" for state, word in words)
        self.ui.progressLabel.text = _("<b>{judged} of {all} judged</b>: {counts}").format(
            judged=judged, all=len(visible), counts=counts
        )

    def show_buttons(self, session: ReviewSession | None) -> None:
        """Enable what can be done now."""
        key = session.current if session is not None else None
        finding = session.review[key] if key is not None else None
        self.buttons.show(finding, _possible(session, finding, self.table.order()))
        self.buttons.set_checked("second-look", session is not None and session.shown.second_look)


def _local_time(utc: str) -> str:
    """Return a time (ISO 8601) as the clock on the wall showed it."""
    try:
        return datetime.datetime.fromisoformat(utc).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return utc


def _possible(session: ReviewSession | None, finding: Finding | None, order: list[str]) -> Possible:
    """Return what can be done now, and why not what cannot."""
    if session is None:
        return Possible(*[_("There are no candidates yet: detect first.")] * len(fields(Possible)))
    review = session.review
    unselected = "" if finding is not None else _("No candidate is selected.")
    place = order.index(finding.id) if finding is not None and finding.id in order else None
    return Possible(
        judge=unselected,
        next="" if order and (place is None or place + 1 < len(order)) else _("This is the last one."),
        previous="" if order and (place is None or place > 0) else _("This is the first one."),
        next_unreviewed="" if review.unreviewed(session.shown.threshold) else _("Nothing is left to judge here."),
        undo="" if review.can_undo else _("Nothing was done yet."),
        redo="" if review.can_redo else _("Nothing was taken back."),
        move=unselected,
        remove=unselected or ("" if finding.is_added else _("The detector found this one: reject it instead.")),
        second_look="" if review.count(State.REJECTED) or session.shown.second_look else _("Nothing is rejected yet."),
    )
