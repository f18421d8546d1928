"""The paper's augmentation: flips and rotations by 90 degrees; shifts are made where a window is cut."""

from __future__ import annotations

import numpy as np


def flip_and_rotate(rng: np.random.Generator, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return ``arrays`` (i, j, k) all flipped along a random choice of axes and turned by a random multiple of 90
    degrees in the (i, j) plane, the only one in which voxels and windows are square."""
    flips = [axis for axis in range(3) if rng.random() < 0.5]
    turns = int(rng.integers(4))
    return tuple(np.rot90(np.flip(a, flips), turns, axes=(0, 1)) for a in arrays)


def random_shifts(rng: np.random.Generator, count: int, largest: tuple[int, int, int]) -> np.ndarray:
    """Return ``count`` whole-voxel shifts (count, 3), each axis uniform in [-largest, largest]."""
    high = np.array(largest)
    return rng.integers(-high, high + 1, size=(count, 3))
