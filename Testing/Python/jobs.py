"""Real workers as the tests of background jobs start, follow and count them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from CMBDetectorLib.gui.job import WorkerJob
from CMBDetectorLib.runtime.interpreter import Interpreter

OWN = Interpreter(Path(sys.executable))


def follow(
    job: WorkerJob, until: Callable[[list[dict]], bool] = lambda events: False, seconds: float = 60
) -> list[dict]:
    """Poll ``job`` as the module's timer does until it is gone or ``until(events)``; return all events."""
    events: list[dict] = []
    end = time.monotonic() + seconds
    while job.alive and not until(events):
        assert time.monotonic() < end, f"no end in sight: {events[-3:]}"
        events += job.poll()
        time.sleep(0.02)
    return events


def at_stage(name: str) -> Callable[[list[dict]], bool]:
    return lambda events: any(event.get("stage") == name for event in events)


def family() -> list[psutil.Process]:
    """Return the worker and everything it started."""
    return psutil.Process().children(recursive=True)


def gone(processes: list[psutil.Process], seconds: float) -> bool:
    """Tell whether all of them end within the time; what nobody has fetched yet counts as ended."""
    end = time.monotonic() + seconds
    while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def program(path: Path, body: str) -> Interpreter:
    """Return an "interpreter" that runs ``body`` whatever its arguments (-m CMBDetectorLib ...) are."""
    path.write_text(f"#!{sys.executable}\n{body}", encoding="utf-8")
    path.chmod(0o755)
    return Interpreter(path)
