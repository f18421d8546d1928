"""Signals as PythonQt offers them: connected by signature, slots kept alive, their exceptions collected."""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import get_ident, main_thread
from types import FunctionType, MethodType, TracebackType
from typing import Any

import shiboken6
from PySide6.QtCore import QMetaMethod, QObject, SignalInstance

_raw_getattribute = QObject.__getattribute__
_MAIN_THREAD = main_thread().ident


@dataclass
class SlotErrors:
    """The exceptions that slots, events and observers raised; Qt and VTK would only print them."""

    errors: list[BaseException] = field(default_factory=list)

    def add(self, error: BaseException) -> None:
        """Remember ``error`` and print its traceback, as PythonQt does."""
        self.errors.append(error)
        traceback.print_exception(error)

    def hook(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Stand in for ``sys.excepthook``, which PySide6 and VTK call for what escapes into C++."""
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            self.add(error.with_traceback(trace))


errors = SlotErrors()


@dataclass
class _Connection:
    signature: str
    slot: Any
    caller: Callable[..., None]


# By the address of the C++ object: PySide6 may drop a Python wrapper and make a new one for the same object.
_connections: dict[int, list[_Connection]] = {}


def _accepted(slot: Any) -> int | None:
    """How many arguments PythonQt would pass: known for functions and methods, otherwise all (None)."""
    function = slot.__func__ if isinstance(slot, MethodType) else slot
    if not isinstance(function, FunctionType):
        return None
    if function.__code__.co_flags & inspect.CO_VARARGS:
        return None
    return function.__code__.co_argcount - isinstance(slot, MethodType)


def _caller(slot: Any, arguments: int) -> Callable[..., None]:
    """A function of ``arguments`` values that calls ``slot`` with as many as signal and slot have in common."""
    accepted = _accepted(slot)
    count = arguments if accepted is None else min(accepted, arguments)

    def call(*values: Any) -> None:
        try:
            slot(*values[:count])
        except Exception as error:
            errors.add(error)

    # PySide6 looks at the number of parameters to decide what it passes on.
    return _OF_ARITY[arguments](call)


_OF_ARITY: tuple[Callable[[Callable[..., None]], Callable[..., None]], ...] = (
    lambda call: lambda: call(),
    lambda call: lambda a: call(a),
    lambda call: lambda a, b: call(a, b),
    lambda call: lambda a, b, c: call(a, b, c),
    lambda call: lambda a, b, c, d: call(a, b, c, d),
)


def _signatures(sender: QObject) -> list[str]:
    meta = _raw_getattribute(sender, "metaObject")()
    methods = [meta.method(index) for index in range(meta.methodCount())]
    return [bytes(m.methodSignature().data()).decode() for m in methods if m.methodType() == QMetaMethod.Signal]


def _normal(signature: str) -> str:
    """``signature`` as Qt writes it; VTK objects travel as Python objects."""
    return re.sub(r"vtk\w+\*", "PyObject", re.sub(r"\bconst\b|&|\s", "", signature))


def _types(signature: str) -> list[str]:
    return [part for part in signature.partition("(")[2][:-1].split(",") if part]


def _signal(sender: QObject, signature: str) -> tuple[SignalInstance, int]:
    """The signal that ``signature`` names and its number of arguments."""
    normal = _normal(signature)
    name = normal.partition("(")[0]
    known = _signatures(sender)
    if normal not in known:
        near = [s for s in known if s.startswith(f"{name}(")]
        # PythonQt prints a warning and goes on; a test has to fail.
        raise ValueError(f"{type(sender).__name__} has no signal {signature!r}; it has {near or sorted(known)}")
    types = _types(normal)
    signal = _raw_getattribute(sender, name)
    overloads = {len(_types(s)) for s in known if s.startswith(f"{name}(")}
    return (signal[",".join(types)] if types and len(overloads) > 1 else signal), len(types)


def _remember(sender: QObject, signature: str, slot: Any, caller: Callable[..., None]) -> None:
    key = shiboken6.getCppPointer(sender)[0]
    if key not in _connections:
        _connections[key] = []
        _raw_getattribute(sender, "destroyed").connect(lambda *_: _connections.pop(key, None))
    _connections[key].append(_Connection(signature, slot, caller))


def _forget(sender: QObject, signature: str, slot: Any) -> Callable[..., None] | None:
    kept = _connections.get(shiboken6.getCppPointer(sender)[0], [])
    for connection in kept:
        if connection.signature == signature and connection.slot == slot:
            kept.remove(connection)
            return connection.caller
    return None


def _slot(receiver: Any, method: str | None) -> Any:
    """The callable of ``connect(signal, receiver, "setValue(int)")`` or of ``connect(signal, callable)``."""
    slot = getattr(receiver, method.partition("(")[0]) if method else receiver
    if not callable(slot):
        raise TypeError(f"{slot!r} cannot be called: it is no slot")
    return slot


def connect(sender: QObject, signature: str, receiver: Any, method: str | None = None) -> bool:
    """Connect the signal named by its full signature, as ``widget.connect("clicked(bool)", slot)`` does."""
    signal, arguments = _signal(sender, signature)
    slot = _slot(receiver, method)
    caller = _caller(slot, arguments)
    signal.connect(caller)
    _remember(sender, signature, slot, caller)
    return True


def disconnect(sender: QObject, signature: str, receiver: Any = None, method: str | None = None) -> bool:
    """Undo :func:`connect`; returns whether there was such a connection."""
    signal, _ = _signal(sender, signature)
    caller = _forget(sender, signature, _slot(receiver, method))
    if caller is None:
        return False
    signal.disconnect(caller)
    return True


class BoundSignal:
    """``widget.clicked``: connects, disconnects, and emits when it is called."""

    def __init__(self, sender: QObject, name: str, signal: SignalInstance) -> None:
        self._sender, self._name, self._signal = sender, name, signal

    def connect(self, slot: Any) -> bool:
        """Call ``slot`` whenever the signal is emitted."""
        if isinstance(slot, BoundSignal):
            slot = slot.emit
        longest = max(len(_types(s)) for s in _signatures(self._sender) if s.startswith(f"{self._name}("))
        caller = _caller(_slot(slot, None), longest)
        self._signal.connect(caller)
        _remember(self._sender, self._name, slot, caller)
        return True

    def disconnect(self, slot: Any = None) -> bool:
        """Undo :meth:`connect`; returns whether there was such a connection."""
        caller = _forget(self._sender, self._name, slot)
        if caller is not None:
            self._signal.disconnect(caller)
        return caller is not None

    def emit(self, *values: Any) -> None:
        """Emit the signal."""
        self._signal.emit(*values)

    __call__ = emit

    def __getitem__(self, _: Any) -> None:
        raise TypeError("PythonQt has no signal[type]: connect by signature")


def _getattribute(self: QObject, name: str) -> Any:
    if get_ident() != _MAIN_THREAD:
        # Slicer may crash, at once or later.
        error = RuntimeError(f"{type(self).__name__}.{name} used in a thread other than the main one")
        errors.add(error)
        raise error
    if name in ("connect", "disconnect"):
        own = connect if name == "connect" else disconnect
        plain = _raw_getattribute(self, name)
        # PySide6 itself calls these with other arguments, in QTimer.singleShot for one.
        return lambda *given: own(self, *given) if isinstance(given[0], str) else plain(*given)
    value = _raw_getattribute(self, name)
    return BoundSignal(self, name, value) if isinstance(value, SignalInstance) else value


def install() -> None:
    """Give every QObject PythonQt's ``connect`` and ``disconnect`` and collect what slots raise."""
    QObject.__getattribute__ = _getattribute
    sys.excepthook = errors.hook
