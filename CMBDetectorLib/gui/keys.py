"""One table of what a reader can do; shortcuts, legend, buttons and settings are made from it.

Keys that others use, and what was done about them (Slicer 5.12 user guide and sources):

* Segment Editor: 0-9, Shift+0-9, Space, Esc, Q, W, Z, Y, I, `/ * , . < >`, Ctrl+Z, Ctrl+Y. It takes its shortcuts away
  when the user leaves that module, so that 1-8, Space, I and Ctrl+Z are free here.
* Slice views, while they have the focus: arrows, B, F (slice), V, R, G, T, `[ ] { }`. The arrows and F, V, G, T stay
  theirs, since a reader scrolls all the time. R and B are taken: resetting and scrolling have a button and arrows.
* Application: Ctrl+F, O, S, W, H, 0-5, Ctrl+B and Ctrl+` - never taken, see :data:`RESERVED`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import qt
from slicer.i18n import tr as _

from CMBDetectorLib.gui.state_style import mimic_text
from CMBDetectorLib.review.finding import MIMIC_CLASSES

_SIGNALS = ("activated()", "activatedAmbiguously()")
SETTINGS_PREFIX = "CMBDetector/keys/"
# Not every settings format gives back an empty text as it was; Qt knows no key of this name.
_NO_KEY = "none"


@dataclass(frozen=True)
class Action:
    """Something a reader does with one press.

    ``name`` never changes (it is in the settings), ``text`` is for buttons and legend, ``default_key`` and ``also``
    are key sequences as Qt writes them; only the first can be changed. ``repeats`` says whether holding the key
    counts again and again, which a verdict must not: it would judge candidates that were never looked at.
    """

    name: str
    text: str
    default_key: str
    tip: str
    also: tuple[str, ...] = ()
    repeats: bool = False


def _rejections() -> list[Action]:
    return [
        Action(
            reject_as(key),
            _("Reject: {mimic}").format(mimic=mimic_text(key)),
            str(number),
            _("No microbleed but this: {mimic}. The class is used when the model is retrained.").format(
                mimic=mimic_text(key)
            ),
        )
        for number, key in enumerate(MIMIC_CLASSES, 1)
    ]


def reject_as(mimic_class: str) -> str:
    """Return the name of the action that rejects a finding as ``mimic_class``."""
    return f"reject-{mimic_class}"


ACTIONS = (
    Action("accept", _("Accept"), "A", _("It is a microbleed, definitely (MARS: definite).")),
    Action("accept-possible", _("Possible"), "P", _("It may well be a microbleed (MARS: possible). It is counted.")),
    Action("unsure", _("Unsure"), "U", _("Cannot be decided on this scan. It is not counted.")),
    Action("reject", _("Reject"), "R", _("No microbleed, without saying what it is.")),
    *_rejections(),
    Action("next-unreviewed", _("Next to judge"), "Space", _("Go to the next candidate not judged yet."), repeats=True),
    Action("next", _("Next"), "N", _("Go to the next candidate in the order of the table."), repeats=True),
    Action("previous", _("Previous"), "B", _("Go back to the candidate before it in the table."), repeats=True),
    Action("undo", _("Undo"), "Ctrl+Z", _("Take back the last change.")),
    Action("redo", _("Redo"), "Ctrl+Y", _("Do again what was taken back."), also=("Ctrl+Shift+Z",)),
    Action("move", _("Move"), "M", _("Then click where the lesion really is. The detector's position is kept.")),
    Action("add", _("Add missed"), "I", _("Then click the microbleed that the detector missed, in a slice view.")),
    Action("remove", _("Take back"), "Del", _("Remove a microbleed that you added yourself.")),
    Action("second-look", _("Second look"), "L", _("Go through the rejected ones again.")),
    Action("comment", _("Comment"), "C", _("Write a remark on the candidate.")),
    Action("toggle-markers", _("Markers"), "H", _("Hide or show the markers, to see what lies beneath.")),
    Action("toggle-slab", _("minIP slab"), "S", _("Show the darkest of a slab: vessels become lines.")),
)

RESERVED = {
    "Ctrl+F": _("find a module"),
    "Ctrl+O": _("add data"),
    "Ctrl+S": _("save"),
    "Ctrl+W": _("close the scene"),
    "Ctrl+Q": _("leave the application"),
    "Ctrl+H": _("open the start module"),
    "Ctrl+B": _("lock the tilt of 3D views"),
    "Ctrl+G": _("run a script"),
    "Ctrl+X": _("cut"),
    "Ctrl+C": _("copy"),
    "Ctrl+V": _("paste"),
    "Ctrl+`": _("show the Python console"),
    "Tab": _("go to the next field"),
    "Shift+Tab": _("go to the field before"),
    "Esc": _("leave a field or a mode"),
    "Left": _("scroll a slice view"),
    "Right": _("scroll a slice view"),
    **{f"Ctrl+{digit}": _("open an application panel") for digit in range(6)},
}
"""Keys of the application, which no action may take, and what they do there."""


def normal_key(text: str) -> str:
    """Return ``text`` as Qt writes a key sequence ("ctrl+z" becomes "Ctrl+Z"); empty if it names no key."""
    return qt.QKeySequence(text).toString()


class KeyTable:
    """The keys that hold now: the defaults of ``actions``, but for what the user changed in ``settings`` (QSettings).

    ``changed`` is a list of functions called without arguments after a change.
    """

    def __init__(self, settings: Any, actions: Iterable[Action] = ACTIONS) -> None:
        self.actions = {action.name: action for action in actions}
        self.changed: list[Callable[[], None]] = []
        self._settings = settings

    def key(self, name: str) -> str:
        """Return the key of the action ``name`` as Qt writes it; empty if the user left it without."""
        stored = self._settings.value(SETTINGS_PREFIX + name)
        return normal_key(self.actions[name].default_key if stored is None else str(stored))

    def keys(self, name: str) -> list[str]:
        """Return every key of the action ``name``, the one that can be changed first."""
        return [key for key in (self.key(name), *map(normal_key, self.actions[name].also)) if key]

    def shown_key(self, name: str) -> str:
        """Return the key of ``name`` as this computer writes it (on a Mac with its own signs)."""
        return qt.QKeySequence(self.key(name)).toString(qt.QKeySequence.NativeText)

    def why_not(self, name: str, text: str) -> str:
        """Return a sentence that says why ``name`` cannot have the key ``text``; empty if it can."""
        key = normal_key(text)
        if not text.strip():
            return ""
        if not key:
            return _("“{key}” is no key.").format(key=text)
        if "," in key[:-1]:
            return _("{key} is more than one press.").format(key=key)
        if key in RESERVED:
            return _("{key} belongs to the application ({use}).").format(key=key, use=RESERVED[key])
        for other, action in self.actions.items():
            if other != name and key in self.keys(other):
                return _("{key} is already the key of “{action}”.").format(key=key, action=action.text)
        return ""

    def set_key(self, name: str, text: str) -> str:
        """Give ``name`` the key ``text`` (empty: none); returns why not, with nothing changed, or an empty text."""
        reason = self.why_not(name, text)
        if not reason:
            key = normal_key(text)
            if key == normal_key(self.actions[name].default_key):
                self._settings.remove(SETTINGS_PREFIX + name)
            else:
                self._settings.setValue(SETTINGS_PREFIX + name, key or _NO_KEY)
            self._tell()
        return reason

    def reset(self) -> None:
        """Give every action its default key again."""
        for name in self.actions:
            self._settings.remove(SETTINGS_PREFIX + name)
        self._tell()

    def tip(self, name: str) -> str:
        """Return what the action does, with its keys."""
        keys = [qt.QKeySequence(key).toString(qt.QKeySequence.NativeText) for key in self.keys(name)]
        return f"{self.actions[name].tip} [{', '.join(keys)}]" if keys else self.actions[name].tip

    def legend(self, names: Iterable[str] | None = None, columns: int = 2) -> str:
        """Return the keys of ``names`` (all, if None) as HTML for a label."""
        names = list(self.actions if names is None else names)
        shown = [name for name in names if name in self.actions and self.key(name)]
        rows = -(-len(shown) // columns)
        lines = []
        for row in range(rows):
            cells = [
                f"<td><b>{escape(self.shown_key(name))}</b>&nbsp;</td><td>{escape(self.actions[name].text)}&nbsp;</td>"
                for name in shown[row::rows]
            ]
            lines.append(f"<tr>{''.join(cells)}</tr>")
        return f"<table cellspacing='1'>{''.join(lines)}</table>"

    def forget(self, listener: Callable[[], None]) -> None:
        """Tell ``listener`` no more, if it was told at all."""
        if listener in self.changed:
            self.changed.remove(listener)

    def _tell(self) -> None:
        for listener in list(self.changed):
            listener()


class Shortcuts:
    """The shortcuts of a window, there only between :meth:`enable` and :meth:`disable`.

    ``parent`` is the widget in whose window they hold (the main window), ``handlers`` the functions by action name;
    actions without one get no shortcut. While a field that takes text has the focus they are off, so that a letter is
    typed there; ``on_active`` is called with whether they are on.
    """

    TEXT_FIELDS = ("QLineEdit", "QAbstractSpinBox", "QTextEdit", "QPlainTextEdit", "QKeySequenceEdit")

    def __init__(
        self,
        table: KeyTable,
        parent: qt.QWidget,
        handlers: Mapping[str, Callable[[], Any]],
        on_active: Callable[[bool], None] | None = None,
    ) -> None:
        self._table = table
        self._parent = parent
        self._handlers = dict(handlers)
        self._on_active = on_active
        self._shortcuts: list[Any] = []
        self._is_enabled = False
        # The same object must be given to connect and disconnect; each look-up of a method makes another.
        self._focus_slot = self._on_focus
        self._change_slot = self._make

    @property
    def is_enabled(self) -> bool:
        """Whether the shortcuts are there (they may be off while text is typed)."""
        return self._is_enabled

    def enable(self) -> None:
        """Make the shortcuts (the module was entered)."""
        if self._is_enabled:
            return
        self._is_enabled = True
        self._make()
        self._table.changed.append(self._change_slot)
        _application().connect("focusChanged(QWidget*,QWidget*)", self._focus_slot)

    def disable(self) -> None:
        """Take the shortcuts away (the module was left, or is cleaned up)."""
        if not self._is_enabled:
            return
        self._is_enabled = False
        _application().disconnect("focusChanged(QWidget*,QWidget*)", self._focus_slot)
        self._table.forget(self._change_slot)
        self._unmake()

    def _make(self) -> None:
        self._unmake()
        for name, handler in self._handlers.items():
            action = self._table.actions[name]
            for key in self._table.keys(name):
                shortcut = qt.QShortcut(self._parent)
                shortcut.setKey(qt.QKeySequence(key))
                shortcut.setAutoRepeat(action.repeats)
                # The second signal comes where something else in the window has the same key.
                for signal in _SIGNALS:
                    shortcut.connect(signal, handler)
                self._shortcuts.append((shortcut, handler))
        self._on_focus(None, qt.QApplication.focusWidget())

    def _unmake(self) -> None:
        for shortcut, handler in self._shortcuts:
            shortcut.setEnabled(False)
            # A connection keeps the handler, and all it refers to, alive.
            for signal in _SIGNALS:
                shortcut.disconnect(signal, handler)
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts = []

    def _on_focus(self, _old: Any, now: Any) -> None:
        # Switching them off, rather than asking when one fires, lets the field see the key.
        is_active = not takes_text(now)
        for shortcut, _handler in self._shortcuts:
            shortcut.setEnabled(is_active)
        if self._on_active is not None:
            self._on_active(is_active)


def takes_text(widget: Any) -> bool:
    """Tell whether a key pressed in ``widget`` (or None) is to be typed there."""
    if widget is None:
        return False
    if widget.inherits("QComboBox"):
        return bool(widget.editable)
    return any(widget.inherits(name) for name in Shortcuts.TEXT_FIELDS)


def leave_with_escape(field: qt.QWidget) -> None:
    """Let Esc take the focus from a text ``field``, so that the shortcuts work again without the mouse."""
    shortcut = qt.QShortcut(field)
    shortcut.setKey(qt.QKeySequence("Esc"))
    shortcut.setContext(qt.Qt.WidgetWithChildrenShortcut)
    shortcut.connect("activated()", field.clearFocus)


def _application() -> Any:
    return qt.QCoreApplication.instance()
