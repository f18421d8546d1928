"""A limit of memory for a process and all it starts: a control group of Linux where one may be made, else none."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import psutil

_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")
_NAMES = {
    # Version 1 and 2 of control groups: limit, swap limit, who is in it, peak.
    1: ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "cgroup.procs", "memory.max_usage_in_bytes"),
    2: ("memory.max", "memory.swap.max", "cgroup.procs", "memory.peak"),
}
_PAUSE_S = 0.05


class MemoryGroup:
    """A control group that may use ``limit_bytes``; beyond that the kernel ends a process in it by SIGKILL.

    ``is_real`` is false where no control group may be made: then :meth:`command` limits the data of each process
    instead (RLIMIT_DATA), whose allocations fail.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._folder: Path | None = None
        self._version = 1 if (_V1 / "cgroup.procs").exists() else 2

    def __enter__(self) -> MemoryGroup:
        folder = (_V1 if self._version == 1 else _V2) / f"cmbdetector-{os.getpid()}-{time.monotonic_ns()}"
        limit, swap, _, _ = _NAMES[self._version]
        try:
            folder.mkdir()
            (folder / limit).write_text(str(self.limit_bytes))
            # Memory and swap together, in version 2 swap alone; absent where swap is not accounted for.
            with contextlib.suppress(OSError):
                (folder / swap).write_text(str(self.limit_bytes if self._version == 1 else 0))
            self._folder = folder
        except OSError:
            with contextlib.suppress(OSError):
                folder.rmdir()
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            for _ in range(100):
                with contextlib.suppress(OSError):
                    self._folder.rmdir()
                    return
                time.sleep(_PAUSE_S)

    @property
    def is_real(self) -> bool:
        """Whether the kernel keeps the limit for the whole process tree."""
        return self._folder is not None

    @property
    def how(self) -> str:
        """What limits, for a table."""
        return f"control group (version {self._version})" if self.is_real else "RLIMIT_DATA of each process"

    def command(self, command: list[str]) -> list[str]:
        """Return ``command`` as one that runs in the group."""
        if self._folder is not None:
            script = f'echo $$ > "{self._folder / _NAMES[self._version][2]}" && exec "$@"'
        else:
            script = f'ulimit -d {self.limit_bytes // 1024} && exec "$@"'
        return ["sh", "-c", script, "sh", *command]

    def kills(self) -> int:
        """Return how many processes of the group the kernel has ended for want of memory."""
        if self._folder is None:
            return 0
        name = "memory.oom_control" if self._version == 1 else "memory.events"
        words = dict(line.split() for line in (self._folder / name).read_text().splitlines())
        return int(words.get("oom_kill", 0))


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process and its descendants: what they share counts once where Linux tells."""
    total = 0
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error, OSError):
                try:
                    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
                    total += next(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
                except (FileNotFoundError, StopIteration):
                    total += process.memory_info().rss
    return total
