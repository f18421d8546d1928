"""The computer and the interpreter: memory, processors, graphics card, clock, lengths of paths. Standard library only,
so that it can still be told when packages are missing."""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from CMBDetectorLib.doctor.findings import OK, PROBLEM, WARNING, Finding
from CMBDetectorLib.errors import OutOfMemoryError
from CMBDetectorLib.runtime.platforms import WINDOWS_PATH, windows_long_paths
from CMBDetectorLib.user_data import data_folder

_OLDEST_PYTHON = (3, 10)
_RELEASED = datetime.date(2026, 11, 1)
# A detection in a scan of 512x512x150 voxels takes 2.5 GB (README).
_LEAST_GB, _ENOUGH_GB = 2.0, 4.0
_UNLIMITED = 1 << 60
_ASK_CARD_S = 10.0
# The longest path inside TensorFlow 2.16 to 2.21 below its folder of packages, but for headers, which are left out.
_LONGEST_INSIDE = 110
_THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "MKL_NUM_THREADS")


def program() -> Finding:
    """Return which Python runs on what."""
    version = platform.python_version()
    bits = 64 if sys.maxsize > 1 << 32 else 32
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    values = {
        "python": version,
        "executable": sys.executable,
        "bits": bits,
        "system": system,
        "packages": os.environ.get("CMBDETECTOR_PACKAGES"),
    }
    text = f"Python {version} ({bits} bit, {sys.executable}) on {system}"
    if sys.version_info < _OLDEST_PYTHON or bits != 64:
        return Finding("Python", PROBLEM, text, "Choose a Python of 64 bit, 3.10 or newer.", values, 3)
    return Finding("Python", OK, text, values=values)


def memory() -> Finding:
    """Return how much memory a detection could have: what is free, or what this process is limited to."""
    total, available = _memory_bytes()
    limit = _memory_limit()
    usable = min(available if available is not None else _UNLIMITED, limit if limit is not None else _UNLIMITED)
    values = {"total_bytes": total, "available_bytes": available, "limit_bytes": limit}
    if usable == _UNLIMITED:
        return Finding("Memory", WARNING, "it could not be found out how much is free", "Install psutil.", values)
    told = [f"{usable / 1e9:.1f} GB can be used"]
    told += [f"{total / 1e9:.1f} GB are built in"] if total else []
    told += [f"this process may use {limit / 1e9:.1f} GB"] if limit is not None and limit == usable else []
    text = ", ".join(told)
    hint = "Close other programs; a scan of 512x512x150 voxels takes 2.5 GB."
    if usable < _LEAST_GB * 1e9:
        return Finding("Memory", PROBLEM, text, hint, values, OutOfMemoryError.exit_code)
    return Finding("Memory", WARNING if usable < _ENOUGH_GB * 1e9 else OK, text, _unless(usable, hint), values)


def processors() -> Finding:
    """Return how many processors this process may use."""
    there = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    quota = _quota()
    if quota is not None:
        usable = min(usable, max(1, round(quota)))
    limits = {name: os.environ[name] for name in _THREADS if os.environ.get(name)}
    values = {"processors": there, "usable": usable, "limits": limits}
    text = f"{usable} of {there} processors can be used"
    if limits:
        text += f"; {', '.join(f'{name}={value}' for name, value in limits.items())}"
    if usable == 1 or "1" in limits.values():
        return Finding("Processors", WARNING, text, "With one processor a detection takes minutes.", values)
    return Finding("Processors", OK, text, values=values)


def graphics_card() -> Finding:
    """Return which graphics cards of NVIDIA there are; none is needed."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        text = "none of NVIDIA; none is needed"
        if platform.system() == "Darwin" and platform.machine() == "arm64":
            text = "that of the processor (HD-BET can use it)"
        return Finding("Graphics card", OK, text, values={"cards": []})
    query = [tool, "--query-gpu=name,memory.total,memory.free,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            query, capture_output=True, timeout=_ASK_CARD_S, stdin=subprocess.DEVNULL,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )  # fmt: skip
        cards = [line.strip() for line in done.stdout.decode("utf-8", "replace").splitlines() if line.strip()]
    except (OSError, subprocess.SubprocessError):
        done, cards = None, []
    if done is None or done.returncode or not cards:
        hint = "Nothing needs it; to use it, install NVIDIA's driver again."
        return Finding("Graphics card", WARNING, "its driver does not answer", hint, {"cards": []})
    return Finding("Graphics card", OK, "; ".join(cards) + " (name, memory, free, driver)", values={"cards": cards})


def clock(today: datetime.date | None = None) -> Finding:
    """Return whether the clock can be right: reviews and models are ordered by it."""
    now = datetime.datetime.now(datetime.timezone.utc)
    text = f"{now:%Y-%m-%d %H:%M:%S} UTC, local time {time.strftime('%z')}"
    if (today or now.date()) < _RELEASED:
        hint = "Set the clock: reviews and models are ordered by their dates."
        return Finding("Clock", PROBLEM, f"{text}: before this program was made", hint)
    return Finding("Clock", OK, text)


def path_lengths(folder: Path | None = None, system: str | None = None, long_paths: bool | None = None) -> Finding:
    """Return whether packages fit below the data folder: Windows allows 260 characters a path unless told otherwise."""
    folder, system = folder or data_folder(), system or platform.system()
    longest = len(str(folder)) + len("/runtime/") + _LONGEST_INSIDE
    values = {"folder_characters": len(str(folder)), "longest_path_characters": longest}
    if system != "Windows":
        return Finding("Path lengths", OK, f"up to {longest} characters; this system allows them", values=values)
    long_paths = windows_long_paths() if long_paths is None else long_paths
    text = f"up to {longest} characters; Windows allows {'any length' if long_paths else WINDOWS_PATH}"
    if long_paths or longest < WINDOWS_PATH:
        return Finding("Path lengths", OK, text, values=values)
    hint = "Let an administrator enable long paths (LongPathsEnabled), or use a folder with a shorter name."
    return Finding("Path lengths", PROBLEM, text, hint, values)


def _unless(usable: int, hint: str) -> str:
    return hint if usable < _ENOUGH_GB * 1e9 else ""


def _memory_bytes() -> tuple[int | None, int | None]:
    """Return (built in, free) in bytes, ``None`` for what cannot be found out."""
    with suppress(Exception):
        import psutil

        found = psutil.virtual_memory()
        return int(found.total), int(found.available)
    with suppress(OSError, ValueError, IndexError):
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line)
        return tuple(int(lines[key].split()[0]) << 10 for key in ("MemTotal", "MemAvailable"))  # type: ignore[return-value]
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None
    return None, None


def _memory_limit() -> int | None:
    """Return the bytes that this process may use, ``None`` where nobody has limited it."""
    limits = []
    with suppress(ImportError, OSError, ValueError):
        import resource

        for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
            soft = resource.getrlimit(kind)[0]
            limits += [soft] if soft != resource.RLIM_INFINITY else []
    # The second is that of containers until about 2020.
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            limits.append(int(Path(file).read_text().strip()))
    return min((limit for limit in limits if limit < _UNLIMITED), default=None)


def _quota() -> float | None:
    """Return how many processors a container may use."""
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return int(quota) / int(period)
    return None
