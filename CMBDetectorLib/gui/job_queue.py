"""Background jobs one after the other: a worker needs all processors and much memory, two would hinder each other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from CMBDetectorLib.errors import CMBDetectorError
from CMBDetectorLib.gui.endings import CANCELLED, JobError
from CMBDetectorLib.gui.job import WorkerJob

Event = tuple[Hashable, dict[str, Any]]

_logger = logging.getLogger(__name__)


@dataclass
class _Entry:
    """A place in the queue: ``key`` and ``title`` as given; ``job`` is there from its turn on."""

    key: Hashable
    title: str
    make_job: Callable[[], WorkerJob] = field(repr=False)
    job: WorkerJob | None = None


class JobQueue:
    """Runs jobs in the order they were added. A timer of the application calls :meth:`tick` about every 100 ms.

    Whatever goes wrong in making, starting or following one job ends that job alone.
    Each key that is added gets, if its turn comes, a ``started`` event, then those of its job, the last of which is
    a ``result`` or an ``error``; a key whose turn never comes gets an ``error`` with the code ``cancelled``.
    """

    def __init__(self) -> None:
        self._pending: list[_Entry] = []
        self._current: _Entry | None = None
        self._outbox: list[Event] = []
        self._finished = 0
        self._ticking = False

    @property
    def current(self) -> Hashable | None:
        """The key of the job whose turn it is, until its process has ended."""
        return self._current.key if self._current is not None else None

    @property
    def current_job(self) -> WorkerJob | None:
        """The job whose turn it is, once it has been made."""
        return self._current.job if self._current is not None else None

    @property
    def pending(self) -> list[tuple[Hashable, str]]:
        """Key and title of the jobs that wait, in order."""
        return [(entry.key, entry.title) for entry in self._pending]

    @property
    def is_idle(self) -> bool:
        """Tell whether nothing runs, waits or is left to be told: the timer may stop."""
        return self._current is None and not self._pending and not self._outbox

    @property
    def finished(self) -> int:
        """How many jobs have ended since the queue was last empty, in whatever way."""
        return self._finished

    @property
    def fraction(self) -> float:
        """How much of all that was added since the queue was last empty is done (0..1; 0 when it is empty)."""
        everything = self._finished + len(self._pending) + (self._current is not None)
        done = self._finished + (self.current_job.fraction if self.current_job is not None else 0.0)
        return done / everything if everything else 0.0

    def position(self, key: Hashable) -> int | None:
        """Return 0 for the job that runs, 1 for the next, ...; ``None`` where ``key`` is not in the queue."""
        if self._current is not None and self._current.key == key:
            return 0
        keys = [entry.key for entry in self._pending]
        return 1 + keys.index(key) if key in keys else None

    def add(self, key: Hashable, title: str, make_job: Callable[[], WorkerJob]) -> None:
        """Put a job at the end. ``make_job`` is called when its turn comes, so that what it needs is written only then.

        Raises:
            ValueError: ``key`` is in the queue already.
        """
        if self.position(key) is not None:
            raise ValueError(f"{key!r} is in the queue already")
        if self._current is None and not self._pending:
            self._finished = 0
        self._pending.append(_Entry(key, title, make_job))

    def cancel(self, key: Hashable) -> None:
        """Take the job off the queue, or stop it if it runs; returns at once. An unknown key is passed over."""
        if self._current is not None and self._current.key == key:
            if self._current.job is not None:
                self._current.job.cancel()
            else:
                # make_job let the application handle a click on Cancel: _start() drops what it returns.
                self._end(self._current, CANCELLED)
            return
        for entry in [entry for entry in self._pending if entry.key == key]:
            self._pending.remove(entry)
            self._end(entry, CANCELLED)

    def cancel_all(self) -> None:
        """Cancel what runs and what waits; returns at once."""
        for key, _ in self.pending:
            self.cancel(key)
        if self._current is not None:
            self.cancel(self._current.key)

    def tick(self) -> list[Event]:
        """Start the next job where none runs; return what happened since the last call, as (key, event)."""
        # make_job may let the application handle its events, and so this timer's.
        if self._ticking:
            return []
        self._ticking = True
        try:
            if self._current is None and self._pending:
                self._start(self._pending.pop(0))
            self._poll()
        finally:
            self._ticking = False
        events, self._outbox = self._outbox, []
        return events

    def close(self) -> None:
        """End everything now, for when the application quits."""
        self._pending.clear()
        if self.current_job is not None:
            self.current_job.close()
        self._current = None
        self._outbox.clear()

    def _start(self, entry: _Entry) -> None:
        self._current = entry
        try:
            job = entry.make_job()
        except Exception as error:
            # One scan that cannot be exported must not hold up the others.
            if self._current is entry:
                self._end(entry, _error(error))
            return
        if self._current is not entry:
            # Cancelled, or the queue closed, while the job was being made.
            return
        entry.job = job
        self._outbox.append((entry.key, {"event": "started"}))
        try:
            job.start()
        except Exception as error:
            self._end(entry, _error(error))

    def _poll(self) -> None:
        entry = self._current
        if entry is None or entry.job is None:
            return
        try:
            self._outbox += [(entry.key, event) for event in entry.job.poll()]
        except Exception as error:
            with suppress(Exception):
                entry.job.close()
            self._end(entry, _error(error))
            return
        if not entry.job.alive:
            self._finished += 1
            self._current = None

    def _end(self, entry: _Entry, error: JobError) -> None:
        """Tell the end of a job that never ran."""
        self._outbox.append((entry.key, {"event": "error", **error._asdict()}))
        self._finished += 1
        if self._current is entry:
            self._current = None


def _error(error: Exception) -> JobError:
    if isinstance(error, CMBDetectorError):
        return JobError(error.message, error.hint, error.code)
    _logger.error("A job could not be made", exc_info=error)
    said = f"The work could not be started ({type(error).__name__}: {error})."
    return JobError(said, "Report what the application's log says.", "error")
