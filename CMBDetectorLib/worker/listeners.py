"""Who listens to the progress of a command: the event stream of ``--events``, a terminal, or a log file."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
import threading
import time
from collections import deque
from types import TracebackType
from typing import Any

from CMBDetectorLib.errors import CMBDetectorError
from CMBDetectorLib.processes import children_cpu_s
from CMBDetectorLib.progress import Progress

HEARTBEAT_S = 1.0
_SHORTEST_STEP_S = 0.05
_FIRST_FRACTION = 0.02
# Looking for children means looking at every process of the computer.
_BEATS_PER_LOOK = 10


class Listener(Progress):
    """A listener with a beginning and an end; ``result`` and ``error`` close what a command has to say."""

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening."""

    def result(self, data: dict[str, Any], text: str) -> None:
        """Pass on the result: ``data`` for programs, ``text`` for people."""

    def error(self, error: CMBDetectorError) -> None:
        """Pass on why the command failed."""


class TimeLeft:
    """How long work will still take at the speed of late: stages weigh what they usually take, not what they take here.

    Of late is the last fifth of its time, half a minute at the least.
    """

    _SHORTEST_S, _SHARE, _BETWEEN_S = 30.0, 0.2, 0.5

    def __init__(self) -> None:
        self._seen = deque([(0.0, 0.0)])
        self._told: float | None = None

    def at(self, elapsed_s: float, fraction: float) -> float | None:
        """Return the seconds left when ``fraction`` (0..1) is done after ``elapsed_s``; None while nothing is known."""
        if elapsed_s - self._seen[-1][0] >= self._BETWEEN_S:
            self._seen.append((elapsed_s, fraction))
        begin = elapsed_s - max(self._SHORTEST_S, self._SHARE * elapsed_s)
        while len(self._seen) > 1 and self._seen[1][0] <= begin:
            self._seen.popleft()
        since, before = self._seen[0]
        if fraction > max(before, _FIRST_FRACTION):
            self._told = (elapsed_s - since) * (1 - fraction) / (fraction - before)
        return self._told


class EventStream(Listener):
    """One ASCII JSON object a line on ``descriptor``: progress, epoch, log, heartbeat, result, error."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._left = TimeLeft()
        self._shown = (-1.0, "")
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()

    def show(self, stage: str, step: int, steps: int, fraction: float) -> None:
        """Send a progress event, at most 20 a second; the first and last of a stage always."""
        now = time.monotonic()
        last, last_stage = self._shown
        if stage == last_stage and now - last < _SHORTEST_STEP_S and step < steps:
            return
        self._shown = now, stage
        elapsed = now - self._started
        left = self._left.at(elapsed, fraction)
        self._send(
            event="progress", stage=stage, step=step, steps=steps, fraction=round(fraction, 4),
            elapsed_s=round(elapsed, 1), left_s=None if left is None else round(left, 1),
        )  # fmt: skip

    def log(self, message: str) -> None:
        """Send a log event."""
        self._send(event="log", message=message)

    def epoch(self, network: str, epoch: int, epochs: int, loss: float, validation: float | None = None) -> None:
        """Send an epoch event, and the same as a note; a loss that is no number becomes null."""
        known = {"loss": loss, "validation": validation}
        plain = {k: round(v, 6) if v is not None and math.isfinite(v) else None for k, v in known.items()}
        self._send(event="epoch", network=network, epoch=epoch, epochs=epochs, **plain)
        super().epoch(network, epoch, epochs, loss, validation)

    def result(self, data: dict[str, Any], text: str) -> None:
        """Send the result event."""
        self._send(event="result", **data)

    def error(self, error: CMBDetectorError) -> None:
        """Send the error event."""
        self._send(event="error", code=error.code, message=error.message, hint=error.hint)

    def close(self) -> None:
        """Stop the heartbeat."""
        self._stop.set()
        self._heart.join(timeout=2 * HEARTBEAT_S)

    def _beat(self) -> None:
        beats, children_s = 0, 0.0
        while not self._stop.wait(HEARTBEAT_S):
            if beats % _BEATS_PER_LOOK == 0:
                children_s = max(children_s, children_cpu_s())
            beats += 1
            used_s = round(time.process_time() + children_s, 2)
            self._send(event="heartbeat", elapsed_s=round(time.monotonic() - self._started, 1), cpu_s=used_s)

    def _send(self, **event: Any) -> None:
        line = (json.dumps(event, ensure_ascii=True) + "\n").encode("ascii")
        with self._lock:
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except OSError:
                # Nobody reads any more: the work goes on, its results are in files.
                self._stop.set()


class Terminal(Listener):
    """A progress bar on a terminal, plain lines where standard error is none; the result goes to standard output."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar: Bar | None = None
        self._stage = ""
        if self._console.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description:<14}"), BarColumn(bar_width=20), TaskProgressColumn(),
                TextColumn("{task.fields[steps]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
                console=self._console, transient=True,
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task("starting", total=1.0, steps="")

    def show(self, stage: str, step: int, steps: int, fraction: float) -> None:
        """Move the bar; without a terminal, print each new stage on a line."""
        if self._bar is not None:
            counted = f"{step}/{steps}" if 0 < steps < 1000 else ""
            self._bar.update(self._task, completed=fraction, description=stage, steps=counted)
        elif stage != self._stage:
            self._print(f"{stage} ...")
        self._stage = stage

    def log(self, message: str) -> None:
        """Print a note above the bar."""
        self._print(message)

    def result(self, data: dict[str, Any], text: str) -> None:
        """Print the result to standard output."""
        self.close()
        print(text, flush=True)

    def error(self, error: CMBDetectorError) -> None:
        """Print the sentence and the next step."""
        self.close()
        self._print(f"cmbdetector: {error.message}")
        if error.hint:
            self._print(f"  {error.hint}")

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _print(self, text: str) -> None:
        # File names are no markup: a bracket in one is printed as it is.
        self._console.print(text, markup=False)


class PlainTerminal(Listener):
    """Lines on standard error, where nothing is there yet that draws a bar: each stage, and each tenth of it."""

    _shown = ("", -1)

    def show(self, stage: str, step: int, steps: int, fraction: float) -> None:
        """Print the stage and how much of it is done, where that has changed by a tenth."""
        tenth = 10 * step // steps if steps else 0
        if (stage, tenth) != self._shown:
            self._shown = stage, tenth
            print(f"{stage} {10 * tenth:3} %" if steps else f"{stage} ...", file=sys.stderr, flush=True)

    def log(self, message: str) -> None:
        """Print a note."""
        print(message, file=sys.stderr, flush=True)

    def result(self, data: dict[str, Any], text: str) -> None:
        """Print the result to standard output."""
        print(text, flush=True)

    def error(self, error: CMBDetectorError) -> None:
        """Print the sentence and the next step."""
        hint = f"\n  {error.hint}" if error.hint else ""
        print(f"cmbdetector: {error.message}{hint}", file=sys.stderr, flush=True)


def make_listener(events: int | None) -> Listener:
    """Return the listener for this process: the event stream on the descriptor ``events``, or the terminal."""
    if events is not None:
        return EventStream(events)
    for stream in (sys.stdout, sys.stderr):
        # A path with letters that the terminal cannot show must not end a night's work.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    return Terminal() if importlib.util.find_spec("rich") is not None else PlainTerminal()
