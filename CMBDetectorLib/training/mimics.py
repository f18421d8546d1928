"""Mimics: what stage 1 takes for a microbleed and is none, one file per scan, the negatives of stage 2."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from CMBDetectorLib.datasets.bids import Point, read_points, write_points
from CMBDetectorLib.detection.detector import Detector
from CMBDetectorLib.progress import Progress
from CMBDetectorLib.training.cases import PreparedCase
from CMBDetectorLib.training.proposals import hits_in, mined_in, propose


def mine_mimics(
    detector: Detector, case: PreparedCase, threshold: float, work: Path, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mimics of ``case`` and the hits, voxel positions (n, 3) and (m, 3) of its image.

    Both are candidates of stage 1 at or above ``threshold``: :func:`mined_in`, :func:`hits_in`. The mimics are written
    to ``work/mimics``, in RAS mm. What stage 1 proposes is kept in ``work/proposals``: to search a scan is the slow
    part of a resumed run.
    """
    found = propose(detector, case, threshold, work / "proposals" / f"{case.id}.npz", progress)
    mimics = mined_in(case, found)
    source = f"stage 1 at {threshold:g}"
    rows = [Point(tuple(float(v) for v in ras), source=source) for ras in case.grid.to_ras(mimics)]
    write_points(_file(work / "mimics", case), rows, mimics=True)
    return mimics, hits_in(case, found)


def known_mimics(case: PreparedCase, folder: Path) -> np.ndarray:
    """Return the mimics of ``case`` that a training has mined into ``folder``, voxel positions (n, 3) of its image."""
    points = read_points(_file(folder, case))
    return case.grid.to_ijk(np.array([p.ras_mm for p in points]).reshape(-1, 3))


def _file(folder: Path, case: PreparedCase) -> Path:
    return folder / f"{case.id}_desc-mimic_points.tsv"
