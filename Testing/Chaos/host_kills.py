"""kill -9 of the host, the process that records verdicts, exports scans and activates models, at any line or moment."""

from __future__ import annotations

from pathlib import Path

import forks
import samples
from outcome import Chaos, Outcome

_CHANGES, _ROUNDS, _SCANS, _STEPS = 25, 2, 2, 8


def review(chaos: Chaos) -> Outcome:
    """A host that is killed while verdicts are given: each one that was given is on the disk."""
    outcome = Outcome("kill -9 of the host: verdicts into the review log")
    chance, top = chaos.random("review kills"), chaos.place("review-kills")
    seeds = [chance.randrange(1 << 30) for _ in range(4)]
    work = [samples.host_of_a_review(top / f"whole-{seed}", seed, _CHANGES) for seed in seeds]
    tries = chaos.times(100)
    for number in range(4):
        for at in forks.moments(chance, work[number], -(-tries // 4)):
            root = top / f"{outcome.tries}"
            ended = forks.run(samples.host_of_a_review(root, seeds[number], _CHANGES), at)
            kept = ended.said[-1] if ended.said else None
            _judge(outcome, ended, lambda say, n=number, r=root, k=kept: samples.losses_of_a_review(
                r, seeds[n], _CHANGES, k))  # fmt: skip
    return outcome


def dataset(chaos: Chaos) -> Outcome:
    """A host that is killed while reviewed scans are exported: whole as before, whole as after, or said to be half."""
    outcome = Outcome("kill -9 of the host: export to the local dataset")
    chance, top = chaos.random("dataset kills"), chaos.place("dataset-kills")
    work = samples.host_of_a_dataset(top / "whole", _SCANS, _ROUNDS)
    for at in forks.moments(chance, work, chaos.times(40)):
        folder = top / f"{outcome.tries}"
        ended = forks.run(samples.host_of_a_dataset(folder, _SCANS, _ROUNDS), at)
        said = ended.said
        _judge(outcome, ended, lambda say, f=folder, s=said: samples.losses_of_a_dataset(f, s))
    return outcome


def registry(chaos: Chaos) -> Outcome:
    """A host that is killed while models are installed, activated, rolled back and removed."""
    outcome = Outcome("kill -9 of the host: models installed, activated, rolled back, removed")
    chance, top = chaos.random("registry kills"), chaos.place("registry-kills")
    sources = samples.make_models(top)
    tries = chaos.times(40)
    for _ in range(2):
        seed = chance.randrange(1 << 30)
        work = samples.host_of_a_registry(top / f"whole-{seed}", sources, seed, _STEPS)
        for at in forks.moments(chance, work, -(-tries // 2)):
            folder = top / f"registry-{outcome.tries}"
            ended = forks.run(samples.host_of_a_registry(folder, sources, seed, _STEPS), at)
            said = ended.said
            _judge(outcome, ended, lambda say, f=folder, s=said: _registry_losses(f, sources, s))
    return outcome


def _registry_losses(folder: Path, sources: list[Path], said: list) -> list[str]:
    return samples.losses_of_a_registry(folder, sources, said)


def _judge(outcome: Outcome, ended: forks.Ended, look: forks.Work) -> None:
    outcome.tries += 1
    outcome.check(not ended.error and not ended.hung, f"the host failed by itself: {ended.error[-600:]}")
    after = forks.run(look)
    outcome.check(not after.hung, "the next run hangs")
    outcome.check(not after.error, f"the next run fails: {after.error[-600:]}")
    for loss in after.value or []:
        outcome.losses.append(loss)
