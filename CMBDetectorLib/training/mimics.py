"""Mimics: what stage 1 takes for a microbleed and is none, one file per scan, the negatives of stage 2."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from CMBDetectorLib.datasets.bids import Point, read_points, write_points
from CMBDetectorLib.detection.detector import Detector
from CMBDetectorLib.progress import Progress
from CMBDetectorLib.training.cases import PreparedCase
from CMBDetectorLib.training.proposals import hits_in, mined_in, propose


@dataclass(frozen=True)
class Mined:
    """What stage 2 learns from what stage 1 proposes in one scan: ``mimics`` (n, 3) and ``hits`` of microbleeds (m, 3),
    voxel positions of its image."""

    mimics: np.ndarray
    hits: np.ndarray


def mine_mimics(detector: Detector, case: PreparedCase, threshold: float, work: Path, progress: Progress) -> Mined:
    """Return what stage 1 proposes in ``case`` at or above ``threshold``: :func:`mined_in`, :func:`hits_in`.

    The mimics are written to ``work/mimics``, in RAS mm. What stage 1 proposes is kept in ``work/proposals``: to search
    a scan is the slow part of a resumed run.
    """
    found = propose(detector, case, threshold, work / "proposals" / f"{case.id}.npz", progress)
    mimics = mined_in(case, found)
    source = f"stage 1 at {threshold:g}"
    rows = [Point(tuple(float(v) for v in ras), source=source) for ras in case.grid.to_ras(mimics)]
    write_points(_file(work / "mimics", case), rows, mimics=True)
    return Mined(mimics, hits_in(case, found))


def known_mimics(case: PreparedCase, folder: Path) -> np.ndarray:
    """Return the mimics of ``case`` that a training has mined into ``folder``, voxel positions (n, 3) of its image."""
    points = read_points(_file(folder, case))
    return case.grid.to_ijk(np.array([p.ras_mm for p in points]).reshape(-1, 3))


def _file(folder: Path, case: PreparedCase) -> Path:
    return folder / f"{case.id}_desc-mimic_points.tsv"
