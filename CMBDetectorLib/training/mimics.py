"""Mimics: what stage 1 takes for a microbleed and is none, one file per scan, the negatives of stage 2."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from CMBDetectorLib.datasets.bids import Point, read_points, write_points
from CMBDetectorLib.detection.detector import Detector
from CMBDetectorLib.evaluation.matching import HIT_RADIUS_MM
from CMBDetectorLib.progress import Progress
from CMBDetectorLib.training.cases import PreparedCase
from CMBDetectorLib.training.proposals import mined_in, proposals_in


def mine_mimics(detector: Detector, case: PreparedCase, threshold: float, path: Path, progress: Progress) -> np.ndarray:
    """Return the mimics of ``case`` as voxel positions (n, 3) of its image, and write them to ``path`` in RAS mm.

    A mimic is a candidate of stage 1 at or above ``threshold`` farther than the hit radius from every microbleed.
    Where ``path`` exists it is read instead: mining a scan is the slow part of a resumed run.
    """
    if path.is_file():
        return case.grid.to_ijk(np.array([p.ras_mm for p in read_points(path)], float).reshape(-1, 3))
    mimics = mined_in(case, proposals_in(detector, case, threshold, progress))
    source = f"stage 1 at {threshold:g}, farther than {HIT_RADIUS_MM:g} mm from a microbleed"
    rows = [Point(tuple(float(v) for v in ras), source=source) for ras in case.grid.to_ras(mimics)]
    write_points(path, rows, mimics=True)
    return mimics


def known_mimics(case: PreparedCase, folder: Path) -> np.ndarray:
    """Return the mimics of ``case`` that a training has mined into ``folder``, voxel positions (n, 3) of its image."""
    points = read_points(folder / f"{case.id}_desc-mimic_points.tsv")
    return case.grid.to_ijk(np.array([p.ras_mm for p in points]).reshape(-1, 3))
