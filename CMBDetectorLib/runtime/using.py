"""Who computes with which folder of packages, so that none is taken away from under a running detection."""

from __future__ import annotations

import atexit
import importlib.util
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from CMBDetectorLib.locking import FileLock
from CMBDetectorLib.runtime.place import IN_USE, PACKAGES_VARIABLE, Place

_held: list[FileLock] = []
# Somebody may be looking, just now, whether the mark is that of a dead process.
_WAIT_S = 1.0


def prefer_packages() -> None:
    """Put the folders of the extension's own packages before all others, here and in children, and hold them.

    The host names them. On a terminal, a Python without TensorFlow takes what was set up for its version.
    PYTHONPATH holds them, too, but the launcher of Slicer's Python puts Slicer's packages before that.
    """
    named = os.environ.get(PACKAGES_VARIABLE)
    if named:
        folders = [Path(name) for name in named.split(os.pathsep) if name]
    elif importlib.util.find_spec("tensorflow") is None:
        folders = list(Place().packages())
    else:
        return
    if folders:
        names = [str(folder) for folder in folders]
        sys.path[:0] = names
        os.environ[PACKAGES_VARIABLE] = os.pathsep.join(names)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*names, os.environ.get("PYTHONPATH")]))
        hold(folders)


def hold(folders: Sequence[Path]) -> None:
    """Say, until this process ends, that it uses ``folders``; where that cannot be written, nobody is told."""
    for folder in folders:
        # Whoever was killed has left its mark.
        in_use(folder)
        lock = FileLock(folder / f"{IN_USE}{os.getpid()}")
        with suppress(OSError):
            if lock.acquire(_WAIT_S):
                _held.append(lock)
                atexit.register(lock.release)


def in_use(folder: Path) -> bool:
    """Tell whether a process that lives uses ``folder``; marks of dead ones are removed."""
    for mark in folder.glob(f"{IN_USE}*"):
        lock = FileLock(mark)
        with suppress(OSError):
            if not lock.acquire():
                return True
            lock.release()
    return False
