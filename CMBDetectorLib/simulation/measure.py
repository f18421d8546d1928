"""What a dark spot looks like on a scan: its contrast and its width, as a reader would measure them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from CMBDetectorLib.volume import Volume


@dataclass(frozen=True)
class Appearance:
    """``contrast`` = 1 - darkest / background, ``diameter_mm`` in the slice at half contrast, ``ras_mm`` the darkest
    voxel's centre, ``dark_around`` the share of dark voxels 2.5 to 6 mm away."""

    contrast: float
    diameter_mm: float
    ras_mm: np.ndarray
    dark_around: float


def appearance(scan: Volume, ras_mm: np.ndarray, white: float, search_mm: float = 0.8) -> Appearance:
    """Measure the spot at ``ras_mm`` (3,); ``white`` is the signal of white matter in the scan's units.

    The darkest voxel is looked for within ``search_mm`` (at least one voxel); background is the median of the voxels
    4 to 6 mm from it.
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
    shell = patch[(distance >= 2.5) & (distance <= 6)]
    dark = float((shell < 0.62 * white).mean()) if shell.size else 0.0
    return Appearance(contrast, float(2 * np.sqrt(area / np.pi)), scan.to_ras(np.array(darkest) + lower), dark)
