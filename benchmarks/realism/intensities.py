"""The intensities of a head's tissues, its dark voxels, its noise and the shading left in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from realism.heads import Head

_BLOCK_MM = 5.0
_SHADING_MM = 8.0
_OUTER_MM = 4.0


def intensities(head: Head) -> dict[str, np.ndarray]:
    """Return the figures of one scan by the keys of figures.json."""
    image, spacing = head.image.array, head.image.spacing
    found = {name: _quantiles(image[head.regions[name]], (50,)) for name in ("white", "grey", "fluid", "sulci")}
    found |= {name: _quantiles(image[head.regions[name]], (50,)) for name in ("thalamus", "pallidum")}
    found["white_spread"] = _quantiles(image[head.regions["white"]], (10, 90))
    found["pallidum_spread"] = _quantiles(image[head.regions["pallidum"]], (5, 95))
    for name in ("grey", "fluid"):
        found[f"{name}_ratio"] = found[name] / found["white"]
    brain = np.isfinite(image)
    found["percentiles"] = _quantiles(image[brain], (1, 5, 25, 50, 75, 95, 99))
    for name, limit in (("dark25", 0.25), ("dark35", 0.35)):
        found[name] = np.array([100 * float((image[brain] < limit).mean())])
    dark = brain & (image < 0.35)
    found["dark_outer"] = np.array([100 * float((head.rim_mm[dark] < _OUTER_MM).mean()) if dark.any() else np.nan])
    white = head.regions["white"]
    sd, first, second = noise(image, white, spacing)
    found["noise"], found["noise_autocorrelation"] = np.array([sd]), np.array([first, second])
    found["shading"] = np.array([shading(image, white, spacing)])
    return found


def _quantiles(values: np.ndarray, percent: Sequence[float]) -> np.ndarray:
    return np.nanpercentile(values, percent) if values.size else np.full(len(percent), np.nan)


def noise(image: np.ndarray, white: np.ndarray, spacing: Sequence[float]) -> tuple[float, float, float]:
    """Return the SD of the noise and its autocorrelation at 1 and 2 pixels (mean of both directions in the slice).

    From blocks of about 5 mm wholly inside ``white`` (bool, on the grid of ``image`` (i, j, k)), each less its best
    plane; blocks of over twice the median variance hold a vessel and are left out. Noise is taken to be unrelated 4 or
    more pixels away: the covariance there, which the plane and slow texture leave, is taken off the others.
    """
    side = int(np.clip(round(_BLOCK_MM / spacing[0]), 7, 11))
    inside = white & np.isfinite(image)
    blocks = []
    for i in range(0, image.shape[0] - side, side):
        for j in range(0, image.shape[1] - side, side):
            # A whole column of slices at once.
            whole = inside[i : i + side, j : j + side].all((0, 1))
            blocks += [image[i : i + side, j : j + side, k] for k in np.flatnonzero(whole)]
    if len(blocks) < 5:
        return np.nan, np.nan, np.nan
    values = np.stack(blocks).reshape(len(blocks), -1).astype(float)
    line = np.linspace(-1, 1, side)
    design = np.stack([np.ones((side, side)), *np.meshgrid(line, line, indexing="ij")], -1).reshape(-1, 3)
    rest = values - (values @ np.linalg.pinv(design).T) @ design.T
    variance = (rest**2).mean(1)
    rest = rest[variance <= 2 * np.median(variance)].reshape(-1, side, side)
    products = [
        ((rest[:, lag:] * rest[:, : side - lag]).mean() + (rest[:, :, lag:] * rest[:, :, : side - lag]).mean()) / 2
        for lag in range(6)
    ]
    far = float(np.mean(products[4:]))
    own, first, second = (float(product) - far for product in products[:3])
    return float(np.sqrt(own)), first / own, second / own


def shading(image: np.ndarray, white: np.ndarray, spacing: Sequence[float]) -> float:
    """Return the coefficient of variation of ``white`` after smoothing it with SD 8 mm (within itself)."""
    inside = white & np.isfinite(image)
    if not inside.any():
        return np.nan
    # Every second or third voxel does for what is this smooth.
    steps = [max(1, int(2 / s)) for s in spacing]
    cut = tuple(slice(None, None, s) for s in steps)
    values, weights = np.where(inside, image, 0)[cut].astype(np.float32), inside[cut].astype(np.float32)
    sigma = [_SHADING_MM / (s * n) for s, n in zip(spacing, steps, strict=True)]
    smooth = ndimage.gaussian_filter(values, sigma) / np.maximum(ndimage.gaussian_filter(weights, sigma), 1e-3)
    chosen = smooth[inside[cut]]
    return float(chosen.std() / chosen.mean())
