"""The module ``ctk``: plain stand-ins for the CTK widgets that a panel of this project may use."""

from __future__ import annotations

import sys
from enum import IntFlag
from types import ModuleType
from typing import Any

import qt
from PySide6.QtCore import Property, Signal

HEADER = 24


class ctkCollapsibleButton(qt.QAbstractButton):
    """A titled section whose children are hidden while it is collapsed."""

    _stand_in = True
    contentsCollapsed = Signal(bool)

    def __init__(self, *arguments: Any) -> None:
        text = arguments[0] if arguments and isinstance(arguments[0], str) else ""
        super().__init__(*arguments[bool(text) :])
        self._hidden: list[qt.QWidget] = []
        self.text = text
        self.checkable = True
        self.checked = True
        self.setContentsMargins(0, HEADER, 0, 0)
        self.setMinimumHeight(HEADER)
        self.setSizePolicy(qt.QSizePolicy.Preferred, qt.QSizePolicy.Preferred)
        self.connect("toggled(bool)", self._on_toggled)

    def _is_collapsed(self) -> bool:
        return not self.checked

    def setCollapsed(self, collapsed: bool) -> None:
        """Hide or show what lies below the title."""
        self.checked = not collapsed

    collapsed = Property(bool, _is_collapsed, setCollapsed)

    def _on_toggled(self, open_: bool) -> None:
        if open_:
            for child in self._hidden:
                child.show()
            self._hidden = []
        else:
            widgets = [child for child in self.children() if isinstance(child, qt.QWidget)]
            self._hidden = [child for child in widgets if child.isVisibleTo(self)]
            for child in self._hidden:
                child.hide()
        self.setMaximumHeight(16777215 if open_ else HEADER)
        self.contentsCollapsed.emit(not open_)

    def hitButton(self, position: qt.QPoint) -> bool:
        """Only the title can be clicked."""
        return position.y() < HEADER

    def paintEvent(self, _: qt.QPaintEvent) -> None:
        """Draw the title and the triangle beside it."""
        painter = qt.QPainter(self)
        painter.fillRect(0, 0, self.width, HEADER - 2, self.palette.color(qt.QPalette.Button))
        painter.drawText(8, 16, ("\u25bc " if self.checked else "\u25b6 ") + self.text.replace("&&", "&"))


class ctkDoubleSlider(qt.QWidget):
    """A slider over real numbers."""

    _stand_in = True
    valueChanged = Signal(float)
    valueIsChanging = Signal(float)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*[given for given in arguments if isinstance(given, qt.QWidget)])
        self._minimum, self._maximum, self._step, self._value = 0.0, 99.0, 1.0, 0.0
        self._slider = qt.QSlider(qt.Qt.Horizontal)
        row = qt.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._slider)
        self._slider.connect("valueChanged(int)", self._on_moved)
        self._update()

    def _update(self) -> None:
        blocked = self._slider.blockSignals(True)
        self._slider.setRange(0, max(round((self._maximum - self._minimum) / self._step), 0))
        self._slider.setValue(round((self._value - self._minimum) / self._step))
        self._slider.blockSignals(blocked)

    def _on_moved(self, step: int) -> None:
        self.setValue(self._minimum + step * self._step)

    def _get_value(self) -> float:
        return self._value

    def setValue(self, value: float) -> None:
        """Move to ``value``, or to the nearest end."""
        value = min(max(float(value), self._minimum), self._maximum)
        if value != self._value:
            self._value = value
            self._update()
            self.valueChanged.emit(value)

    def setRange(self, minimum: float, maximum: float) -> None:
        """Set both ends; a value outside moves to the nearest."""
        self._minimum, self._maximum = float(minimum), max(float(minimum), float(maximum))
        self.setValue(self._value)
        self._update()

    def setMinimum(self, minimum: float) -> None:
        """Set the lower end."""
        self.setRange(minimum, max(self._maximum, minimum))

    def setMaximum(self, maximum: float) -> None:
        """Set the upper end."""
        self.setRange(min(self._minimum, maximum), maximum)

    def setSingleStep(self, step: float) -> None:
        """Set the distance of two neighbouring positions."""
        self._step = float(step) or 1.0
        self._update()

    value = Property(float, _get_value, setValue)
    minimum = Property(float, lambda self: self._minimum, setMinimum)
    maximum = Property(float, lambda self: self._maximum, setMaximum)
    singleStep = Property(float, lambda self: self._step, setSingleStep)


