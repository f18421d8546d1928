"""The measuring functions of benchmarks/realism.py on discs, tubes and noise whose figures are known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from realism import figures, intensities, spots, tubes

FINE = (0.45, 0.45, 4.0)
COARSE = (1.0, 1.0, 3.0)


def plane(spacing: tuple[float, float, float], size_mm: float = 60.0, slices: int = 5) -> np.ndarray:
    """Return an image of white matter (0.5)."""
    n = round(size_mm / spacing[0])
    return np.full((n, n, slices), 0.5, np.float32)


def offsets(image: np.ndarray, spacing: tuple[float, float, float], centre: tuple[float, float]) -> np.ndarray:
    """Return positions (n, n, sub, sub, 2) in mm of 5 x 5 sub-voxels relative to ``centre`` (voxel indices)."""
    sub = (np.arange(5) - 2) / 5
    i, j = np.arange(image.shape[0]), np.arange(image.shape[1])
    x = (i[:, None, None, None] + sub[:, None] - centre[0]) * spacing[0]
    y = (j[None, :, None, None] + sub - centre[1]) * spacing[1]
    return np.stack(np.broadcast_arrays(x, y), -1)


def put_disc(image, spacing, centre, axes_mm, value, slices) -> None:
    """Draw an ellipse of full axes ``axes_mm`` into some slices, with partial volume at its edge."""
    at = offsets(image, spacing, centre)
    inside = ((at / (np.array(axes_mm) / 2)) ** 2).sum(-1) < 1
    share = inside.mean((2, 3), dtype=np.float32)[..., None]
    image[..., slices] = image[..., slices] * (1 - share) + value * share


def put_tube(image, spacing, angle, width_mm, value, length_mm, k) -> None:
    """Draw a straight bar through the middle of a slice."""
    at = offsets(image, spacing, ((image.shape[0] - 1) / 2, (image.shape[1] - 1) / 2))
    along = at[..., 0] * np.cos(angle) + at[..., 1] * np.sin(angle)
    across = at[..., 1] * np.cos(angle) - at[..., 0] * np.sin(angle)
    share = ((np.abs(across) < width_mm / 2) & (np.abs(along) < length_mm / 2)).mean((2, 3), dtype=np.float32)
    image[..., k] = image[..., k] * (1 - share) + value * share


@pytest.mark.parametrize(("spacing", "diameter"), [(FINE, 1.8), (FINE, 3.0), (FINE, 6.0), (COARSE, 3.0), (COARSE, 6.0)])
def test_a_disc_has_its_width_and_contrast(spacing, diameter):
    image = plane(spacing)
    middle = (image.shape[0] // 2 + 0.3, image.shape[1] // 2 - 0.2)
    put_disc(image, spacing, middle, (diameter, diameter), 0.2, [2])
    at = spots.darkest_near(image, np.array([[*middle, 2.0]]), spacing)
    look = spots.look_at(image, at, spacing)
    assert look.width_mm[0] == pytest.approx(diameter, rel=0.12)
    assert look.contrast[0] == pytest.approx(0.6, abs=0.05)
    assert look.background[0] == pytest.approx(0.5, abs=0.01)
    assert look.elongation[0] < 1.2
    assert spots.slices_seen(image, at, spacing)[0] == 1


def test_an_ellipse_is_elongated():
    image = plane(FINE)
    put_disc(image, FINE, (66, 66), (6.0, 3.0), 0.2, [2])
    look = spots.look_at(image, np.array([[66, 66, 2]]), FINE)
    assert look.elongation[0] == pytest.approx(2.0, rel=0.15)
    assert look.width_mm[0] == pytest.approx(4.3, rel=0.1)


def test_a_spot_is_followed_through_the_slices_and_found():
    image = plane(COARSE)
    put_disc(image, COARSE, (20, 20), (3, 3), 0.2, [1, 2, 3])
    put_disc(image, COARSE, (40, 40), (3, 3), 0.9, [2])
    assert spots.slices_seen(image, np.array([[20, 20, 2]]), COARSE)[0] == 3
    everywhere = np.ones(image.shape, bool)
    dark = spots.find_spots(image, COARSE, 0.1, everywhere)
    assert sorted(map(tuple, dark)) == [(20, 20, 1), (20, 20, 2), (20, 20, 3)]
    assert list(spots.chains(dark, COARSE)) == [0, 0, 0]
    assert list(map(tuple, spots.find_spots(-image, COARSE, 0.1, everywhere))) == [(40, 40, 2)]


def test_spots_two_slices_apart_are_two():
    ijk = np.array([[5, 5, 0], [5, 6, 1], [5, 6, 3], [30, 5, 1]])
    assert len(set(spots.chains(ijk, COARSE))) == 3


def test_the_edge_of_the_brain_neither_widens_nor_darkens_a_spot():
    image = plane(FINE)
    put_disc(image, FINE, (66, 66), (3, 3), 0.2, [2])
    image[66 + 6 :] = np.nan
    look = spots.look_at(image, np.array([[66, 66, 2]]), FINE)
    assert look.background[0] == pytest.approx(0.5, abs=0.01)
    assert look.width_mm[0] == pytest.approx(3.0, rel=0.12)


@pytest.mark.parametrize(("spacing", "width"), [(FINE, 0.9), (FINE, 1.8), (COARSE, 2.0)])
@pytest.mark.parametrize("degrees", [0, 20, 45, 110])
def test_a_tube_has_its_length_width_and_contrast(spacing, width, degrees):
    image = plane(spacing)
    put_tube(image, spacing, np.deg2rad(degrees), width, 0.3, 40.0, 2)
    lines = tubes.dark_lines(image, spacing, np.ones(image.shape, bool))
    assert lines.length_mm == pytest.approx(40.0, rel=0.25)
    assert set(lines.ijk[:, 2]) == {2}
    assert np.median(lines.width_mm) == pytest.approx(width, rel=0.2, abs=0.15)
    assert np.median(lines.contrast) == pytest.approx(0.4, abs=0.09)


@pytest.mark.parametrize(("smoothing", "sd", "strength"), [(0, 0.04, 1.0), (0.9, 0.02, 2.0)])
def test_noise_and_edges_are_no_tubes(smoothing, sd, strength):
    rng = np.random.default_rng(3)
    image = plane(FINE)
    noise = ndimage.gaussian_filter(rng.standard_normal(image.shape), (smoothing, smoothing, 0))
    image += (sd * noise / noise.std()).astype(np.float32)
    image[60:] += 0.3
    everywhere = np.ones(image.shape, bool)
    lines = tubes.dark_lines(image, FINE, everywhere, noise=sd * strength, below=0.46)
    # Five slices of 60 x 60 mm: less than 0.2 m in a whole head.
    assert lines.length_mm < 5


def test_noise_is_measured_beside_shading():
    rng = np.random.default_rng(5)
    noise = ndimage.gaussian_filter(rng.standard_normal((130, 130, 5)), (0.9, 0.9, 0))
    noise *= 0.02 / noise.std()
    truth = [float((noise[lag:] * noise[:-lag]).mean() / noise.var()) for lag in (1, 2)]
    ramp = np.linspace(0.45, 0.55, 130)[:, None, None]
    image = (ramp + noise).astype(np.float32)
    sd, first, second = intensities.noise(image, np.ones(image.shape, bool), FINE)
    assert sd == pytest.approx(0.02, rel=0.12)
    assert [first, second] == pytest.approx(truth, abs=0.1)
    shading = intensities.shading(image, np.ones(image.shape, bool), FINE)
    assert shading == pytest.approx(ramp.std() / ramp.mean(), rel=0.35)


def test_marks():
    inside = figures.Line("a", "A", "a", ("",), (0.5,), ((0.4, 0.6),))
    assert inside.mark([0.58]) == ""
    assert inside.mark([0.7]) == "high +40 %"
    assert figures.Line("b", "A", "b", ("5", "50"), (0.2, 1.0)).mark([0.1, 1.1]) == "5: low -50 %"
    assert figures.Line("c", "A", "c", ("",), None).mark([3.0]) == ""


def test_the_real_figures_can_be_read():
    lines = figures.read_lines("t2star", 0.45)
    keys = [line.key for line in lines]
    assert len(keys) == len(set(keys))
    assert {"white", "fluid", "bleed_contrast", "voids"} <= set(keys)
    fluid = [next(x for x in figures.read_lines("t2star", s) if x.key == "fluid").real for s in (0.45, 1.0)]
    assert fluid == [(1.17,), (0.96,)]
