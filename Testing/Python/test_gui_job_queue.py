"""The queue of background jobs: order, cancelling, and jobs that go wrong. Its jobs here have no processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.gui.job import WorkerJob
from CMBDetectorLib.gui.job_queue import JobQueue
from CMBDetectorLib.runtime.interpreter import Interpreter

OWN = Interpreter(Path(sys.executable))


class _Scripted(WorkerJob):
    """A job without a process: each poll gives the next of its events, the last ends it."""

    def __init__(self, *events: dict) -> None:
        super().__init__([], OWN)
        self._script = list(events)
        self.started = 0

    def start(self) -> None:
        self.started += 1

    @property
    def alive(self) -> bool:
        return bool(self._script)

    def poll(self) -> list[dict]:
        event = self._script.pop(0)
        self.fraction = event.get("fraction", self.fraction)
        return [event]

    def cancel(self) -> None:
        self._script = [{"event": "error", "code": "cancelled"}]

    def close(self, grace_s: float = 0.0) -> None:
        self._script = []


DONE = {"event": "result"}


def drain(queue: JobQueue) -> list[tuple]:
    """Tick until nothing is left; return (key, kind or code of an error) of each event."""
    told = []
    for _ in range(100):
        told += [(key, event.get("code", event["event"])) for key, event in queue.tick()]
        if queue.is_idle:
            return told
    raise AssertionError(told)


def test_jobs_run_one_after_the_other_in_their_order():
    queue = JobQueue()
    jobs = {key: _Scripted({"event": "progress", "fraction": 0.5}, DONE) for key in "abc"}
    for key, job in jobs.items():
        queue.add(key, f"scan {key}", lambda job=job: job)
    assert queue.pending == [("a", "scan a"), ("b", "scan b"), ("c", "scan c")]
    with pytest.raises(ValueError, match="already"):
        queue.add("b", "again", lambda: _Scripted(DONE))
    assert [kind["event"] for _, kind in queue.tick()] == ["started", "progress"]
    assert queue.current == "a"
    assert queue.current_job is jobs["a"]
    assert [queue.position(key) for key in "abcd"] == [0, 1, 2, None]
    assert queue.fraction == pytest.approx(0.5 / 3)
    assert drain(queue) == [
        ("a", "result"), ("b", "started"), ("b", "progress"), ("b", "result"),
        ("c", "started"), ("c", "progress"), ("c", "result"),
    ]  # fmt: skip
    assert (queue.finished, queue.fraction, queue.current) == (3, 1, None)
    assert [job.started for job in jobs.values()] == [1, 1, 1]
    queue.add("a", "once more", lambda: _Scripted(DONE))
    assert (queue.finished, queue.fraction) == (0, 0)


def test_cancelling_takes_jobs_off_the_queue():
    queue = JobQueue()
    for key in "abcd":
        queue.add(key, key, lambda: _Scripted({"event": "progress"}, DONE))
    queue.tick()
    queue.cancel("b")
    queue.cancel("a")
    queue.cancel("unknown")
    assert drain(queue) == [
        ("b", "cancelled"), ("a", "cancelled"), ("c", "started"), ("c", "progress"), ("c", "result"),
        ("d", "started"), ("d", "progress"), ("d", "result"),
    ]  # fmt: skip
    for key in "abc":
        queue.add(key, key, lambda: _Scripted({"event": "progress"}, DONE))
    queue.tick()
    queue.cancel_all()
    assert sorted(drain(queue)) == [("a", "cancelled"), ("b", "cancelled"), ("c", "cancelled")]
    queue.add("x", "x", lambda: _Scripted({"event": "progress"}, DONE))
    queue.tick()
    queue.close()
    assert queue.is_idle


def test_a_job_that_cannot_be_made_or_followed_does_not_stop_the_others():
    queue = JobQueue()

    def refuse() -> WorkerJob:
        raise BadInputError("This volume is empty.", "Choose another.")

    def fail() -> WorkerJob:
        raise RuntimeError("odd")

    def reenter() -> WorkerJob:
        assert queue.tick() == []
        queue.cancel("cancelled while being made")
        return _Scripted(DONE)

    queue.add("bad", "bad", refuse)
    queue.add("odd", "odd", fail)
    queue.add("broken", "broken", _Scripted)  # its script is empty: polling it raises
    queue.add("cancelled while being made", "", reenter)
    queue.add("good", "good", lambda: _Scripted(DONE))
    assert drain(queue) == [
        ("bad", "bad-input"), ("odd", "error"), ("broken", "started"), ("broken", "error"),
        ("cancelled while being made", "cancelled"), ("good", "started"), ("good", "result"),
    ]  # fmt: skip
