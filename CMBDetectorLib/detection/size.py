"""The apparent size of a candidate, measured in the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

_REACH_MM = 6.0
_SHELL_MM = (4.0, 6.0)


def apparent_diameter(image: np.ndarray, mask: np.ndarray, ijk: Sequence[float], spacing_mm: Sequence[float]) -> float:
    """Return the diameter in mm of a sphere with the volume that is darker than half way to the background.

    ``image`` (float32, i j k) is normalised, ``mask`` the brain, ``ijk`` the candidate's fractional voxel position.
    The background is the median of the brain 4 to 6 mm away (as in readers' measurements of microbleeds); the dark
    region is the connected one around the darkest voxel within 1 mm, at most 6 mm away. Where there is no dark spot
    the smallest diameter, that of one voxel, is returned.
    """
    spacing = np.array(spacing_mm, dtype=float)
    centre = np.round(ijk).astype(int)
    reach = np.ceil(_REACH_MM / spacing).astype(int)
    low, high = np.maximum(centre - reach, 0), np.minimum(centre + reach + 1, image.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    part, brain = image[box], mask[box]
    grid = np.stack(np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high, strict=True)], indexing="ij"), -1)
    distance = np.linalg.norm((grid - np.asarray(ijk)) * spacing, axis=-1)
    voxel = float(np.prod(spacing))
    smallest = _sphere_diameter(voxel)
    shell = brain & (distance >= _SHELL_MM[0]) & (distance <= _SHELL_MM[1])
    near = brain & (distance <= max(1.0, float(spacing.max())))
    if not shell.any() or not near.any():
        return smallest
    background = float(np.median(part[shell]))
    darkest = float(part[near].min())
    if darkest >= background:
        return smallest
    dark = brain & (part <= (background + darkest) / 2) & (distance <= _REACH_MM)
    labels, _ = ndimage.label(dark)
    seed = labels[near & (part == darkest)]
    seed = seed[seed > 0]
    if not len(seed):
        return smallest
    return _sphere_diameter(voxel * int(np.count_nonzero(labels == seed[0])))


def _sphere_diameter(volume_mm3: float) -> float:
    return float((6 * volume_mm3 / np.pi) ** (1 / 3))
