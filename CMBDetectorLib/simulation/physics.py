"""Susceptibility, field, complex signal and the SWI phase mask.

Fields are in ppm of B0, susceptibilities in ppm relative to the tissue around; phases in rad, with the sign that makes
paramagnetic blood negative inside a vessel along B0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import fft

from CMBDetectorLib.simulation.protocols import Protocol

EMPIRICAL_RELAXIVITY = 137.0  # Hz per ppm: R2* of iron-rich tissue at 3 T
STATIC_RELAXIVITY = 323.0  # s^-1 per ppm: static dephasing inside concentrated iron at 3 T
_WORKERS = 2


def dipole_field(
    chi: np.ndarray, spacing_mm: Sequence[float], b: Sequence[float], padding: int | None = None
) -> np.ndarray:
    """Return the field (ppm, float32, same grid) that the susceptibility ``chi`` (ppm) makes.

    ``b`` is the unit vector of B0 along the axes of the array. The grid is padded with zeros by ``padding`` voxels on
    each axis, or to twice its size. D(k) = 1/3 - (k.b)^2 / |k|^2, D(0) = 0 (Marques 2021, doi 10.1002/mrm.28716).
    """
    size = [fft.next_fast_len(n + (n if padding is None else padding), real=True) for n in chi.shape]
    spectrum = fft.rfftn(np.asarray(chi, np.float32), size, workers=_WORKERS)
    axes = [np.fft.fftfreq(n, s) for n, s in zip(size[:2], spacing_mm[:2], strict=True)]
    axes.append(np.fft.rfftfreq(size[2], spacing_mm[2]))
    k = np.meshgrid(*[a.astype(np.float32) for a in axes], indexing="ij", sparse=True)
    # One plane at a time, or the kernel would take as much memory as the spectrum.
    for plane in range(size[0]):
        kx = k[0][plane, 0, 0]
        square = kx**2 + k[1][0] ** 2 + k[2][0] ** 2
        along = kx * b[0] + k[1][0] * b[1] + k[2][0] * b[2]
        kernel = 1 / 3 - along**2 / np.where(square > 0, square, 1)
        kernel[square == 0] = 0
        spectrum[plane] *= kernel.astype(np.float32)
    field = fft.irfftn(spectrum, size, workers=_WORKERS, overwrite_x=True)
    return np.ascontiguousarray(field[tuple(slice(n) for n in chi.shape)], np.float32)


def sphere_field(offsets_mm: np.ndarray, radius_mm: float, chi: float, b: Sequence[float]) -> np.ndarray:
    """Return the field (ppm) of a sphere at ``offsets_mm`` (..., 3) from its centre.

    Inside it is 0 (with the Lorentz sphere), outside chi/3 * (radius/r)^3 * (3 cos^2 - 1).
    """
    offsets_mm = np.asarray(offsets_mm, np.float32)
    square = (offsets_mm**2).sum(-1)
    outside = square > radius_mm**2
    square = np.where(outside, square, 1)
    cosine_square = (offsets_mm @ np.asarray(b, np.float32)) ** 2 / square
    return np.where(outside, chi / 3 * radius_mm**3 * square**-1.5 * (3 * cosine_square - 1), 0).astype(np.float32)


def cylinder_self_field(cosine: np.ndarray) -> np.ndarray:
    """Return the field inside a long vessel over its susceptibility: (cos^2 - 1/3) / 2, ``cosine`` that to B0."""
    return (np.asarray(cosine) ** 2 - 1 / 3) / 2


def iron_decay(chi: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Return the signal left at the echo in tissue whose iron adds ``chi`` ppm."""
    rate = EMPIRICAL_RELAXIVITY * protocol.field_tesla / 3
    return np.exp(-protocol.echo_time_ms * 1e-3 * rate * np.abs(chi)).astype(np.float32)


def inclusion_decay(chi: float, protocol: Protocol) -> float:
    """Return the signal left at the echo inside a concentrated inclusion of ``chi`` ppm."""
    rate = STATIC_RELAXIVITY * protocol.field_tesla / 3
    return float(np.exp(-protocol.echo_time_ms * 1e-3 * rate * abs(chi)))


def gradient_dephasing(phase_across: np.ndarray) -> np.ndarray:
    """Return the magnitude left in a voxel across which the phase changes linearly by ``phase_across`` rad."""
    return np.sinc(phase_across / np.float32(2 * np.pi))


def homodyne_phase(image: np.ndarray, width: Sequence[int]) -> np.ndarray:
    """Return the high-passed phase (rad, float32) of a complex image (i, j, k), slice by slice.

    The image is divided by its low-pass: the central ``width`` samples (i, j) of k-space under a Hann window.
    """
    low = fft.fft2(image, axes=(0, 1), workers=_WORKERS)
    for axis in (0, 1):
        n = image.shape[axis]
        frequency = np.abs(np.fft.fftfreq(n) * n)
        half = max(1.0, width[axis] / 2)
        window = np.where(frequency < half, 0.5 + 0.5 * np.cos(np.pi * frequency / half), 0).astype(np.float32)
        low *= window[:, None, None] if axis == 0 else window[None, :, None]
    low = fft.ifft2(low, axes=(0, 1), workers=_WORKERS, overwrite_x=True)
    return np.angle(image * np.conj(low)).astype(np.float32)


def phase_mask(phase: np.ndarray, power: float = 4.0) -> np.ndarray:
    """Return the SWI mask ``1 + phase/pi`` below 0 and 1 above, to ``power`` (Haacke 2004)."""
    return np.clip(1 + np.minimum(phase, 0) / np.float32(np.pi), 0, 1) ** power
