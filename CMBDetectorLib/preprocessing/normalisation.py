"""Linear scaling of intensities by the peak of their histogram, which is that of the brain's tissue."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.volume import Volume

# What a scan's histogram peak becomes.
PEAK = 0.5

_BINS_TO_MEDIAN = 200
_SMOOTHING = 0.03
# Air and residues of skull stripping lie below this part of the 99th percentile, tissue above: it is about half of
# it on T2*-GRE with bright fluid, three quarters on SWI.
_NOISE_FLOOR = 0.15


def histogram_peak(array: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Return the most frequent intensity above 0, of ``mask`` (bool, same shape) where one is given.

    The histogram is smoothed by 3 % of the tissue's median, so that neither noise nor gaps between the values of
    quantised data make a peak, and what lies near 0 (air, residues of skull stripping) is passed over. Scaling the
    intensities scales the peak alike.

    Raises:
        BadInputError: no finite intensity above 0.
    """
    values = np.asarray(array if mask is None else array[mask], dtype=np.float64).ravel()
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        raise BadInputError(
            "The scan holds no intensity above 0 inside the brain mask.", "Check the scan and the brain mask."
        )
    top = float(np.percentile(values, 99))
    tissue = values[values >= _NOISE_FLOOR * top]
    median = float(np.median(tissue))
    width = _bin_width(tissue, median / _BINS_TO_MEDIAN)
    # Bins are centred on multiples of their width, hence on the values themselves where these are whole numbers.
    counts = np.bincount(np.rint(values[values <= 1.2 * top] / width).astype(np.int64)).astype(np.float64)
    smooth = gaussian_filter1d(counts, max(1.0, _SMOOTHING * median / width), mode="constant")
    first = int(np.ceil(_NOISE_FLOOR * top / width))
    rises = np.r_[False, smooth[1:] >= smooth[:-1]]
    falls = np.r_[smooth[:-1] > smooth[1:], True]
    peaks = np.flatnonzero(rises & falls & (np.arange(smooth.size) >= first))
    if not peaks.size:
        return median
    return float(width * _vertex(smooth, int(peaks[np.argmax(smooth[peaks])])))


def normalise(volume: Volume, mask: Volume) -> Volume:
    """Return ``volume`` scaled so that the histogram peak inside ``mask`` becomes 0.5, and 0 outside the mask.

    ``i_norm = 0.5 * i / h_p`` (Rau et al. 2026); nothing is clipped. ``mask`` is bool on the grid of ``volume``; the
    result is float32.

    Raises:
        BadInputError: no intensity above 0 inside the mask.
    """
    peak = histogram_peak(volume.array, mask.array)
    scaled = np.asarray(volume.array, np.float64) * (PEAK / peak)
    return volume.with_array(np.where(mask.array, scaled, 0).astype(np.float32))


def _bin_width(values: np.ndarray, width: float) -> float:
    """Return ``width``, or the next multiple of the quantum where ``values`` are multiples of one."""
    sample = np.unique(values[:: max(1, values.size // 100_000)])
    if sample.size < 3:
        return width
    quantum = float(np.diff(sample).min())
    steps = sample / quantum
    # Rounding to float32 leaves the multiples of a quantum a little uneven.
    if quantum < width / 50 or np.abs(steps - np.rint(steps)).max() > 1e-3 * max(1.0, steps.max() * 1e-4):
        return width
    return quantum * max(1, round(width / quantum))


def _vertex(counts: np.ndarray, peak: int) -> float:
    """Return the place of the maximum of the parabola through ``counts`` at ``peak`` and its neighbours."""
    if not 0 < peak < counts.size - 1:
        return float(peak)
    left, middle, right = counts[peak - 1 : peak + 2]
    curvature = left - 2 * middle + right
    return peak + (0.5 * (left - right) / curvature if curvature < 0 else 0.0)
