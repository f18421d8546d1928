"""A clock that is set back while somebody reviews, exports and activates: order is told by numbers, not by times."""

from __future__ import annotations

import datetime
import time
from pathlib import Path

import forks
import samples
from outcome import Chaos, Outcome
from reviews import KEY

from CMBDetectorLib.review.log import ReviewLog, read_review
from CMBDetectorLib.review.review import Review

_STEP_S = 3600.0


def set_back(chaos: Chaos) -> Outcome:
    """The time jumps back by an hour whenever somebody looks at it, and once to 1970."""
    outcome = Outcome("clock set back: review, dataset, models")
    chance, top = chaos.random("clock"), chaos.place("clock")
    sources = samples.make_models(top)
    works = [_review, _dataset, lambda folder, seed: _registry(folder, seed, sources)]
    for number in range(chaos.times(12)):
        outcome.tries += 1
        seed, work = chance.randrange(1 << 30), works[number % len(works)]
        start = 0.0 if number >= 9 else time.time()
        ended = forks.run(lambda say, w=work, n=number, s=seed, b=start: _with_a_bad_clock(
            lambda: w(top / f"{n}", s), b))  # fmt: skip
        outcome.check(not ended.error and not ended.hung, f"an error: {ended.error[-600:]}")
        outcome.losses += ended.value or []
    return outcome


def _with_a_bad_clock(work, start: float) -> list[str]:
    """Run ``work`` with clocks that go back by an hour a look; only in a process that ends after it."""
    now = start + 1000 * _STEP_S

    def look() -> float:
        nonlocal now
        now -= _STEP_S
        return now

    class BackwardDatetime(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(look(), tz)

    time.time, datetime.datetime = look, BackwardDatetime
    first, second = datetime.datetime.now(), datetime.datetime.now()
    if not second < first:
        return ["the clock does not go back: this test shows nothing"]
    return work()


def _review(folder: Path, seed: int) -> list[str]:
    review = Review(samples.new_review().detection, "Dr A")
    log = ReviewLog.create(folder, KEY, review)
    review.changed.append(log.append)
    for part in range(3):
        for act in samples.changes(seed + part, 10):
            act(review)
        log.close()
        if read_review(log.path).findings != review.findings:
            return [f"after sitting {part} the review is another one"]
        found = samples.find_reviews(folder, KEY)
        review, log = samples.resume(found[0].path)
        review.changed.append(log.append)
    log.close()
    return []


def _dataset(folder: Path, seed: int) -> list[str]:
    said = []
    for number, count in ((0, 1), (1, 1), (0, 2), (1, 2), (0, 1)):
        samples.export(folder, number, count)
        said.append(("done", number, count))
    return samples.losses_of_a_dataset(folder, said)


def _registry(folder: Path, seed: int, sources: list[Path]) -> list[str]:
    said: list = []
    samples.host_of_a_registry(folder, sources, seed, 12)(said.append)
    return samples.losses_of_a_registry(folder, sources, said)
