"""The paper's augmentation (flips, rotations by 90 degrees; shifts are made where a window is cut), and scanners."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


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


def vary_scanner(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Return a window (i, j, k; normalised intensities, float32) as another scanner might have shown it.

    Brightness and contrast of tissue, brightness of fluid, sharpness and noise change; what is dark stays dark, and 0
    (no brain) stays 0.
    """
    brain = image > 0
    image = 0.5 * (2 * image) ** np.float32(rng.uniform(0.8, 1.25)) * np.float32(rng.uniform(0.92, 1.08))
    # Fluid is twice as bright as tissue on one scanner and as dark as tissue on the next.
    knee = np.float32(0.6)
    image = np.where(image > knee, knee + (image - knee) * np.float32(rng.uniform(0.4, 1.4)), image)
    if rng.random() < 0.3:
        width = rng.uniform(0.3, 0.9, 3) * (1, 1, 0.5)
        image = ndimage.gaussian_filter(image, width, truncate=2.5)
    if rng.random() < 0.5:
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        if rng.random() < 0.5:
            noise = 2 * ndimage.gaussian_filter(noise, (0.8, 0.8, 0), truncate=2.5)
        image = image + np.float32(rng.uniform(0, 0.03)) * noise
    return np.where(brain, np.maximum(image, np.float32(0.001)), np.float32(0))
