"""What a model finds in scans that were kept apart: the steps of a detection, with what they made kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from CMBDetectorLib.datasets.bids import Case
from CMBDetectorLib.detection.detector import Detector
from CMBDetectorLib.evaluation.froc import ScanResult
from CMBDetectorLib.models.bundle import Bundle
from CMBDetectorLib.progress import Progress
from CMBDetectorLib.training.cases import prepare_cases
from CMBDetectorLib.training.proposals import places_of, propose
from CMBDetectorLib.training.retraining import scores_of


def ranked(bundle: Bundle, cases: Sequence[Case], work: Path, progress: Progress) -> list[ScanResult]:
    """Return what stage 1 of ``bundle`` proposes in ``cases``, with the final scores.

    ``work`` keeps the preprocessed scans, the proposals (one set for all models with the same stage 1) and the scores:
    nothing is computed twice.
    """
    detector = Detector.from_bundle(bundle)
    prepared = prepare_cases(cases, work / "cases", bundle.spacing_mm, "dataset", progress)
    stage1 = work / "proposals" / _fingerprint(bundle, ["unets"])
    both = work / "scores" / _fingerprint(bundle, ["unets", "cnns"])
    results = []
    for case in prepared:
        found = propose(detector, case, bundle.thresholds["stage1"], stage1 / f"{case.id}.npz", progress)
        scores = scores_of(detector, case, found, both / f"{case.id}.npy")
        results.append(ScanResult(case.id, places_of(case, found), scores, case.microbleeds_ras))
    return results


def _fingerprint(bundle: Bundle, kinds: Sequence[str]) -> str:
    files = [path.read_bytes() for kind in kinds for path, _ in bundle.networks(kind)]
    return hashlib.sha256(b"".join(files)).hexdigest()[:16]
