"""The apparent size of a candidate, measured in the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

BACKGROUND_MM, REACH_MM = 4.0, 6.0
"""From where to where around a spot its background is measured."""


def apparent_diameter(image: np.ndarray, mask: np.ndarray, ijk: Sequence[float], spacing_mm: Sequence[float]) -> float:
    """Return the diameter in mm of a sphere with the volume that is darker than half way to the background.

    ``image`` (float32, i j k) is normalised, ``mask`` the brain, ``ijk`` the candidate's fractional voxel position.
    The background is the median of the brain 4 to 6 mm away (as in readers' measurements of microbleeds); the dark
    region is the connected one around the darkest voxel within 1 mm, at most 6 mm away. Where there is no dark spot
    the smallest diameter, that of one voxel, is returned.
    """
    spacing = np.array(spacing_mm, dtype=float)
    centre = np.round(ijk).astype(int)
    reach = np.ceil(REACH_MM / spacing).astype(int)
    low, high = np.maximum(centre - reach, 0), np.minimum(centre + reach + 1, image.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    part, brain = image[box], mask[box]
    grid = np.stack(np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high, strict=True)], indexing="ij"), -1)
    distance = np.linalg.norm((grid - np.asarray(ijk)) * spacing, axis=-1)
    voxel = float(np.prod(spacing))
    spot = dark_spot(part, brain, distance, max(1.0, float(spacing.max())))
    region = spot.region(0.5) if spot is not None and spot.darkest < spot.background else np.zeros(0)
    return _sphere_diameter(voxel * max(1, int(np.count_nonzero(region))))


@dataclass(frozen=True)
class DarkSpot:
    """A spot in a box of an image: the median ``background`` of the brain 4 to 6 mm away and its ``darkest`` voxel's
    intensity. ``_part`` are the intensities of the box, ``_within`` the brain up to 6 mm away, ``_near`` the middle."""

    background: float
    darkest: float
    _part: np.ndarray
    _within: np.ndarray
    _near: np.ndarray

    def region(self, level: float) -> np.ndarray:
        """Return what is connected to the darkest voxel and darker than ``level`` (0 to 1) of the way to the
        background: bool, as the box."""
        dark = self._within & (self._part <= self.darkest + level * (self.background - self.darkest))
        labels, _ = ndimage.label(dark)
        seeds = labels[self._near & (self._part == self.darkest)]
        seeds = seeds[seeds > 0]
        return labels == seeds[0] if len(seeds) else np.zeros(dark.shape, bool)


def dark_spot(part: np.ndarray, brain: np.ndarray, distance_mm: np.ndarray, near_mm: float) -> DarkSpot | None:
    """Return the spot in the middle of ``part`` (i, j, k; a box of the image), its darkest voxel at most ``near_mm``
    from there; None without brain in the middle or around.

    ``brain`` (bool) and ``distance_mm``, of each voxel from the middle, have the shape of ``part``.
    """
    shell = brain & (distance_mm >= BACKGROUND_MM) & (distance_mm <= REACH_MM)
    near = brain & (distance_mm <= near_mm)
    if not shell.any() or not near.any():
        return None
    background, darkest = float(np.median(part[shell])), float(part[near].min())
    return DarkSpot(background, darkest, part, brain & (distance_mm <= REACH_MM), near)


def _sphere_diameter(volume_mm3: float) -> float:
    return float((6 * volume_mm3 / np.pi) ** (1 / 3))
