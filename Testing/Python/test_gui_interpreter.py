"""Which Python computes, in which environment: chosen, found, told apart from the application's own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from CMBDetectorLib.runtime.interpreter import LIBRARY, Interpreter, InterpreterError, find_interpreter
from CMBDetectorLib.runtime.locks import DETECTOR, Lock, Package
from CMBDetectorLib.runtime.place import Place
from CMBDetectorLib.runtime.platforms import platform_of, this_platform, this_python

pytestmark = pytest.mark.skipif(platform_of(sysconfig.get_platform()) is None, reason="nothing is locked for it")
OWN = Interpreter(Path(sys.executable))
posix = pytest.mark.skipif(os.name == "nt", reason="paths are written as on POSIX")


def made_up_runtime(folder: Path) -> Path:
    """Write a runtime folder as a set-up of the detector leaves it; return its folder of packages."""
    lock = Lock(DETECTOR, this_platform(), this_python(), (Package("numpy", "1.0", "0" * 64, 1, 1),))
    packages = Place(folder).new_name(lock)
    (packages / "numpy").mkdir(parents=True)
    Place(folder).switch(lock, packages, 0, 0, "today")
    return packages


def test_a_setting_comes_first_then_the_variable_then_the_runtime(tmp_path, monkeypatch):
    monkeypatch.delenv("CMBDETECTOR_PYTHON", raising=False)
    if importlib.util.find_spec("tensorflow") is not None:
        assert find_interpreter(None, None) == OWN
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    runtime = tmp_path / "runtime ü"
    for folder in (None, runtime):
        with pytest.raises(InterpreterError, match="not set up yet") as raised:
            find_interpreter(" ", folder)
        assert "section Set up" in raised.value.hint
    packages = made_up_runtime(runtime)
    found = find_interpreter(None, runtime)
    assert found == Interpreter(Path(sys.executable), (packages,))
    assert found.is_own
    # A Python that somebody has chosen comes before what is set up, and may be taken back.
    other = tmp_path / "other" / "bin" / "python3"
    other.parent.mkdir(parents=True)
    other.touch(0o755)
    Place(runtime).choose_python(str(other))
    assert find_interpreter(None, runtime) == Interpreter(other)
    other.unlink()
    with pytest.raises(InterpreterError, match="no Python"):
        find_interpreter(None, runtime)
    Place(runtime).choose_python(None)
    assert find_interpreter(None, runtime).packages == (packages,)
    monkeypatch.setenv("CMBDETECTOR_PYTHON", str(Path(sys.executable).parent.parent))
    found = find_interpreter("", runtime)
    assert found.packages == ()
    assert found.python.parent == Path(sys.executable).parent
    assert find_interpreter(sys.executable, runtime).python == Path(sys.executable)
    for wrong in (str(tmp_path / "absent"), "no-such-python", str(tmp_path)):
        with pytest.raises(InterpreterError, match="no Python") as raised:
            find_interpreter(wrong, runtime)
        assert "section Set up" in raised.value.hint


@posix
def test_inside_slicer_its_own_python_keeps_its_environment_and_others_do_not(tmp_path, monkeypatch):
    home = tmp_path / "Slicer 5"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "PythonSlicer").touch(0o755)
    monkeypatch.setattr(sys, "executable", str(home / "bin" / "SlicerApp-real"))
    monkeypatch.setitem(sys.modules, "slicer", object())
    for name, value in {
        "SLICER_HOME": str(home), "PYTHONHOME": "/h", "PYTHONPATH": "/p", "LD_LIBRARY_PATH": "/l",
        "QT_PLUGIN_PATH": "/q",
        "ITK_AUTOLOAD_PATH": "/i",
        "SSL_CERT_FILE": "/c", "COVERAGE_PROCESS_CONFIG": "", "PATH": f"{home}/bin:/usr/bin",
        "PYTHONNOUSERSITE": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    packages = str(made_up_runtime(tmp_path / "runtime"))
    own = find_interpreter(None, tmp_path / "runtime")
    assert own.python == home / "bin" / "PythonSlicer"
    assert own.is_own
    environment = own.environment()
    paths = environment["PYTHONPATH"].split(os.pathsep)
    assert paths == [str(LIBRARY), packages, "/p"]
    assert environment["CMBDETECTOR_PACKAGES"] == packages
    assert (environment["LD_LIBRARY_PATH"], environment["PYTHONHOME"]) == ("/l", "/h")
    assert environment["PYTHONNOUSERSITE"] == "1"
    (home / "bin" / "python-real").touch(0o755)
    assert Interpreter(home / "bin" / "python-real").is_own
    foreign = Interpreter(Path("/usr/bin/python3"))
    assert not foreign.is_own
    environment = foreign.environment()
    removed = {"PYTHONHOME", "LD_LIBRARY_PATH", "QT_PLUGIN_PATH", "ITK_AUTOLOAD_PATH", "SSL_CERT_FILE"}
    assert not removed & set(environment)
    assert not {"CMBDETECTOR_PACKAGES", "PYTHONNOUSERSITE"} & set(environment)
    assert environment["PYTHONPATH"] == str(LIBRARY)
    assert environment["PATH"] == "/usr/bin"
    assert "COVERAGE_PROCESS_CONFIG" in environment
    assert (environment["PYTHONIOENCODING"], environment["PYTHONUNBUFFERED"]) == ("utf-8", "1")


def test_packages_of_the_runtime_win_in_the_worker_and_its_children(tmp_path):
    """What Slicer's launcher puts first on PYTHONPATH must not replace the versions that were installed."""
    for folder, value in (("slicer", 1), ("runtime", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "probe.py").write_text(f"value = {value}\n")
    code = (
        "import sys, subprocess\nfrom CMBDetectorLib.runtime.using import prefer_packages\nprefer_packages()\n"
        "import probe\nprint(probe.value, flush=True)\n"
        "subprocess.run([sys.executable, '-c', 'import probe; print(probe.value)'])\n"
    )
    environment = Interpreter(Path(sys.executable), (tmp_path / "runtime",)).environment()
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "slicer"), environment["PYTHONPATH"]])
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["2", "2"], done.stderr
