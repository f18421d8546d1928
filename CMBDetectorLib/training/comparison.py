"""Before and after: the old model and a new one made without them search the same local scans."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np

from CMBDetectorLib.datasets.bids import by_subject
from CMBDetectorLib.evaluation.froc import ScanResult
from CMBDetectorLib.files import atomic_path
from CMBDetectorLib.models.bundle import Bundle
from CMBDetectorLib.progress import Part, Progress
from CMBDetectorLib.training.proposals import places_of, proposals_in
from CMBDetectorLib.training.retraining import LocalCase, Plan, Retrained, retrain

MOST_FOLDS = 5
"""More of them cost minutes; from scratch each fold leaves out exactly as many scans as was asked for."""
_LEAST_BLEEDING = 2  # to learn from one and to validate on another


def comparison_folds(
    ids: Sequence[str], microbleeds: Sequence[int], leave_out: int, seed: int, most: int | None
) -> list[list[int]]:
    """Return the indices of the scans that each fold leaves out: ``leave_out`` of them, or more for ``most`` folds.

    ``ids`` are those of the scans, ``microbleeds`` their counts. All scans of one subject are left out together, as
    long as three subjects have microbleeds. Those with microbleeds are dealt out evenly, and two of them are left to
    each fold to learn from.

    Raises:
        ValueError: fewer than three scans have microbleeds.
    """
    parts = list(by_subject(ids).values())
    if sum(any(microbleeds[index] for index in part) for part in parts) <= _LEAST_BLEEDING:
        parts = [[index] for index in range(len(ids))]
    rng = np.random.default_rng(seed)
    order = [parts[number] for number in rng.permutation(len(parts))]
    bleeding = [part for part in order if any(microbleeds[index] for index in part)]
    clean = [part for part in order if part not in bleeding]
    if len(bleeding) <= _LEAST_BLEEDING:
        raise ValueError("three scans with microbleeds are needed")
    count = max(2, -(-len(ids) // leave_out))
    count = min(count, most or count, len(order))
    while len(bleeding) - -(-len(bleeding) // count) < _LEAST_BLEEDING:
        count += 1
    dealt = bleeding + clean
    return [sorted(chain(*dealt[first::count])) for first in range(count)]


def run_folds(
    local: Sequence[LocalCase],
    folds: Sequence[Sequence[int]],
    start: Bundle,
    plan: Plan,
    work: Path,
    progress: Progress,
) -> tuple[list[ScanResult], list[ScanResult]]:
    """Return what the old model and the new one find in each scan, in the order of the folds.

    The new one is made anew for each fold, without the scans left out. ``work`` keeps a folder a fold; what is there is
    not done again.
    """
    old, new = [], []
    for number, left_out in enumerate(folds):
        held = [local[index] for index in left_out]
        rest = [known for index, known in enumerate(local) if index not in left_out]
        folder = work / f"fold-{number + 1:02d}"
        progress.log(f"Comparison {number + 1} of {len(folds)}: without {', '.join(k.case.id for k in held)}")
        fold = _Fold(rest, start, plan, folder, Part(progress, "comparison", number, len(folds)))
        for known in held:
            truth = known.case.microbleeds_ras
            old.append(ScanResult(known.case.id, places_of(known.case, known.proposals), known.scores, truth))
            new.append(ScanResult(known.case.id, *fold.search(known), truth))
        progress.report("comparison", number + 1, len(folds))
    return old, new


class _Fold:
    """Networks made without some scans, once they are needed."""

    def __init__(self, rest: Sequence[LocalCase], start: Bundle, plan: Plan, folder: Path, progress: Progress) -> None:
        self._rest, self._start, self._plan = rest, start, plan
        self._folder, self._progress = folder, progress

    @cached_property
    def _networks(self) -> Retrained:
        return retrain(self._rest, self._start, self._plan, self._folder, self._progress)

    def search(self, known: LocalCase) -> tuple[np.ndarray, np.ndarray]:
        """Return the candidates (n, 3; RAS mm) and final scores (n,) that they give to a scan left out."""
        path = self._folder / "found" / f"{known.case.id}.npz"
        try:
            with np.load(path, allow_pickle=False) as saved:
                return saved["ras"], saved["scores"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            pass
        found, scores = known.proposals, known.scores
        if any(network.is_new for network in self._networks.unets):
            found = proposals_in(self._networks.detector, known.case, self._plan.settings.mimic_threshold)
        if self._networks.is_new:
            scores = self._networks.detector.discriminate(
                np.asarray(known.case.image, np.float32), found.ijk, found.likelihood
            )
        ras = places_of(known.case, found)
        with atomic_path(path) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, ras=ras, scores=scores)
        return ras, scores
