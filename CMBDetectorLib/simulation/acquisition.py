"""From the complex image of a head to stored numbers: k-space, noise, phase mask, coil shading, integers."""

from __future__ import annotations

import numpy as np
from scipy import fft, ndimage

from CMBDetectorLib.simulation.physics import homodyne_phase, phase_mask
from CMBDetectorLib.simulation.protocols import Protocol

_WORKERS = 2
_FILTER_SAMPLES = 64  # width of the homodyne low-pass over a field of view of 230 mm
_FILTER_FOV_MM = 230.0


def average_layers(signal: np.ndarray, layers: int) -> np.ndarray:
    """Return the complex mean of each ``layers`` consecutive slices of an image (i, j, k)."""
    if layers == 1:
        return signal
    i, j, k = signal.shape
    return signal.reshape(i, j, k // layers, layers).mean(-1)


def acquire(signal: np.ndarray, protocol: Protocol, rng: np.random.Generator, noise: float) -> np.ndarray:
    """Return the complex image as reconstructed: k-space cut to the acquired matrix, noise added, zero-filled.

    ``signal`` has ``protocol.oversampling`` times the stored voxels along i and j; the result has the stored ones.
    ``noise`` is the SD of the real and of the imaginary part in the result.
    """
    stored = [n // protocol.oversampling for n in signal.shape[:2]]
    kept = [n // protocol.zero_filling for n in stored]
    if protocol.oversampling == protocol.zero_filling == 1:
        return signal + _complex_noise(rng, signal.shape, noise)
    image = np.empty((*stored, signal.shape[2]), np.complex64)
    for k in range(signal.shape[2]):
        spectrum = fft.fftshift(fft.fft2(signal[..., k], workers=_WORKERS))
        low = [(n - m) // 2 for n, m in zip(spectrum.shape, kept, strict=True)]
        inner = spectrum[low[0] : low[0] + kept[0], low[1] : low[1] + kept[1]] / protocol.oversampling**2
        # Noise of this SD a sample has SD ``noise`` in the image after the inverse transform of the padded spectrum.
        inner = inner + _complex_noise(rng, inner.shape, noise * stored[0] * stored[1] / np.sqrt(kept[0] * kept[1]))
        inner = inner * _taper(kept[0])[:, None] * _taper(kept[1])[None, :]
        full = np.zeros(stored, np.complex64)
        start = [(n - m) // 2 for n, m in zip(stored, kept, strict=True)]
        full[start[0] : start[0] + kept[0], start[1] : start[1] + kept[1]] = inner
        image[..., k] = fft.ifft2(fft.ifftshift(full), workers=_WORKERS)
    return image


def _taper(count: int) -> np.ndarray:
    """Return the k-space filter of a scanner along one axis: flat in the middle, falling over the outer third.

    It tames the ringing at sharp edges without removing it, as in real zero-filled scans.
    """
    distance = np.abs(np.arange(count) - count // 2) / (count / 2)
    outer = np.clip((distance - 0.55) / 0.45, 0, 1)
    return (0.5 + 0.5 * np.cos(np.pi * 0.8 * outer)).astype(np.float32)


def combine(image: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Return what is stored of a complex image: the magnitude, for SWI times the phase mask to the power 4."""
    magnitude = np.abs(image)
    if protocol.family != "swi":
        return magnitude
    field_of_view = [n * s for n, s in zip(image.shape[:2], protocol.spacing_mm[:2], strict=True)]
    width = [max(4, round(_FILTER_SAMPLES * f / _FILTER_FOV_MM)) for f in field_of_view]
    # Slabs keep the memory of the filter small.
    for start in range(0, image.shape[2], 16):
        slab = slice(start, start + 16)
        magnitude[..., slab] *= phase_mask(homodyne_phase(image[..., slab], width))
    return magnitude


def finish(magnitude: np.ndarray, protocol: Protocol, rng: np.random.Generator) -> np.ndarray:
    """Return the stored scan: shaded by the coil and scaled to the integers of a scanner (float32)."""
    coarse = tuple(max(4, n // 8) for n in magnitude.shape)
    shading = np.ones(coarse, np.float32)
    grid = [np.linspace(-1, 1, n, dtype=np.float32) for n in coarse]
    for axis in range(3):
        shape = [-1 if a == axis else 1 for a in range(3)]
        line = grid[axis].reshape(shape)
        strength = 0.3 if protocol.crop else 1.0
        shading = shading + strength * (rng.normal(0, 0.12) * line + rng.uniform(0, 0.25) * line**2)
    scale = rng.uniform(150, 900) / 0.5
    zoom = [n / m for n, m in zip(magnitude.shape, coarse, strict=True)]
    result = magnitude * scale
    result *= ndimage.zoom(shading, zoom, order=1, grid_mode=True, mode="nearest")
    np.clip(result, 0, 32767, out=result)
    return np.rint(result, out=result)


def _complex_noise(rng: np.random.Generator, shape: tuple[int, ...], sd: float) -> np.ndarray:
    noise = np.empty(shape, np.complex64)
    noise.real = rng.standard_normal(shape, dtype=np.float32)
    noise.imag = rng.standard_normal(shape, dtype=np.float32)
    noise *= np.float32(sd)
    return noise
