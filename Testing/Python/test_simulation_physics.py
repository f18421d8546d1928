"""The simulator's physics against formulas: dipole fields, the phase mask, blooming, k-space."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.simulation import acquisition, inclusions, physics
from CMBDetectorLib.simulation.protocols import PROTOCOLS, find_protocol, varied

SWI = PROTOCOLS["swi-3t"]


@pytest.mark.parametrize("b", [(0.0, 0.0, 1.0), (0.0, 0.2588, 0.9659), (1.0, 0.0, 0.0)])
def test_dipole_field_of_a_sphere(b: tuple[float, float, float]) -> None:
    spacing = np.array([0.5, 0.5, 1.0])
    shape = (80, 80, 40)
    offset = (np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1) - [40, 40, 20]) * spacing
    distance = np.linalg.norm(offset, axis=-1)
    # Share of each voxel inside the sphere, so that its edge is not a staircase.
    chi = np.clip((5.0 - distance) / 0.8 + 0.5, 0, 1)
    chi *= (4 / 3 * np.pi * 5.0**3) / (chi.sum() * 0.25)
    field = physics.dipole_field(chi, spacing, b)
    expected = physics.sphere_field(offset, 5.0, 1.0, b)
    outside = (distance > 7) & (distance < 11)
    assert np.abs(field - expected)[outside].max() < 0.015
    assert np.abs(expected[outside]).max() > 0.15
    assert abs(field[40, 40, 20]) < 0.02


def test_sphere_field_at_pole_and_equator() -> None:
    at = np.array([[0, 0, 4.0], [4.0, 0, 0], [0, 0, 1.0]])
    np.testing.assert_allclose(physics.sphere_field(at, 2.0, 0.9, (0, 0, 1)), [0.075, -0.0375, 0], atol=1e-6)


def test_dipole_field_inside_cylinders_along_and_across_b() -> None:
    x, y = np.meshgrid(np.arange(64) - 32, np.arange(64) - 32, indexing="ij")
    chi = np.repeat((x**2 + y**2 < 25)[..., None], 64, axis=2).astype(np.float32)
    along = physics.dipole_field(chi, (1, 1, 1), (0, 0, 1), padding=0)
    across = physics.dipole_field(chi, (1, 1, 1), (1, 0, 0), padding=0)
    assert along[32, 32, 32] == pytest.approx(float(physics.cylinder_self_field(np.array(1.0))), abs=0.02)
    assert across[32, 32, 32] == pytest.approx(float(physics.cylinder_self_field(np.array(0.0))), abs=0.02)


@given(st.floats(-np.pi, np.pi))
@settings(deadline=None)
def test_phase_mask_dims_only_negative_phase(phase: float) -> None:
    mask = float(physics.phase_mask(np.array([phase], np.float32))[0])
    assert 0 <= mask <= 1
    if phase >= 0:
        assert mask == 1
    else:
        assert mask == pytest.approx((1 + phase / np.pi) ** 4, abs=1e-5)


def test_homodyne_removes_smooth_phase_and_keeps_fine_phase() -> None:
    i, j = np.meshgrid(np.linspace(-1, 1, 128), np.linspace(-1, 1, 128), indexing="ij")
    smooth = 3.0 * np.exp(-2 * (i**2 + j**2))
    fine = np.zeros((128, 128))
    fine[64, 60:68] = -1.2
    phase = physics.homodyne_phase(np.exp(1j * (smooth + fine)).astype(np.complex64)[..., None], (24, 24))[..., 0]
    inner = (slice(20, 108), slice(20, 108))
    plain = physics.homodyne_phase(np.exp(1j * smooth).astype(np.complex64)[..., None], (24, 24))[inner]
    assert np.abs(plain).max() < 0.35
    assert phase[64, 63] < -0.7


def test_radians_per_ppm() -> None:
    assert SWI.radians_per_ppm == pytest.approx(19.26, abs=0.01)
    assert PROTOCOLS["gre-thick"].radians_per_ppm == pytest.approx(16.05, abs=0.01)


def test_bleeds_bloom_with_their_moment_and_calcium_is_dark() -> None:
    affine = np.diag([0.45, 0.45, 1.0, 1.0])
    affine[:3, 3] = (-9.225, -9.225, -12)

    def lost(diameter: float, chi: float) -> float:
        spot = inclusions.Inclusion(np.zeros((1, 3)), np.array([diameter / 2]), chi)
        box, change = inclusions.factor(spot, SWI, affine, (42, 42, 25), (0, 0, 1))
        assert all(s.stop > s.start for s in box)
        return float((1 - np.abs(change)).sum()) * 0.45 * 0.45

    sizes = [lost(1.0, chi) for chi in (0.4, 1.0, 4.0)]
    assert sizes[0] < sizes[1] < sizes[2]
    assert sizes[2] > 3 * np.pi / 6  # mm3 of signal: far more than the 0.52 mm3 that holds the blood
    assert lost(2.0, -3.3) > 4.2


def test_an_inclusion_off_the_grid_changes_nothing() -> None:
    spot = inclusions.Inclusion(np.array([[500.0, 0, 0]]), np.array([1.0]), 1.0)
    _, change = inclusions.factor(spot, SWI, np.eye(4), (8, 8, 8), (0, 0, 1))
    assert change.size == 0


def test_zero_filled_noise_has_the_asked_sd_and_is_coloured() -> None:
    protocol = PROTOCOLS["gre-thick"]
    flat = np.ones((128, 128, 6), np.complex64)
    image = acquisition.acquire(flat, protocol, np.random.default_rng(0), 0.05)
    noise = (image - image.mean()).real
    assert abs(image.mean() - 1) < 0.01
    assert 0.03 < noise.std() < 0.055
    assert np.mean(noise[1:] * noise[:-1]) / noise.var() > 0.5


def test_oversampled_image_keeps_its_mean_and_size() -> None:
    image = acquisition.acquire(
        np.full((64, 48, 2), 2.0, np.complex64), PROTOCOLS["gre-3mm"], np.random.default_rng(0), 0
    )
    assert image.shape == (32, 24, 2)
    np.testing.assert_allclose(np.abs(image), 2.0, rtol=1e-4)


def test_unknown_protocol_names_the_known_ones() -> None:
    with pytest.raises(BadInputError) as caught:
        find_protocol("flair")
    assert "swi-3t" in caught.value.hint
    assert "crop" in caught.value.hint


@pytest.mark.parametrize("name", PROTOCOLS)
def test_varied_protocols_differ_and_stay_within_reason(name: str) -> None:
    base = PROTOCOLS[name]
    found = [varied(base, np.random.default_rng(seed)) for seed in range(200)]
    assert found[3] == varied(base, np.random.default_rng(3))
    for one in found:
        assert one.name == base.name
        assert one.field_tesla in (1.5, 3.0)
        assert 0.74 < one.echo_time_ms / base.echo_time_ms / (base.field_tesla / one.field_tesla) ** 0.75 < 1.26
        assert 0.84 < one.spacing_mm[0] / base.spacing_mm[0] < 1.21
        assert min(3.0, 0.84 * base.spacing_mm[2]) <= one.spacing_mm[2] <= max(5.0, 1.31 * base.spacing_mm[2])
        assert 0.59 < one.noise / base.noise < 1.41
        if base.crop:
            assert one.shape == base.shape
        else:
            assert 216 < one.shape[0] * one.spacing_mm[0] < 237
            assert one.shape[2] * one.spacing_mm[2] > 0.99 * base.shape[2] * base.spacing_mm[2]
    assert 0.15 < np.mean([one.mixed for one in found]) < 0.45
    # Nobody acquires voxels beyond 1.3 mm in plane to store them finer.
    assert all(one.zero_filling == 1 or one.zero_filling * one.spacing_mm[0] <= 1.3 for one in found)
    finest = 0.85 * base.spacing_mm[0]
    assert {one.zero_filling for one in found} == {n for n in (1.0, 1.3, 1.5, 2.0) if n == 1 or n * finest < 1.3}
    # Of the families' two images each also comes as the other one.
    assert {one.phase_power > 0 for one in found} == {True, False}


def test_slices_with_gaps_leave_out_what_lies_between_them() -> None:
    layers = np.zeros((4, 4, 10), np.complex64)
    layers[..., 5] = 1  # the outermost layer of the second slice
    thick = acquisition.average_layers(layers, 5)
    thin = acquisition.average_layers(layers, 5, 0.7)
    assert thick.shape == thin.shape == (4, 4, 2)
    assert thick[0, 0, 1] == pytest.approx(0.2)
    assert abs(thin[0, 0, 1]) < 0.1
    np.testing.assert_allclose(acquisition.average_layers(np.ones((2, 2, 10)), 5, 0.7), 1, rtol=1e-6)
