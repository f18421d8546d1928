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
from CMBDetectorLib.training.cases import PreparedCase, prepare_cases
from CMBDetectorLib.training.proposals import places_of, propose
from CMBDetectorLib.training.retraining import scores_of


def ranked(bundle: Bundle, cases: Sequence[Case], work: Path, progress: Progress) -> list[ScanResult]:
    """Return what stage 1 of ``bundle`` proposes in ``cases``, with the final scores.

    ``work`` keeps the preprocessed scans, the proposals (one set for all models with the same stage 1) and the scores:
    nothing is computed twice.
    """
    prepared = prepare_cases(cases, work / "cases", bundle.spacing_mm, "dataset", progress)
    stage1 = work / "proposals" / _fingerprint(bundle, ["unets"])
    both = work / "scores" / _fingerprint(bundle, ["unets", "cnns"])
    return ranked_by(Detector.from_bundle(bundle), prepared, bundle.thresholds["stage1"], stage1, both, progress)


def ranked_by(
    detector: Detector,
    prepared: Sequence[PreparedCase],
    threshold: float,
    proposals: Path,
    scores: Path,
    progress: Progress,
) -> list[ScanResult]:
    """Return what stage 1 of ``detector`` proposes above ``threshold`` in ``prepared``, with the final scores.

    The folders ``proposals`` and ``scores`` keep both, a file a scan: what is there is read, whatever the detector.
    """
    results = []
    for case in prepared:
        found = propose(detector, case, threshold, proposals / f"{case.id}.npz", progress)
        ranks = scores_of(detector, case, found, scores / f"{case.id}.npy")
        results.append(ScanResult(case.id, places_of(case, found), ranks, case.microbleeds_ras))
    return results


def _fingerprint(bundle: Bundle, kinds: Sequence[str]) -> str:
    files = [path.read_bytes() for kind in kinds for path, _ in bundle.networks(kind)]
    return hashlib.sha256(b"".join(files)).hexdigest()[:16]
