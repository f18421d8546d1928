"""From a likelihood map to candidate positions: local maxima within the components above a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

NEIGHBOUR_MM = 1.3
"""Radius within which one maximum suppresses others; neighbours 3 mm apart stay apart."""
SAME_SLICES = 1.3
"""Two maxima are one candidate when on each axis less than so many voxels of the scan lie between them: in slices of
5 mm one microbleed shows in two or three, with a maximum in each."""
SADDLE = 0.9
"""Two maxima are one candidate when the map between them never falls below this part of the lower one."""
_MERGE_MM = 8.0
_MOST_CANDIDATES = 5000


@dataclass(frozen=True)
class Peaks:
    """Maxima of a map by falling likelihood: fractional voxel positions ``ijk`` (n, 3) and ``likelihood`` (n,)."""

    ijk: np.ndarray
    likelihood: np.ndarray


def find_peaks(
    likelihood: np.ndarray,
    spacing_mm: Sequence[float],
    threshold: float,
    stored_mm: Sequence[float] | None = None,
) -> Peaks:
    """Return the local maxima of ``likelihood`` (float32, i j k) at or above ``threshold``.

    A maximum is the highest voxel within ``NEIGHBOUR_MM``; two maxima of one component without a dip between them
    (a large lesion with a flat top) are one. So are two in neighbouring slices of the scan (voxels of ``stored_mm``)
    one above the other. Positions are centroids of the map around the maximum, finer than a voxel.
    """
    spacing = np.array(spacing_mm, dtype=float)
    footprint = _ball(NEIGHBOUR_MM, spacing)
    above = likelihood >= max(threshold, 1e-6)
    boxes = ndimage.find_objects(ndimage.label(above, np.ones((3, 3, 3)))[0])
    reach = np.array(footprint.shape) // 2
    found: list[tuple[float, np.ndarray]] = []
    for box in boxes:
        low = np.maximum([s.start for s in box] - reach, 0)
        high = np.minimum([s.stop for s in box] + reach, likelihood.shape)
        part = likelihood[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))]
        inside = tuple(slice(s.start - a, s.stop - a) for s, a in zip(box, low, strict=True))
        found += [(value, low + ijk) for value, ijk in _maxima(part, inside, footprint, threshold)]
    found.sort(key=lambda item: (-item[0], *item[1]))
    column = np.maximum(NEIGHBOUR_MM, SAME_SLICES * np.array(spacing if stored_mm is None else stored_mm))
    kept = _merge(found[:_MOST_CANDIDATES], likelihood, spacing, column)
    if not kept:
        return Peaks(np.zeros((0, 3)), np.zeros(0))
    centres = np.array([_centroid(likelihood, ijk, spacing) for _, ijk in kept])
    return Peaks(centres, np.array([value for value, _ in kept]))


def _maxima(
    part: np.ndarray, inside: tuple[slice, ...], footprint: np.ndarray, threshold: float
) -> list[tuple[float, np.ndarray]]:
    """Return (value, voxel) of each local maximum of ``part`` within ``inside``; a plateau counts once."""
    highest = ndimage.maximum_filter(part, footprint=footprint, mode="constant")
    peak = np.zeros(part.shape, bool)
    peak[inside] = (part[inside] >= highest[inside]) & (part[inside] >= threshold)
    labels, _ = ndimage.label(peak, np.ones((3, 3, 3)))
    maxima = []
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        voxels = np.argwhere(labels[box] == number) + [s.start for s in box]
        nearest = voxels[np.argmin(((voxels - voxels.mean(0)) ** 2).sum(1))]
        maxima.append((float(part[tuple(nearest)]), nearest))
    return maxima


def _merge(
    found: list[tuple[float, np.ndarray]], likelihood: np.ndarray, spacing: np.ndarray, column: np.ndarray
) -> list[tuple[float, np.ndarray]]:
    """Drop each maximum that is joined to a higher one without a dip between them, or within ``column`` (mm) of it."""
    if not found:
        return []
    positions = np.array([ijk for _, ijk in found])
    reach = max(_MERGE_MM, float(np.linalg.norm(column)))
    near = cKDTree(positions * spacing).query_ball_point(positions * spacing, reach)
    kept = np.zeros(len(found), bool)
    for number, (value, ijk) in enumerate(found):
        higher = [other for other in near[number] if other < number and kept[other]]
        kept[number] = not any(
            (np.abs(ijk - positions[other]) * spacing <= column).all()
            or _joined(likelihood, ijk, positions[other], value)
            for other in higher
        )
    return [item for item, keep in zip(found, kept, strict=True) if keep]


def _joined(likelihood: np.ndarray, a: np.ndarray, b: np.ndarray, lower: float) -> bool:
    """Tell whether the map never falls below ``SADDLE`` times ``lower`` on the straight line from ``a`` to ``b``."""
    steps = max(2, int(np.ceil(2 * np.abs(a - b).max())))
    line = np.linspace(a, b, steps + 1).T
    return bool(ndimage.map_coordinates(likelihood, line, order=1).min() >= SADDLE * lower)


def _centroid(likelihood: np.ndarray, ijk: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Return the centre of mass of the map within ``NEIGHBOUR_MM`` of the voxel ``ijk``."""
    ball = _ball(NEIGHBOUR_MM, spacing)
    offsets = np.argwhere(ball) - np.array(ball.shape) // 2
    at = ijk + offsets
    at = at[((at >= 0) & (at < likelihood.shape)).all(1)]
    weight = likelihood[tuple(at.T)].astype(float)
    return (at * weight[:, None]).sum(0) / weight.sum()


def _ball(radius_mm: float, spacing: np.ndarray) -> np.ndarray:
    """Return a boolean ball of ``radius_mm``, at least one voxel wide to each side."""
    reach = np.maximum(1, np.floor(radius_mm / spacing)).astype(int)
    grid = np.stack(np.meshgrid(*[np.arange(-r, r + 1) for r in reach], indexing="ij"), -1)
    ball = ((grid * spacing) ** 2).sum(-1) <= radius_mm**2
    centre = tuple(reach)
    for axis in range(3):  # coarse voxels: the next neighbours always count
        index = list(centre)
        for step in (-1, 1):
            index[axis] = centre[axis] + step
            ball[tuple(index)] = True
    return ball
