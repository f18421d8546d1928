"""Round spots in the slice - microbleeds, voids, vessels through the slice, bright dots - and how they look.

An image is a float32 array (i, j, k) with slices along k and NaN where nothing is known (outside the brain). Every spot
is looked at along 16 rays in its slice, so that thousands of them cost no more than a few seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage, sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

_ANGLES = 16
_STEP_MM = 0.2
_REACH_MM = 6.0
_RING_MM = (4.0, 6.0)
_CHUNK = 4000
_EXTREMUM_MM = 1.3
_WIDEST_MM = 7.0


@dataclass(frozen=True)
class Looks:
    """What n spots look like; each an array (n,) but ``ijk`` (n, 3), the voxel of the darkest (or brightest) value.

    ``centre`` value there, ``background`` median of the ring 4-6 mm away in the slice, ``width_mm`` full width at half
    contrast (mean over the angles), ``elongation`` longest over shortest width, ``rim`` (n, 16) the values 0.8 mm
    outside the half-contrast line.
    """

    ijk: np.ndarray
    centre: np.ndarray
    background: np.ndarray
    width_mm: np.ndarray
    elongation: np.ndarray
    rim: np.ndarray

    @property
    def contrast(self) -> np.ndarray:
        """1 - centre / background: positive for dark spots, negative for bright ones."""
        return 1 - self.centre / self.background

    def chosen(self, keep: np.ndarray) -> Looks:
        """Return the spots where ``keep`` (bool or indices) says so."""
        return Looks(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))


def darkest_near(image: np.ndarray, ijk: np.ndarray, spacing: Sequence[float], reach_mm: float = 0.8) -> np.ndarray:
    """Return the darkest voxels (n, 3) within ``reach_mm`` (at least 0.75 voxel) of fractional indices ``ijk``."""
    steps = np.maximum(reach_mm, 0.75 * np.asarray(spacing)) / np.asarray(spacing)
    found = []
    for at in np.atleast_2d(ijk):
        lower = np.clip(np.ceil(at - steps), 0, np.array(image.shape) - 1).astype(int)
        upper = np.clip(np.floor(at + steps), lower, np.array(image.shape) - 1).astype(int) + 1
        patch = image[tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))]
        filled = np.where(np.isnan(patch), np.inf, patch)
        found.append(lower + np.array(np.unravel_index(int(np.argmin(filled)), filled.shape)))
    return np.array(found, int).reshape(-1, 3)


def look_at(image: np.ndarray, ijk: np.ndarray, spacing: Sequence[float]) -> Looks:
    """Measure the spots whose extreme voxels are ``ijk`` (n, 3); ``spacing`` in mm along i, j, k."""
    parts = [_look_at(image, part, spacing) for part in np.array_split(ijk, max(1, -(-len(ijk) // _CHUNK)))]
    return Looks(*(np.concatenate([getattr(p, name) for p in parts]) for name in Looks.__dataclass_fields__))


def _look_at(image: np.ndarray, ijk: np.ndarray, spacing: Sequence[float]) -> Looks:
    ijk = np.asarray(ijk, int).reshape(-1, 3)
    centre = image[tuple(ijk.T)]
    rays, radii = _rays(image, ijk.astype(float), spacing)
    ring = (radii >= _RING_MM[0]) & (radii <= _RING_MM[1])
    background = _median(rays[..., ring].reshape(len(ijk), -1))
    half = (centre + background) / 2
    dark = centre < background
    edge = _crossing(rays, radii, half, dark)
    # Seen from a corner of a large spot the rays are too short or too long: look again from its middle.
    angle = 2 * np.pi * np.arange(_ANGLES) / _ANGLES
    shift = [(edge * f(angle)).mean(1) / s for f, s in zip((np.cos, np.sin), spacing, strict=False)]
    middle = ijk + np.stack([*shift, np.zeros(len(ijk))], -1)
    rays, _ = _rays(image, middle, spacing)
    edge = _crossing(rays, radii, half, dark)
    diameters = edge[:, : _ANGLES // 2] + edge[:, _ANGLES // 2 :]
    mean = diameters.mean(1)
    # An ellipse's width goes with the cosine of twice the angle.
    turn = np.exp(2j * angle[: _ANGLES // 2])
    oval = np.minimum(np.abs((diameters * turn).mean(1)) * 2, 0.9 * mean)
    outside = np.minimum(np.rint((edge + 0.8) / _STEP_MM).astype(int), len(radii) - 1)
    rim = np.take_along_axis(rays, outside[..., None], 2)[..., 0]
    return Looks(ijk, centre, background, mean, (mean + oval) / np.maximum(mean - oval, 1e-6), rim)


def _rays(image: np.ndarray, ijk: np.ndarray, spacing: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the values (n, angles, radii) around ``ijk`` in its slice, and the radii in mm."""
    radii = np.arange(0, _REACH_MM + _STEP_MM / 2, _STEP_MM)
    angle = 2 * np.pi * np.arange(_ANGLES)[:, None] / _ANGLES
    i = ijk[:, 0, None, None] + radii * np.cos(angle) / spacing[0]
    j = ijk[:, 1, None, None] + radii * np.sin(angle) / spacing[1]
    k = np.broadcast_to(ijk[:, 2, None, None], i.shape)
    return ndimage.map_coordinates(image, [i, j, k], order=1, mode="constant", cval=np.nan), radii


