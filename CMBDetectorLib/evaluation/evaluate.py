"""Detections of datasets against their annotations: FROC of both stages, groups, each scan, each missed microbleed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from CMBDetectorLib.candidate import Detection, read_detection
from CMBDetectorLib.datasets.bids import Case, Point
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.evaluation.by_dataset import DatasetFigures, by_dataset, dataset_table
from CMBDetectorLib.evaluation.froc import Froc, ScanResult, froc
from CMBDetectorLib.evaluation.groups import Group, HitScan, by_group, group_table
from CMBDetectorLib.evaluation.matching import Match, match
from CMBDetectorLib.progress import Progress


@dataclass(frozen=True)
class ScanSummary:
    """Counts of one scan: at the threshold its detection was shown with (``shown``, ...) and of all candidates."""

    case_id: str
    microbleeds: int
    candidates: int
    shown: int
    found: int
    false_positives: int
    found_by_any: int


@dataclass(frozen=True)
class Missed:
    """A microbleed that no shown candidate hit: where (RAS mm), and the scores of the hidden candidate that did.

    ``score`` and ``stage1_score`` are ``None`` where stage 1 never proposed it.
    """

    case_id: str
    ras_mm: tuple[float, float, float]
    stage1_score: float | None
    score: float | None


@dataclass(frozen=True)
class Evaluation:
    """The FROC by the final score and by the stage-1 score, each scan, each missed microbleed, and the models used.

    ``groups`` are those of the microbleeds by the final score; ``datasets`` is empty where there is only one.
    """

    final: Froc
    stage1: Froc
    scans: list[ScanSummary]
    missed: list[Missed]
    models: list[dict[str, Any]]
    groups: list[Group] = field(default_factory=list)
    datasets: list[DatasetFigures] = field(default_factory=list)

    def text(self) -> str:
        """Return the operating points, the groups and the datasets as text for a terminal."""
        parts = [self.final.table()]
        if self.groups:
            parts.append(group_table(self.groups))
        if self.datasets:
            parts.append(dataset_table(self.datasets))
        return "\n\n".join(parts)


@dataclass(frozen=True)
class Predicted:
    """A dataset and the folder of its predictions, ``predictions/<case id>/candidates.json``."""

    name: str
    cases: Sequence[Case]
    predictions: Path


def evaluate(cases: Sequence[Case], predictions: Path | str, progress: Progress) -> Evaluation:
    """Compare ``predictions/<case id>/candidates.json`` with the annotations of ``cases``; nothing is written.

    Cases without an annotation list are left out, and the user is told.

    Raises:
        BadInputError: no case is annotated, a prediction is missing or damaged, or an annotation is.
    """
    return evaluate_datasets([Predicted("", cases, Path(predictions))], progress)


def evaluate_datasets(datasets: Sequence[Predicted], progress: Progress) -> Evaluation:
    """Do the same for several datasets at once; each case id then begins with the name of its dataset.

    Raises:
        BadInputError: as :func:`evaluate`, of any of the datasets.
    """
    progress.plan([("reading the predictions", 3), ("computing the FROC", 1)])
    work: dict[str, tuple[str, Case, Path]] = {}
    for dataset in datasets:
        prefix = f"{dataset.name}_" if len(datasets) > 1 else ""
        for case, file in _files(dataset, progress):
            work[prefix + case.id] = (dataset.name, case, file)
    detections, truths = {}, {}
    for case_id in progress.track(work, "reading the predictions"):
        _, case, file = work[case_id]
        detections[case_id] = read_detection(file)
        truths[case_id] = case.annotations()
    progress.report("computing the FROC", 0, 1)
    names = {case_id: entry[0] for case_id, entry in work.items()} if len(datasets) > 1 else None
    evaluation = compare(detections, truths, datasets=names)
    progress.report("computing the FROC", 1, 1)
    return evaluation


def _files(dataset: Predicted, progress: Progress) -> list[tuple[Case, Path]]:
    """Return each annotated case with its prediction, having checked that it is there."""
    cases, predictions = dataset.cases, dataset.predictions
    of = f" of {dataset.name}" if dataset.name else ""
    annotated = [case for case in cases if case.is_annotated]
    if not annotated:
        raise BadInputError(
            f"None of the scans{of} has a list of microbleeds to compare with.",
            "Put *_desc-cmb_points.tsv files under derivatives/cmbdetector; one without rows says: no microbleeds.",
        )
    if left_out := len(cases) - len(annotated):
        progress.log(f"{left_out} of {len(cases)} scans{of} have no list of microbleeds and are left out.")
    files = {case.id: predictions / case.id / "candidates.json" for case in annotated}
    absent = [case_id for case_id, file in files.items() if not file.is_file()]
    if absent:
        more = f" and {len(absent) - 10} more" if len(absent) > 10 else ""
        raise BadInputError(
            f"{predictions} lacks the candidates of {len(absent)} of {len(files)} scans: "
            f"{', '.join(absent[:10])}{more}.",
            "Run the detection of each scan into a folder <predictions>/<scan id>, for instance sub-01.",
        )
    return [(case, files[case.id]) for case in annotated]


def compare(
    detections: Mapping[str, Detection],
    truths: Mapping[str, np.ndarray | Sequence[Point]],
    seed: int = 0,
    datasets: Mapping[str, str] | None = None,
) -> Evaluation:
    """Return the evaluation of ``detections`` against ``truths``, both by case id.

    ``truths`` are positions (m, 3) in RAS mm, or points whose properties are known and make groups; ``seed`` is that
    of the bootstrap intervals, ``datasets`` the name of the dataset of each case where there are several.
    """
    final, stage1, scans, missed, hit = [], [], [], [], []
    models: list[dict[str, Any]] = []
    for case_id, detection in detections.items():
        points = [t if isinstance(t, Point) else Point(tuple(map(float, t))) for t in truths[case_id]]
        truth = np.array([point.ras_mm for point in points], dtype=float).reshape(-1, 3)
        places = np.array([c.ras_mm for c in detection.candidates], dtype=float).reshape(-1, 3)
        scores = np.array([c.score for c in detection.candidates], dtype=float)
        first = np.array([c.stage1_score for c in detection.candidates], dtype=float)
        final.append(ScanResult(case_id, places, scores, truth))
        stage1.append(ScanResult(case_id, places, first, truth))
        found = match(places, scores, truth)
        # Index -1, no candidate, takes the value put at the end.
        hit.append(HitScan(points, np.append(scores, -np.inf)[found.candidate], case_id))
        summary, misses = _scan(case_id, detection, scores, truth, found)
        scans.append(summary)
        missed.extend(misses)
        if detection.model not in models:
            models.append(detection.model)
    curve = froc(final, seed)
    groups = by_group(hit, curve, seed)
    figures = by_dataset(final, datasets, curve) if datasets else []
    return Evaluation(curve, froc(stage1, seed), scans, missed, models, groups, figures)


def _scan(
    case_id: str, detection: Detection, scores: np.ndarray, truth: np.ndarray, found: Match
) -> tuple[ScanSummary, list[Missed]]:
    shown = scores >= float(detection.settings["threshold"])
    misses = []
    for position, index in zip(truth, found.candidate, strict=True):
        if index < 0 or not shown[index]:
            hidden = detection.candidates[index] if index >= 0 else None
            misses.append(
                Missed(
                    case_id,
                    tuple(float(v) for v in position),
                    hidden.stage1_score if hidden else None,
                    hidden.score if hidden else None,
                )
            )
    summary = ScanSummary(
        case_id,
        len(truth),
        len(scores),
        int(shown.sum()),
        int((found.is_hit & shown).sum()),
        int((~found.is_hit & shown).sum()),
        int(found.is_hit.sum()),
    )
    return summary, misses
