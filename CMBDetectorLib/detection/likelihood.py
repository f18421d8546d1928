"""Stage 1 over a whole scan: the likelihood maps of the U-Nets, normalised and added.

Two modes give a map on the grid of the preprocessed image: :func:`dense_map`, large overlapping tiles, and
:func:`exact_map`, the paper's sliding window of 20x20x16 voxels with stride 3, overlaid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from CMBDetectorLib.detection.tiles import MOST_VOXELS, plan_tiles
from CMBDetectorLib.networks import unet
from CMBDetectorLib.networks.backend import memory_guard

EXACT_STRIDE = 3
"""The paper's step between two windows, in voxels on each axis."""
WINDOWS_PER_BATCH = 64
"""How many windows :func:`exact_map` computes at once."""

Report = Callable[[int, int], None]


def tile_margin(architecture: dict[str, Any]) -> tuple[int, int, int]:
    """Return what a tile is computed with around its core, in voxels (i, j, k).

    Less than :func:`CMBDetectorLib.networks.unet.margin` because the outermost voxels of the receptive field hardly
    count (``Testing/Python/test_detection.py`` holds it to 0.03).
    """
    i, j, k = unet.stride(architecture)
    return 2 * i, 2 * j, 2 * k


def _silent(step: int, steps: int) -> None:
    pass


def dense_map(
    models: Sequence[Any],
    architecture: dict[str, Any],
    image: np.ndarray,
    mask: np.ndarray,
    report: Report = _silent,
    most_voxels: int = MOST_VOXELS,
    margin: Sequence[int] | None = None,
) -> np.ndarray:
    """Return the mean likelihood (float32, i j k) of ``models``, 0 outside ``mask``.

    ``image`` is normalised, float32, 0 outside the brain; ``mask`` bool of the same shape. Only tiles that hold brain
    are computed, each with ``margin`` voxels (:func:`tile_margin`) around it; ``report(step, steps)`` is called after
    each tile and model.

    Raises:
        OutOfMemoryError: a tile does not fit into memory.
    """
    total = np.zeros(image.shape, np.float32)
    if not mask.any():
        return total
    tiles = plan_tiles(mask, unet.stride(architecture), margin or tile_margin(architecture), most_voxels)
    steps, done = len(tiles) * len(models), 0
    for tile in tiles:
        voxels = _read_box(image, np.array(tile.start) - tile.margin, tile.shape)
        stop = np.minimum(tile.stop, image.shape)
        box = tuple(slice(a, int(b)) for a, b in zip(tile.start, stop, strict=True))
        core = tuple(slice(m, m + int(b) - a) for a, b, m in zip(tile.start, stop, tile.margin, strict=True))
        for model in models:
            with memory_guard():
                total[box] += np.asarray(model.predict_on_batch(voxels[None, ..., None]))[0, ..., 0][core]
            done += 1
            report(done, steps)
    total /= len(models)
    total[~mask] = 0
    return total


def exact_map(
    models: Sequence[Any],
    image: np.ndarray,
    mask: np.ndarray,
    report: Report = _silent,
    most_windows: int | None = None,
    window: Sequence[int] = unet.WINDOW,
    per_batch: int = WINDOWS_PER_BATCH,
) -> np.ndarray:
    """Return what :func:`dense_map` returns, by the paper's sliding window.

    Windows without brain are left out: they would add nothing to a voxel of the brain. Each map is normalised by the
    number of windows over a voxel. ``most_windows`` stops early, for benchmarks that measure a part. Windows larger
    than the paper's (``window``, voxels) are moved by a third of themselves instead of by 3 voxels.

    Raises:
        OutOfMemoryError: ``per_batch`` windows do not fit into memory.
    """
    # Room on each side, so that every voxel of the brain is under windows at all offsets.
    pad = np.array(window) - 1
    padded = _framed(image, window)
    total = np.zeros(padded.shape, np.float32)
    count = np.zeros(padded.shape, np.uint16)
    corners = _window_corners(_framed(mask, window), window)[:most_windows]
    views = np.lib.stride_tricks.sliding_window_view(padded, tuple(window))
    for first in range(0, len(corners), per_batch):
        batch = corners[first : first + per_batch]
        windows = views[batch[:, 0], batch[:, 1], batch[:, 2]][..., None]
        if len(batch) < per_batch:  # one shape for all batches: nothing is compiled twice
            windows = np.pad(windows, [(0, per_batch - len(batch)), *[(0, 0)] * 4])
        with memory_guard():
            maps = [np.asarray(model.predict_on_batch(windows))[..., 0] for model in models]
        summed = np.sum(maps, axis=0)
        for (i, j, k), likelihood in zip(batch, summed, strict=False):
            box = slice(i, i + window[0]), slice(j, j + window[1]), slice(k, k + window[2])
            total[box] += likelihood
            count[box] += 1
        report(min(first + per_batch, len(corners)), len(corners))
    total /= np.maximum(count, 1) * np.float32(len(models))
    inner = tuple(slice(int(p), int(p) + n) for p, n in zip(pad, image.shape, strict=True))
    return np.where(mask, total[inner], np.float32(0))


def exact_stride(window: Sequence[int]) -> tuple[int, int, int]:
    """Return the step (i, j, k) between two windows: the paper's 3 for its window, a third of a larger one."""
    i, j, k = (EXACT_STRIDE if n <= paper else n // 3 for n, paper in zip(window, unet.WINDOW, strict=True))
    return i, j, k


def exact_windows(mask: np.ndarray, window: Sequence[int] = unet.WINDOW) -> int:
    """Return how many windows :func:`exact_map` computes for ``mask`` (bool, i j k)."""
    return len(_window_corners(_framed(mask, window), window))


def _framed(array: np.ndarray, window: Sequence[int]) -> np.ndarray:
    """Return ``array`` with room for windows at all offsets over its first and last voxels."""
    return np.pad(array, [(n - 1, n - 1 + s) for n, s in zip(window, exact_stride(window), strict=True)])


def _window_corners(mask: np.ndarray, window: Sequence[int]) -> np.ndarray:
    """Return the first voxels (n, 3) of the windows on the stride grid that hold brain."""
    table = np.pad(mask, ((1, 0),) * 3).astype(np.int64)
    for axis in range(3):
        np.cumsum(table, axis=axis, out=table)
    steps = exact_stride(window)
    starts = [np.arange(0, n - w + 1, s) for n, w, s in zip(mask.shape, window, steps, strict=True)]
    sums = np.zeros([len(s) for s in starts], np.int64)
    for corner in np.ndindex(2, 2, 2):
        at = [s + w * c for s, w, c in zip(starts, window, corner, strict=True)]
        sums += (-1) ** (3 - sum(corner)) * table[np.ix_(*at)]
    return np.argwhere(sums > 0) * np.array(steps)


def _read_box(image: np.ndarray, start: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return the voxels from ``start``, 0 (no brain) where the box reaches beyond the image."""
    tile = np.zeros(tuple(shape), np.float32)
    low = np.maximum(start, 0)
    high = np.minimum(start + np.array(shape), image.shape)
    source = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    target = tuple(slice(int(a), int(b)) for a, b in zip(low - start, high - start, strict=True))
    tile[target] = image[source]
    return tile
