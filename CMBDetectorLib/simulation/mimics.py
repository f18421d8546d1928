"""What looks like a microbleed but is none: where the vessels, nuclei and calcified spots of a head can deceive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.spatial import cKDTree

from CMBDetectorLib.simulation.anatomy import Warp
from CMBDetectorLib.simulation.lesions import Lesion
from CMBDetectorLib.simulation.measure import appearance
from CMBDetectorLib.simulation.physics import iron_decay
from CMBDetectorLib.simulation.protocols import Protocol
from CMBDetectorLib.simulation.vessels import ARTERY, DURA, VEIN, Sheet, Vessel
from CMBDetectorLib.volume import Volume

_MOST_VESSELS = 120
_LEAST_CONTRAST = 0.15
_APART_MM = 4.0
_SEARCH_MM = {"iron deposition": 2.0}  # a streaked nucleus is not darkest in its middle


def vessel_spots(
    rng: np.random.Generator, vessels: Sequence[Vessel | Sheet], normal: np.ndarray, protocol: Protocol
) -> list[tuple[np.ndarray, str]]:
    """Return positions (RAS mm) where dark vessels cross the slice (unit vector ``normal``) or end, at most 120."""
    dark = (VEIN, DURA, ARTERY) if protocol.family == "t2star" else (VEIN, DURA)
    through, other = [], []
    for vessel in vessels:
        if (
            isinstance(vessel, Sheet)
            or vessel.kind not in dark
            or vessel.radius_mm < (0.5 if vessel.kind == DURA else 0.2)
        ):
            continue
        tangent = np.gradient(vessel.points_mm, axis=0)
        tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-6)
        steep = np.flatnonzero(np.abs(tangent @ normal) > 0.85)
        if len(steep):
            through.append(vessel.points_mm[rng.choice(steep)])
        other.append(vessel.points_mm[int(rng.integers(len(vessel.points_mm)))])
    rng.shuffle(through)
    rng.shuffle(other)
    chosen = (through[: _MOST_VESSELS * 3 // 4] + other)[:_MOST_VESSELS]
    return [(np.asarray(point), "vessel") for point in chosen]


def iron_spots(
    nuclei: Iterable[tuple[str, np.ndarray, float]], warp: Warp, protocol: Protocol
) -> list[tuple[np.ndarray, str]]:
    """Return the centres (RAS mm) of the nuclei that iron has darkened by a fifth or more."""
    dark = [mni for _, mni, chi in nuclei if float(iron_decay(np.float32(chi), protocol)) < 0.8]
    return [(head, "iron deposition") for head in warp.to_head(np.array(dark))] if dark else []


def seen(
    spots: Iterable[tuple[np.ndarray, str]],
    scan: Volume,
    brain: Volume,
    microbleeds: Sequence[Lesion],
    white: float,
) -> list[Lesion]:
    """Return the spots (RAS mm, mimic class) that show on the scan, inside the brain, apart from each other and from
    microbleeds (4 mm)."""
    bleeds = cKDTree([m.ras_mm for m in microbleeds]) if microbleeds else None
    found: list[Lesion] = []
    for ras, kind in spots:
        index = np.round(scan.to_ijk(ras)).astype(int)
        if (index < 1).any() or (index >= np.array(scan.shape) - 1).any() or not brain.array[tuple(index)]:
            continue
        look = appearance(scan, ras, white, _SEARCH_MM.get(kind, 0.8), brain)
        if look.contrast < _LEAST_CONTRAST or (bleeds is not None and bleeds.query(look.ras_mm)[0] < _APART_MM):
            continue
        if any(np.linalg.norm(np.subtract(other.ras_mm, look.ras_mm)) < _APART_MM for other in found):
            continue
        position = tuple(float(v) for v in look.ras_mm)
        found.append(Lesion(position, look.diameter_mm, look.contrast, near_dark=look.near_dark, mimic_class=kind))
    return found
