"""Microbleeds that are transplanted into other tissue of the dataset."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from CMBDetectorLib.detection.patches import cut_windows
from CMBDetectorLib.training.cases import PreparedCase
from CMBDetectorLib.training.patches import Stage2Sampler
from CMBDetectorLib.training.settings import settings_from
from CMBDetectorLib.training.transplants import Transplant, Transplants, shadow_of

SPACING = (0.45, 0.45, 1.0)
SHAPE = (80, 72, 40)
CENTRE = np.array([40.0, 36.0, 20.0])
WAYS = (np.stack(np.indices(SHAPE), -1) - CENTRE) * SPACING


@pytest.fixture
def case_of(tmp_path):
    def make(image, microbleeds=(CENTRE,), stored_mm=SPACING):
        np.save(tmp_path / "image.npy", image.astype(np.float16))
        np.save(tmp_path / "mask.npy", image > 0)
        np.save(tmp_path / "dark_spots.npy", np.zeros((0, 3), np.int16))
        to_ras = np.diag([*SPACING, 1.0])
        ras = np.reshape(microbleeds, (-1, 3)) * SPACING
        return PreparedCase("scan", tmp_path, to_ras, ras, {"stored_mm": list(stored_mm)})

    return make


def tissue_with(dark, left=0.4):
    """Return tissue of 0.5 with a microbleed of 1.2 mm radius and with what is ``dark`` (a mask) besides."""
    image = np.full(SHAPE, 0.5, np.float32)
    image[(np.linalg.norm(WAYS, axis=-1) < 1.2) | dark] *= left
    return image


def test_a_shadow_is_what_a_microbleed_leaves_of_the_signal(case_of):
    image = tissue_with(np.zeros(SHAPE, bool))
    shadow = shadow_of(case_of(image), CENTRE, SPACING)
    half = np.array(shadow.shape) // 2
    assert shadow[tuple(half)] == pytest.approx(0.4, abs=1e-3)
    box = tuple(slice(int(c - h), int(c + h + 1)) for c, h in zip(CENTRE, half, strict=True))
    np.testing.assert_allclose(shadow * 0.5, image[box], atol=1e-3)


def test_a_shadow_is_measured_a_little_beside_the_mark(case_of):
    case = case_of(tissue_with(np.zeros(SHAPE, bool)))
    shadow = shadow_of(case, CENTRE + np.array([2, -1, 1]), SPACING)
    assert shadow.min() == pytest.approx(0.4, abs=1e-3)
    assert (shadow < 0.7).sum() == (shadow_of(case, CENTRE, SPACING) < 0.7).sum()


def test_what_lies_beside_a_microbleed_is_not_transplanted(case_of):
    beside = np.hypot(WAYS[..., 0] - 3.5, WAYS[..., 1]) < 0.7  # a vessel through the slices, no part of the microbleed
    shadow = shadow_of(case_of(tissue_with(beside)), CENTRE, SPACING)
    middle = shadow.shape[0] // 2
    assert shadow[: middle + 5].min() == pytest.approx(0.4, abs=1e-3)
    assert shadow[middle + 6 :].min() == 1


def test_what_runs_on_or_does_not_stand_out_has_no_shadow(case_of):
    vessel = np.hypot(WAYS[..., 0], WAYS[..., 1]) < 0.7
    assert shadow_of(case_of(tissue_with(vessel)), CENTRE, SPACING) is None
    assert shadow_of(case_of(tissue_with(np.zeros(SHAPE, bool), left=0.9)), CENTRE, SPACING) is None
    assert shadow_of(case_of(np.zeros(SHAPE, np.float32)), CENTRE, SPACING) is None


@pytest.mark.parametrize("slices", [1, 2])
def test_in_thick_slices_a_microbleed_is_as_long_as_its_slices(case_of, slices):
    """A slice of 4 mm, interpolated to 1 mm, is a ramp to both sides."""
    image = np.full(SHAPE, 0.5, np.float32)
    ramp = np.clip((2 + 2 * slices - np.abs(np.arange(SHAPE[2]) - CENTRE[2])) / 4, 0, 1)
    inside = np.hypot(WAYS[..., 0], WAYS[..., 1])[:, :, :1] < 1.2
    image *= 1 - 0.6 * inside * ramp
    shadow = shadow_of(case_of(image, stored_mm=(0.45, 0.45, 4.0)), CENTRE, SPACING)
    column = shadow[shadow.shape[0] // 2, shadow.shape[1] // 2]
    assert column.min() == pytest.approx(0.4, abs=1e-3)
    assert (column < 0.75).sum() >= 4 * slices - 1
    assert column[[0, -1]] == pytest.approx(1, abs=0.01)


@given(st.tuples(*[st.integers(-6, n + 6) for n in (30, 28, 20)]), st.tuples(*[st.integers(3, 12)] * 3))
def test_a_shadow_falls_on_a_window_as_it_does_on_the_scan(start, size):
    rng = np.random.default_rng(0)
    image = rng.uniform(0.1, 1, (30, 28, 20)).astype(np.float32)
    transplant = Transplant(0, np.array([15, 14, 10]), rng.uniform(0, 1, (9, 7, 5)).astype(np.float32))
    whole = image.copy()
    transplant.darken(whole, np.zeros(3, int))
    assert (whole != image).sum() == 9 * 7 * 5
    middle = np.array(start) + np.array(size) // 2
    window, expected = (cut_windows(voxels, middle[None], size)[0] for voxels in (image, whole))
    transplant.darken(window, np.array(start))
    np.testing.assert_array_equal(window, expected)


def test_transplants_lie_in_tissue_as_often_as_asked(prepared):
    marked = sum(len(case.microbleeds) for case in prepared)
    transplants, rng = Transplants(prepared, SPACING, 3 * marked), np.random.default_rng(0)
    drawn = [transplants.draw(rng) for _ in range(400)]
    found = [t for t in drawn if t is not None]
    assert 0.65 < len(found) / len(drawn) < 0.85
    assert {t.case for t in found} == set(range(len(prepared)))
    for t in found:
        case = prepared[t.case]
        i, j, k = t.ijk
        assert case.mask[i, j, k]
        assert 0.4 <= np.mean(case.image[i - 3 : i + 4, j - 3 : j + 4, k - 1 : k + 2], dtype=np.float32) <= 0.65
        assert 0 <= t.shadow.min() < 0.8
        assert t.shadow.max() == 1
    assert len({t.shadow.tobytes() for t in found}) > 0.9 * len(found)


def test_without_transplants_nothing_is_drawn_for_them(prepared):
    rng = np.random.default_rng(5)
    assert Transplants(prepared, SPACING, 0).draw(rng) is None
    assert rng.integers(1 << 30) == np.random.default_rng(5).integers(1 << 30)


def test_stage2_learns_from_transplants_and_leaves_the_scans_as_they_are(prepared):
    before = [np.array(case.image) for case in prepared]
    nothing = [np.zeros((0, 3))] * len(prepared)
    sample = Stage2Sampler(prepared, nothing, SPACING, (0, 0, 0), (32, 32, 16), transplants=10**6)
    windows, labels = sample(np.random.default_rng(0), 40)
    assert labels.sum() == 20
    assert np.median(windows[labels[:, 0] == 1][:, 15:18, 15:18, 8].min(axis=(1, 2, 3))) < 0.4
    for case, image in zip(prepared, before, strict=True):
        np.testing.assert_array_equal(case.image, image)


def test_only_the_recipe_with_context_transplants():
    paper, context = settings_from(recipe="paper"), settings_from(recipe="context")
    assert paper.cnn.transplants == 0
    assert context.cnn.transplants > 0
