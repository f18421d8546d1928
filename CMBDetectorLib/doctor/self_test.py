"""The self-test: the whole detection on a phantom with a known answer, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from CMBDetectorLib.doctor.findings import OK, PROBLEM, WARNING, Finding
from CMBDetectorLib.errors import MissingPackageError, OutOfMemoryError
from CMBDetectorLib.models.bundle import DEFAULT_MODEL
from CMBDetectorLib.processes import kill_tree

NAME = "Self-test"
BALLS = 4
_LONGEST_S = 300.0
_LOOK_S = 0.1
_LOG_TAIL = 4000
_ILLEGAL_INSTRUCTION = (-4, 132, 0xC000001D)
_KILLED = (-9, 137)


def self_test(
    registry: Path | None = None, alive: Callable[[], None] = lambda: None, longest_s: float = _LONGEST_S
) -> Finding:
    """Search the phantom with the active model and judge what comes out; ``alive`` is called about every 0.1 s.

    A model of the user's own may not find the phantom's balls, having learnt from scans that look otherwise: then the
    bundled one has to, which tells a broken computer from a model that is no judge of phantoms.
    """
    started = time.monotonic()
    answer = _searched(registry, None, alive, longest_s)
    finding = _judged(answer, time.monotonic() - started)
    if finding.state == PROBLEM and "found" in answer and not _is_bundled(answer):
        other = _judged(_searched(registry, DEFAULT_MODEL, alive, longest_s), time.monotonic() - started)
        if other.state == OK:
            text = f"the computer computes rightly ({other.text}), but with the active model: {finding.text}"
            hint = "The active model may have learnt from scans that look otherwise: compare it on scans of your own."
            return Finding(NAME, WARNING, text, hint, {"active": finding.values, "bundled": other.values})
    return finding


def _is_bundled(answer: dict[str, Any]) -> bool:
    return str(answer.get("model", "")).split("@")[0] == DEFAULT_MODEL


def _judged(answer: dict[str, Any], seconds: float) -> Finding:
    if "error" in answer:
        return Finding(NAME, PROBLEM, answer["error"], answer["hint"], exit_code=answer["exit_code"])
    told = f"{answer['found']} of {BALLS} microbleeds of the phantom found, {answer['elsewhere']} places besides"
    text = f"{told}, at most {answer['farthest_mm']:.1f} mm off, by {answer['model']} in {seconds:.0f} s"
    values = {**answer, "seconds": round(seconds, 1)}
    if answer["found"] == BALLS and not answer["elsewhere"]:
        return Finding(NAME, OK, text, values=values)
    hint = "Do not trust results of this computer: set up the packages again, and report this if it stays."
    return Finding(NAME, PROBLEM, text, hint, values)


def _searched(registry: Path | None, model: str | None, alive: Callable[[], None], longest_s: float) -> dict[str, Any]:
    """Return what the process wrote, or as ``error``, ``hint`` and ``exit_code`` why it wrote nothing."""
    with tempfile.TemporaryDirectory(prefix="cmbdetector-", ignore_cleanup_errors=True) as name:
        result, log = Path(name) / "result.json", Path(name) / "log.txt"
        command = [sys.executable, "-m", "CMBDetectorLib.doctor.phantom_process", str(result)]
        command += ["--model", model] if model else []
        command += ["--registry", str(registry)] if registry is not None else []
        code = _run(command, log, alive, longest_s)
        try:
            return json.loads(result.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return _explained(code, log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL:])


def _run(command: list[str], log: Path, alive: Callable[[], None], longest_s: float) -> int | None:
    """Run ``command`` with its output in ``log``; returns its exit code, ``None`` where it took too long."""
    environment = dict(os.environ)
    # The child must find this package also where only the parent's sys.path has it (an extension's folder).
    package = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, environment.get("PYTHONPATH")]))
    environment |= {"PYTHONIOENCODING": "utf-8", "PYTHONSAFEPATH": "1"}
    end = time.monotonic() + longest_s
    with open(log, "wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )  # fmt: skip
        try:
            while process.poll() is None and time.monotonic() < end:
                alive()
                time.sleep(_LOOK_S)
            return process.poll()
        finally:
            if process.poll() is None:
                kill_tree(process.pid)
            process.wait()


def _explained(code: int | None, log: str) -> dict[str, Any]:
    """Return why a process that wrote nothing has ended so."""
    if code is None:
        told, hint = f"it did not end within {_LONGEST_S:.0f} s", "Close other programs and check again."
        return {"error": told, "hint": hint, "exit_code": 1}
    if code in _ILLEGAL_INSTRUCTION:
        told = "this computer's processor cannot run the installed TensorFlow"
        hint = "Choose a Python with a TensorFlow that was built for this processor."
        return {"error": told, "hint": hint, "exit_code": MissingPackageError.exit_code}
    if code in _KILLED or "MemoryError" in log:
        told, hint = "there was not enough memory", "Close other programs and check again."
        return {"error": told, "hint": hint, "exit_code": OutOfMemoryError.exit_code}
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    told = f"it failed (exit code {code}): {lines[-1][:300] if lines else 'no word'}"
    return {"error": told, "hint": "Set up the packages again, and report this if it stays.", "exit_code": 1}
