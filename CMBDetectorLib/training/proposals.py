"""What stage 1 proposes in a scan, kept on disk: a retraining of stage 2 alone computes it once a scan."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from CMBDetectorLib.detection.candidates import find_peaks
from CMBDetectorLib.detection.detector import Detector
from CMBDetectorLib.evaluation.matching import HIT_RADIUS_MM
from CMBDetectorLib.files import atomic_path
from CMBDetectorLib.progress import Progress
from CMBDetectorLib.training.cases import PreparedCase
from CMBDetectorLib.training.patches import relative_distance

_MOST_MINED = 400
"""The surest mistakes of a scan; more of them add time, and drown what a reader has rejected and the microbleeds
of a small dataset."""
BESIDE_MM = 2.5
"""So far from the centre of a microbleed a candidate is another one, or none; more than stage 1 is usually off."""
_SAME_PLACE_MM = 3.0
"""Nearer than this a rejected place is the same lesion found twice, or a mined one the same mimic."""


@dataclass(frozen=True)
class Proposals:
    """Candidates of stage 1 by falling likelihood: voxel positions ``ijk`` (n, 3), ``likelihood`` (n,)."""

    ijk: np.ndarray
    likelihood: np.ndarray


def propose(detector: Detector, case: PreparedCase, threshold: float, path: Path, progress: Progress) -> Proposals:
    """Return what stage 1 of ``detector`` proposes in ``case`` at ``threshold`` or more, as a detection does.

    Where ``path`` (.npz) exists it is read instead; one that is damaged is made anew.
    """
    known = _read(path)
    if known is not None:
        return known
    found = proposals_in(detector, case, threshold, progress)
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, ijk=found.ijk, likelihood=found.likelihood)
    return found


def proposals_in(
    detector: Detector, case: PreparedCase, threshold: float, progress: Progress | None = None
) -> Proposals:
    """Return what stage 1 of ``detector`` proposes in ``case`` at ``threshold`` or more."""
    image = case.volume
    likelihood = detector.likelihood(image, case.mask_volume, "dense", progress)
    peaks = find_peaks(likelihood.array, image.spacing, threshold, case.stored_mm)
    return Proposals(peaks.ijk, peaks.likelihood)


def places_of(case: PreparedCase, found: Proposals) -> np.ndarray:
    """Return the positions of ``found`` as RAS mm (n, 3) of the scan."""
    return case.grid.to_ras(found.ijk)


def mined_in(case: PreparedCase, found: Proposals) -> np.ndarray:
    """Return the surest of ``found`` that are no microbleed of ``case``, as voxel positions (n, 3).

    They would hit none, or lie :data:`BESIDE_MM` or more beside one that another of ``found`` is nearer to: candidates
    of which only one can be right, so that stage 2 has to tell the centre of a microbleed from its surroundings.
    """
    apart, beside = (
        relative_distance(found.ijk, case.microbleeds, case.grid.spacing, case.stored_mm, radius) > 1
        for radius in (HIT_RADIUS_MM, BESIDE_MM)
    )
    beside[_nearest(case, found)[0]] = False
    return found.ijk[apart | beside][:_MOST_MINED]


def hits_in(case: PreparedCase, found: Proposals) -> np.ndarray:
    """Return for each microbleed of ``case`` that ``found`` hits the nearest of them, as voxel positions (n, 3).

    They are up to some millimetres off: microbleeds as stage 2 meets them.
    """
    nearest, distance_mm = _nearest(case, found)
    return found.ijk[nearest[distance_mm <= HIT_RADIUS_MM]]


def _nearest(case: PreparedCase, found: Proposals) -> tuple[np.ndarray, np.ndarray]:
    """Return for each microbleed of ``case`` the number of the nearest of ``found`` and its distance in mm."""
    if not len(case.microbleeds) or not len(found.ijk):
        return np.zeros(0, int), np.zeros(0)
    spacing = np.array(case.grid.spacing)
    distance_mm, nearest = cKDTree(found.ijk * spacing).query(case.microbleeds * spacing)
    return nearest, distance_mm


def mimics_of(
    case: PreparedCase, proposals: Proposals, scores: np.ndarray, rejected_ras: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mimics of ``case`` as voxel positions (n, 3) and how far each deceives the model (n,).

    They are ``rejected_ras`` (m, 3; RAS mm) by a reader, and what :func:`mined_in` finds among ``proposals``.
    ``scores`` are the model's final ones of its proposals; a rejected place that is none has 0.
    """
    spacing = np.array(case.grid.spacing)
    rejected = _farther(case.grid.to_ijk(np.reshape(rejected_ras, (-1, 3))), case.microbleeds, spacing)
    mimics = np.concatenate([rejected, _farther(mined_in(case, proposals), rejected, spacing)])
    if not len(mimics) or not len(proposals.ijk):
        return mimics, np.zeros(len(mimics))
    distance, nearest = cKDTree(proposals.ijk * spacing).query(mimics * spacing)
    return mimics, np.where(distance <= _SAME_PLACE_MM, np.asarray(scores, float)[nearest], 0.0)


def _farther(ijk: np.ndarray, others: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Return those of ``ijk`` (n, 3) that are another place than each of ``others`` (m, 3)."""
    if not len(ijk) or not len(others):
        return ijk
    distance, _ = cKDTree(others * spacing).query(ijk * spacing)
    return ijk[distance > _SAME_PLACE_MM]


def _read(path: Path) -> Proposals | None:
    try:
        with np.load(path, allow_pickle=False) as saved:
            return Proposals(saved["ijk"], saved["likelihood"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
