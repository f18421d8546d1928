"""Only what a reader can tell is a microbleed: two neighbours as two, one in iron or dark fluid from that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from CMBDetectorLib.simulation import anatomy
from CMBDetectorLib.simulation.fields import to_image
from CMBDetectorLib.simulation.physics import iron_decay
from CMBDetectorLib.simulation.places import draw_places
from CMBDetectorLib.simulation.protocols import PROTOCOLS
from CMBDetectorLib.simulation.tissue import draw_values, iron_map
from CMBDetectorLib.simulation.vessels import VEIN, Vessel
from CMBDetectorLib.simulation.visibility import is_light_around, least_contrast

_VALUES = draw_values(np.random.default_rng(0), PROTOCOLS["swi-3t"])
_OBLIQUE = anatomy.rotation(0, 0.2) @ anatomy.rotation(2, 0.05) @ np.diag([-1.0, 1.0, 1.0])
"""Axes of a scan stored with its left and right exchanged, turned by 12 degrees."""


@pytest.mark.parametrize("name", ["gre-thick", "gre-3mm", "swi-3t"])
def test_neighbours_are_two_on_the_scan(name: str) -> None:
    pytest.importorskip("nilearn", reason="the simulator needs nilearn")
    protocol = PROTOCOLS[name]
    template, rng = anatomy.load_template(), np.random.default_rng(1)
    warp = anatomy.Warp(rng)
    iron, _ = iron_map(rng)
    vein = Vessel(np.array([[80.0, 0, 0], [80.0, 1, 0]]), 0.5, VEIN, 0.5)
    places = draw_places(rng, 40, template, warp, [vein], iron, protocol, _OBLIQUE, lambda at: np.ones(len(at), bool))
    heads = np.array([place.head_mm for place in places])
    pairs = [(a, b) for a in range(len(heads)) for b in range(a)]
    i, j, k = (np.array([heads[a] - heads[b] for a, b in pairs]) @ _OBLIQUE).T
    slices = np.abs(k) / protocol.spacing_mm[2]
    assert np.hypot(i, j)[slices < 0.4].min(initial=9) > 2.4  # in one slice
    assert slices[np.hypot(i, j) < 0.5].min(initial=9) > 1.9  # one above the other
    assert sum(place.in_cluster for place in places) >= 6


def test_a_microbleed_in_iron_is_darker_than_the_iron_beside_it_in_its_slice() -> None:
    thin, thick = PROTOCOLS["swi-3t"], PROTOCOLS["gre-thick"]
    same_place = sitk.Transform(3, sitk.sitkIdentity)
    for axes in (np.eye(3), _OBLIQUE):
        i, _, k = axes.T

        def least(way: np.ndarray, protocol: object = thin, axes: np.ndarray = axes) -> float:
            images = _tissue(np.full(3, 99.0)), _iron(way)
            return least_contrast(*images, _VALUES, same_place, np.zeros(3), protocol, axes)  # type: ignore[arg-type]

        dark = float(iron_decay(np.float32(0.3), thin))
        assert least(2 * i) == pytest.approx(1 - 0.75 * dark, abs=0.06)
        assert least(6 * i) == pytest.approx(0.25, abs=0.02)  # too far to be taken for a part of it
        assert least(0 * i) < 0.3  # in its middle it is darker by itself
        assert least(5 * k) == pytest.approx(0.25, abs=0.02)  # in another slice
        assert least(1.5 * k, thick) < least(2 * i, thick)  # half of a thick slice


def test_a_microbleed_beside_dark_fluid_is_darker_than_the_fluid() -> None:
    protocol, iron = PROTOCOLS["swi-3t"], _iron(np.full(3, 99.0))
    same_place = sitk.Transform(3, sitk.sitkIdentity)
    for axes in (np.eye(3), _OBLIQUE):
        i, _, k = axes.T

        def least(way: np.ndarray, fluid: float = 0.3, axes: np.ndarray = axes) -> float:
            values = replace(_VALUES, fluid=fluid)
            return least_contrast(_tissue(way), iron, values, same_place, np.zeros(3), protocol, axes)

        assert least(2 * i) == pytest.approx(1 - 0.75 * 0.3 / _VALUES.white, abs=0.03)
        assert least(2 * i, fluid=1.1) == pytest.approx(0.25, abs=0.02)  # bright, as on T2*-GRE
        assert least(6 * i) == pytest.approx(0.25, abs=0.02)  # too far
        assert least(5 * k) == pytest.approx(0.25, abs=0.02)  # in another slice
        assert least(0 * i) == pytest.approx(0.25, abs=0.05)  # in fluid, a quarter darker than that


def test_no_microbleed_lies_in_a_black_nucleus() -> None:
    protocol = PROTOCOLS["gre-3mm"]
    middle = np.zeros((1, 3))
    assert is_light_around(_iron(np.zeros(3)), middle, protocol).all()
    assert not is_light_around(_iron(np.zeros(3), radius_mm=9), middle, protocol).any()
    assert is_light_around(_iron(np.zeros(3), radius_mm=9), middle + np.array([0, 9, 0]), protocol).all()  # at its edge
    assert is_light_around(_iron(np.zeros(3), chi=0.05, radius_mm=9), middle, protocol).all()


def _tissue(way_mm: np.ndarray) -> sitk.Image:
    """Return gm, wm and depth (MNI mm): white matter with a ball of fluid, 1.5 mm in radius, at ``way_mm``."""
    iron = _iron(way_mm, 1.0)
    fluid = sitk.GetArrayFromImage(iron).reshape(iron.GetSize()[::-1]).transpose(2, 1, 0)
    affine = np.eye(4)
    affine[:3, 3] = -12
    return to_image([0 * fluid, 1 - fluid, np.full_like(fluid, 9.0)], affine)


def _iron(way_mm: np.ndarray, chi: float = 0.3, radius_mm: float = 1.5) -> sitk.Image:
    """Return iron (ppm, MNI mm) in a ball of ``radius_mm`` at ``way_mm`` and nowhere else."""
    affine = np.eye(4)
    affine[:3, 3] = -12
    at = np.stack(np.meshgrid(*[np.arange(25) - 12.0] * 3, indexing="ij"), -1)
    return to_image([np.where(np.linalg.norm(at - way_mm, axis=-1) <= radius_mm, chi, 0)], affine)
