"""Settings of the process that Qt and VTK read once, when they are first imported."""

from __future__ import annotations

import importlib.util
import os
import sys

#: What must be installed; the tests skip with :func:`missing` where it is not.
NEEDED = {"slicer": "slicer-core", "PySide6": "PySide6_Essentials", "vtkmodules": "vtk"}


def missing() -> str:
    """Return a sentence naming the packages that the host lacks, or an empty text."""
    if "tensorflow" in sys.modules:
        # Either crashes the other, in whatever order they are loaded; in Slicer, too.
        return "TensorFlow is loaded in this process: run the tests of the module by themselves (pytest -m host)"
    absent = [package for name, package in NEEDED.items() if importlib.util.find_spec(name) is None]
    return f"the stand-in host needs {', '.join(absent)}" if absent else ""


def prepare(offscreen: bool = True) -> None:
    """Choose the platform and the kind of enums; to be called before Qt, VTK or slicer is imported."""
    # Enums have to compare with ints, as PythonQt's do.
    os.environ.setdefault("PYSIDE6_OPTION_PYTHON_ENUM", "2")
    if offscreen:
        os.environ["QT_QPA_PLATFORM"] = "offscreen"
    if sys.platform.startswith("linux"):
        # The slices are drawn into memory whether there is a display or not.
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
