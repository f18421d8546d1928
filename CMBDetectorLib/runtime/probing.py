"""Trying packages before they are relied on: they are loaded in a process of their own, which may crash."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from CMBDetectorLib.errors import SetUpError
from CMBDetectorLib.processes import kill_tree
from CMBDetectorLib.runtime.interpreter import Interpreter

_LONGEST_S = 300.0
_LOOK_S = 0.1
_ILLEGAL_INSTRUCTION = (-4, 132, 0xC000001D)
OLDEST_PYTHON = (3, 10)
# Plain enough for any Python 3: what is too old has to be able to say so.
_CODE = """
import json, os, sys
sys.path[:0] = json.loads(sys.argv[2])
answer = {"python": list(sys.version_info[:3]), "bits": 64 if sys.maxsize > 2**32 else 32, "modules": {}, "wrong": {}}
import importlib
for name in json.loads(sys.argv[1]):
    try:
        module = importlib.import_module(name)
        answer["modules"][name] = [str(getattr(module, "__version__", "")), str(getattr(module, "__file__", ""))]
    except Exception as error:
        answer["wrong"][name] = "%s: %s" % (type(error).__name__, (str(error).splitlines() or [""])[0][:200])
with open(sys.argv[3], "w") as stream:
    json.dump(answer, stream)
"""


def probe(
    interpreter: Interpreter, modules: Sequence[str], work: Path, watch: Callable[[], None] = lambda: None
) -> dict[str, str]:
    """Load ``modules`` with ``interpreter``; return the version of each, as far as it tells one.

    ``work`` is a folder for what the process says; ``watch`` is called about every 0.1 s and may raise.

    Raises:
        SetUpError: the interpreter cannot be started or is too old, or a module is missing, broken or from elsewhere
            than the interpreter's own packages, where it has some.
    """
    answer = _answer(interpreter, modules, work, watch)
    version = tuple(answer["python"][:2])
    if version < OLDEST_PYTHON or answer["bits"] != 64:
        told = f"Python {'.'.join(map(str, answer['python']))} ({answer['bits']} bit)"
        raise SetUpError(f"{told} is too old or too small.", "Choose one of 64 bit, 3.10 or newer.")
    if answer["wrong"]:
        name, why = next(iter(answer["wrong"].items()))
        others = f" (and {len(answer['wrong']) - 1} more)" if len(answer["wrong"]) > 1 else ""
        raise SetUpError(
            f"{name} cannot be loaded{others}: {why}.",
            "The packages do not fit this Python or this computer; report this if the set-up put them there."
            if interpreter.packages
            else "Install what is missing in that environment: pip install cmbdetector",
        )
    if interpreter.packages:
        _check_places(answer["modules"], interpreter.packages)
    return {name: version for name, (version, _) in answer["modules"].items()}


def _check_places(modules: Mapping[str, Sequence[str]], packages: Sequence[Path]) -> None:
    tops = [os.path.realpath(folder) for folder in packages]
    for name, (_, file) in modules.items():
        if not os.path.realpath(file).startswith(tuple(top + os.sep for top in tops)):
            raise SetUpError(f"{name} is loaded from elsewhere ({file}).", "Report this.")


def _answer(
    interpreter: Interpreter, modules: Sequence[str], work: Path, watch: Callable[[], None]
) -> dict[str, object]:
    told, log = work / "probe.json", work / "probe.txt"
    told.unlink(missing_ok=True)
    paths = json.dumps([str(folder) for folder in interpreter.packages])
    command = [str(interpreter.python), "-c", _CODE, json.dumps(list(modules)), paths, str(told)]
    with open(log, "wb") as stream:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=interpreter.environment(),
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )  # fmt: skip
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise SetUpError(f"{interpreter.python} cannot be started: {reason}.", "Choose another Python.") from error
        end = time.monotonic() + _LONGEST_S
        try:
            while process.poll() is None and time.monotonic() < end:
                watch()
                time.sleep(_LOOK_S)
        finally:
            if process.poll() is None:
                kill_tree(process.pid)
            process.wait()
    with suppress(OSError, ValueError):
        return dict(json.loads(told.read_text(encoding="utf-8")))
    if process.returncode in _ILLEGAL_INSTRUCTION:
        raise SetUpError(
            "This computer's processor cannot run the locked TensorFlow.",
            "Choose a Python with a TensorFlow built for this processor: cmbdetector runtime use FOLDER",
        )
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise SetUpError(
        f"Loading the packages failed (exit code {process.returncode}): {lines[-1][:200] if lines else 'no word'}.",
        "Is it a Python? Choose its program, or the folder of its environment.",
    )
