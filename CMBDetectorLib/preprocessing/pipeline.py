"""The preprocessing of one scan: brain mask, bias field, resampling, normalisation, crop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.preprocessing.bias_field import STAGE as BIAS_FIELD
from CMBDetectorLib.preprocessing.bias_field import correct_bias_field
from CMBDetectorLib.preprocessing.hd_bet import STAGE as BRAIN_MASK
from CMBDetectorLib.preprocessing.hd_bet import hd_bet_mask
from CMBDetectorLib.preprocessing.normalisation import normalise
from CMBDetectorLib.preprocessing.simple_mask import simple_brain_mask
from CMBDetectorLib.progress import Progress
from CMBDetectorLib.volume import Volume, read_mask, with_stored_spacing

NORMALISATION = "normalisation"
REVISION = 1
"""To be counted up whenever images come out differently: preprocessed scans that were kept are then made anew."""
MODEL_SPACING_MM = (0.45, 0.45, 1.0)
# Half of the networks' window of 20x20x16 voxels lies beyond the brain on each side.
MARGIN = (10, 10, 8)

_SAME_SPACING = 0.05
# Less is no brain, nor a part of one that could be searched.
_SMALLEST_MASK_ML = 1.0
_SMALLEST_SHARE = 0.02
_ADULT_BRAIN_ML = (700.0, 2100.0)
_WHOLE_HEAD_ML = 2500.0
_MANY_NEGATIVE = 0.1


@dataclass(frozen=True)
class Preprocessed:
    """What the networks see of a scan.

    ``image``: float32, the tissue's peak at 0.5, 0 outside the brain; axes nearest to R, A, S, voxels of the model's
    spacing, cropped to the brain with :data:`MARGIN` voxels (or more) around it. ``mask``: bool, on the grid of
    ``image``. ``brain_mask``: bool, on the grid of the scan as stored. ``notes``: sentences for the user.
    """

    image: Volume
    mask: Volume
    brain_mask: Volume
    notes: list[str] = field(default_factory=list)


def preprocessing_stages(brain_mask: str | Path | Volume = "hd-bet") -> list[tuple[str, float]]:
    """Return the stages that :func:`preprocess` reports, with weights (about seconds), for ``Progress.plan``."""
    return [(BRAIN_MASK, 60.0 if brain_mask == "hd-bet" else 3.0), (BIAS_FIELD, 10.0), (NORMALISATION, 3.0)]


def preprocess(
    scan: Volume,
    brain_mask: str | Path | Volume = "hd-bet",
    spacing_mm: Sequence[float] = MODEL_SPACING_MM,
    progress: Progress | None = None,
    device: str = "auto",
    coarsest_mm: Sequence[float] | None = None,
) -> Preprocessed:
    """Make ``scan`` ready for the networks.

    Args:
        scan: SWI or T2*-weighted magnitude, axes (i, j, k) in any orientation.
        brain_mask: ``"hd-bet"``, ``"simple"``, ``"none"`` (all that is above 0), a mask file on the scan's grid, or
            such a mask.
        spacing_mm: the model's voxel size along R, A, S; an axis that is within 5 % of it stays as it is.
        progress: told of the stages ``"brain mask"``, ``"bias field"`` and ``"normalisation"``.
        device: where HD-BET runs: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        coarsest_mm: the coarsest voxels along R, A, S that the model knows; a scan with coarser ones gets a note.

    Raises:
        BadInputError: the mask does not fit the scan, is empty or too small, or the scan holds nothing above 0.
        MissingPackageError, ModelError, OutOfMemoryError: from HD-BET.
    """
    progress = progress or Progress()
    scan, notes = _non_negative(scan)
    if "note" in scan.source:
        notes.insert(0, scan.source["note"])
    progress.report(BRAIN_MASK)
    inside, mask_notes = _brain_mask(scan, brain_mask, progress, device)
    notes += mask_notes + _check_mask(scan, inside, brain_mask)
    progress.report(BRAIN_MASK, 1, 1)

    # One voxel beyond the brain lets the interpolation at its rim see tissue rather than an edge.
    lower, upper = _box(inside.canonical().array, (2, 2, 2))
    image, mask = scan.canonical().cropped(lower, upper), inside.canonical().cropped(lower, upper)
    image, bias_notes = correct_bias_field(image, mask, progress)
    notes += bias_notes

    progress.report(NORMALISATION, 0, 2)
    if coarsest_mm is not None:
        notes += _coarse(image.spacing, coarsest_mm)
    image, mask = _resampled(image, mask, spacing_mm)
    progress.report(NORMALISATION, 1, 2)
    image = normalise(image, mask)
    lower, upper = _box(mask.array, MARGIN)
    image, mask = _framed(image, lower, upper), _framed(mask, lower, upper)
    progress.report(NORMALISATION, 2, 2)
    return Preprocessed(with_stored_spacing(image, scan), mask, inside, notes)


def _non_negative(scan: Volume) -> tuple[Volume, list[str]]:
    array = np.asarray(scan.array, np.float32)
    share = float(np.mean(array < 0))
    if share == 0:
        return scan.with_array(array), []
    note = f"The scan has intensities below 0 ({share:.1%} of its voxels); they were set to 0."
    if share > _MANY_NEGATIVE:
        note = note[:-1] + ", but it may be a phase image instead of a magnitude or SWI image."
    return scan.with_array(np.maximum(array, 0)), [note]


def _brain_mask(scan: Volume, wanted: str | Path | Volume, progress: Progress, device: str) -> tuple[Volume, list[str]]:
    """Return the mask (bool) on the grid of ``scan``, and notes."""
    if isinstance(wanted, Volume):
        if not wanted.same_grid(scan):
            raise BadInputError("The brain mask lies on another grid than the scan.", "Make it on the scan itself.")
        return scan.with_array(wanted.array > 0), []
    if wanted == "hd-bet":
        return hd_bet_mask(scan, progress, device)
    if wanted == "simple":
        return simple_brain_mask(scan), []
    if wanted == "none":
        return scan.with_array(scan.array > 0), ["No brain mask was used: candidates outside the brain are likely."]
    return read_mask(wanted, scan), []


def _check_mask(scan: Volume, mask: Volume, wanted: str | Path | Volume) -> list[str]:
    """Refuse a mask that cannot be a brain; returns a note where its volume is unusual for a whole head."""
    voxel_ml = float(np.prod(scan.spacing)) / 1000
    volume_ml, field_ml = float(mask.array.sum()) * voxel_ml, mask.array.size * voxel_ml
    hint = "Look at the scan: it must be a brain. Else give a mask with --brain-mask FILE."
    if volume_ml == 0:
        raise BadInputError("The brain mask is empty.", hint)
    found_here = isinstance(wanted, str) and wanted in ("hd-bet", "simple")
    if volume_ml < _SMALLEST_MASK_ML or (found_here and volume_ml < _SMALLEST_SHARE * field_ml):
        raise BadInputError(f"The brain mask is too small ({volume_ml:.2g} ml).", hint)
    low, high = _ADULT_BRAIN_ML
    if found_here and field_ml > _WHOLE_HEAD_ML and not low <= volume_ml <= high:
        return [f"The brain mask measures {volume_ml:.0f} ml, which is unusual for a brain: look at it."]
    return []


def _coarse(spacing_mm: Sequence[float], coarsest_mm: Sequence[float]) -> list[str]:
    """Return a note where a voxel is coarser than ``coarsest_mm`` along any axis, by more than 5 %."""
    if (np.array(spacing_mm) <= np.array(coarsest_mm, float) * (1 + _SAME_SPACING)).all():
        return []
    sizes = [" x ".join(f"{s:.3g}" for s in spacing) for spacing in (spacing_mm, coarsest_mm)]
    return [f"The voxels of {sizes[0]} mm are coarser than the model knows them ({sizes[1]} mm): expect misses."]


def _resampled(image: Volume, mask: Volume, spacing_mm: Sequence[float]) -> tuple[Volume, Volume]:
    """Return both at ``spacing_mm`` where an axis differs from it by more than 5 %."""
    old, wanted = np.array(image.spacing), np.array(spacing_mm, float)
    target = np.where(np.abs(old / wanted - 1) > _SAME_SPACING, wanted, old)
    if np.array_equal(target, old):
        return image, mask
    share = mask.with_array(mask.array.astype(np.float32)).resampled(target).array
    image = image.resampled(target)
    return image, image.with_array(share >= 0.5)


def _box(mask: np.ndarray, margin: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the first index of the box around ``mask`` and the one after its last, ``margin`` voxels wider."""
    found = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    ends = np.array([(f[0], f[-1] + 1) if f.size else (0, 0) for f in found])
    return ends[:, 0] - np.array(margin), ends[:, 1] + np.array(margin)


def _framed(volume: Volume, lower: np.ndarray, upper: np.ndarray) -> Volume:
    """Return the voxels from index ``lower`` up to ``upper``, zeros where these lie beyond the grid."""
    inner = volume.cropped(lower, upper)
    before, after = np.maximum(-lower, 0), np.maximum(upper - np.array(volume.shape), 0)
    affine = volume.ijk_to_ras.copy()
    affine[:3, 3] = volume.to_ras(lower)
    padded = np.pad(inner.array, list(zip(before, after, strict=True)))
    return Volume(padded, affine, volume.source)
