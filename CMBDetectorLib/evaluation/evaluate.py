"""Detections of a dataset against its annotations: FROC of both stages, each scan, each missed microbleed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from CMBDetectorLib.candidate import Detection, read_detection
from CMBDetectorLib.datasets.bids import Case
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.evaluation.froc import Froc, ScanResult, froc
from CMBDetectorLib.evaluation.matching import match
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
    """The FROC by the final score and by the stage-1 score, each scan, each missed microbleed, and the models used."""

    final: Froc
    stage1: Froc
    scans: list[ScanSummary]
    missed: list[Missed]
    models: list[dict[str, Any]]


def evaluate(cases: Sequence[Case], predictions: Path | str, progress: Progress) -> Evaluation:
    """Compare ``predictions/<case id>/candidates.json`` with the annotations of ``cases``; nothing is written.

    Cases without an annotation list are left out, and the user is told.

    Raises:
        BadInputError: no case is annotated, a prediction is missing or damaged, or an annotation is.
    """
    predictions = Path(predictions)
    progress.plan([("reading the predictions", 3), ("computing the FROC", 1)])
    annotated = [case for case in cases if case.is_annotated]
    if not annotated:
        raise BadInputError(
            "None of the scans has a list of microbleeds to compare with.",
            "Put *_desc-cmb_points.tsv files under derivatives/cmbdetector; one without rows says: no microbleeds.",
        )
    if left_out := len(cases) - len(annotated):
        progress.log(f"{left_out} of {len(cases)} scans have no list of microbleeds and are left out.")
    files = {case.id: predictions / case.id / "candidates.json" for case in annotated}
    absent = [case_id for case_id, file in files.items() if not file.is_file()]
    if absent:
        more = f" and {len(absent) - 10} more" if len(absent) > 10 else ""
        raise BadInputError(
            f"{predictions} lacks the candidates of {len(absent)} of {len(files)} scans: "
            f"{', '.join(absent[:10])}{more}.",
            "Run the detection of each scan into a folder <predictions>/<scan id>, for instance sub-01.",
        )
    detections, truths = {}, {}
    for case in progress.track(annotated, "reading the predictions"):
        detections[case.id] = read_detection(files[case.id])
        truths[case.id] = case.microbleeds()
    progress.report("computing the FROC", 0, 1)
    evaluation = compare(detections, truths)
    progress.report("computing the FROC", 1, 1)
    return evaluation


def compare(detections: Mapping[str, Detection], truths: Mapping[str, np.ndarray], seed: int = 0) -> Evaluation:
    """Return the evaluation of ``detections`` against ``truths`` (m, 3) in RAS mm, both by case id.

    ``seed`` is that of the bootstrap intervals.
    """
    final, stage1, scans, missed = [], [], [], []
    models: list[dict[str, Any]] = []
    for case_id, detection in detections.items():
        truth = np.asarray(truths[case_id], dtype=float).reshape(-1, 3)
        places = np.array([c.ras_mm for c in detection.candidates], dtype=float).reshape(-1, 3)
        scores = np.array([c.score for c in detection.candidates], dtype=float)
        first = np.array([c.stage1_score for c in detection.candidates], dtype=float)
        final.append(ScanResult(case_id, places, scores, truth))
        stage1.append(ScanResult(case_id, places, first, truth))
        summary, misses = _scan(case_id, detection, places, scores, truth)
        scans.append(summary)
        missed.extend(misses)
        if detection.model not in models:
            models.append(detection.model)
    return Evaluation(froc(final, seed), froc(stage1, seed), scans, missed, models)


def _scan(
    case_id: str, detection: Detection, places: np.ndarray, scores: np.ndarray, truth: np.ndarray
) -> tuple[ScanSummary, list[Missed]]:
    found = match(places, scores, truth)
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
