"""A coarse copy of a scan for work that needs no detail."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813

from CMBDetectorLib.volume import Volume, from_sitk, to_sitk


def shrunk(volume: Volume, spacing_mm: float, fewest: int = 8) -> Volume:
    """Return ``volume`` as float32 with each voxel the average of a block that measures about ``spacing_mm``.

    Axes that are coarser stay as they are, and each keeps at least ``fewest`` voxels where it has them; axis order and
    directions are kept. Blocks are whole, since interpolating to the exact spacing doubled the error of the bias field.
    """
    floats = volume.with_array(np.asarray(volume.array, np.float32))
    blocks = [
        int(np.clip(round(spacing_mm / spacing), 1, max(1, n // fewest)))
        for n, spacing in zip(volume.shape, volume.spacing, strict=True)
    ]
    return from_sitk(sitk.BinShrink(to_sitk(floats), blocks))
