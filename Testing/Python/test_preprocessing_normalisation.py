"""The histogram peak is the tissue's, whatever else the scan holds, and becomes 0.5."""

from __future__ import annotations

import numpy as np
import pytest
from head_phantom import oblique_affine
from hypothesis import given, settings
from hypothesis import strategies as st

from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.preprocessing.normalisation import histogram_peak, normalise
from CMBDetectorLib.volume import Volume


def tissue(rng: np.random.Generator, n: int = 60_000, peak: float = 300.0) -> np.ndarray:
    """Brain intensities: white and grey matter about ``peak``, bright fluid, dark iron."""
    return np.concatenate(
        [rng.normal(peak, 0.06 * peak, n), rng.normal(2 * peak, 0.2 * peak, n // 8), rng.uniform(1, peak, n // 30)]
    )


@settings(max_examples=30, deadline=None)
@given(scale=st.floats(1e-4, 1e4), seed=st.integers(0, 50))
def test_scaling_the_intensities_scales_the_peak(scale, seed):
    values = tissue(np.random.default_rng(seed), 5000).astype(np.float32)
    assert histogram_peak(values * np.float32(scale)) == pytest.approx(scale * histogram_peak(values), rel=0.01)


@settings(max_examples=30, deadline=None)
@given(peak=st.floats(20, 2000), seed=st.integers(0, 50))
def test_the_peak_is_found_in_tissue(peak, seed):
    assert histogram_peak(tissue(np.random.default_rng(seed), peak=peak)) == pytest.approx(peak, rel=0.03)


@pytest.mark.parametrize("peak", [23, 60, 301, 1500])
def test_whole_numbers_and_their_multiples_make_no_false_peak(peak):
    values = np.rint(tissue(np.random.default_rng(3), peak=peak))
    assert histogram_peak(values) == pytest.approx(peak, rel=0.03)
    # A stretch of the range leaves empty and doubled values behind, as some exports do.
    assert histogram_peak(np.rint(1.37 * values)) == pytest.approx(1.37 * peak, rel=0.03, abs=1)
    assert histogram_peak((0.01 * values).astype(np.float32)) == pytest.approx(0.01 * peak, rel=0.03)


@pytest.mark.parametrize("noise", [2.0, 10.0, 25.0])
def test_air_is_not_taken_for_tissue(noise):
    rng = np.random.default_rng(1)
    air = np.hypot(rng.normal(0, noise, 400_000), rng.normal(0, noise, 400_000))
    values = np.concatenate([air, tissue(rng, 120_000)])
    assert histogram_peak(values) == pytest.approx(300, rel=0.04)


def test_residue_of_skull_stripping_and_one_spike_are_not_taken_for_tissue():
    rng = np.random.default_rng(2)
    values = np.concatenate([tissue(rng), rng.uniform(0.1, 15, 40_000), np.full(1500, 611.0)])
    assert histogram_peak(values) == pytest.approx(300, rel=0.04)


def test_a_constant_image_has_its_value_as_peak():
    assert histogram_peak(np.full((8, 8, 8), 7.0)) == pytest.approx(7.0, rel=1e-3)


def test_only_the_mask_counts_and_zero_and_infinite_values_do_not():
    rng = np.random.default_rng(4)
    array = rng.normal(900, 20, (40, 40, 40))
    mask = np.zeros(array.shape, bool)
    mask[10:30, 10:30, 10:30] = True
    array[mask] = rng.normal(300, 20, mask.sum())
    array[12:20, 12:20, 12:20] = 0
    array[20, 20, 20] = np.inf
    assert histogram_peak(array, mask) == pytest.approx(300, rel=0.03)


@pytest.mark.parametrize(("axes", "degrees"), [("RAS", 0), ("LPS", 0), ("SPR", 20)])
def test_normalise_maps_the_peak_to_one_half_linearly_without_clipping(axes, degrees):
    rng = np.random.default_rng(5)
    array = tissue(rng, 60_000)[:64_000].reshape(40, 40, 40)
    array[0, 0, 0] = 40_000
    volume = Volume(array, oblique_affine((0.5, 0.5, 2), axes, degrees), {"name": "x"})
    mask = volume.with_array(np.ones(array.shape, bool))
    mask.array[:, :, 30:] = False
    result = normalise(volume, mask)
    peak = histogram_peak(array, mask.array)
    assert result.array.dtype == np.float32
    assert result.same_grid(volume)
    np.testing.assert_allclose(result.array[:, :, :30], 0.5 * array[:, :, :30] / peak, rtol=1e-5)
    assert result.array[0, 0, 0] > 50
    assert not result.array[:, :, 30:].any()
    assert histogram_peak(result.array) == pytest.approx(0.5, rel=0.01)


def test_nothing_above_zero_is_refused():
    volume = Volume(np.zeros((6, 6, 6)), np.eye(4))
    with pytest.raises(BadInputError):
        normalise(volume, volume.with_array(np.ones((6, 6, 6), bool)))
