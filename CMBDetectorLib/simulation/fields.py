"""Sampling of maps on arbitrary grids, and smooth random maps.

The SimpleITK images made here carry RAS positions instead of LPS ones: they never leave this room, all of them and all
transforms agree, and no axis has to be turned.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

_FINE_MM = 0.6


def to_image(maps: Sequence[np.ndarray], ijk_to_ras: np.ndarray) -> sitk.Image:
    """Return float32 arrays with axes (i, j, k) on one grid as an image with that many components per voxel."""
    stacked = np.empty((*maps[0].shape[::-1], len(maps)), np.float32)
    for component, array in enumerate(maps):
        stacked[..., component] = np.asarray(array).transpose(2, 1, 0)
    image = sitk.GetImageFromArray(stacked, isVector=True)
    spacing = np.linalg.norm(ijk_to_ras[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((ijk_to_ras[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(ijk_to_ras[:3, 3].tolist())
    return image


def at_nearest(values: np.ndarray, image: sitk.Image, mm: np.ndarray) -> np.ndarray:
    """Return ``values`` (k, j, i) on the grid of ``image``, whose axes run R, A and S, at the voxels nearest to ``mm``
    (n, 3); 0 beyond."""
    index = np.round((mm - np.array(image.GetOrigin())) / image.GetSpacing()).astype(int)
    inside = ((index >= 0) & (index < image.GetSize())).all(1)
    i, j, k = np.clip(index, 0, np.array(image.GetSize()) - 1).T
    return np.where(inside, values[k, j, i], values.dtype.type(0))


def sample(
    image: sitk.Image, ijk_to_ras: np.ndarray, shape: Sequence[int], transform: sitk.Transform | None = None
) -> list[np.ndarray]:
    """Return each component of ``image`` at the voxels of a grid, float32 (i, j, k), linearly interpolated.

    ``transform`` takes RAS mm of the grid to RAS mm of the image; beyond the image its nearest voxel counts. Along an
    axis of less than 0.6 mm every second voxel is looked up and the others lie halfway: all maps are of 1 mm or more.
    """
    spacing = np.linalg.norm(ijk_to_ras[:3, :3], axis=0)
    fine = spacing < _FINE_MM
    steps = np.where(fine, 2, 1)
    looked_up = [n // 2 + 1 if f else n for n, f in zip(shape, fine, strict=True)]
    resample = sitk.ResampleImageFilter()
    resample.SetSize([int(n) for n in looked_up])
    resample.SetOutputSpacing((spacing * steps).tolist())
    resample.SetOutputDirection((ijk_to_ras[:3, :3] / spacing).ravel().tolist())
    resample.SetOutputOrigin(ijk_to_ras[:3, 3].tolist())
    resample.SetInterpolator(sitk.sitkLinear)
    resample.UseNearestNeighborExtrapolatorOn()
    if transform is not None:
        resample.SetTransform(transform)
    result = resample.Execute(image)
    # The view borrows the memory of ``result``, which has to outlive it.
    values = sitk.GetArrayViewFromImage(result)
    if values.ndim == 3:
        values = values[..., None]
    arrays = [np.ascontiguousarray(values[..., c].transpose(2, 1, 0)) for c in range(values.shape[-1])]
    for axis in np.flatnonzero(fine):
        arrays = [_halved(array, int(axis), int(shape[axis])) for array in arrays]
    return arrays


def _halved(array: np.ndarray, axis: int, count: int) -> np.ndarray:
    """Return ``count`` voxels of half the size along ``axis``: every other one new, halfway between its neighbours."""
    moved = np.moveaxis(array, axis, 0)
    shape = list(array.shape)
    shape[axis] = count
    result = np.empty(shape, np.float32)
    target = np.moveaxis(result, axis, 0)
    target[0::2] = moved[: (count + 1) // 2]
    target[1::2] = (moved[: count // 2] + moved[1 : count // 2 + 1]) / 2
    return result


def random_map(rng: np.random.Generator, shape: Sequence[int], correlation: float) -> np.ndarray:
    """Return a Gaussian random map (float32, mean 0, SD 1), smoothed with SD ``correlation`` in voxels."""
    noise = ndimage.gaussian_filter(rng.standard_normal(tuple(shape), dtype=np.float32), correlation, mode="wrap")
    return noise / noise.std()


def logistic(x: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x)), computed without overflow in float32."""
    return 0.5 * (1 + np.tanh(0.5 * x))
