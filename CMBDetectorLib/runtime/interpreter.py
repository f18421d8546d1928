"""Which Python runs the worker, and in which environment: the application's own, or a foreign one."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from CMBDetectorLib.errors import MissingPackageError
from CMBDetectorLib.runtime.place import PACKAGES_VARIABLE, Place

VARIABLE = "CMBDETECTOR_PYTHON"
LIBRARY = Path(__file__).resolve().parents[2]

_WINDOWS = os.name == "nt"
_SLICER = "PythonSlicer.exe" if _WINDOWS else "PythonSlicer"
_IN_FOLDER = ("python.exe", "Scripts/python.exe") if _WINDOWS else ("bin/python3", "bin/python", "python3", "python")
# What Slicer's launcher sets for Slicer's own Python and libraries; another Python would load the wrong ones.
_OF_THE_APPLICATION = {
    "PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONEXECUTABLE", "PYTHONNOUSERSITE", "__PYVENV_LAUNCHER__",
    "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "ITK_AUTOLOAD_PATH", "SSL_CERT_FILE",
}  # fmt: skip
_OF_QT = ("QT_", "QTWEBENGINE")
_CHOOSE_ANOTHER = "Choose another Python in the section Set up of the module, or: cmbdetector runtime use FOLDER"


class InterpreterError(MissingPackageError):
    """There is no Python that could run the worker."""

    code = "interpreter"


@dataclass(frozen=True)
class Interpreter:
    """The Python executable ``python``; ``packages`` are folders of packages for it that the extension has set up."""

    python: Path
    packages: tuple[Path, ...] = ()

    @property
    def is_own(self) -> bool:
        """Tell whether this is the application's own Python, which needs the environment of the application."""
        try:
            own = application_python()
        except InterpreterError:
            return False
        if _same(self.python, own):
            return True
        # python-real beside PythonSlicer is the same Python without its launcher.
        return own.name == _SLICER and _same(self.python.parent, own.parent)

    def environment(self) -> dict[str, str]:
        """Return the environment for the worker: UTF-8, unbuffered, able to import CMBDetectorLib and ``packages``.

        The user's own packages (``pip install --user``) are shut out where ``packages`` is a complete set, since any
        of them could replace a dependency by another version; they stay for a Python that the user has chosen, since
        that may be where its packages are. Variables of coverage stay, so that tests measure the worker, too.
        """
        environment = dict(os.environ)
        inherited = ""
        if self.is_own:
            inherited = environment.get("PYTHONPATH", "")
        else:
            for name in list(environment):
                if name in _OF_THE_APPLICATION or name.startswith(_OF_QT):
                    del environment[name]
            environment["PATH"] = _without_application(environment.get("PATH", os.defpath))
        set_up = environment.pop(PACKAGES_VARIABLE, "").split(os.pathsep)
        inherited = os.pathsep.join(name for name in inherited.split(os.pathsep) if name not in set_up)
        paths = [str(LIBRARY), *map(str, self.packages)]
        if self.packages:
            environment[PACKAGES_VARIABLE] = os.pathsep.join(map(str, self.packages))
            environment["PYTHONNOUSERSITE"] = "1"
        environment["PYTHONPATH"] = os.pathsep.join([*paths, *filter(None, [inherited])])
        # Not the working folder: a file called random.py among a user's images must not be imported.
        environment["PYTHONSAFEPATH"] = "1"
        environment["PYTHONIOENCODING"] = "utf-8"
        environment["PYTHONUNBUFFERED"] = "1"
        return environment


def find_interpreter(setting: str | None, runtime_folder: Path | None) -> Interpreter:
    """Return the Python to run the worker with.

    Args:
        setting: the user's choice in the application's settings; it wins.
        runtime_folder: where the extension sets up packages for the application's own Python.

    The environment variable ``CMBDETECTOR_PYTHON`` comes second, an interpreter chosen with ``cmbdetector runtime use``
    third, what is set up in ``runtime_folder`` fourth, and the application's own Python last, where it has the
    packages itself.

    Raises:
        InterpreterError: nothing is usable, or what was chosen is not there.
    """
    if setting and setting.strip():
        return Interpreter(resolved(setting.strip(), _CHOOSE_ANOTHER))
    if os.environ.get(VARIABLE, "").strip():
        return Interpreter(resolved(os.environ[VARIABLE].strip(), f"Correct the environment variable {VARIABLE}."))
    if runtime_folder is not None:
        place = Place(runtime_folder)
        chosen = place.chosen_python()
        if chosen is not None:
            return Interpreter(resolved(chosen, _CHOOSE_ANOTHER))
        packages = place.packages()
        if packages:
            return Interpreter(application_python(), packages)
    if importlib.util.find_spec("tensorflow") is not None and importlib.util.find_spec("keras") is not None:
        # Found, not imported: somebody has installed them beside the application's own packages.
        return Interpreter(application_python())
    raise InterpreterError(
        "The packages that CMBDetector computes with are not set up yet.",
        "Open the section Set up of the module: it fetches them, or uses a Python that has them.",
    )


def application_python() -> Path:
    """Return the application's own Python: ``PythonSlicer`` inside Slicer, else the running interpreter.

    Raises:
        InterpreterError: the application brings none.
    """
    running = Path(sys.executable or "")
    folders = [running.parent, running.parent.parent / "bin"]
    if "slicer" in sys.modules and os.environ.get("SLICER_HOME"):
        folders.append(Path(os.environ["SLICER_HOME"]) / "bin")
    for folder in folders:
        if (folder / _SLICER).is_file():
            return folder / _SLICER
    if running.name.lower().startswith("python"):
        return running
    raise InterpreterError(
        "The Python of this application was not found.", "Choose a Python in the section Set up of the module."
    )


def resolved(text: str, hint: str) -> Path:
    """Return the executable that ``text`` names: its path, a name on PATH, or the folder of an environment.

    Raises:
        InterpreterError: there is none; ``hint`` is the next step.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        inside = [path / name for name in _IN_FOLDER if (path / name).is_file()]
        if not inside:
            raise InterpreterError(f"There is no Python in the folder {text}.", hint)
        path = inside[0]
    elif not path.is_file():
        found = shutil.which(text)
        if found is None:
            raise InterpreterError(f"There is no Python {text}.", hint)
        path = Path(found)
    if not os.access(path, os.X_OK):
        raise InterpreterError(f"{path} is no program that can be started.", hint)
    # Links stay: the python of a virtual environment is one, and means something else than its target.
    return path.absolute()


def _without_application(search_path: str) -> str:
    """Return PATH without the folders of Slicer, whose libraries another Python on Windows would load."""
    home = os.environ.get("SLICER_HOME")
    if not home:
        return search_path
    top = os.path.normcase(os.path.abspath(home))
    folders = [os.path.normcase(os.path.abspath(folder)) for folder in search_path.split(os.pathsep)]
    kept = zip(search_path.split(os.pathsep), folders, strict=True)
    return os.pathsep.join(folder for folder, plain in kept if plain != top and not plain.startswith(top + os.sep))


def _same(one: Path, other: Path) -> bool:
    return os.path.normcase(os.path.abspath(one)) == os.path.normcase(os.path.abspath(other))
