"""A small stand-in for 3D Slicer: real scene, markups and slices of ``slicer-core`` in a PySide6 window.

``from SlicerHost import start; host = start()`` needs ``Testing`` on the path. See README.md beside this file.
"""

from __future__ import annotations

import atexit
from pathlib import Path
from typing import TYPE_CHECKING

from . import environment
from .environment import missing

if TYPE_CHECKING:
    from .host import Host

__all__ = ["missing", "start"]

_host: Host | None = None


def start(folder: str | Path | None = None, testing: bool = True, offscreen: bool = True) -> Host:
    """Start the application, or return the one that runs: Qt allows one in a process.

    ``folder`` keeps settings and temporary files (default: one that is removed at the end); with ``testing`` message
    boxes are only logged.
    """
    global _host
    if _host is None:
        sentence = missing()
        if sentence:
            raise RuntimeError(sentence)
        environment.prepare(offscreen)
        from . import pythonqt

        pythonqt.build()
        from . import ctk_widgets

        ctk_widgets.build()
        from .host import Host

        _host = Host(Path(folder) if folder else None, testing)
        # VTK and Qt must be taken apart while Python can still run.
        atexit.register(_host.shutdown)
    return _host
