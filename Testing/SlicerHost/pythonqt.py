"""The flat module ``qt``: PySide6 with the conventions of PythonQt, through which Slicer offers Qt."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import shiboken6
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import QObject

from . import slots

# Virtual in C++: PySide6 looks for an override in Python and must go on finding a method.
_METHODS = {"sizeHint", "minimumSizeHint", "duration"}
_NATIVE = ("PySide6.", "Shiboken")


class QtProperty:
    """A Qt property as an attribute; asked of the class it gives back what was there before."""

    def __init__(self, owner: type, name: str, writable: bool) -> None:
        self.name, self.writable = name, writable
        self.original = owner.__dict__.get(name)
        capital = name[0].upper() + name[1:]
        self.setter = f"set{capital}" if hasattr(owner, f"set{capital}") else ""
        # Not QTimer.singleShot, which is a static method, where there is QTimer.isSingleShot.
        self.getter = getattr(owner, f"is{capital}", self.original)

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self.original.__get__(None, owner) if hasattr(self.original, "__get__") else self
        if self.getter is None:
            return instance.property(self.name)
        return self.getter.__get__(instance, owner)()

    def __set__(self, instance: Any, value: Any) -> None:
        if not self.writable:
            raise AttributeError(f"property {self.name!r} of {type(instance).__name__} cannot be set")
        if self.setter:
            getattr(instance, self.setter)(value)
        elif not instance.setProperty(self.name, value):
            raise TypeError(f"{value!r} is no value for {type(instance).__name__}.{self.name}")


class _Alias:
    """``name``, which PythonQt offers beside ``objectName``."""

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else instance.objectName

    def __set__(self, instance: Any, value: str) -> None:
        instance.setObjectName(value)


def _native(cls: type) -> bool:
    """Whether instances of ``cls`` stand for C++ objects, to which PythonQt lets no attribute be added."""
    return cls.__module__.startswith(_NATIVE) or "_stand_in" in cls.__dict__


def _set_attribute(self: Any, name: str, value: Any) -> None:
    """Set a property, or an attribute of a class written in Python; refuse a misspelling, as PythonQt does."""
    kind = type(self)
    for base in kind.__mro__:
        found = base.__dict__.get(name)
        if isinstance(found, QtCore.Property):
            if found.fset is None:
                raise AttributeError(f"property {name!r} of {kind.__name__} cannot be set")
            return found.fset(self, value)
        if hasattr(found, "__set__"):
            return found.__set__(self, value)
    # PySide6 itself keeps the signals of an object as its attributes.
    if _native(kind) and not name.startswith("_") and not isinstance(value, QtCore.SignalInstance):
        raise AttributeError(f"{kind.__name__!r} object has no attribute {name!r}")
    self.__dict__[name] = value
    return None


def add_properties(cls: type) -> None:
    """Make attributes of the properties that ``cls`` declares and of those whose getter it overrides."""
    meta = cls.staticMetaObject
    for index in range(meta.propertyCount()):
        declared = meta.property(index)
        name = declared.name()
        if name not in _METHODS and (index >= meta.propertyOffset() or name in cls.__dict__):
            setattr(cls, name, QtProperty(cls, name, declared.isWritable()))


def _classes() -> list[type]:
    found = {}
    for module in (QtCore, QtGui, QtWidgets):
        for name in dir(module):
            value = getattr(module, name)
            if isinstance(value, type) and issubclass(value, QObject):
                found[value] = None
    # Bases first, so that a class sees its base's property and not the base's method.
    return sorted(found, key=lambda cls: len(cls.__mro__))


def _class_name(self: QObject) -> str:
    """The name of the C++ class."""
    return self.metaObject().className()


def _delete(self: QObject) -> None:
    """Delete the C++ object now."""
    shiboken6.delete(self)


def _quiet(kind: QtCore.QtMsgType, _: Any, text: str) -> None:
    """Print what Qt complains about, but not that the offscreen platform lacks what no test needs."""
    if "propagateSizeHints" not in text:
        print(f"Qt {kind.name}: {text}", file=sys.stderr)


def _ask_as_pythonqt(cls: type, name: str) -> None:
    """PythonQt's file dialogs return the path alone, PySide6's the filter, too; tests have nobody to answer them."""
    plain = getattr(cls, name)

    def ask(*given: Any, **options: Any) -> Any:
        application = QtWidgets.QApplication.instance()
        if application is not None and application.testingEnabled():
            raise RuntimeError(f"nobody would answer QFileDialog.{name} in a test: replace it there")
        answer = plain(*given, **options)
        return answer[0] if isinstance(answer, tuple) else answer

    setattr(cls, name, staticmethod(ask))


def build() -> ModuleType:
    """Patch PySide6 and return the module ``qt``, which is also entered in ``sys.modules``."""
    if "qt" in sys.modules:
        return sys.modules["qt"]
    module = ModuleType("qt", __doc__)
    for source in (QtCore, QtGui, QtWidgets):
        for name in dir(source):
            if not name.startswith("_") and name not in ("Signal", "Slot", "Property", "QSignalBlocker"):
                setattr(module, name, getattr(source, name))
    for cls in _classes():
        add_properties(cls)
        if cls is not QObject:
            cls.__setattr__ = _set_attribute
        if "exec" in vars(cls):
            cls.exec_ = cls.exec
    for name in ("getOpenFileName", "getSaveFileName", "getOpenFileNames", "getExistingDirectory"):
        _ask_as_pythonqt(QtWidgets.QFileDialog, name)
    QtCore.qInstallMessageHandler(_quiet)
    QObject.name = _Alias()
    QObject.className = _class_name
    QObject.delete = _delete
    slots.install()
    sys.modules["qt"] = module
    return module
