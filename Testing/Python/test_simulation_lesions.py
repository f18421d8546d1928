"""Microbleeds of a simulated head: where they are put, how they look, and the iron and malformations around them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy.stats import spearmanr

from CMBDetectorLib.simulation import anatomy
from CMBDetectorLib.simulation.background import is_calm
from CMBDetectorLib.simulation.fields import to_image
from CMBDetectorLib.simulation.inclusions import factor, popcorn
from CMBDetectorLib.simulation.looks import bleed_with_look, draw_look
from CMBDetectorLib.simulation.measure import appearance
from CMBDetectorLib.simulation.physics import phase_mask
from CMBDetectorLib.simulation.places import draw_places
from CMBDetectorLib.simulation.protocols import PROTOCOLS
from CMBDetectorLib.simulation.tissue import iron_map
from CMBDetectorLib.simulation.vessels import VEIN, Vessel
from CMBDetectorLib.volume import Volume


def test_width_and_contrast_are_what_was_drawn_and_unrelated() -> None:
    """On a slice that is not blurred by anything else, the solved blood looks as asked for."""
    rng = np.random.default_rng(2)
    protocol = PROTOCOLS["swi-3t"]
    affine = np.diag([*protocol.spacing_mm, 1.0])
    looks = [draw_look(rng, protocol) for _ in range(400)]
    widths, contrasts = np.array([(look.width_mm, look.contrast) for look in looks]).T
    assert abs(spearmanr(widths, contrasts)[0]) < 0.15
    assert 1.95 < np.median(widths) < 2.25
    assert widths.max() > 4
    seen = []
    for look in looks[:12]:
        centre = rng.uniform(8, 9, 3)
        bleed = bleed_with_look(rng, centre, look, protocol, affine, (0, 0, 1))
        np.testing.assert_allclose(bleed.centre_mm, centre, atol=1e-6)
        _, change = factor(bleed, protocol, affine, (40, 40, 20), (0, 0, 1))
        left = np.abs(change) * phase_mask(np.angle(change), protocol.phase_power)
        seen.append(1 - left.min())
    np.testing.assert_allclose(seen, contrasts[:12], atol=0.3)
    assert np.corrcoef(seen, contrasts[:12])[0, 1] > 0.8


def test_what_is_narrow_does_not_go_on_through_the_slices() -> None:
    """A narrow column through four slices is a vessel; taught as a microbleed, nothing would tell the two apart."""
    rng = np.random.default_rng(5)
    protocol = PROTOCOLS["gre-thick"]
    thickness = protocol.spacing_mm[2]
    affine = np.diag([*protocol.spacing_mm, 1.0])
    slices = []
    for look in [look for look in (draw_look(rng, protocol) for _ in range(60)) if look.width_mm < 2.5]:
        bleed = bleed_with_look(rng, rng.uniform(18, 22, 3), look, protocol, affine, (0, 0, 1))
        z = bleed.centres_mm[:, 2]
        slices.append(((z + bleed.radii_mm).max() - (z - bleed.radii_mm).min()) / thickness)
    assert max(slices) < 1.75
    assert np.mean(np.array(slices) > 0.6) > 0.3  # what is black and narrow fills its slice all the same


def test_with_a_phase_mask_no_microbleed_lies_among_bands() -> None:
    """A field that turns the phase once in 4 mm leaves a magnitude image its signal, and a mask nothing but zebra."""
    swi, gre = PROTOCOLS["swi-3t"], PROTOCOLS["gre-3mm"]
    slopes_ppm = np.array([0.5, 2 * np.pi / 4]) / swi.radians_per_ppm
    ramp = np.broadcast_to(np.where(np.arange(8)[:, None, None] < 4, *slopes_ppm), (8, 8, 8))
    nothing = np.zeros_like(ramp)
    affine = np.diag([2.5, 2.5, 2.5, 1.0])
    background = to_image([nothing, ramp, nothing, nothing], affine)
    at = np.array([[2.5, 10, 10], [15.0, 10, 10]])
    assert is_calm(background, at, swi).tolist() == [True, False]
    assert is_calm(background, at, replace(swi, mask_power=0.0)).tolist() == [True, True]
    assert is_calm(background, at, gre).tolist() == [True, False]  # 4.5 rad across a slice of 3 mm


def test_neighbours_in_a_cluster_stay_narrow() -> None:
    rng = np.random.default_rng(3)
    widths = [draw_look(rng, PROTOCOLS["gre-thick"], widest_mm=2.2).width_mm for _ in range(100)]
    assert max(widths) <= 2.2


def test_places_cluster_and_follow_iron() -> None:
    pytest.importorskip("nilearn", reason="the simulator needs nilearn")
    template = anatomy.load_template()
    vein = Vessel(np.array([[80.0, 0, 0], [80.0, 1, 0]]), 0.5, VEIN, 0.5)
    gaps, deep, patterns = [], [], []
    for seed in range(9):
        rng = np.random.default_rng(seed)
        warp = anatomy.Warp(rng)
        iron, _ = iron_map(rng)
        protocol = PROTOCOLS["gre-3mm"]
        places = draw_places(
            rng, 20, template, warp, [vein], iron, protocol, np.eye(3), lambda at: np.ones(len(at), bool)
        )
        assert len(places) == 20
        gaps += [place.gap_mm for place in places]
        assert all(place.in_cluster == (place.gap_mm < 5) for place in places)
        patterns.append(np.mean([place.location == "deep" for place in places]))
        values = sitk.GetArrayFromImage(iron).reshape(*iron.GetSize()[::-1])
        for place in places:
            if place.location == "deep":
                i, j, k = np.round(place.mni_mm - np.array(iron.GetOrigin())).astype(int)
                deep.append(values[k - 2 : k + 3, j - 2 : j + 3, i - 2 : i + 3].max() > 0.08)
    assert min(gaps) >= 2.49
    assert 0.2 < np.mean(np.array(gaps) < 5) < 0.55
    assert min(patterns) < 0.3  # mostly lobar heads
    assert max(patterns) > 0.6  # mostly deep ones
    assert np.mean(deep) > 0.2


def test_iron_is_uneven_and_lists_its_deposits() -> None:
    unevenness, deposits = [], 0
    for seed in range(8):
        iron, found = iron_map(np.random.default_rng(seed))
        values = sitk.GetArrayFromImage(iron).reshape(*iron.GetSize()[::-1])
        for name, mni, amount in found:
            i, j, k = np.round(mni - np.array(iron.GetOrigin())).astype(int)
            near = values[k - 2 : k + 3, j - 2 : j + 3, i - 1 : i + 2]
            if name == "pallidum":
                unevenness.append(near.std() / near.mean())
            if name == "deposit":
                deposits += 1
                assert near.max() >= 0.5 * amount
    assert np.median(unevenness) > 0.25
    assert deposits > 3


def test_near_dark_is_measured_beside_the_spot() -> None:
    array = np.full((60, 60, 9), 100.0, np.float32)
    array[28:32, 28:32, 4] = 30
    scan = Volume(array, np.diag([0.5, 0.5, 2.0, 1.0]))
    at = scan.to_ras(np.array([29.5, 29.5, 4.0]))
    alone = appearance(scan, at, 100.0)
    assert not alone.near_dark
    assert alone.contrast == pytest.approx(0.7, abs=0.01)
    assert alone.diameter_mm == pytest.approx(2.26, abs=0.05)
    array[36:40, 20:40, 4] = 50
    assert appearance(scan, at, 100.0).near_dark
    brain = scan.with_array(array > 60)
    assert not appearance(scan, at, 100.0, brain=brain).near_dark
    array[:] = np.where(array < 100, array, 70)
    assert appearance(scan, at, 100.0, brain=brain).near_dark  # in dark tissue


def test_malformation_is_a_closed_dark_rim_around_a_lighter_core() -> None:
    """Beads with tissue between them would look like a cluster of microbleeds."""
    protocol = PROTOCOLS["gre-3mm"]
    for seed in range(6):
        made = popcorn(np.random.default_rng(seed), np.array([20.0, 20.0, 20.0]), 12.0, 0.4)
        box, change = factor(made, protocol, np.eye(4), (41, 41, 41), (0, 0, 1))
        left = np.ones((41, 41))
        left[box[:2]] = np.abs(change)[..., 20 - box[2].start]
        way = 2 * np.pi * np.arange(72) / 72
        rays = 20 + np.arange(2, 9)[:, None, None] * np.stack([np.cos(way), np.sin(way)], -1)
        darkest = left[tuple(np.round(rays).astype(int).transpose(2, 0, 1))].min(0)
        assert (darkest < 0.5).mean() > 0.95
        assert left[19:22, 19:22].mean() > np.median(darkest) + 0.2
