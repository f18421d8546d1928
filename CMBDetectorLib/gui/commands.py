"""Short commands of the worker beside the long work: lists, installed models, imports. The newest of a kind counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import qt

from CMBDetectorLib.errors import CMBDetectorError
from CMBDetectorLib.gui.detection import worker_interpreter
from CMBDetectorLib.gui.endings import JobError
from CMBDetectorLib.gui.job import WorkerJob
from CMBDetectorLib.gui.job_queue import JobQueue
from CMBDetectorLib.runtime.interpreter import Interpreter

_TICK_MS = 100
OnResult = Callable[[dict[str, Any]], None]
OnError = Callable[[JobError], None]


@dataclass
class _Asked:
    kind: str
    on_result: OnResult
    on_error: OnError
    on_progress: OnResult
    is_told: bool = False


class Commands:
    """Runs commands one after the other, in a queue of their own: a list of models does not wait for a training."""

    def __init__(self, interpreter: Callable[[], Interpreter] = worker_interpreter) -> None:
        """``interpreter`` returns the Python that runs them, or raises ``CMBDetectorError``."""
        self._interpreter = interpreter
        self._queue = JobQueue()
        self._asked: dict[int, _Asked] = {}
        self._number = 0
        self._timer = qt.QTimer()
        self._timer.setInterval(_TICK_MS)
        self._timer.connect("timeout()", self._on_tick)

    @property
    def is_running(self) -> bool:
        """Whether anything is under way."""
        return not self._queue.is_idle

    def is_asked(self, kind: str) -> bool:
        """Whether a command of this kind is still to be answered."""
        return any(asked.kind == kind and not asked.is_told for asked in self._asked.values())

    def run(
        self,
        kind: str,
        arguments: Sequence[str],
        on_result: OnResult,
        on_error: OnError,
        make: Callable[[Interpreter], WorkerJob] | None = None,
        on_progress: OnResult = lambda event: None,
    ) -> None:
        """Run ``cmbdetector ARGUMENTS``, or the job that ``make`` returns.

        ``on_result`` or ``on_error`` is called once, ``on_progress`` before it with each event of that kind.

        Earlier commands of the same ``kind`` are dropped without a word: what was asked last is what is wanted.
        """
        self.drop(kind)
        try:
            interpreter = self._interpreter()
        except CMBDetectorError as error:
            on_error(JobError(error.message, error.hint, error.code))
            return
        self._number += 1
        self._asked[self._number] = _Asked(kind, on_result, on_error, on_progress)
        job = make or (lambda interpreter: WorkerJob(arguments, interpreter))
        self._queue.add(self._number, kind, lambda: job(interpreter))
        self._timer.start()

    def drop(self, kind: str) -> None:
        """Forget what was asked of this kind."""
        for number, asked in list(self._asked.items()):
            if asked.kind == kind and not asked.is_told:
                asked.is_told = True
                self._queue.cancel(number)

    def close(self) -> None:
        """End everything now."""
        self._timer.stop()
        self._timer.disconnect("timeout()", self._on_tick)
        self._asked.clear()
        self._queue.close()

    def _on_tick(self) -> None:
        for number, event in self._queue.tick():
            asked = self._asked.get(number)
            if asked is None or asked.is_told:
                continue
            if event["event"] == "progress":
                asked.on_progress(event)
            if event["event"] not in ("result", "error"):
                continue
            asked.is_told = True
            if event["event"] == "result":
                asked.on_result({key: value for key, value in event.items() if key != "event"})
            else:
                asked.on_error(JobError(*(str(event.get(name) or "") for name in ("message", "hint", "code"))))
        for number in [number for number in self._asked if self._queue.position(number) is None]:
            if self._asked[number].is_told:
                del self._asked[number]
        if self._queue.is_idle:
            self._timer.stop()


def sentence(error: JobError) -> str:
    """Return what happened and what to do, for a panel."""
    return f"{error.message} {error.hint}".strip()
