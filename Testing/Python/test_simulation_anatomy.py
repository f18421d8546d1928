"""What makes heads differ and where vessels run: mirrored, wider ventricles, trunks in fluid, the plexus."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from CMBDetectorLib.simulation import acquisition, anatomy, cisterns, lesions, raster, vessels
from CMBDetectorLib.simulation.protocols import PROTOCOLS
from CMBDetectorLib.simulation.tissue import draw_values
from CMBDetectorLib.simulation.tubes import ARTERY, CHOROID, CISTERN, PERIVASCULAR, VEIN, Vessel


@pytest.fixture(scope="module")
def template() -> anatomy.Template:
    """The ICBM 152 maps."""
    pytest.importorskip("nilearn", reason="the simulator needs nilearn")
    return anatomy.load_template()


def test_half_of_the_heads_are_mirrored_and_points_and_volumes_agree() -> None:
    sides = []
    right = np.array([[40.0, -10, 10], [25, 30, 20], [12, -50, -30]])
    for seed in range(12):
        warp = anatomy.Warp(np.random.default_rng(seed))
        head = warp.to_head(right)
        assert np.abs(warp.to_template(head) - right).max() < 0.02
        moved = np.array([warp.transform().TransformPoint(p) for p in head.tolist()])
        assert np.abs(moved - right).max() < 0.05
        # Shift and turn are far smaller than the distance from the midline.
        sides.append(float(np.sign(head[0, 0])))
    assert 2 <= sides.count(1.0) <= 10


def test_brains_measure_what_those_of_adults_do(template: anatomy.Template) -> None:
    """1.2 to 1.8 litres with the cisterns, 1.45 in the mean (the template's: 2)."""
    axes = np.diag([50.0, 60, 40])
    litres = []
    for seed in range(40):
        warp = anatomy.Warp(np.random.default_rng(seed))
        ways = warp.to_head(axes) - warp.to_head(-axes)
        share = abs(np.linalg.det(ways)) / np.linalg.det(2 * axes)
        litres.append(1e-6 * np.count_nonzero(template.depth > 0) * share)
    assert 1.35 < np.mean(litres) < 1.55
    assert 1.0 < min(litres) < max(litres) < 2.0


def test_ventricles_are_widened_and_what_is_far_stays() -> None:
    wall = np.array([[13.0, -10, 21], [30, -40, 12], [-13, -10, 21]])
    shift = anatomy._towards_ventricles(wall[None, None], 0.4)[0, 0]
    assert shift[0, 0] < -0.3  # taken from further inside: what is shown there was nearer the middle
    assert shift[2, 0] > 0.3
    far = np.array([[65.0, -10, 21], [0, 70, 20], [0, 0, 75.0]])
    assert np.abs(anatomy._towards_ventricles(far[None, None], 0.4)).max() < 0.2


def test_trunks_run_in_fluid(template: anatomy.Template) -> None:
    """Most of each artery's course lies in the fluid of the template or in a cistern drawn around it."""
    found = vessels.draw_vessels(np.random.default_rng(2), template)
    cuffs = [v for v in found if v.kind == CISTERN]
    trunks = [v for v in found if v.kind == ARTERY and any(v.points_mm is c.points_mm for c in cuffs)]
    assert len(trunks) >= 12
    for trunk in trunks:
        cuff = next(c for c in cuffs if c.points_mm is trunk.points_mm)
        assert cuff.radius_mm > trunk.radius_mm + 0.3


def test_cisterns_are_filled_with_fluid_and_have_soft_edges() -> None:
    affine = np.diag([0.5, 0.5, 1.0, 1.0])
    tube = Vessel(np.array([[10.0, 10, z] for z in range(4, 16)]), 3.0, CISTERN)
    maps = raster.rasterise([tube], affine, (40, 40, 20), (0, 0, 1), np.random.default_rng(0))
    fluid = maps.fraction[PERIVASCULAR][:, :, 10]
    assert fluid[20, 20] == 1
    assert fluid[20, 5] == 0
    assert float(fluid.sum()) * 0.25 == pytest.approx(np.pi * 9, rel=0.08)
    assert ((fluid > 0.1) & (fluid < 0.9)).sum() > 10


def test_arteries_filled_by_fresh_blood_are_fainter() -> None:
    line = np.array([[10.0, 10, 2], [10, 10, 18]])
    grid = np.diag([0.5, 0.5, 1.0, 1.0]), (40, 40, 20), (0, 0, 1)
    full, weak = (
        raster.rasterise([Vessel(line, 1.0, ARTERY, strength=s)], *grid, np.random.default_rng(0)).fraction[ARTERY]
        for s in (1.0, 0.4)
    )
    assert float(weak.sum()) == pytest.approx(0.4 * float(full.sum()), rel=0.05)


def test_the_plexus_lies_in_the_ventricles(template: anatomy.Template) -> None:
    plexus = [v for v in cisterns.draw_choroid(np.random.default_rng(4), template) if v.kind == CHOROID]
    dots = np.concatenate([v.points_mm for v in plexus])
    assert len(dots) > 50
    assert template.ventricle[anatomy.voxels_at(dots)].max() < 1
    assert {float(np.sign(x)) for x in dots[:, 0]} == {1.0, -1.0}


def test_mixed_contrasts_reach_from_one_family_to_the_other() -> None:
    mixed = replace(PROTOCOLS["gre-3mm"], mixed=True)
    drawn = [draw_values(np.random.default_rng(seed), mixed) for seed in range(60)]
    fluid = [values.fluid for values in drawn]
    artery = [values.artery for values in drawn]
    assert min(fluid) < 0.5 < 1.0 < max(fluid)
    assert min(artery) < 0.15 < 0.6 < max(artery)


def test_noise_has_the_asked_sd_whatever_the_filling() -> None:
    for filling in (1.0, 1.3, 1.5, 2.0):
        protocol = replace(PROTOCOLS["gre-thick"], zero_filling=filling)
        image = acquisition.acquire(np.ones((96, 96, 4), np.complex64), protocol, np.random.default_rng(1), 0.05)
        assert (image - image.mean()).real.std() == pytest.approx(0.05, rel=0.08)


@pytest.mark.parametrize("family", ["swi", "t2star"])
def test_no_wide_vessel_ends_bluntly_by_itself(template: anatomy.Template, family: str) -> None:
    """Its end would look like a microbleed and be taught as none. Trunks that go on as others may lie a bit apart."""
    drawn = vessels.draw_vessels(np.random.default_rng(3), template, family)
    tubes = [v for v in drawn if isinstance(v, Vessel) and v.kind in (VEIN, ARTERY)]
    owner = np.repeat(np.arange(len(tubes)), [len(v.points_mm) for v in tubes])
    tree = cKDTree(np.concatenate([v.points_mm for v in tubes]))
    free = []
    for number, tube in enumerate(tubes):
        radii = tube.radius_mm * tube.width(np.array([0.5, tube.length_mm - 0.5]))
        for end, radius in zip(tube.points_mm[[0, -1]], radii, strict=True):
            goes_on = any(
                owner[k] != number and tubes[owner[k]].radius_mm > radius / 2 for k in tree.query_ball_point(end, 4)
            )
            if radius > 0.35 and not goes_on and template.depth[anatomy.voxels_at(end)] > 3:
                free.append((tube.kind, radius, end))
    assert len(free) <= 4, free
    assert max(v.radius_mm for v in tubes) > 2


def test_a_wide_dark_vessel_lies_in_fluid_that_shows_and_those_in_tissue_are_faint(template: anatomy.Template) -> None:
    """On T2*-GRE real vessels in tissue are wide and faint; a black dot there is a microbleed."""
    drawn = vessels.draw_vessels(np.random.default_rng(4), template, "t2star")
    free = [v for v in drawn if isinstance(v, Vessel) and v.kind == VEIN and min(v.taper_mm) > 0]
    wide = [v for v in free if v.radius_mm > 0.45]
    in_tissue = [v for v in wide if v.strength < 0.6]
    assert len(in_tissue) > 20
    assert len(wide) - len(in_tissue) > 20
    assert max(v.strength for v in in_tissue) <= 0.5
    wet = [template.smooth["csf"][anatomy.voxels_at(v.points_mm)] > 0.2 for v in wide if v.strength == 1]
    assert np.mean(np.concatenate(wet)) > 0.9


def test_calcium_of_the_plexus_lies_in_the_ventricle(template: anatomy.Template) -> None:
    warp = anatomy.Warp(np.random.default_rng(0))
    inside = warp.to_head(np.argwhere(template.ventricle < 0.8) + anatomy.TEMPLATE_TO_RAS[:3, 3])
    spots = [
        spot
        for seed in range(12)
        for spot in lesions.draw_calcifications(np.random.default_rng(seed), template, warp)
        if spot[3] == "calcification"
    ]
    middle = warp.to_head(np.array([[24.0, -42, 12], [-24, -42, 12]]))
    plexus = [s[0] for s in spots if np.linalg.norm(middle - s[0], axis=1).min() < 8]
    assert len(plexus) > 10
    away, _ = cKDTree(inside).query(np.array(plexus))
    assert away.max() < 1.0
