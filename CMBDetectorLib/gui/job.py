"""One command of the worker, run in the background and followed from the main thread without ever waiting for it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from typing import Any

from CMBDetectorLib.errors import Cancelled, CMBDetectorError
from CMBDetectorLib.gui.endings import CANCELLED, NO_MEMORY_TWICE, JobError, explain, is_for_want_of_memory
from CMBDetectorLib.gui.worker_process import WorkerProcess
from CMBDetectorLib.runtime.interpreter import Interpreter

# The worker unwinds, and exits by itself after 0.7 s (worker.stopping.GRACE_S); all must be over within 2 s.
KILL_AFTER_S = 1.3
SILENT_AFTER_S = 30.0
# The heart of a worker that waits for something for ever goes on beating, but it uses no processor.
IDLE_AFTER_S = 300.0
_WORK_S = 1.0
# The first sign of life comes after imports, which a slow disk or a virus scanner can draw out.
START_WITHIN_S = 120.0
_LINGER_S = 5.0
# A longer time between two polls is the application's own silence, not the worker's.
_LONGEST_TICK_S = 1.0
_PAUSE_S = 0.02

_logger = logging.getLogger(__name__)


class WorkerJob:
    """Runs ``cmbdetector ARGUMENTS`` and tells how it stands.

    The main thread calls :meth:`start` once and :meth:`poll` about every 100 ms until :attr:`alive` is false: the
    last tick removes temporary files, and in Slicer other threads run only while the main thread runs Python.
    Every job ends with exactly one ``result`` or ``error`` event from :meth:`poll`; cancelling gives an ``error``
    with the code ``cancelled`` once no process is left.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        interpreter: Interpreter,
        silent_after_s: float = SILENT_AFTER_S,
        start_within_s: float = START_WITHIN_S,
        idle_after_s: float = IDLE_AFTER_S,
        when_memory_is_short: Sequence[str] = (),
    ) -> None:
        """``arguments``: command and options, with absolute paths; the times are limits in seconds.

        They are those of silence once the worker was heard and before, and of a time without news and work.

        ``when_memory_is_short``: options that make the command need less memory. Where it ran out, or the system ended
        the worker, the command is started once more with them, by itself.
        """
        self._arguments = [str(argument) for argument in arguments]
        self._interpreter = interpreter
        self._limits = start_within_s, silent_after_s
        self._idle_limit_s = idle_after_s
        self._idle_s = self._used_s = 0.0
        self._sparing = [str(argument) for argument in when_memory_is_short]
        self._is_second_attempt = False
        self._ran_out: JobError | None = None
        self._process: WorkerProcess | None = None
        self._state = "waiting"
        self._outbox: list[dict[str, Any]] = []
        self._log = ""
        self._started_at: float | None = None
        self._decided_at: float | None = None
        self._polled_at = 0.0
        self._silent_s = 0.0
        self._heard = False
        self._left: tuple[float, float] | None = None
        self.stage = ""
        self.fraction = 0.0
        self.result: dict[str, Any] | None = None
        self.error: JobError | None = None

    @property
    def state(self) -> str:
        """One of "waiting", "running", "done", "failed", "cancelled"."""
        return self._state

    @property
    def alive(self) -> bool:
        """Tell whether a process or an event not yet polled is left, also after the state has been decided."""
        return self._process is not None or bool(self._outbox)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start, until the end."""
        if self._started_at is None:
            return 0.0
        return (self._decided_at or time.monotonic()) - self._started_at

    @property
    def left_s(self) -> float | None:
        """Seconds that the worker expects to need still; ``None`` where it cannot tell yet."""
        if self._left is None or self._state != "running":
            return None
        seconds, told_at = self._left
        return max(0.0, seconds - (time.monotonic() - told_at))

    def start(self) -> None:
        """Start the worker; where that fails, the state is "failed" and the next poll says why."""
        if self._state != "waiting":
            return
        self._started_at = time.monotonic()
        self._start_worker(self._arguments)

    def _start_worker(self, arguments: Sequence[str]) -> None:
        self._polled_at = time.monotonic()
        command = [str(self._interpreter.python), "-m", "CMBDetectorLib", *arguments]
        try:
            self._process = WorkerProcess([*command, "--events", "--stop-with-stdin"], self._interpreter.environment())
        except CMBDetectorError as error:
            self._fail(JobError(error.message, error.hint, error.code))
        else:
            self._state = "running"

    def poll(self) -> list[dict[str, Any]]:
        """Return the events since the last call; takes about 1 ms and never waits for the worker."""
        if self._process is not None:
            received = self._process.receive()
            self._watch_silence(bool(received))
            for item in received:
                self._take(item)
            self._watch_end()
        events, self._outbox = self._outbox, []
        return events

    def cancel(self) -> None:
        """Stop the work; returns at once. Within 2 s no process and no temporary file is left (keep polling)."""
        if self._state == "waiting":
            self._decide("cancelled", CANCELLED)
        elif self._state == "running":
            self._state = "cancelled"
            self._decided_at = time.monotonic()
            self._process.ask_to_stop()
            self._process.kill_after(KILL_AFTER_S)

    def close(self, grace_s: float = 1.0) -> None:
        """End everything now, for when the application quits; takes ``grace_s`` seconds at most, plus the killing."""
        self.cancel()
        if self._process is None:
            return
        self._process.ask_to_stop()
        self._wait(grace_s)
        if self._process is not None:
            self._process.kill()
            self._wait(2.0)

    def log_tail(self) -> str:
        """Return the end of the worker's log: technical details for a report, perhaps with file names."""
        return self._log + (self._process.log_tail() if self._process is not None else "")

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self._process is not None and time.monotonic() < end:
            self._outbox = self.poll()
            time.sleep(_PAUSE_S)

    def _take(self, item: dict[str, Any] | bytes) -> None:
        """Take in one event, or a line that is none."""
        if isinstance(item, bytes):
            _logger.warning("The worker wrote a line that is no event: %r", item[:200])
            return
        if self._state != "running" or self._ran_out is not None:
            return
        self._watch_work(item)
        kind = item["event"]
        if kind == "progress":
            self._progress(item)
        if kind == "error":
            error = JobError(*(str(item.get(key) or "") for key in ("message", "hint", "code")))
            if self._may_try_again(error):
                self._ran_out = error
                self._process.kill_after(_LINGER_S)
                return
            self._settle(error)
            return
        if kind == "result":
            self.result = {key: value for key, value in item.items() if key != "event"}
            self.fraction = 1.0
            self._decide("done")
        self._outbox.append(item)

    def _progress(self, event: dict[str, Any]) -> None:
        self.stage = str(event.get("stage", ""))
        fraction = _number(event.get("fraction"))
        if fraction is not None:
            self.fraction = min(max(fraction, 0.0), 1.0)
        left = _number(event.get("left_s"))
        self._left = (left, time.monotonic()) if left is not None else self._left

    def _watch_silence(self, heard: bool) -> None:
        """Kill a worker that says nothing for too long."""
        now = time.monotonic()
        tick = min(now - self._polled_at, _LONGEST_TICK_S)
        self._polled_at = now
        self._heard = self._heard or heard
        self._silent_s = 0.0 if heard else self._silent_s + tick
        self._idle_s += tick
        limit = self._limits[self._heard]
        if self._state != "running":
            return
        if self._silent_s > limit:
            self._stop_hung(f"The computation gave no sign of life for {limit:.0f} seconds and was stopped.")
        elif self._idle_s > self._idle_limit_s:
            self._stop_hung(f"The computation did nothing for {self._idle_limit_s:.0f} seconds and was stopped.")

    def _watch_work(self, event: dict[str, Any]) -> None:
        """Note that the worker has news, or has used the processor (``cpu_s``) since it was last seen to."""
        used = _number(event.get("cpu_s"))
        if event["event"] != "heartbeat" or used is None or used > self._used_s + _WORK_S:
            self._idle_s, self._used_s = 0.0, used if used is not None else self._used_s

    def _stop_hung(self, sentence: str) -> None:
        self._process.kill()
        hint = "Close other programs and try again; if it happens again, report what the log says."
        self._fail(JobError(sentence, hint, "silent"))

    def _watch_end(self) -> None:
        """Notice that the process has gone, and let no process outlive what was decided about it."""
        process = self._process
        if not process.ended:
            allowed = KILL_AFTER_S if self._state == "cancelled" else _LINGER_S
            if self._state != "running" and time.monotonic() - self._decided_at > allowed:
                process.kill()
            return
        log = process.log_tail()
        self._log += log
        again = False
        if self._state == "running":
            error = self._ran_out or explain(process.exit_code, log)
            again = self._may_try_again(error)
            if not again:
                self._settle(error)
        elif self._state == "cancelled" and self.error is None:
            self._decide("cancelled", CANCELLED)
        process.clean_up()
        self._process = None
        if again:
            self._try_again()

    def _may_try_again(self, error: JobError) -> bool:
        return bool(self._sparing) and not self._is_second_attempt and is_for_want_of_memory(error)

    def _try_again(self) -> None:
        """Start the worker once more, with options that make it need less memory."""
        _logger.warning("The worker ran out of memory, or was ended from outside: once more with %s", self._sparing)
        note = "The computer ran short of memory: the work was begun once more, in smaller pieces."
        self._outbox.append({"event": "log", "message": note})
        self._is_second_attempt, self._ran_out = True, None
        self._silent_s, self._idle_s, self._used_s = 0.0, 0.0, 0.0
        self._heard, self._left = False, None
        self.stage, self.fraction = "", 0.0
        self._start_worker([*self._arguments, *self._sparing])

    def _settle(self, error: JobError) -> None:
        """Settle that the job ended with ``error``."""
        if self._is_second_attempt and is_for_want_of_memory(error):
            error = NO_MEMORY_TWICE
        self._decide("cancelled" if error.code == Cancelled.code else "failed", error)

    def _fail(self, error: JobError) -> None:
        """End a job that failed; for subclasses, too, that prepare something before the worker starts."""
        self._decide("failed", error)

    def _decide(self, state: str, error: JobError | None = None) -> None:
        """Settle how the job ended; an ``error`` is told as the last event."""
        self._state = state
        self._decided_at = self._decided_at or time.monotonic()
        if error is not None:
            self.error = error
            self._outbox.append({"event": "error", **error._asdict()})


def _number(value: Any) -> float | None:
    """Return ``value`` where it is a finite number."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None
