"""Simulated crops: the same twice, lesions where they are said to be, vessels and geometry."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest

from CMBDetectorLib.errors import MissingPackageError
from CMBDetectorLib.simulation import anatomy, raster
from CMBDetectorLib.simulation.head import SimulatedScan, simulate_head
from CMBDetectorLib.simulation.lesions import MOST_MICROBLEEDS, draw_count
from CMBDetectorLib.simulation.protocols import PROTOCOLS
from CMBDetectorLib.simulation.vessels import VEIN, Vessel

CROP = PROTOCOLS["crop"]
AROUND, BESIDE = np.array([11, 11, 5]), np.array([3, 3, 1])  # voxels


def is_oblique(scan: SimulatedScan) -> bool:
    """Tell whether no voxel axis lies along R, A or S."""
    return bool((np.abs(scan.scan.ijk_to_ras[:3, :3] / scan.scan.spacing) < 0.9999).all())


@pytest.fixture(scope="module")
def scans() -> list[SimulatedScan]:
    """Four crops with five microbleeds each."""
    pytest.importorskip("nilearn", reason="the simulator needs nilearn")
    return [simulate_head(seed, CROP, 5) for seed in (0, 1, 4, 5)]


def test_same_seed_same_scan_other_seed_other_scan(scans: list[SimulatedScan]) -> None:
    again = simulate_head(0, CROP, 5)
    np.testing.assert_array_equal(again.scan.array, scans[0].scan.array)
    np.testing.assert_array_equal(again.brain_mask.array, scans[0].brain_mask.array)
    assert again.microbleeds == scans[0].microbleeds
    assert again.mimics == scans[0].mimics
    assert not np.array_equal(scans[1].scan.array, scans[0].scan.array)


def test_count_geometry_and_units(scans: list[SimulatedScan]) -> None:
    for made in scans:
        assert len(made.microbleeds) == 5
        assert made.scan.shape == CROP.shape
        assert made.scan.same_grid(made.brain_mask)
        np.testing.assert_allclose(made.scan.spacing, CROP.spacing_mm, rtol=1e-6)
        assert made.scan.array.dtype == np.float32
        assert made.brain_mask.array.dtype == bool
        np.testing.assert_array_equal(made.scan.array, np.rint(made.scan.array))
        assert made.scan.array.min() >= 0
    assert any(is_oblique(made) for made in scans)
    assert any(made.scan.orientation != "RAS" for made in scans)


def test_microbleeds_are_dark_spots_where_they_are_said_to_be(scans: list[SimulatedScan]) -> None:
    """On every stored grid, flipped and oblique ones too, the darkest voxel around is at most a voxel away."""
    close = []
    for made in scans:
        for lesion in made.microbleeds:
            ijk = np.round(made.scan.to_ijk(lesion.ras_mm)).astype(int)
            near = made.scan.cropped(ijk - 1, ijk + 2).array
            around = made.scan.cropped(ijk - AROUND, ijk + AROUND + 1).array
            assert near.min() < 0.85 * np.median(around), lesion
            wider = made.scan.cropped(ijk - BESIDE, ijk + BESIDE + 1).array
            close.append(near.min() <= wider.min() + 0.15 * np.median(around))
            assert 0.2 < lesion.contrast <= 1
            assert lesion.diameter_mm > 0.4
    assert np.mean(close) > 0.8


def test_mirrored_positions_are_not_dark(scans: list[SimulatedScan]) -> None:
    """The check above would notice a flip: positions mirrored in the grid are not dark."""
    there, mirrored = [], []
    for made in scans:
        for lesion in made.microbleeds:
            ijk = np.round(made.scan.to_ijk(lesion.ras_mm)).astype(int)
            for found, index in ((there, ijk), (mirrored, np.array(made.scan.shape) - 1 - ijk)):
                if not made.brain_mask.array[tuple(index)]:
                    continue
                found.append(made.scan.cropped(index - 1, index + 2).array.min() / np.median(made.scan.array))
    assert np.median(there) < 0.5 * np.median(mirrored)
    assert np.median(mirrored) > 0.65


def test_mimics_have_classes_and_keep_away_from_microbleeds(scans: list[SimulatedScan]) -> None:
    known = {"vessel", "calcification", "partial volume", "iron deposition", "artefact", "other"}
    known.add("cavernous malformation")
    assert sum(len(made.mimics) for made in scans) > 6
    for made in scans:
        bleeds = np.array([lesion.ras_mm for lesion in made.microbleeds])
        for mimic in made.mimics:
            assert mimic.mimic_class in known
            assert np.linalg.norm(bleeds - mimic.ras_mm, axis=1).min() >= 4
            index = tuple(np.round(made.scan.to_ijk(mimic.ras_mm)).astype(int))
            assert made.scan.array[index] < np.median(made.scan.array[made.brain_mask.array])


def test_no_microbleeds_and_very_many() -> None:
    pytest.importorskip("nilearn", reason="the simulator needs nilearn")
    assert simulate_head(3, CROP, 0).microbleeds == []
    assert len(simulate_head(3, CROP, 30).microbleeds) == 30


def test_counts_are_heavy_tailed() -> None:
    rng = np.random.default_rng(0)
    counts = np.array([draw_count(rng) for _ in range(4000)])
    assert counts.min() == 1
    assert counts.max() <= MOST_MICROBLEEDS
    assert 3.0 < counts.mean() < 4.6
    assert np.median(counts) <= 2
    assert counts.max() > 20


def test_warp_goes_there_and_back() -> None:
    warp = anatomy.Warp(np.random.default_rng(5))
    mni = np.random.default_rng(6).uniform((-70, -100, -60), (70, 70, 80), (200, 3))
    np.testing.assert_allclose(warp.to_template(warp.to_head(mni)), mni, atol=0.02)
    moved = np.array([warp.transform().TransformPoint(p) for p in mni.tolist()])
    np.testing.assert_allclose(moved, warp.to_template(mni), atol=1e-3)


@pytest.mark.parametrize("angle", [0.0, 0.35])
def test_rasterised_vein_keeps_its_volume_and_position(angle: float) -> None:
    affine = np.eye(4)
    affine[:3, :3] = anatomy.rotation(0, angle) @ np.diag([-0.45, -0.45, 1.0])
    affine[:3, 3] = (10, 12, -14)
    shape = (48, 52, 30)
    start = affine[:3, :3] @ [20, 25, 6] + affine[:3, 3]
    end = affine[:3, :3] @ [26, 31, 24] + affine[:3, 3]
    maps = raster.rasterise(
        [Vessel(np.linspace(start, end, 9), 0.2, VEIN, 0.5)], affine, shape, (0, 0, 1), np.random.default_rng(0)
    )
    length = float(np.linalg.norm(end - start))
    volume = float(maps.fraction[VEIN].sum()) * 0.45 * 0.45
    assert volume == pytest.approx(np.pi * 0.04 * length, rel=0.02)
    assert float(maps.chi.sum()) == pytest.approx(0.5 * float(maps.fraction[VEIN].sum()), rel=1e-4)
    middle = np.argwhere(maps.fraction[VEIN] > 0).mean(0)
    np.testing.assert_allclose(middle, [23, 28, 15], atol=0.6)
    cosine = float((end - start)[2] / length)
    own = maps.self_field.sum() / maps.chi.sum()
    assert own == pytest.approx((cosine**2 - 1 / 3) / 2, abs=1e-3)


def test_missing_nilearn_is_said_with_the_command_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_nilearn(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.startswith("nilearn"):
            raise ImportError(name)
        return real_import(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without_nilearn)
    with pytest.raises(MissingPackageError) as caught:
        anatomy.load_template.__wrapped__()  # past the cache, which other tests fill
    assert "cmbdetector[simulation]" in caught.value.hint