class ctkSliderWidget(ctkDoubleSlider):
    """A slider with a spin box beside it."""

    _stand_in = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._page, self._tracking = 10.0, True
        self._spin = qt.QDoubleSpinBox()
        self._spin.setRange(self._minimum, self._maximum)
        self.layout().addWidget(self._spin)
        self._spin.connect("valueChanged(double)", self.setValue)
        self.connect("valueChanged(double)", self._show_value)

    def _show_value(self, value: float) -> None:
        blocked = self._spin.blockSignals(True)
        self._spin.setValue(value)
        self._spin.blockSignals(blocked)

    def setRange(self, minimum: float, maximum: float) -> None:
        """Set both ends of slider and spin box."""
        super().setRange(minimum, maximum)
        blocked = self._spin.blockSignals(True)
        self._spin.setRange(self._minimum, self._maximum)
        self._spin.setValue(self._value)
        self._spin.blockSignals(blocked)

    def setSingleStep(self, step: float) -> None:
        """Set the step of slider and spin box."""
        super().setSingleStep(step)
        self._spin.setSingleStep(self._step)

    def setDecimals(self, decimals: int) -> None:
        """Set how many decimals the spin box shows."""
        self._spin.setDecimals(decimals)

    def setSuffix(self, suffix: str) -> None:
        """Set the unit behind the number."""
        self._spin.setSuffix(suffix)

    def setPrefix(self, prefix: str) -> None:
        """Set the text before the number."""
        self._spin.setPrefix(prefix)

    def setPageStep(self, step: float) -> None:
        """Keep the page step; the stand-in has no use for it."""
        self._page = step

    def setTracking(self, tracking: bool) -> None:
        """Keep the flag; the stand-in always tracks."""
        self._tracking = tracking

    singleStep = Property(float, lambda self: self._step, setSingleStep)
    minimum = Property(float, lambda self: self._minimum, lambda self, value: self.setMinimum(value))
    maximum = Property(float, lambda self: self._maximum, lambda self, value: self.setMaximum(value))
    decimals = Property(int, lambda self: self._spin.decimals, setDecimals)
    suffix = Property(str, lambda self: self._spin.suffix, setSuffix)
    prefix = Property(str, lambda self: self._spin.prefix, setPrefix)
    pageStep = Property(float, lambda self: self._page, setPageStep)
    tracking = Property(bool, lambda self: self._tracking, setTracking)


class PathFilter(IntFlag):
    """What a path line edit lets one choose."""

    Dirs = 0x001
    Files = 0x002
    Readable = 0x010
    Writable = 0x020
    Executable = 0x040
    Hidden = 0x100


class ctkPathLineEdit(qt.QWidget):
    """A line with a path and a button to look for it."""

    _stand_in = True
    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    Dirs, Files, Readable, Writable = PathFilter.Dirs, PathFilter.Files, PathFilter.Readable, PathFilter.Writable
    Executable, Hidden = PathFilter.Executable, PathFilter.Hidden

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*[given for given in arguments if isinstance(given, qt.QWidget)])
        self._line, self._browse = qt.QLineEdit(), qt.QToolButton()
        self._filters, self._names, self._key = PathFilter.Files | PathFilter.Readable, [], ""
        self._browse.text = "\u2026"
        row = qt.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._line)
        row.addWidget(self._browse)
        self._line.connect("textChanged(QString)", self.currentPathChanged.emit)
        self._browse.connect("clicked()", self.browse)

    def browse(self) -> None:
        """Ask for a path."""
        if self._filters & PathFilter.Dirs:
            path = qt.QFileDialog.getExistingDirectory(self, "", self._line.text)
        else:
            path = qt.QFileDialog.getOpenFileName(self, "", self._line.text, ";;".join(self._names))
        if path:
            self.setCurrentPath(path)

    def setCurrentPath(self, path: str) -> None:
        """Show ``path``."""
        self._line.text = path

    def setFilters(self, filters: int) -> None:
        """Choose between files and folders."""
        self._filters = PathFilter(int(filters))

    def setNameFilters(self, names: list[str]) -> None:
        """Choose the kinds of files that are offered."""
        self._names = list(names)

    def setSettingKey(self, key: str) -> None:
        """Keep the key; the stand-in remembers no earlier paths."""
        self._key = key

    def addCurrentPathToHistory(self) -> None:
        """Do nothing: the stand-in remembers no earlier paths."""

    currentPath = Property(str, lambda self: self._line.text, setCurrentPath)
    filters = Property(int, lambda self: int(self._filters), setFilters)
    nameFilters = Property("QStringList", lambda self: self._names, setNameFilters)
    settingKey = Property(str, lambda self: self._key, setSettingKey)
    showBrowseButton = Property(
        bool, lambda self: self._browse.isVisibleTo(self), lambda self, on: self._browse.setVisible(on)
    )


class ctkMessageBox(qt.QMessageBox):
    """A message box; "do not show again" is not offered."""

    _stand_in = True
    dontShowAgainSettingsKey = Property(str, lambda self: "", lambda self, key: None)


#: What a ``.ui`` file may contain.
WIDGETS = (ctkCollapsibleButton, ctkDoubleSlider, ctkSliderWidget, ctkPathLineEdit)


def build() -> ModuleType:
    """Return the module ``ctk``, which is also entered in ``sys.modules``."""
    module = ModuleType("ctk", __doc__)
    for cls in (*WIDGETS, ctkMessageBox):
        setattr(module, cls.__name__, cls)
    sys.modules["ctk"] = module
    return module
