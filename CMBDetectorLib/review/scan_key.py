"""A short key that recognises a scan when it is opened again, whatever it is called then."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import numpy as np

_KEY = re.compile(r"[0-9a-f]{16}")
_SAMPLES = 32
_STEP_MM = 0.01
# Origins and spacings are round numbers: those of 0.225 mm lie right on the border between two steps of 0.01 mm, and
# float32 (NIfTI) and float64 (DICOM, NRRD) would fall to different sides. Shifted borders lie where no round number is.
_SHIFT = 0.3183


def scan_key(array: np.ndarray, ijk_to_ras: Any) -> str:
    """Return 16 hexadecimal digits for a scan; the same for any dtype that holds its values and any memory layout.

    ``array`` has the axes (i, j, k), ``ijk_to_ras`` is its affine (4x4, mm). What goes in: the shape, the affine to
    0.01 mm and every n-th voxel as float32 (about 32 along each axis). It is a hash and holds no patient data.
    """
    array = np.asarray(array)
    affine = np.asarray(ijk_to_ras, dtype=float)
    if array.ndim != 3 or affine.shape != (4, 4):
        raise ValueError(f"a scan has three axes and an affine of 4x4, not {array.shape} and {affine.shape}")
    sample = array[tuple(slice(None, None, max(1, n // _SAMPLES)) for n in array.shape)]
    digest = hashlib.sha256(np.array(array.shape, "<i8").tobytes())
    digest.update(grid_steps(affine).tobytes())
    # Adding 0 turns -0 into 0; tobytes() runs through (i, j, k) whatever the memory layout.
    digest.update((sample.astype("<f4") + np.float32(0)).astype("<f4").tobytes())
    return digest.hexdigest()[:16]


def is_scan_key(text: str) -> bool:
    """Tell whether ``text`` has the form of a key."""
    return _KEY.fullmatch(text) is not None


def grid_steps(ijk_to_ras: Any) -> np.ndarray:
    """Return the affine (4x4, mm) in steps of 0.01 mm (3x4 whole numbers), the same for one grid in any file format."""
    return np.floor(np.asarray(ijk_to_ras, dtype=float)[:3] / _STEP_MM + _SHIFT).astype("<i8")