def _crossing(rays: np.ndarray, radii: np.ndarray, half: np.ndarray, dark: np.ndarray) -> np.ndarray:
    """Return how far (mm) each ray (n, angles, radii) goes before it passes ``half`` (n,); at most the last radius."""
    sign = np.where(dark, 1.0, -1.0)[:, None, None]
    above = (rays - half[:, None, None]) * sign
    beyond = ~(above < 0)  # the edge of the brain ends a spot, too
    beyond[..., 0] = False
    first = np.where(beyond.any(-1), beyond.argmax(-1), len(radii) - 1)
    after = np.take_along_axis(above, first[..., None], -1)[..., 0]
    before = np.take_along_axis(above, np.maximum(first - 1, 0)[..., None], -1)[..., 0]
    part = np.clip(np.nan_to_num(-before / np.where(after - before > 1e-9, after - before, 1), nan=1.0), 0, 1)
    return np.maximum(first - 1 + part, 0) * _STEP_MM


def _median(values: np.ndarray) -> np.ndarray:
    """Return the median of each row over its known values; NaN where fewer than a quarter are known."""
    known = np.isfinite(values).sum(1)
    ordered = np.sort(np.where(np.isfinite(values), values, np.inf), axis=1)
    rows = np.arange(len(values))
    middle = (ordered[rows, np.maximum(known - 1, 0) // 2] + ordered[rows, np.maximum(known, 1) // 2]) / 2
    return np.where(known >= values.shape[1] / 4, middle, np.nan).astype(np.float32)


def find_spots(image: np.ndarray, spacing: Sequence[float], least: float, where: np.ndarray) -> np.ndarray:
    """Return the voxels (n, 3) of ``where`` (bool) that are the darkest around in their slice.

    A spot has to lie ``least`` below what encloses it within 7 mm (grey-scale closing with a box of 7 mm). Hand in
    ``-image`` for bright spots.
    """
    filled = np.where(np.isnan(image), np.float32(np.nanmax(image)), image).astype(np.float32)
    width = [max(1, round(_WIDEST_MM / 2 / s)) for s in spacing[:2]]
    closed = sitk.GrayscaleMorphologicalClosing(
        sitk.GetImageFromArray(np.ascontiguousarray(filled.transpose(2, 1, 0))), [*width, 0], sitk.sitkBox
    )
    depth = sitk.GetArrayFromImage(closed).transpose(2, 1, 0) - filled
    size = [max(3, 2 * round(_EXTREMUM_MM / 2 / s) + 1) for s in spacing[:2]]
    # Smoothed a little, a flat floor has one lowest voxel.
    smooth = ndimage.gaussian_filter(filled, (*[max(0.5, 0.5 / s) for s in spacing[:2]], 0))
    lowest = smooth <= ndimage.minimum_filter(smooth, (*size, 1))
    return np.argwhere(lowest & (depth >= least) & where & np.isfinite(image))


def chains(ijk: np.ndarray, spacing: Sequence[float], apart_mm: float = 2.0) -> np.ndarray:
    """Return a number (n,) for each spot: alike for those that go on from slice to slice within ``apart_mm``.

    Within one slice spots closer than ``apart_mm`` count as one, too.
    """
    if not len(ijk):
        return np.zeros(0, int)
    # Slices are put ``apart_mm`` / 2 apart, so that the next one is near and the one after it is not.
    place = np.column_stack([ijk[:, :2] * np.asarray(spacing)[:2] * np.sqrt(0.75), ijk[:, 2] * apart_mm * 0.5])
    pairs = cKDTree(place).query_pairs(apart_mm * 0.99, output_type="ndarray")
    pairs = pairs[np.abs(ijk[pairs[:, 0], 2] - ijk[pairs[:, 1], 2]) <= 1]
    links = sparse.coo_matrix((np.ones(len(pairs)), tuple(pairs.T)), shape=(len(ijk), len(ijk)))
    return csgraph.connected_components(links, directed=False)[1]


def slices_seen(image: np.ndarray, ijk: np.ndarray, spacing: Sequence[float], least: float = 0.15) -> np.ndarray:
    """Return in how many slices in a row each spot (voxels (n, 3)) keeps a contrast of ``least``.

    In each further slice the darkest voxel within 1.2 mm of the last one counts, against the ring 4-6 mm around it; a
    spot also ends where it has lost two thirds of its contrast.
    """
    counts = []
    for start in np.asarray(ijk, int).reshape(-1, 3):
        own = float(look_at(image, start[None], spacing).contrast[0])
        limit = max(least, own / 3)
        count = 1
        for step in (1, -1):
            at = start.copy()
            while 0 <= at[2] + step < image.shape[2] and count < 40:
                window = [slice(max(0, a - w), a + w + 1) for a, w in zip(at, _reach(spacing), strict=False)]
                patch = image[window[0], window[1], at[2] + step]
                if np.isnan(patch).all():
                    break
                inside = np.unravel_index(int(np.nanargmin(patch)), patch.shape)
                at = np.array([window[0].start + inside[0], window[1].start + inside[1], at[2] + step])
                if not float(look_at(image, at[None], spacing).contrast[0]) >= limit:
                    break
                count += 1
        counts.append(count)
    return np.array(counts, int)


def _reach(spacing: Sequence[float]) -> list[int]:
    return [max(1, int(1.2 / s)) for s in spacing[:2]]
