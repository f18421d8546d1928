"""How long work tells what it is doing, without knowing who listens (terminal, event stream, nobody)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


class Progress:
    """Progress of one command, made of weighted stages. This base class listens to itself and shows nothing.

    Listeners override :meth:`show` and :meth:`log`. Work calls :meth:`plan` once with all its stages, then
    :meth:`report` or :meth:`track` inside each stage, in that order. :meth:`report` is also where listeners may raise
    :class:`~CMBDetectorLib.errors.Cancelled`.
    """

    def __init__(self) -> None:
        self._stages: list[tuple[str, float]] = []
        self._fraction = 0.0
        self._stage_started: dict[str, float] = {}
        self._stage_ended: dict[str, float] = {}

    def plan(self, stages: Sequence[tuple[str, float]]) -> None:
        """Announce ``stages``: name and relative weight (expected duration in any unit) of each, in order."""
        self._stages = list(stages)
        self._fraction = 0.0

    def report(self, stage: str, step: int = 0, steps: int = 0) -> None:
        """Say that ``step`` of ``steps`` of ``stage`` is done (0 of 0: begun, length unknown)."""
        now = time.monotonic()
        self._stage_started.setdefault(stage, now)
        self._stage_ended[stage] = now
        total = sum(weight for _, weight in self._stages)
        done = 0.0
        for name, weight in self._stages:
            if name == stage:
                done += weight * (step / steps if steps else 0.0)
                # A stage that is reported again (one fold after another) never moves the bar back.
                self._fraction = max(self._fraction, done / total) if total else self._fraction
                break
            done += weight
        self.show(stage, step, steps, self._fraction)

    def track(self, items: Iterable[T], stage: str, steps: int | None = None) -> Iterator[T]:
        """Iterate over ``items`` while reporting each as one step of ``stage``."""
        count = steps if steps is not None else len(items)  # type: ignore[arg-type]
        self.report(stage, 0, count)
        for number, item in enumerate(items, 1):
            yield item
            self.report(stage, number, count)

    def seconds(self) -> dict[str, float]:
        """Return the time between the first and the last report of each stage, in seconds."""
        return {name: round(self._stage_ended[name] - start, 2) for name, start in self._stage_started.items()}

    def show(self, stage: str, step: int, steps: int, fraction: float) -> None:
        """Show one report; ``fraction`` (0..1) is that of the whole command."""

    def log(self, message: str) -> None:
        """Pass on a note for the user: one sentence, no patient data."""

    def epoch(self, network: str, epoch: int, epochs: int, loss: float, validation: float | None = None) -> None:
        """Say that ``epoch`` (1, 2, ...) of ``epochs`` of a network is done; ``validation`` is its loss on other scans.

        Listeners that show no curves pass it on as a note.
        """
        self.log(epoch_words(network, epoch, epochs, loss, validation))


def epoch_words(network: str, epoch: int, epochs: int, loss: float, validation: float | None) -> str:
    """Return what :meth:`Progress.epoch` is told as a note."""
    other = "" if validation is None else f", validation {validation:.4f}"
    return f"{network}: epoch {epoch} of {epochs}, loss {loss:.4f}{other}"


class Part(Progress):
    """A stretch of a longer command: its own stages fill one stage of ``parent``.

    ``stage`` is the parent's stage, ``step`` of ``steps`` the part of it that this work is (scan 3 of 15).
    """

    def __init__(self, parent: Progress, stage: str, step: int = 0, steps: int = 1) -> None:
        super().__init__()
        self._parent, self._stage, self._step, self._steps = parent, stage, step, steps

    def show(self, stage: str, step: int, steps: int, fraction: float) -> None:
        """Report to the parent in thousandths of this part."""
        self._parent.report(self._stage, round(1000 * (self._step + fraction)), 1000 * self._steps)

    def log(self, message: str) -> None:
        """Hand the note to the parent."""
        self._parent.log(message)

    def epoch(self, network: str, epoch: int, epochs: int, loss: float, validation: float | None = None) -> None:
        """Hand it to the parent."""
        self._parent.epoch(network, epoch, epochs, loss, validation)
