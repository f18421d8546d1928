"""What a dark spot looks like on a scan: its contrast and its width, as a reader would measure them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from CMBDetectorLib.volume import Volume

_DARK, _DARK_INSIDE = 0.7, 0.8  # of white matter
_BESIDE_MM = (1.5, 5.0)
_LEAST_SHARE = 0.08


@dataclass(frozen=True)
class Appearance:
    """``contrast`` = 1 - darkest / background, ``diameter_mm`` in the slice at half contrast, ``ras_mm`` the darkest
    voxel's centre. ``near_dark``: it lies in dark tissue, or something dark lies up to 5 mm beside it in the slice."""

    contrast: float
    diameter_mm: float
    ras_mm: np.ndarray
    near_dark: bool


def appearance(
    scan: Volume, ras_mm: np.ndarray, white: float, search_mm: float = 0.8, brain: Volume | None = None
) -> Appearance:
    """Measure the spot at ``ras_mm`` (3,); ``white`` is the signal of white matter in the scan's units.

    The darkest voxel is looked for within ``search_mm`` (at least one voxel); background is the median of the voxels
    4 to 6 mm from it. What lies outside ``brain`` is not looked at for darkness beside the spot.
    """
    spacing = np.array(scan.spacing)
    centre = scan.to_ijk(np.asarray(ras_mm))
    lower = np.maximum(0, np.floor(centre - 7 / spacing)).astype(int)
    upper = np.minimum(scan.shape, np.ceil(centre + 7 / spacing) + 1).astype(int)
    patch = scan.array[tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))]
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in patch.shape], indexing="ij"), -1)
    offset = (grid + lower - centre) * spacing
    near = (np.abs(offset) <= np.maximum(search_mm, 0.75 * spacing)).all(-1)
    darkest = np.unravel_index(int(np.argmin(np.where(near, patch, np.inf))), patch.shape)
    distance = np.sqrt((((grid - np.array(darkest)) * spacing) ** 2).sum(-1))
    around = patch[(distance >= 4) & (distance <= 6)]
    background = float(np.median(around)) if around.size else white
    value = float(patch[darkest])
    contrast = 1 - value / background if background > 0 else 0.0
    labels, _ = ndimage.label((patch < (value + background) / 2)[..., darkest[2]])
    region = labels == labels[darkest[:2]] if labels[darkest[:2]] else np.zeros_like(labels, bool)
    area = float(region.sum()) * spacing[0] * spacing[1]
    diameter = float(2 * np.sqrt(area / np.pi))
    ring = (grid[..., 2] == darkest[2]) & (distance >= diameter / 2 + _BESIDE_MM[0])
    ring &= distance <= diameter / 2 + _BESIDE_MM[1]
    if brain is not None:
        ring &= brain.array[tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))]
    beside = bool(ring.any()) and float((patch[ring] < _DARK * white).mean()) > _LEAST_SHARE
    near_dark = beside or background < _DARK_INSIDE * white
    return Appearance(contrast, diameter, scan.to_ras(np.array(darkest) + lower), near_dark)
