"""Work in a process that is a copy of this one and may be killed at any line or moment; it starts in milliseconds.

Nothing of ITK may run in this process itself: its threads would be missing from the copies.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import random
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

LIBRARY = str(Path(__file__).resolve().parents[2] / "CMBDetectorLib")
# Long, since a busy computer is no hang.
_TIMEOUT_S = 300.0

Say = Callable[[Any], None]
Work = Callable[[Say], Any]


@dataclass
class Ended:
    """How a copy ended: what it ``said`` on the way, the ``value`` it returned, an ``error`` (traceback), a signal."""

    said: list[Any] = field(default_factory=list)
    value: Any = None
    error: str = ""
    signal: int = 0
    lines: int = 0
    hung: bool = False

    @property
    def was_killed(self) -> bool:
        """Whether it was killed by us, not by an error of its own."""
        return self.signal == signal.SIGKILL and not self.hung


@dataclass(frozen=True)
class At:
    """When to kill: before the ``line``-th line of the library that is run, or after ``seconds``, whatever comes."""

    line: int | None = None
    seconds: float | None = None


def run(work: Work, at: At | None = None, timeout_s: float = _TIMEOUT_S, count: bool = False) -> Ended:
    """Run ``work(say)`` in a copy of this process to its end, or kill it ``at`` some moment.

    What it passes to ``say`` has arrived here when ``say`` returns, even if it is killed right then. ``count`` counts
    the lines of the library that it runs.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _be_the_copy(work, writing, at, count)
    os.close(writing)
    ended = _listen(reading, pid, at.seconds if at is not None else None, timeout_s)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        ended.signal = os.WTERMSIG(status)
    elif os.WEXITSTATUS(status) and not ended.error:
        ended.error = f"exit code {os.WEXITSTATUS(status)}"
    return ended


def moments(chance: random.Random, work: Work, tries: int, share_of_lines: float = 0.6) -> list[At]:
    """Return when to kill ``work``: at lines spread over all that it runs, and at times over all that it takes."""
    started = time.monotonic()
    whole = run(work, count=True)
    if whole.error:
        raise RuntimeError(f"the work itself fails: {whole.error}")
    seconds = max(time.monotonic() - started, 0.02)
    by_line = round(tries * share_of_lines)
    # One from each of as many equal stretches: no part of the work is passed over.
    edges = [round(whole.lines * n / max(by_line, 1)) for n in range(by_line + 1)]
    lines = [chance.randint(low + 1, max(high, low + 1)) for low, high in itertools.pairwise(edges)]
    # Counting slows the work down.
    return [At(line=n) for n in lines] + [At(seconds=chance.uniform(0, 0.5 * seconds)) for _ in range(tries - by_line)]


def _be_the_copy(work: Work, writing: int, at: At | None, count: bool) -> None:
    code = 1
    try:
        # What is killed must not end with the buffers of the process that it is a copy of.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            os.dup2(nowhere, descriptor)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115

        def send(kind: str, content: Any) -> None:
            data = pickle.dumps((kind, content))
            data = len(data).to_bytes(4, "big") + data
            while data:
                data = data[os.write(writing, data) :]

        counter = _Counter(at.line if at is not None else None)
        try:
            if count or counter.deadly is not None:
                counter.start()
            value = work(lambda content: send("said", content))
            sys.settrace(None)
            send("value", value)
            code = 0
        except BaseException:
            sys.settrace(None)
            send("error", traceback.format_exc())
        send("lines", counter.lines)
    finally:
        os._exit(code)


class _Counter:
    """Counts the lines of the library as they are run, in this thread; kills the process before the deadly one."""

    def __init__(self, deadly: int | None) -> None:
        self.deadly = deadly
        self.lines = 0

    def start(self) -> None:
        sys.settrace(self._call)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(LIBRARY) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self.lines += 1
            if self.lines == self.deadly:
                os.kill(os.getpid(), signal.SIGKILL)
        return self._line


def _listen(reading: int, pid: int, kill_after_s: float | None, timeout_s: float) -> Ended:
    ended, data = Ended(), b""
    start = time.monotonic()
    deadline = start + (kill_after_s if kill_after_s is not None else timeout_s)
    killed = False
    while True:
        left = max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select([reading], [], [], None if killed else left)
        if not ready:
            ended.hung = kill_after_s is None
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            killed = True
            continue
        block = os.read(reading, 1 << 16)
        if not block:
            break
        data += block
        while len(data) >= 4 and len(data) >= 4 + (size := int.from_bytes(data[:4], "big")):
            kind, content = pickle.loads(data[4 : 4 + size])
            data = data[4 + size :]
            if kind == "said":
                ended.said.append(content)
            else:
                setattr(ended, kind, content)
    os.close(reading)
    return ended
