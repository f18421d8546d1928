"""Runs the event loop without letting go of the interpreter's lock, as PythonQt's main thread does.

PySide6 lets go of it, so that a background thread gets on here and starves in Slicer, where it runs only while the main
thread executes Python. With :class:`HeldLoop` it starves here, too.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import PySide6
import qt
import shiboken6

# QEventLoop::exec(QEventLoop::ProcessEventsFlags) as the compiler names it.
_EXEC = "_ZN10QEventLoop4execE6QFlagsINS_17ProcessEventsFlagEE"


class HeldLoop:
    """An event loop that is entered with the lock held."""

    def __init__(self) -> None:
        if sys.platform != "linux":
            raise NotImplementedError("known for Linux only")
        # PyDLL, unlike CDLL, keeps the lock during the call.
        library = ctypes.PyDLL(str(Path(PySide6.__file__).parent / "Qt" / "lib" / "libQt6Core.so.6"))
        self._exec = getattr(library, _EXEC)
        self._exec.argtypes, self._exec.restype = (ctypes.c_void_p, ctypes.c_int), ctypes.c_int
        self._loop, self._timer = qt.QEventLoop(), qt.QTimer()
        self._timer.singleShot = True
        # From C++ to C++: the end of the wait must run no Python, either.
        qt.QObject.connect(self._timer, "2timeout()", self._loop, "1quit()")

    def run(self, milliseconds: int) -> None:
        """Let Qt work for so long."""
        self._timer.start(milliseconds)
        self._exec(shiboken6.getCppPointer(self._loop)[0], 0)
