"""Which widget can show a parameter of which type: the pairs that Slicer's wrapper accepts, and no others."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from enum import Enum
from typing import Any

import ctk
import qt
import slicer

from .parameter_rules import Choice, Decimals, Maximum, Minimum, SingleStep, WithinRange, first
from .parameter_storage import split


class Link:
    """Moves values between one widget and one parameter."""

    def __init__(self, widget: Any, signal: str, attribute: str) -> None:
        self.widget, self._signal, self._attribute = widget, signal, attribute
        self._slot: Callable[[], None] | None = None

    def read(self) -> Any:
        """The value that the widget shows."""
        return getattr(self.widget, self._attribute)

    def write(self, value: Any) -> None:
        """Show ``value``."""
        setattr(self.widget, self._attribute, value)

    def watch(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` whenever the widget does."""
        # No default argument and no argument: surplus ones are dropped.
        self._slot = lambda: changed()
        self.widget.connect(self._signal, self._slot)

    def release(self) -> None:
        """Undo :meth:`watch`."""
        if self._slot is not None:
            self.widget.disconnect(self._signal, self._slot)
            self._slot = None


class NumberLink(Link):
    """A widget for real numbers, which may show an integer."""

    def __init__(self, widget: Any, kind: type) -> None:
        super().__init__(widget, "valueChanged(double)", "value")
        self._kind = kind

    def read(self) -> float:
        """The number that is shown."""
        return self._kind(self.widget.value)


class ChoiceLink(Link):
    """A combo box that is filled with the possible values."""

    def __init__(self, widget: Any, values: list[Any], labels: list[str]) -> None:
        super().__init__(widget, "currentIndexChanged(int)", "currentIndex")
        self._values = values
        widget.clear()
        widget.addItems(labels)

    def read(self) -> Any:
        """The chosen value."""
        return self._values[self.widget.currentIndex]

    def write(self, value: Any) -> None:
        """Choose ``value``."""
        self.widget.currentIndex = self._values.index(value)


class NodeLink(Link):
    """A node selector, which is told to offer nodes of the parameter's class."""

    def __init__(self, widget: Any, kind: type) -> None:
        super().__init__(widget, "currentNodeChanged(vtkMRMLNode*)", "")
        # Slicer makes one of the class to ask it for its name: an abstract class cannot be bound.
        kind()
        widget.nodeTypes = [kind.__name__]

    def read(self) -> Any:
        """The chosen node."""
        return self.widget.currentNode()

    def write(self, value: Any) -> None:
        """Choose the node."""
        self.widget.setCurrentNode(value)


class PathLink(Link):
    """A path line edit."""

    def read(self) -> pathlib.Path:
        """The path that is shown."""
        return pathlib.Path(super().read())

    def write(self, value: pathlib.Path) -> None:
        """Show the path."""
        super().write(str(value))


class TextLink(Link):
    """A text edit."""

    def read(self) -> str:
        """The text without formats."""
        return self.widget.toPlainText()

    def write(self, value: str) -> None:
        """Show the text, unless it is there: setting it moves the cursor."""
        if value != self.widget.toPlainText():
            self.widget.setPlainText(value)


def link(widget: Any, annotated: Any) -> Link:
    """The link of a widget and a parameter type; a pair that Slicer does not know raises."""
    kind, annotations = split(annotated)
    cls = type(widget)
    if kind is bool and cls is qt.QCheckBox:
        return Link(widget, "stateChanged(int)", "checked")
    if kind is bool and cls is qt.QPushButton:
        widget.checkable = True
        return Link(widget, "toggled(bool)", "checked")
    if kind is int and cls in (qt.QSlider, qt.QSpinBox):
        _limit(widget, annotations, (-(2**31), 2**31 - 1), bounded=cls is qt.QSlider)
        return Link(widget, "valueChanged(int)", "value")
    if kind in (int, float) and cls in (qt.QDoubleSpinBox, ctk.ctkSliderWidget):
        _limit(widget, annotations, (float("-inf"), float("inf")), bounded=cls is ctk.ctkSliderWidget)
        return NumberLink(widget, kind)
    if cls is qt.QComboBox and isinstance(kind, type) and issubclass(kind, Enum):
        label = getattr(kind, "label", lambda member: member.name)
        return ChoiceLink(widget, list(kind), [label(member) for member in kind])
    if cls is qt.QComboBox and kind in (int, float, str, bool):
        values = first(annotations, Choice, lambda choice: list(choice.choices))
        if values is None:
            raise RuntimeError("a combo box needs the annotation Choice")
        return ChoiceLink(widget, values, [str(value) for value in values])
    if kind is str and cls is qt.QLineEdit:
        return Link(widget, "textChanged(QString)", "text")
    if kind is str and cls is qt.QTextEdit:
        return TextLink(widget, "textChanged()", "")
    if kind is pathlib.Path and cls is ctk.ctkPathLineEdit:
        return PathLink(widget, "currentPathChanged(QString)", "currentPath")
    if cls is slicer.qMRMLNodeComboBox and isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode):
        return NodeLink(widget, kind)
    raise RuntimeError(f"Slicer cannot bind a parameter of type {kind} to a {cls.__name__}")


def _limit(widget: Any, annotations: list[Any], widest: tuple[float, float], bounded: bool) -> None:
    """Give the widget the parameter's range, step and decimals, as Slicer does, whatever the ``.ui`` file says."""
    decimals = first(annotations, Decimals, lambda found: found.value)
    step = first(annotations, SingleStep, lambda found: found.value)
    if decimals is not None:
        widget.decimals = decimals
    if step is not None:
        widget.singleStep = step
    low = first(annotations, (WithinRange, Minimum), lambda found: found.minimum)
    high = first(annotations, (WithinRange, Maximum), lambda found: found.maximum)
    if bounded and (low is None or high is None):
        raise RuntimeError("a slider needs a parameter with a range")
    widget.minimum = widest[0] if low is None else low
    widget.maximum = widest[1] if high is None else high
