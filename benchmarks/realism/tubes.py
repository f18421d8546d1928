"""Dark lines in the slice - veins, vessels that lie in it: how long, how dark, how wide.

A voxel is on a line where the second derivative across is large, that along small, and where it is the darkest across
(ridge of a Gaussian scale space, the better of two scales).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

_SCALES_MM = (0.55, 1.1)
_LEAST_RESPONSE = 0.008
_ALONG_SHARE = 0.5
_STEP_MM = 0.15
_REACH_MM = 3.0
_EIGHT = np.ones((3, 3, 3), bool) & (np.array([0, 1, 0], bool)[None, None, :])


@dataclass(frozen=True)
class Lines:
    """The voxels on lines: ``ijk`` (n, 3), ``contrast`` (n,) = 1 - centre / the darker side, ``width_mm`` (n,),
    ``sides`` (n, 2) the levels either side, and ``length_mm`` of all of them together."""

    ijk: np.ndarray
    contrast: np.ndarray
    width_mm: np.ndarray
    sides: np.ndarray
    length_mm: float


def dark_lines(
    image: np.ndarray,
    spacing: Sequence[float],
    where: np.ndarray,
    least_contrast: float = 0.06,
    shortest_mm: float = 6.0,
    noise: float = 0.0,
    below: float = np.inf,
    darkest_side: float = 0.0,
    brightest_side: float = np.inf,
) -> Lines:
    """Return the dark lines in the slices of ``image`` (i, j, k; NaN unknown) inside ``where`` (bool).

    Kept are pieces of ``shortest_mm`` or more whose voxels are darker than ``below`` (white matter between two gyri is
    no tube) and ``least_contrast`` darker than both sides, the sides being between ``darkest_side`` and
    ``brightest_side``. ``noise`` is the SD that white noise of the same strength in the band of the ridges would have:
    ridges of less than twice its response are left out.
    """
    filled = np.where(np.isnan(image), np.float32(np.nanmedian(image)), image).astype(np.float32)
    on_line, across = _ridge(filled, spacing, noise)
    ijk = np.argwhere(on_line & where & np.isfinite(image))
    direction = across[tuple(ijk.T)]
    contrast, width, sides = _profiles(image, ijk, direction, spacing)
    dark = (width > 0) & (contrast >= least_contrast) & ((1 - contrast) * sides.min(1) < below)
    dark &= (sides >= darkest_side).all(1) & (sides <= brightest_side).all(1)
    ijk, contrast, width, sides = ijk[dark], contrast[dark], width[dark], sides[dark]
    drawn = np.zeros(image.shape, bool)
    drawn[tuple(ijk.T)] = True
    labels, count = ndimage.label(drawn, _EIGHT)
    piece = labels[tuple(ijk.T)]
    each = float(np.mean(spacing[:2])) / _voxels_per_length(direction[dark])
    keep = np.bincount(piece, each, minlength=count + 1)[piece] >= shortest_mm
    return Lines(ijk[keep], contrast[keep], width[keep], sides[keep], float(each[keep].sum()))


def _voxels_per_length(across: np.ndarray) -> np.ndarray:
    """Return how many voxels :func:`_thinned` leaves of a line for each voxel's width of its length.

    Across an axis it leaves one a row, across a diagonal one a diagonal row; ``across`` is the angle (rad).
    """
    cosine, sine = np.abs(np.cos(across)), np.abs(np.sin(across))
    diagonal = np.rint(across / (np.pi / 4)).astype(int) % 2 == 1
    return np.where(diagonal, cosine + sine, np.maximum(cosine, sine))


def _ridge(image: np.ndarray, spacing: Sequence[float], noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels on a line (bool) and the angle (rad, from i to j in mm) across it."""
    best = np.zeros(image.shape, np.float32)
    angle = np.zeros(image.shape, np.float32)
    for scale in _SCALES_MM:
        sigma = [max(0.6, scale / s) for s in spacing[:2]]
        # Scale-normalised, in units of intensity: white noise of SD 1 has an SD of 0.244 over sigma in voxels.
        least = max(_LEAST_RESPONSE, 2 * 0.244 * noise / float(np.mean(sigma)))
        ii, jj, ij = (
            ndimage.gaussian_filter(image, (*sigma, 0), order=(*order, 0)) * np.float32(np.prod(np.power(sigma, order)))
            for order in ((2, 0), (0, 2), (1, 1))
        )
        root = np.sqrt(((ii - jj) / 2) ** 2 + ij**2)
        first, second = (ii + jj) / 2 + root, (ii + jj) / 2 - root
        better = (first > best) & (np.abs(second) < _ALONG_SHARE * first) & (first > least)
        best[better] = first[better]
        angle[better] = (0.5 * np.arctan2(2 * ij, ii - jj))[better]
    return _thinned(best, angle), angle


