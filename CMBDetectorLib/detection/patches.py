"""Windows of voxels around positions, the same for training and for detection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from CMBDetectorLib.networks.unet import WINDOW


def cut_windows(image: np.ndarray, ijk: np.ndarray, window: Sequence[int] = WINDOW) -> np.ndarray:
    """Return windows (n, *window), float32, whose voxel ``window // 2`` is the voxel nearest to ``ijk`` (n, 3).

    Beyond the image there is no brain: 0.
    """
    size = np.array(window)
    starts = np.floor(np.asarray(ijk, dtype=float) + 0.5).astype(int) - size // 2
    windows = np.zeros((len(starts), *window), np.float32)
    for target, start in zip(windows, starts, strict=True):
        low, high = np.maximum(start, 0), np.minimum(start + size, image.shape)
        if (high <= low).any():
            continue
        source = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        inside = tuple(slice(int(a), int(b)) for a, b in zip(low - start, high - start, strict=True))
        target[inside] = image[source]
    return windows
