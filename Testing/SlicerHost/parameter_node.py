"""Stand-in for ``slicer.parameterNodeWrapper``: typed attributes kept in a parameter node and bound to widgets."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Any

import qt
import slicer
from vtkmodules.vtkCommonCore import vtkCommand

from .parameter_rules import (
    Choice,
    Decimals,
    Default,
    Maximum,
    Minimum,
    SingleStep,
    Validator,
    WithinRange,
    first,
)
from .parameter_storage import Codec, codec_for, split
from .parameter_widgets import Link, link

__all__ = [
    "Choice",
    "Decimals",
    "Default",
    "Maximum",
    "Minimum",
    "SingleStep",
    "SlicerParameterNamePropertyName",
    "Validator",
    "WithinRange",
    "findChildWidgetForParameter",
    "isParameterNodeWrapper",
    "parameterNodeWrapper",
]

SlicerParameterNamePropertyName = "SlicerParameterName"


@dataclass(frozen=True)
class Parameter:
    """One annotated attribute of the decorated class."""

    name: str
    annotated: Any
    codec: Codec
    default: Any


class _Attribute:
    """Reads and writes one parameter."""

    def __init__(self, parameter: Parameter) -> None:
        self._parameter = parameter

    def __get__(self, wrapper: Any, owner: type) -> Any:
        if wrapper is None:
            return self
        parameter, key = self._parameter, wrapper._prefix + self._parameter.name
        if not parameter.codec.has(wrapper.parameterNode, key):
            parameter.codec.write(wrapper.parameterNode, key, parameter.default)
        return parameter.codec.read(wrapper.parameterNode, key)

    def __set__(self, wrapper: Any, value: Any) -> None:
        self._parameter.codec.write(wrapper.parameterNode, wrapper._prefix + self._parameter.name, value)


class Wrapper:
    """What the decorator adds to the class."""

    allParameters: typing.ClassVar[dict[str, Parameter]] = {}

    def __init__(self, parameterNode: slicer.vtkMRMLScriptedModuleNode, prefix: str | None = None) -> None:
        self.parameterNode = parameterNode
        self._prefix = prefix or ""
        self._guis: dict[int, tuple[dict[str, Link], int]] = {}
        self._tags = 0
        self._showing = False
        for name in self.allParameters:
            getattr(self, name)

    @classmethod
    def dataType(cls, name: str) -> Any:
        """The annotation of a parameter."""
        return cls._parameter(name).annotated

    @classmethod
    def _parameter(cls, name: str) -> Parameter:
        if name not in cls.allParameters:
            raise ValueError(f"there is no parameter {name!r}, only {', '.join(cls.allParameters)}")
        return cls.allParameters[name]

    def default(self, name: str) -> Default:
        """The default of a parameter."""
        return Default(self._parameter(name).default)

    def getValue(self, name: str) -> Any:
        """The value of a parameter."""
        return getattr(self, self._parameter(name).name)

    def setValue(self, name: str, value: Any) -> None:
        """Set a parameter."""
        setattr(self, self._parameter(name).name, value)

    def connectGui(self, gui: Any) -> int:
        """Bind every widget of ``gui`` that has the property ``SlicerParameterName``; returns a tag."""
        widgets = gui.findChildren(qt.QWidget) if isinstance(gui, qt.QWidget) else vars(gui).values()
        named = ((widget.property(SlicerParameterNamePropertyName), widget) for widget in widgets)
        return self.connectParametersToGui({name: widget for name, widget in named if name})

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        """Bind widgets by the parameters' names; returns a tag."""
        links = {name: link(widget, self.dataType(name)) for name, widget in mapping.items()}
        self._tags += 1
        for name, bound in links.items():
            bound.write(self.getValue(name))
            bound.watch(lambda name=name, bound=bound: self._take(name, bound))
        observer = self.AddObserver(vtkCommand.ModifiedEvent, self._show)
        self._guis[self._tags] = (links, observer)
        return self._tags

    def disconnectGui(self, tag: int) -> None:
        """Undo :meth:`connectGui`."""
        links, observer = self._guis.pop(tag, ({}, None))
        for bound in links.values():
            bound.release()
        if observer is not None:
            self.RemoveObserver(observer)

    def _take(self, name: str, bound: Link) -> None:
        if not self._showing:
            self.setValue(name, bound.read())

    def _show(self, *_: Any) -> None:
        if self._showing:
            return
        self._showing = True
        try:
            for links, _observer in list(self._guis.values()):
                for name, bound in links.items():
                    bound.write(self.getValue(name))
        finally:
            self._showing = False

    def StartModify(self) -> int:
        """Hold back the node's events."""
        return self.parameterNode.StartModify()

    def EndModify(self, before: int) -> int:
        """Let the node's events out."""
        return self.parameterNode.EndModify(before)

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        """Observe the node."""
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        """Undo :meth:`AddObserver`."""
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        """Tell the observers of the node."""
        self.parameterNode.Modified()


def _parameters(cls: type) -> dict[str, Parameter]:
    found = {}
    for name, annotated in typing.get_type_hints(cls, include_extras=True).items():
        if name in vars(Wrapper):
            raise ValueError(f"the name {name!r} is taken by the wrapper")
        codec = codec_for(annotated)
        given = first(split(annotated)[1], Default, lambda found: found)
        default = getattr(cls, name) if hasattr(cls, name) else given.value if given else codec.default()
        found[name] = Parameter(name, annotated, codec, default)
    return found


def parameterNodeWrapper(cls: type | None = None) -> Any:
    """Class decorator: every annotated attribute becomes a parameter of a scripted module node."""
    if cls is None:
        return parameterNodeWrapper
    parameters = _parameters(cls)
    members = {name: _Attribute(parameter) for name, parameter in parameters.items()}
    own = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__", "__init__")}
    return type(cls.__name__, (Wrapper,), {**own, **members, "allParameters": parameters})


def isParameterNodeWrapper(value: Any) -> bool:
    """Whether ``value`` is a decorated class or an instance of one."""
    return issubclass(value if isinstance(value, type) else type(value), Wrapper)


def findChildWidgetForParameter(widget: qt.QWidget, parameter: str) -> qt.QWidget | None:
    """The child of ``widget`` that is bound to ``parameter``."""
    children = widget.findChildren(qt.QWidget)
    return next((one for one in children if one.property(SlicerParameterNamePropertyName) == parameter), None)