def _thinned(response: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Return where ``response`` is above 0 and highest among its two neighbours across the line."""
    sector = np.rint(angle / (np.pi / 4)).astype(int) % 4
    padded = np.pad(response, ((1, 1), (1, 1), (0, 0)))
    ni, nj, _ = response.shape
    result = np.zeros(response.shape, bool)
    for number, (di, dj) in enumerate(((1, 0), (1, 1), (0, 1), (-1, 1))):
        ahead = padded[1 + di : 1 + di + ni, 1 + dj : 1 + dj + nj]
        behind = padded[1 - di : 1 - di + ni, 1 - dj : 1 - dj + nj]
        result |= (sector == number) & (response > 0) & (response > behind) & (response >= ahead)
    return result


def _profiles(
    image: np.ndarray, ijk: np.ndarray, angle: np.ndarray, spacing: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return contrast (n,), full width at half contrast (n,) in mm and the levels (n, 2) either side.

    A profile is the mean over 2 mm along the line. A side's level is the upper quartile of what is 0.6 to 3 mm away,
    the centre the lowest value within 0.4 mm.
    """
    if not len(ijk):
        return np.zeros(0), np.zeros(0), np.zeros((0, 2))
    steps = np.arange(0, _REACH_MM + _STEP_MM / 2, _STEP_MM)
    halves = [_half_profile(image, ijk, angle, sign * steps, spacing) for sign in (1, -1)]
    centre = np.min([h[:, steps <= 0.4].min(1) for h in halves], axis=0)
    sides = np.stack([np.percentile(h[:, steps >= 0.6], 75, axis=1) for h in halves], -1)
    level = sides.min(1)
    half = (centre + level) / 2
    width = np.zeros(len(ijk))
    rows = np.arange(len(ijk))
    for values in halves:
        beyond = values >= half[:, None]
        first = np.where(beyond.any(1), beyond.argmax(1), len(steps) - 1)
        before, after = values[rows, np.maximum(first - 1, 0)], values[rows, first]
        part = np.clip((half - before) / np.where(after > before, after - before, 1), 0, 1)
        # A line whose own voxel is not darker than half is none: a width of 0 is left out by the caller.
        width += np.where(first > 0, (first - 1 + part) * _STEP_MM, -np.inf)
    return 1 - centre / np.maximum(level, 1e-6), np.maximum(width, 0), sides


def _half_profile(
    image: np.ndarray, ijk: np.ndarray, angle: np.ndarray, steps: np.ndarray, spacing: Sequence[float]
) -> np.ndarray:
    """Return the values (n, steps) across a line at ``steps`` mm from it, each the mean of five along the line."""
    total = np.zeros((len(ijk), len(steps)), np.float32)
    k = np.broadcast_to(ijk[:, 2, None], total.shape)
    cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
    along = (-1.0, -0.5, 0.0, 0.5, 1.0)
    for shift in along:
        i = ijk[:, 0, None] + (steps * cosine - shift * sine) / spacing[0]
        j = ijk[:, 1, None] + (steps * sine + shift * cosine) / spacing[1]
        total += ndimage.map_coordinates(image, [i, j, k], order=1, mode="nearest")
    return np.where(np.isnan(total), -1, total / len(along))
