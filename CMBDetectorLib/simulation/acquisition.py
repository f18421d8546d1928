"""From the complex image of a head to stored numbers: k-space, noise, phase mask, coil shading, integers."""

from __future__ import annotations

import numpy as np
from scipy import fft, ndimage

from CMBDetectorLib.simulation.fields import random_map
from CMBDetectorLib.simulation.physics import homodyne_phase, phase_mask
from CMBDetectorLib.simulation.protocols import Protocol

_WORKERS = 2
_FILTER_SAMPLES = 64  # width of the homodyne low-pass over a field of view of 230 mm
_FILTER_FOV_MM = 230.0
_PULSATING = 0.75  # signal from which a voxel leaves a ghost
_SHADING_STEP_MM = 6.0
_UNEVEN_NODES = 64
_UNEVEN = ((40.0, 0.03, 0.1), (16.0, 0.02, 0.055))  # width (mm, SD of the smoothing), least and most strength (SD)


def average_layers(signal: np.ndarray, layers: int, thickness: float = 1.0) -> np.ndarray:
    """Return the complex mean of each ``layers`` consecutive slices of an image (i, j, k).

    ``thickness`` is that of the slice over ``layers``: a thinner one leaves a gap, the outer layers count less.
    """
    if layers == 1:
        return signal
    i, j, k = signal.shape
    offset = np.abs(np.arange(layers) - (layers - 1) / 2)
    # A soft edge half a layer wide on both sides: the profile of a real pulse is no box.
    weights = np.clip((thickness * layers / 2 - offset) + 0.5, 0.05, 1).astype(np.float32)
    return signal.reshape(i, j, k // layers, layers) @ (weights / weights.sum())


def acquire(signal: np.ndarray, protocol: Protocol, rng: np.random.Generator, noise: float) -> np.ndarray:
    """Return the complex image as reconstructed: k-space cut to the acquired matrix, noise added, zero-filled.

    ``signal`` has ``protocol.oversampling`` times the stored voxels along i and j; the result has the stored ones.
    ``noise`` is the SD of the real and of the imaginary part in the result.
    """
    stored = [n // protocol.oversampling for n in signal.shape[:2]]
    kept = [min(n, 2 * round(n / protocol.zero_filling / 2)) for n in stored]
    start, depth = float(rng.uniform(0.45, 0.65)), float(rng.uniform(0.65, 0.9))
    taper = _taper(kept[0], start, depth)[:, None] * _taper(kept[1], start, depth)[None, :]
    # Noise of this SD a sample has SD ``noise`` in the image after the inverse transform of the padded, filtered data.
    sample_noise = noise * stored[0] * stored[1] / np.sqrt(float((taper**2).sum()))
    image = np.empty((*stored, signal.shape[2]), np.complex64)
    for k in range(signal.shape[2]):
        spectrum = fft.fftshift(fft.fft2(signal[..., k], workers=_WORKERS))
        low = [(n - m) // 2 for n, m in zip(spectrum.shape, kept, strict=True)]
        inner = spectrum[low[0] : low[0] + kept[0], low[1] : low[1] + kept[1]] / protocol.oversampling**2
        inner = (inner + _complex_noise(rng, inner.shape, sample_noise)) * taper
        full = np.zeros(stored, np.complex64)
        start = [(n - m) // 2 for n, m in zip(stored, kept, strict=True)]
        full[start[0] : start[0] + kept[0], start[1] : start[1] + kept[1]] = inner
        image[..., k] = fft.ifft2(fft.ifftshift(full), workers=_WORKERS)
    return image


def _taper(count: int, start: float, depth: float) -> np.ndarray:
    """Return the k-space filter of a scanner along one axis: flat up to ``start`` (0..1), then falling by a cosine.

    ``depth`` (0..1) is how much of the fall lies inside the matrix. It tames the ringing at sharp edges without
    removing it, as in real scans.
    """
    distance = np.abs(np.arange(count) - count // 2) / (count / 2)
    outer = np.clip((distance - start) / (1 - start), 0, 1)
    return (0.5 + 0.5 * np.cos(np.pi * depth * outer)).astype(np.float32)


def _add_ghosts(magnitude: np.ndarray, rng: np.random.Generator) -> None:
    """Add faint copies of what is bright - fluid, fat - shifted along j, in place: what pulsates is encoded twice."""
    if rng.random() < 0.4:
        return
    strength = float(rng.uniform(0.005, 0.035))
    shift = int(magnitude.shape[1] * rng.uniform(0.06, 0.5)) * (1 if rng.random() < 0.5 else -1)
    # The phase of the copy says whether it adds or takes.
    for k, amount in enumerate(strength * rng.standard_normal(magnitude.shape[2])):
        bright = np.where(magnitude[..., k] > _PULSATING, magnitude[..., k], 0)
        magnitude[..., k] = np.abs(magnitude[..., k] + np.float32(amount) * np.roll(bright, shift, axis=1))


def combine(image: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Return what is stored of a complex image: the magnitude, for SWI times the phase mask."""
    magnitude = np.abs(image)
    if not protocol.phase_power:
        return magnitude
    field_of_view = [n * s for n, s in zip(image.shape[:2], protocol.spacing_mm[:2], strict=True)]
    width = [max(4, round(_FILTER_SAMPLES * f / _FILTER_FOV_MM)) for f in field_of_view]
    # Slabs keep the memory of the filter small.
    for start in range(0, image.shape[2], 16):
        slab = slice(start, start + 16)
        magnitude[..., slab] *= phase_mask(homodyne_phase(image[..., slab], width), protocol.phase_power)
    return magnitude


def finish(magnitude: np.ndarray, protocol: Protocol, rng: np.random.Generator) -> np.ndarray:
    """Return the stored scan: with ghosts, shaded by the coil and scaled to the integers of a scanner (float32)."""
    if protocol.family == "t2star":
        _add_ghosts(magnitude, rng)
    extent = np.array(magnitude.shape) * protocol.spacing_mm
    coarse = tuple(int(n) for n in np.maximum(4, np.ceil(extent / _SHADING_STEP_MM)))
    shading = np.ones(coarse, np.float32)
    grid = [np.linspace(-1, 1, n, dtype=np.float32) for n in coarse]
    strength = 0.3 if protocol.crop else 1.0
    for axis in range(3):
        shape = [-1 if a == axis else 1 for a in range(3)]
        line = grid[axis].reshape(shape)
        shading = shading + strength * (rng.normal(0, 0.12) * line + rng.uniform(0, 0.25) * line**2)
    # The elements of the coil and the waves at 3 T shade more finely than a bias field correction can follow.
    for width, low, high in _UNEVEN:
        # Drawn over 400 mm, so that its mean is none of the field of view's.
        wide = random_map(rng, [max(n, _UNEVEN_NODES) for n in coarse], width / _SHADING_STEP_MM)
        shading = shading * np.maximum(0.5, 1 + rng.uniform(low, high) * wide[tuple(slice(n) for n in coarse)])
    scale = rng.uniform(150, 900) / 0.5
    zoom = [n / m for n, m in zip(magnitude.shape, coarse, strict=True)]
    result = magnitude * np.float32(scale)
    result *= ndimage.zoom(shading.astype(np.float32), zoom, order=1, grid_mode=True, mode="nearest")
    np.clip(result, 0, 32767, out=result)
    return np.rint(result, out=result)


def _complex_noise(rng: np.random.Generator, shape: tuple[int, ...], sd: float) -> np.ndarray:
    noise = np.empty(shape, np.complex64)
    noise.real = rng.standard_normal(shape, dtype=np.float32)
    noise.imag = rng.standard_normal(shape, dtype=np.float32)
    noise *= np.float32(sd)
    return noise
