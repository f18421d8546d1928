"""Leave-N-out cross-validation: each scan is judged by networks that never saw it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import CMBDetectorLib
from CMBDetectorLib.candidate import Detection, read_detection, write_detection
from CMBDetectorLib.datasets.bids import by_subject
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.models.bundle import Bundle
from CMBDetectorLib.progress import Part, Progress
from CMBDetectorLib.training.bundles import train_networks
from CMBDetectorLib.training.cases import PreparedCase
from CMBDetectorLib.training.settings import TrainingSettings


def make_folds(ids: Sequence[str], leave_out: int, seed: int) -> list[list[int]]:
    """Return the indices of the cases ``ids`` that are left out in each fold: ``leave_out``, fewer in the last one.

    All scans of one subject are left out together, which may be more: networks that knew a subject's first session
    would be judged too well on the second.

    Raises:
        BadInputError: nothing would be left to train on.
    """
    scans_of = by_subject(ids)
    subjects = list(scans_of.values())
    folds: list[list[int]] = []
    for number in np.random.default_rng(seed).permutation(len(subjects)):
        if not folds or len(folds[-1]) >= leave_out:
            folds.append([])
        folds[-1] += subjects[number]
    if leave_out < 1 or len(folds) < 2:
        raise BadInputError(
            f"Leaving out {leave_out} of {len(ids)} scans ({len(subjects)} subjects) leaves nothing to train on.",
            "Choose --leave-out between 1 and the number of scans less 1; it takes two subjects.",
        )
    return [sorted(fold) for fold in folds]


def crossvalidate(
    cases: Sequence[PreparedCase],
    settings: TrainingSettings,
    leave_out: int,
    work: Path,
    progress: Progress,
    start: Bundle | None = None,
) -> dict[str, Detection]:
    """Return the detections (case id -> candidates) of each case by networks trained without it, from ``start`` on.

    ``work`` keeps a folder for each fold and ``predictions/<case id>/candidates.json``; what is there already is not
    done again.

    Raises:
        BadInputError: too few cases, training scans of a fold without a microbleed, or a work folder of another run.
    """
    folds = make_folds([case.id for case in cases], leave_out, settings.seed)
    for left_out in folds:
        _check_fold(cases, left_out)
    detections: dict[str, Detection] = {}
    for number, left_out in enumerate(folds):
        part = Part(progress, "folds", number, len(folds))
        held = [cases[index] for index in left_out]
        paths = [_prediction(work, case) for case in held]
        if not all(path.is_file() for path in paths):
            progress.log(f"fold {number + 1} of {len(folds)}: leaving out {', '.join(case.id for case in held)}")
            training = [case for index, case in enumerate(cases) if index not in left_out]
            _run_fold(training, held, settings, work / f"fold-{number + 1:02d}", paths, part, start)
        detections.update({case.id: read_detection(path) for case, path in zip(held, paths, strict=True)})
        progress.report("folds", number + 1, len(folds))
    return detections


def _check_fold(cases: Sequence[PreparedCase], left_out: Sequence[int]) -> None:
    """Refuse a fold that teaches nothing before hours have gone into those before it."""
    if not any(len(case.microbleeds_ras) for index, case in enumerate(cases) if index not in left_out):
        names = ", ".join(cases[index].id for index in left_out)
        raise BadInputError(
            f"Without {names} no microbleed is left to learn from.", "Leave out fewer scans, or annotate more."
        )


def collect(work: Path, folder: Path) -> None:
    """Copy what a finished run leaves behind into ``folder``: ``predictions/`` and each fold's ``mimics/``."""
    shutil.copytree(work / "predictions", folder / "predictions")
    for fold in sorted(work.glob("fold-*")):
        shutil.copytree(fold / "mimics", folder / "mimics" / fold.name)


def _run_fold(
    training: Sequence[PreparedCase],
    held: Sequence[PreparedCase],
    settings: TrainingSettings,
    folder: Path,
    paths: Sequence[Path],
    progress: Progress,
    start: Bundle | None,
) -> None:
    trained = train_networks(training, settings, folder, progress, start)
    detector = trained.detector
    for case, path in zip(held, paths, strict=True):
        image = case.volume
        # From the mining threshold on, so that the curve reaches beyond the operating point.
        found = detector.detect(image, case.mask_volume, settings.mimic_threshold)
        model: dict[str, Any] = {
            "name": folder.name,
            "version": CMBDetectorLib.__version__,
            "checksum": "",
            "licence": "",
            "training_data": f"Trained on {len(training)} scans of this dataset without {case.id}.",
        }
        scan = {"id": case.id, **case.source}
        shown = {"threshold": trained.shown_threshold, "stage1_threshold": settings.mimic_threshold}
        write_detection(path, Detection(scan, model, {**shown, "inference": "dense"}, found.candidates))


def _prediction(work: Path, case: PreparedCase) -> Path:
    return work / "predictions" / case.id / "candidates.json"
