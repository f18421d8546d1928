"""Where the user changes the keys of the review: click a field, press the key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _

from CMBDetectorLib.gui.keys import KeyTable, normal_key

_MODIFIER_KEYS = ("Key_Shift", "Key_Control", "Key_Alt", "Key_AltGr", "Key_Meta", "Key_CapsLock", "Key_NumLock")


class KeyField(qt.QLineEdit):
    """A field that shows the key pressed in it and hands it to ``on_key``; Backspace means no key.

    QKeySequenceEdit would take up to four presses, and waits a second for the next.
    """

    def __init__(self, on_key: Callable[[str], None]) -> None:
        qt.QLineEdit.__init__(self)
        self._on_key = on_key
        self._modifier_keys = [getattr(qt.Qt, name) for name in _MODIFIER_KEYS]

    def keyPressEvent(self, event: Any) -> None:
        """Take the key instead of typing it."""
        key = event.key()
        if key in self._modifier_keys:
            return
        if key == qt.Qt.Key_Backspace:
            self._on_key("")
            return
        # A digit of the keypad is the same key to the reader.
        modifiers = int(event.modifiers()) & ~int(qt.Qt.KeypadModifier)
        self._on_key(qt.QKeySequence(modifiers | int(key)).toString())


class KeySettings:
    """A panel in ``widget`` that changes the keys of ``table``; clashes are refused with a sentence."""

    def __init__(self, table: KeyTable, parent: qt.QWidget | None = None) -> None:
        self._table = table
        self._fields: dict[str, KeyField] = {}
        self.widget = qt.QWidget(parent)
        self.widget.objectName = "keySettings"
        self._build()
        self._change_slot = self._show
        table.changed.append(self._change_slot)
        self._show()

    def set_key(self, name: str, key: str) -> None:
        """Give the action ``name`` the key, or say why not."""
        reason = self._table.set_key(name, key)
        self._say(reason, is_trouble=True)
        if not reason:
            text = self._table.actions[name].text
            shown = self._table.shown_key(name)
            self._say(
                _("“{action}” is now {key}.").format(action=text, key=shown)
                if shown
                else _("“{action}” has no key now.").format(action=text)
            )

    def reset(self) -> None:
        """Give every action its default key again."""
        self._table.reset()
        self._say(_("All keys are as they were delivered."))

    def cleanup(self) -> None:
        """Let go of the table of keys."""
        self._table.forget(self._change_slot)

    def _build(self) -> None:
        layout = qt.QVBoxLayout(self.widget)
        layout.setContentsMargins(0, 0, 0, 0)
        hint = qt.QLabel(_("Click a key and press another one. Backspace leaves the action without a key."))
        hint.wordWrap = True
        layout.addWidget(hint)
        grid = self.grid = qt.QTableWidget(len(self._table.actions), 2)
        grid.objectName = "keyTable"
        grid.setHorizontalHeaderLabels([_("Action"), _("Key")])
        grid.toolTip = _("The keys of the review.")
        grid.setSelectionMode(qt.QAbstractItemView.NoSelection)
        grid.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        grid.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
        grid.verticalHeader().setVisible(False)
        grid.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
        grid.setColumnWidth(1, 7 * grid.fontMetrics().height())
        for row, (name, action) in enumerate(self._table.actions.items()):
            item = qt.QTableWidgetItem(action.text)
            item.setToolTip(action.tip)
            grid.setItem(row, 0, item)
            field = KeyField(lambda key, name=name: self.set_key(name, key))
            field.objectName = f"key-{name}"
            field.frame = False
            field.toolTip = action.tip
            self._fields[name] = field
            grid.setCellWidget(row, 1, field)
        layout.addWidget(grid, 1)
        self.message = qt.QLabel()
        self.message.objectName = "keyMessage"
        self.message.wordWrap = True
        layout.addWidget(self.message)
        self.reset_button = qt.QPushButton(_("Restore defaults"))
        self.reset_button.objectName = "resetKeysButton"
        self.reset_button.toolTip = _("Give every action the key it was delivered with.")
        self.reset_button.connect("clicked()", self.reset)
        layout.addWidget(self.reset_button)

    def _show(self) -> None:
        for name, field in self._fields.items():
            field.text = self._table.shown_key(name)
            is_default = self._table.key(name) == normal_key(self._table.actions[name].default_key)
            field.setStyleSheet("" if is_default else "font-weight: bold;")

    def _say(self, sentence: str, is_trouble: bool = False) -> None:
        self.message.text = sentence
        self.message.setStyleSheet("font-weight: bold;" if is_trouble else "")


def edit_keys(table: KeyTable, parent: qt.QWidget | None = None) -> None:
    """Show the settings of the keys in a window of their own until the user closes it."""
    dialog = qt.QDialog(parent)
    dialog.objectName = "keySettingsDialog"
    dialog.windowTitle = _("Keys of the review")
    dialog.resize(380, 560)
    layout = qt.QVBoxLayout(dialog)
    settings = KeySettings(table)
    layout.addWidget(settings.widget)
    close_button = qt.QPushButton(_("Close"))
    close_button.objectName = "closeKeysButton"
    close_button.toolTip = _("Changes are kept at once.")
    close_button.autoDefault = False
    close_button.connect("clicked()", dialog.accept)
    layout.addWidget(close_button)
    dialog.exec_()
    settings.cleanup()
    dialog.deleteLater()
