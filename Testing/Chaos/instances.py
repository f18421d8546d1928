"""Two programs at once on one review, one dataset and one registry: one waits or is told, and nobody's work is lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import forks
import samples
from outcome import Chaos, Outcome
from reviews import KEY, Clock

from CMBDetectorLib.datasets.local import list_scans
from CMBDetectorLib.errors import CMBDetectorError, OutputError
from CMBDetectorLib.models.registry import Registry
from CMBDetectorLib.review.log import ReviewLog, find_reviews, read_review, resume

_TRIES = 8


def at_once(chaos: Chaos) -> Outcome:
    """Two processes that do the same at the same time, again and again."""
    outcome = Outcome("two instances at once: review, dataset, models")
    chance, top = chaos.random("instances"), chaos.place("instances")
    sources = samples.make_models(top)
    for number in range(chaos.times(24)):
        outcome.tries += 1
        folder, seed = top / f"{number}", chance.randrange(1 << 30)
        pair = [_reviews, _datasets, _registries][number % 3]
        works, look = pair(folder, seed, sources)
        # Threads that only wait: each has a copy of this process that works.
        with ThreadPoolExecutor(2) as pool:
            ended = list(pool.map(forks.run, works))
        for end in ended:
            outcome.check(not end.error and not end.hung, f"an error: {end.error[-600:]}")
        after = forks.run(lambda say, f=look, e=ended: f([end.value for end in e]))
        outcome.check(not after.error, f"the next run fails: {after.error[-600:]}")
        outcome.losses += after.value or []
    return outcome


def _reviews(folder: Path, seed: int, sources: list[Path]):
    """Both go on with one review: each has it alone for a time, or is told that it is open."""
    with ReviewLog.create(folder, KEY, samples.new_review(), Clock()):
        pass

    def work(name: str):
        def act(say) -> list:
            kept = []
            for turn in range(12):
                try:
                    review, log = resume(find_reviews(folder, KEY)[0].path)
                except OutputError as error:
                    if "another window" not in error.message:
                        raise
                    continue
                review.changed.append(log.append)
                added = review.add([float(turn), 100.0 if name == "one" else 200.0, 0.0])
                log.close()
                kept.append(added.id)
            return kept

        return act

    def look(kept: list) -> list[str]:
        there = {finding.id for finding in read_review(find_reviews(folder, KEY)[0].path).findings}
        gone = {key for keys in kept for key in keys or []} - there
        return [f"{len(gone)} verdicts of two instances are gone"] if gone else []

    return [work("one"), work("two")], look


def _datasets(folder: Path, seed: int, sources: list[Path]):
    """Both export, one scan in common."""

    def work(numbers: tuple[int, ...]):
        def act(say) -> None:
            for round_ in range(3):
                for number in numbers:
                    samples.export(folder, number, round_ % 2 + 1)

        return act

    def look(_: list) -> list[str]:
        listed = [(scan.trains, scan.microbleeds, scan.mimics) for scan in list_scans(folder)]
        lost = [] if listed == [(True, 1, 1)] * 3 else [f"two exports at once gave {listed}"]
        return lost + samples.losses_of_a_dataset(folder, [("done", number, 1) for number in range(3)])

    return [work((0, 1)), work((1, 2))], look


def _registries(folder: Path, seed: int, sources: list[Path]):
    """Both install, activate, roll back and remove as chance has it."""

    def work(part: int):
        def act(say) -> None:
            samples.host_of_a_registry(folder, sources, seed + part, _TRIES)(lambda said: None)

        return act

    def look(_: list) -> list[str]:
        models, lost = Registry(folder), []
        for version in models.versions():
            if version.problem is not None:
                lost.append(f"{version.reference}: {version.problem}")
            elif not version.is_bundled:
                models.load(version.reference)
        try:
            models.load()
        except CMBDetectorError as error:
            lost.append(f"the active model is unusable: {error.message}")
        return lost

    return [work(1), work(2)], look
