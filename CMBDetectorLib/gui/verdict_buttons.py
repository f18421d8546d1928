"""The buttons of the review: what a click does, which key does the same, and why a button is disabled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import qt
from slicer.i18n import tr as _

from CMBDetectorLib.gui.keys import KeyTable, reject_as
from CMBDetectorLib.gui.state_style import STATE_STYLES, is_dark, mimic_text, text_colour
from CMBDetectorLib.review.finding import MIMIC_CLASSES, Certainty, Finding, State

_MIMICS_A_LINE = 4
_LINES = (
    ("accept", "accept-possible", "unsure"),
    ("reject",),
    ("previous", "next", "next-unreviewed"),
    ("undo", "redo", "move", "add"),
    ("remove", "second-look"),
    ("comment", "toggle-markers", "toggle-slab"),
)
# Everybody knows their keys, and four buttons have to stand side by side.
_KEY_IN_TIP = ("undo", "redo")
_STATES = {
    "accept": State.ACCEPTED,
    "accept-possible": State.ACCEPTED,
    "unsure": State.UNSURE,
    "reject": State.REJECTED,
    **{reject_as(mimic): State.REJECTED for mimic in MIMIC_CLASSES},
}
"""The verdicts among the actions."""


@dataclass(frozen=True)
class Possible:
    """What can be done now; each text says why not and is empty where it can."""

    judge: str = ""
    next: str = ""
    previous: str = ""
    next_unreviewed: str = ""
    undo: str = ""
    redo: str = ""
    move: str = ""
    add: str = ""
    remove: str = ""
    second_look: str = ""


class VerdictButtons:
    """The buttons in ``widget``, one for each action of ``table`` that has a handler.

    ``handlers`` are functions without arguments by action name, the same as those of the shortcuts.
    """

    def __init__(
        self, table: KeyTable, handlers: Mapping[str, Callable[[], Any]], parent: qt.QWidget | None = None
    ) -> None:
        self._table = table
        self._handlers = dict(handlers)
        self._possible = Possible()
        self._finding: Finding | None = None
        self.buttons: dict[str, qt.QPushButton] = {}
        self.widget = qt.QWidget(parent)
        self._build()
        self._change_slot = self._show
        table.changed.append(self._change_slot)
        self.show(None)

    def show(self, finding: Finding | None, possible: Possible | None = None) -> None:
        """Mark the verdict of ``finding`` and enable what is ``possible`` (with no finding: what needs none)."""
        self._finding = finding
        self._possible = possible or Possible()
        self._show()

    def click(self, name: str) -> None:
        """Do what a click on the button of ``name`` does, if it is enabled."""
        if name in self.buttons and self.buttons[name].enabled:
            self._handlers[name]()

    def set_checked(self, name: str, on: bool) -> None:
        """Show the button of ``name`` ("second-look") as pressed in, or not."""
        if name in self.buttons:
            self.buttons[name].checkable = True
            self.buttons[name].setChecked(on)

    def cleanup(self) -> None:
        """Let go of the table of keys."""
        self._table.forget(self._change_slot)

    def _build(self) -> None:
        layout = qt.QVBoxLayout(self.widget)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for names in _LINES:
            line = qt.QHBoxLayout()
            line.setSpacing(4)
            layout.addLayout(line)
            for name in names:
                if name in self._handlers:
                    line.addWidget(self._make(name), 1)
            if names == ("reject",):
                layout.addLayout(self._build_mimics())

    def _build_mimics(self) -> qt.QGridLayout:
        grid = qt.QGridLayout()
        grid.setSpacing(3)
        for index, mimic in enumerate(MIMIC_CLASSES):
            if reject_as(mimic) in self._handlers:
                button = self._make(reject_as(mimic))
                grid.addWidget(button, index // _MIMICS_A_LINE, index % _MIMICS_A_LINE)
        for column in range(_MIMICS_A_LINE):
            grid.setColumnStretch(column, 1)
        return grid

    def _make(self, name: str) -> qt.QPushButton:
        button = qt.QPushButton()
        mimic = name.startswith("reject-")
        words = name.split("-")
        button.objectName = words[0] + "".join(word.title() for word in words[1:]) + "Button"
        # A click must leave the focus where the reader scrolls; Tab still gets there.
        button.focusPolicy = qt.Qt.TabFocus
        button.autoDefault = False
        button.setSizePolicy(qt.QSizePolicy.Ignored if mimic else qt.QSizePolicy.Minimum, qt.QSizePolicy.Fixed)
        button.connect("clicked()", lambda name=name: self.click(name))
        self.buttons[name] = button
        return button

    # What is seen

    def _show(self) -> None:
        dark = is_dark(self.widget)
        for name, button in self.buttons.items():
            button.text = self._text(name)
            reason = self._reason(name)
            button.enabled = not reason
            tip = self._table.tip(name)
            button.toolTip = f"{tip}\n{_('Not now: {reason}').format(reason=reason)}" if reason else tip
            button.setStyleSheet(self._style(name, dark))

    def _text(self, name: str) -> str:
        key = self._table.shown_key(name)
        if name.startswith("reject-"):
            text = mimic_text(name.removeprefix("reject-"), short=True)
            return f"{key} {text}" if key else text
        text = self._table.actions[name].text
        if name in _STATES:
            text = f"{STATE_STYLES[_STATES[name]].symbol} {text}"
        return f"{text} ({key})" if key and name not in _KEY_IN_TIP else text

    def _reason(self, name: str) -> str:
        needs_finding = name in _STATES or name in ("move", "comment", "remove")
        if needs_finding and self._finding is None:
            return self._possible.judge or _("No candidate is selected.")
        if name in _STATES:
            return self._possible.judge
        if name == "remove" and not self._finding.is_added:
            return _("Only what you added yourself can be taken back; reject the others.")
        return getattr(self._possible, name.replace("-", "_"), "")

    def _style(self, name: str, dark: bool) -> str:
        """Return the style that marks the verdict the finding has."""
        small = "padding: 2px 1px;" if name.startswith("reject-") else ""
        if self._finding is None or name != _action_of(self._finding):
            return small
        return f"{small} font-weight: bold; color: {text_colour(self._finding.state, dark)};"


def _action_of(finding: Finding) -> str | None:
    """Return the name of the action that gave ``finding`` its verdict."""
    if finding.state is State.ACCEPTED:
        return "accept-possible" if finding.certainty is Certainty.POSSIBLE else "accept"
    if finding.state is State.REJECTED:
        return "reject" if finding.mimic_class is None else reject_as(finding.mimic_class)
    return "unsure" if finding.state is State.UNSURE else None
