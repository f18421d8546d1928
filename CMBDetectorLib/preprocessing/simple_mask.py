"""A brain mask from image processing alone, for SWI and T2*-weighted scans where HD-BET is not installed."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.preprocessing.shrinking import shrunk
from CMBDetectorLib.volume import Volume, resample_onto

_WORKING_MM = 2.0
# The skull is a dark shell of 4 to 8 mm: what is left of the tissue after eroding by less than half of it still
# bridges at the skull base, by more loses the temporal poles.
_EROSION_MM = (5.0, 7.0, 9.0)
_CLOSING_MM = 8.0
# Tissue against its surroundings: skull, air and sinuses are far below, iron and veins are closed over later.
_TISSUE = 0.45
_SURROUNDINGS_MM = 20.0
# Where the "brain" is nearly all of what has signal there is no skull: a stripped scan, or a crop inside the brain.
_NO_SKULL = 0.85
_LARGEST_BRAIN_ML = 2000.0
# From the vertex down to the foramen magnum; what is below is neck.
_TALLEST_BRAIN_MM = 150.0


def simple_brain_mask(scan: Volume) -> Volume:
    """Return a brain mask (bool, on the grid of ``scan``) found by thresholds and distances.

    On a copy of 2 mm: foreground by Otsu's threshold, tissue by a local threshold (which follows the shading of the
    coils), the largest piece left after an erosion that parts brain and scalp, grown back into the tissue, closed
    and filled so that veins, iron and microbleeds stay inside. A scan without skull (zeros around the brain, or a
    crop inside it) is returned whole. It is coarser than HD-BET: look at it.

    Raises:
        BadInputError: no brain-like region is found.
    """
    copy = _working_copy(scan)
    image = copy.array
    foreground = _foreground(image)
    tissue = foreground & (image > _TISSUE * _local_mean(image, foreground))
    brain = _separate(tissue, _voxel_ml(copy))
    if brain.sum() > _NO_SKULL * foreground.sum():
        brain = foreground
    if not brain.any():
        raise BadInputError("No brain was found in the scan.", "Give a brain mask with --brain-mask FILE.")
    top = int(np.flatnonzero(brain.any(axis=(0, 1)))[-1])
    brain[:, :, : max(0, top - int(_TALLEST_BRAIN_MM / copy.spacing[2]))] = False
    return scan.with_array(resample_onto(scan, copy.with_array(brain.astype(np.float32))).array >= 0.5)


def _working_copy(scan: Volume) -> Volume:
    """Return the scan, axes nearest to R, A, S, at 2 mm (finer only where it is very thin), lightly smoothed."""
    copy = shrunk(scan.canonical(), _WORKING_MM)
    # Thick slices are interpolated, so that distances in voxels are the same along all axes.
    copy = copy.resampled([min(_WORKING_MM, spacing) for spacing in copy.spacing])
    return copy.with_array(ndimage.gaussian_filter(np.maximum(copy.array, 0), 0.5))


def _voxel_ml(volume: Volume) -> float:
    return float(np.prod(volume.spacing)) / 1000


def _foreground(image: np.ndarray) -> np.ndarray:
    """Return the largest region with signal, holes filled: the head, or the brain where only that is there."""
    values = image[image > 0]
    if not values.size:
        return np.zeros(image.shape, bool)
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.Execute(sitk.GetImageFromArray(values[None]))
    threshold = float(otsu.GetThreshold())
    # Otsu parts head from air; without air it would part fluid from tissue, which the second bound prevents.
    threshold = min(threshold, 0.3 * float(values[values >= threshold].mean()))
    return ndimage.binary_fill_holes(_largest(_closed(image > threshold, 2)))


def _local_mean(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the mean of ``image`` over ``inside`` in a wide Gaussian neighbourhood of each voxel."""
    sigma = _SURROUNDINGS_MM / _WORKING_MM
    weight = ndimage.gaussian_filter(inside.astype(np.float32), sigma, truncate=2.5)
    total = ndimage.gaussian_filter(np.where(inside, image, 0), sigma, truncate=2.5)
    return total / np.maximum(weight, 1e-3)


def _separate(tissue: np.ndarray, voxel_ml: float) -> np.ndarray:
    """Return the largest piece of ``tissue`` once brain and scalp are parted, grown back, closed and filled."""
    depth = _distance(tissue)
    brain = np.zeros_like(tissue)
    for erosion_mm in _EROSION_MM:
        radius = erosion_mm / _WORKING_MM
        core = _largest(depth > radius)
        if not core.any():
            break
        # One voxel more than was taken away makes up for the blurred rim.
        grown = tissue & (_distance(~core) <= radius + 1)
        brain = ndimage.binary_fill_holes(_closed(_largest(grown), _CLOSING_MM / _WORKING_MM))
        if brain.sum() * voxel_ml <= _LARGEST_BRAIN_ML:
            break
    return brain


def _distance(region: np.ndarray) -> np.ndarray:
    """Return for each voxel of ``region`` the distance to what is outside it, in voxels; image borders do not count."""
    if region.all():
        return np.full(region.shape, np.inf)
    return ndimage.distance_transform_edt(region)


def _largest(region: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(region)
    if count == 0:
        return region
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def _closed(region: np.ndarray, radius: float) -> np.ndarray:
    """Return ``region`` closed by a ball of ``radius`` voxels, as if it went on beyond the image's borders."""
    if not region.any():
        return region
    margin = int(np.ceil(radius)) + 1
    padded = np.pad(region, margin, mode="edge")
    dilated = _distance(~padded) <= radius
    closed = _distance(dilated) > radius
    box = tuple(slice(margin, -margin) for _ in range(3))
    return closed[box] | region
