"""Ending processes with everything they started, with psutil where it is installed and without it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess


def kill_tree(pid: int) -> None:
    """Kill the process ``pid`` and its descendants at once, without waiting for them to be gone."""
    # The family must be looked up while its head lives; the head goes last, so that it starts nothing more in between.
    family = _descendants(pid)
    if family is None and os.name == "nt":
        with contextlib.suppress(OSError):
            command = ["taskkill", "/T", "/F", "/PID", str(pid)]
            subprocess.Popen(command, creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0))
        return
    for member in [*(family or []), pid]:
        _kill(member)


def kill_group(leader: int) -> None:
    """Kill the members of the group that ``leader`` was started to lead (``start_new_session``); POSIX only.

    It finds descendants whose own parents are dead, whom :func:`kill_tree` cannot find, also after the leader's death.
    """
    if hasattr(os, "killpg"):
        with contextlib.suppress(OSError):
            os.killpg(leader, signal.SIGKILL)


def kill_children() -> None:
    """Kill all descendants of this process; without psutil nothing happens (they follow their standard input)."""
    for pid in _descendants(os.getpid()) or []:
        _kill(pid)


def children_cpu_s() -> float:
    """Return the processor time in seconds that all living descendants of this process have used; 0 without psutil."""
    children = _descendants(os.getpid())
    if not children:
        return 0.0
    import psutil

    total = 0.0
    for pid in children:
        with contextlib.suppress(psutil.Error):
            times = psutil.Process(pid).cpu_times()
            total += times.user + times.system
    return total


def _descendants(pid: int) -> list[int] | None:
    """Return the process numbers of all descendants; ``None`` where psutil, which can tell, is not installed."""
    try:
        import psutil
    except ImportError:
        return None
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


def _kill(pid: int) -> None:
    with contextlib.suppress(OSError):
        # Windows has no SIGKILL; there, SIGTERM ends a process as surely.
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
