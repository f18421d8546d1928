"""The panel in which a reader judges one candidate after the other."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from CMBDetectorLib.candidate import Detection
from CMBDetectorLib.errors import CMBDetectorError
from CMBDetectorLib.gui import preferences, review_session, slice_views
from CMBDetectorLib.gui.candidates_node import CandidatesNode
from CMBDetectorLib.gui.changed_scan import follow
from CMBDetectorLib.gui.key_settings import edit_keys
from CMBDetectorLib.gui.keys import KeyTable, Shortcuts, leave_with_escape, reject_as
from CMBDetectorLib.gui.placing import PointPlacer
from CMBDetectorLib.gui.review_session import ReviewSession
from CMBDetectorLib.gui.review_view import ReviewView
from CMBDetectorLib.gui.scan_node import key_of, scan_volume
from CMBDetectorLib.review.finding import MIMIC_CLASSES, Certainty, Finding, State
from CMBDetectorLib.review.log import FoundReview
from CMBDetectorLib.review.review import Review

Scan = slicer.vtkMRMLScalarVolumeNode
_BREATH_MS = 20


class ReviewPanel:
    """Reviews the candidates of one scan at a time; ``on_changed`` is called after every change of the review."""

    def __init__(self, window: qt.QWidget, on_changed: Callable[[], None] = lambda: None) -> None:
        self.session: ReviewSession | None = None
        self.parameters: Any = None
        self._scan_id: str | None = None
        self._found: FoundReview | None = None
        self._is_another_scan = False
        self._layout_before: int | None = None
        self._on_changed = on_changed
        self.keys = KeyTable(qt.QSettings())
        handlers = self._handlers()
        self.view = ReviewView(self.keys, handlers, self.select, self._on_threshold)
        self.widget, self.ui, self.table = self.view.widget, self.view.ui, self.view.table
        self.shortcuts = Shortcuts(self.keys, window, handlers, self._on_keys_active)
        self.placer = PointPlacer(self._say)
        self._connect()
        self._show_legend()
        self.keys.changed.append(self._show_legend)
        self.ui.readerEdit.text = preferences.text("Reader") or _user()
        self.ui.fieldBox.value = int(preferences.number("FieldOfView", 80))
        self._offer(None)
        self._refresh_all()

    # From the module

    def set_parameters(self, parameters: Any) -> None:
        """Follow another parameter node (``None`` while a scene is closed)."""
        self.parameters = parameters

    @property
    def reader(self) -> str:
        """Who reviews."""
        return " ".join(str(self.ui.readerEdit.text).split()) or _user()

    @property
    def scan(self) -> Scan | None:
        """The scan under review."""
        return slicer.mrmlScene.GetNodeByID(self._scan_id) if self._scan_id else None

    def open_scan(self, scan: Scan | None) -> None:
        """Show the review of ``scan``, or that there is none yet; offers one that the disk holds."""
        if scan is not None and self._scan_id == scan.GetID() and self.session is not None and self.session.nodes.node:
            return
        self._leave()
        self._scan_id = scan.GetID() if scan is not None else None
        nodes = CandidatesNode.of_scan(scan)
        if nodes is not None:
            self._is_another_scan = not follow(nodes)
            self._enter(review_session.from_scene(nodes, self.reader, self._say))
        self._offer(self._look_on_disk())
        self._refresh_all()
        if nodes is not None and self._is_another_scan:
            self._say(_("This scan was changed since it was searched: the places may be wrong. Detect again."))

    def show_detection(self, scan: Scan, detection: Detection, select_first: bool) -> CandidatesNode:
        """Put new candidates into the scene and begin their review; the verdicts of all readers are carried over.

        Without ``select_first`` another scan that is under review stays so.
        """
        is_here = self._scan_id in (None, scan.GetID())
        found = self._found if is_here else None
        if self.session is not None and self._scan_id == scan.GetID():
            self._leave()
        nodes, earlier = review_session.renew(scan, detection, key_of(scan) or "")
        if not is_here and not select_first:
            review = Review(detection, self.reader, earlier.get(self.reader, ()))
            nodes.show(review, float(detection.settings["threshold"]), second_look=False)
            nodes.hide()
            return nodes
        self._leave()
        self._scan_id, self._is_another_scan = scan.GetID(), False
        self._enter(review_session.start(nodes, detection, self.reader, self._say, earlier.get(self.reader, ())))
        self._offer(found)
        self._refresh_all()
        if select_first:
            # A little later, so that the application can draw and listen in between: its pictures take time.
            qt.QTimer.singleShot(_BREATH_MS, self._select_first)
        return nodes

    def take_typed(self) -> None:
        """Let a remark and a reader's name count that stand in their fields: a click on a button does not take the
        focus from a field on every system."""
        for field in (self.ui.commentEdit, self.ui.readerEdit):
            # What is typed next must not go to the next candidate.
            field.clearFocus()
        self._on_comment()
        if self.session is not None and self.session.review.reader != self.reader:
            self._on_reader()

    def show_layout_button(self) -> None:
        """Show whether the layout for reviewing is open: a loaded scene may bring it, or take it away."""
        self.ui.layoutButton.checked = slice_views.review_layout_is_open()

    def enter(self) -> None:
        """The module is shown: its keys hold."""
        self.shortcuts.enable()

    def exit(self) -> None:
        """The module is left: its keys are free for others."""
        self.shortcuts.disable()
        self.placer.stop()

    def close(self) -> None:
        """Let go of everything."""
        self.exit()
        self._leave()

    # What a reader does

    def select(self, key: str | None) -> None:
        """Make a finding the current one: card, ring and slice views go there."""
        self._follow_scan()
        session = self.session
        if session is None or key is None or key not in session.review:
            return
        session.set_current(key)
        if self.parameters is not None:
            self.parameters.currentFinding = key
        self.table.select(key)
        self.view.show_card(self.session)
        self.view.show_buttons(self.session)
        slice_views.jump(session.nodes.world(session.review[key]), self.ui.fieldBox.value or None)

    def judge(self, state: State, certainty: Certainty | None = None, mimic_class: str | None = None) -> None:
        """Give the current finding a verdict and go to the next one to judge."""
        session, key = self.session, self._current()
        if session is None or key is None:
            return
        order = self.table.order()
        session.review.judge(key, state, certainty, mimic_class)
        if session.shown.second_look:
            following = order[order.index(key) + 1 :] if key in order else []
            self._after_change(key)
            if following:
                self.select(following[0])
            return
        following = session.review.next_unreviewed(key, order)
        self._after_change(key)
        if following is not None:
            self.select(following)
        else:
            self._tell_nothing_left(_("All shown candidates are judged. Lower the score to see more, or export."))

    def step(self, by: int) -> None:
        """Go forward or back in the table."""
        order, key = self.table.order(), self._current()
        if order:
            index = order.index(key) + by if key in order else 0
            self.select(order[max(0, min(index, len(order) - 1))])

    def next_unreviewed(self) -> None:
        """Go to the next candidate that is not judged yet."""
        if self.session is not None:
            following = self.session.review.next_unreviewed(self._current(), self.table.order())
            if following is None:
                self._tell_nothing_left(_("Nothing is left to judge at this score."))
            self.select(following)

    def undo(self) -> None:
        """Take back the last change and go there."""
        self._show_change(self.session.review.undo() if self.session is not None else None)

    def redo(self) -> None:
        """Do again what was taken back and go there."""
        self._show_change(self.session.review.redo() if self.session is not None else None)

    def move(self) -> None:
        """Wait for a click on where the current lesion really is."""
        key = self._current()
        if self.session is not None and key is not None:
            self.placer.start(
                _("Click where the lesion of candidate {number} is (Esc: leave it).").format(
                    number=self.session.review.number(key)
                ),
                lambda world: self._on_moved(key, world),
            )

    def add(self) -> None:
        """Wait for a click on a microbleed that the detector missed."""
        if self.session is not None:
            self.placer.start(_("Click the missed microbleed in a slice view (Esc: none)."), self._on_added)

    def remove(self) -> None:
        """Take back an added microbleed."""
        key = self._current()
        if self.session is None or key is None:
            return
        if not self.session.review[key].is_added:
            self._say(_("The detector found this one: reject it instead."))
            return
        order = self.table.order()
        self.session.review.remove(key)
        self._after_change(key)
        left = [other for other in order if other != key]
        self.select(left[min(order.index(key), len(left) - 1)] if left and key in order else None)

    def second_look(self) -> None:
        """Go through the rejected ones again, or stop doing so."""
        if self.session is None:
            return
        on = not self.session.shown.second_look
        self.session.set_second_look(on)
        self.table.set_filter("rejected" if on else "all")
        order = self.table.order()
        self.view.show_buttons(self.session)
        if on and order:
            self.select(order[0])

    def comment(self) -> None:
        """Let the reader write a remark on the current finding."""
        if self._current() is not None:
            self.ui.commentEdit.setFocus()
            self.ui.commentEdit.selectAll()

    def toggle_markers(self) -> None:
        """Hide or show the markers."""
        if self.session is not None:
            self.session.set_markers(not self.session.shown.markers)
            self.view.show_buttons(self.session)

    def toggle_slab(self) -> None:
        """Show the minimum over a slab in the axial view, or the slice."""
        slice_views.show_slab(not slice_views.slab_is_shown())
        self.view.show_buttons(self.session)

    # Wiring

    def _handlers(self) -> dict[str, Callable[[], None]]:
        def judging(*verdict: Any) -> Callable[[], None]:
            return lambda: self.judge(*verdict)

        handlers: dict[str, Callable[[], None]] = {
            "accept": judging(State.ACCEPTED, Certainty.DEFINITE),
            "accept-possible": judging(State.ACCEPTED, Certainty.POSSIBLE),
            "unsure": judging(State.UNSURE),
            "reject": judging(State.REJECTED),
            "next-unreviewed": self.next_unreviewed,
            "next": lambda: self.step(1),
            "previous": lambda: self.step(-1),
            "undo": self.undo,
            "redo": self.redo,
            "move": self.move,
            "add": self.add,
            "remove": self.remove,
            "second-look": self.second_look,
            "comment": self.comment,
            "toggle-markers": self.toggle_markers,
            "toggle-slab": self.toggle_slab,
        }
        for mimic in MIMIC_CLASSES:
            handlers[reject_as(mimic)] = judging(State.REJECTED, None, mimic)
        return {name: self._afresh(handler) for name, handler in handlers.items()}

    def _afresh(self, handler: Callable[[], None]) -> Callable[[], None]:
        """Let what was typed count and what was said before go away first; what goes wrong in ``handler`` stays to be
        read."""

        def handle() -> None:
            self.take_typed()
            self._say("")
            handler()

        return handle

    def _connect(self) -> None:
        self.ui.readerEdit.connect("editingFinished()", self._on_reader)
        self.ui.resumeButton.connect("clicked()", self._on_resume)
        self.ui.dismissButton.connect("clicked()", self._on_dismiss)
        self.ui.layoutButton.connect("clicked()", self._on_layout)
        self.ui.fieldBox.connect("valueChanged(int)", self._on_field)
        self.ui.keysButton.connect("clicked()", self._on_keys)
        self.ui.commentEdit.connect("editingFinished()", self._on_comment)
        for field in (self.ui.commentEdit, self.ui.readerEdit):
            field.connect("returnPressed()", field.clearFocus)
            leave_with_escape(field)

    def _enter(self, session: ReviewSession | None) -> None:
        self.session = session
        if session is not None and self.parameters is not None:
            key = self.parameters.currentFinding
            if key and key in session.review:
                session.set_current(key)

    def _leave(self) -> None:
        self.placer.stop()
        if self.session is not None:
            self._on_comment()
            self.session.close()
        self.session = None
        self._found = None
        # A filter of this session would hide the next one's candidates.
        self.table.show_everything()

    def _current(self) -> str | None:
        return self.session.current if self.session is not None else None

    def _look_on_disk(self) -> FoundReview | None:
        scan = self.scan
        key = key_of(scan) if scan is not None else None
        return review_session.interrupted(key, self.reader, self.session) if key else None

    def _offer(self, found: FoundReview | None) -> None:
        """Offer a review of this scan that the disk knows better than the scene."""
        self._found = found
        self.view.offer(found, self.session)

    def _follow_scan(self) -> None:
        """Begin anew where the scan was moved since its candidates were put where they are."""
        session, scan = self.session, self.scan
        if session is None or scan is None or self._is_another_scan or not session.nodes.is_elsewhere:
            return
        self._leave()
        self._scan_id = None
        self.open_scan(scan)

    def _on_resume(self) -> None:
        scan, found = self.scan, self._found
        if scan is None or found is None:
            return
        self._leave()
        try:
            self._enter(review_session.go_on(scan, key_of(scan) or "", found, self._say))
            self._say("")
        except CMBDetectorError as error:
            self._say(f"{error.message} {error.hint}")
            nodes = CandidatesNode.of_scan(scan)
            self._enter(review_session.from_scene(nodes, self.reader, self._say) if nodes is not None else None)
        self._offer(None)
        self._refresh_all()
        self.next_unreviewed()

    def _on_dismiss(self) -> None:
        self._offer(None)

    def _on_reader(self) -> None:
        preferences.store("Reader", self.reader)
        if self.session is None:
            self._offer(self._look_on_disk())
            return
        if self.session.review.reader == self.reader:
            return
        nodes = self.session.nodes
        self._leave()
        self._enter(review_session.from_scene(nodes, self.reader, self._say))
        self._offer(self._look_on_disk())
        self._refresh_all()

    def _on_layout(self) -> None:
        if slice_views.review_layout_is_open():
            slice_views.close_review_layout(self._layout_before or 1)
        else:
            self._layout_before = slice_views.open_review_layout()
            if self._current() is not None:
                self.select(self._current())
        self.show_layout_button()

    def _on_field(self, value: int) -> None:
        preferences.store("FieldOfView", value)
        if self._current() is not None:
            self.select(self._current())

    def _on_keys(self) -> None:
        edit_keys(self.keys, self.widget)

    def _show_legend(self) -> None:
        self.ui.keysButton.toolTip = f"{_('All keys, and how to change them.')}{self.keys.legend()}"

    def _on_keys_active(self, active: bool) -> None:
        self.ui.hintLabel.text = (
            f"<small>{_('Keys are on.')}</small>"
            if active
            else f"<small>{_('Keys are off while you type (Esc: leave the field).')}</small>"
        )

    def _on_threshold(self, threshold: float) -> None:
        if self.session is not None:
            self.session.set_threshold(threshold)
            self.table.set_threshold(threshold)
            self.view.show_counts(self.session)
            self._on_changed()

    def _on_moved(self, key: str, world: tuple[float, float, float]) -> None:
        if self.session is not None and key in self.session.review:
            self.session.review.move(key, self.session.nodes.from_world(world))
            self._after_change(key)
            self.select(key)

    def _on_added(self, world: tuple[float, float, float]) -> None:
        if self.session is not None:
            finding = self.session.review.add(self.session.nodes.from_world(world))
            self._after_change(finding.id)
            self.select(finding.id)

    def _on_comment(self) -> None:
        key, text = self._current(), str(self.ui.commentEdit.text)
        if self.session is not None and key is not None and self.session.review[key].comment != " ".join(text.split()):
            self.session.review.comment(key, text)
            self._after_change(key)

    # What is seen

    def _select_first(self) -> None:
        order = self.table.order()
        if order and self._current() is None:
            self.select(order[0])

    def _show_change(self, finding: Finding | None) -> None:
        if finding is None:
            return
        self._after_change(finding.id)
        if finding.removed:
            self.select(next(iter(self.table.order()), None))
        else:
            self.select(finding.id)

    def _tell_nothing_left(self, sentence: str) -> None:
        if self.session.review.unreviewed(self.session.shown.threshold):
            sentence = _("What is left to judge is hidden by the filter above the table: choose All there.")
        self._say(sentence)

    def _after_change(self, key: str) -> None:
        self.view.show_changed(self.session, key)
        self._on_changed()

    def _refresh_all(self) -> None:
        self.view.show_all(self.session, scan_volume(self.scan))
        self._on_changed()

    def _say(self, message: str) -> None:
        self.view.say(message)


def _user() -> str:
    """Return the name under which somebody works on this computer, for whoever has not named themselves."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "reader"
