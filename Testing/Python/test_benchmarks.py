"""What benchmarks/altered_scans.py and real_tissue.py do to scans, before any model sees them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from grids import MARK_RAS, mark, phantom
from local_datasets import GRIDS, elsewhere, scan_of

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import real_tissue
from altered_scans import LOOKS, alter, dark

from CMBDetectorLib.datasets.bids import read_dataset
from CMBDetectorLib.simulation.looks import bleed_with_look, draw_look
from CMBDetectorLib.volume import read_volume, write_volume

SHIFTS = [
    tuple(int(n) for n in shift) for shift in np.vstack([np.zeros(3, int), np.eye(3, dtype=int), -np.eye(3, dtype=int)])
]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    for number, grid in enumerate([*GRIDS.values(), {}]):
        elsewhere(tmp_path / "plain", f"sub-0{number + 1}", scan_of(number, **grid))
    return tmp_path / "plain"


@pytest.mark.parametrize("look", LOOKS)
def test_an_altered_scan_keeps_its_grid_its_annotations_and_its_spots(dataset: Path, look: str):
    altered = alter(dataset, dataset.with_name("altered"), look)

    for before, after in zip(read_dataset(dataset), read_dataset(altered), strict=True):
        old, new = read_volume(before.scan), read_volume(after.scan)
        assert np.allclose(new.ijk_to_ras, old.ijk_to_ras, atol=1e-4)
        assert not np.allclose(new.array, old.array, rtol=0.05)
        assert np.allclose(after.microbleeds(), before.microbleeds())
        alike = {shift: likeness(old.array, np.roll(new.array, shift, (0, 1, 2))) for shift in SHIFTS}
        assert max(alike, key=alike.get) == (0, 0, 0)


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_the_looks_take_turns_and_what_is_there_is_not_made_again(dataset: Path):
    altered = alter(dataset, dataset.with_name("altered"))
    alike = alter(dataset, dataset.with_name("alike"), "dark")

    pairs = zip(read_dataset(altered), read_dataset(alike), strict=True)
    same = [likeness(read_volume(a.scan).array, read_volume(b.scan).array) > 0.99 for a, b in pairs]
    assert same == [True, False, False, True], "dark, flat, ghosted, and dark again"
    marker = altered / "kept"
    marker.touch()
    assert alter(dataset, altered) == altered
    assert marker.exists()


def test_a_dark_scan_has_squared_intensities():
    scan = np.full((40, 40, 3), 0.5)

    altered = dark(scan, np.array([1.0, 1.0, 3.0]), np.random.default_rng(1))

    assert altered.mean() == pytest.approx(0.25, abs=0.01)
    assert altered.std() == pytest.approx(0.03, abs=0.005)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_the_mirrored_margin_moves_nothing(tmp_path: Path, grid: dict):
    path = tmp_path / "scan.nii"
    write_volume(path, phantom(**grid))

    inner, scan = real_tissue._read(path, 0, None)

    assert all(a > b for a, b in zip(scan.shape, inner.shape, strict=True))
    assert np.linalg.norm(mark(inner) - MARK_RAS) < 0.3
    places = np.argwhere(np.ones(inner.shape))
    there = np.round(scan.to_ijk(inner.to_ras(places))).astype(int)
    assert np.array_equal(scan.array[tuple(there.T)], inner.array[tuple(places.T)])


def test_a_crop_is_a_part_of_the_scan(tmp_path: Path):
    path = tmp_path / "scan.nii"
    whole = phantom(spacing=(0.5, 0.5, 0.6), extent_mm=40)
    write_volume(path, whole)

    inner, _ = real_tissue._read(path, 0, [20, 11, 9])

    assert inner.shape == real_tissue._CROP
    assert np.allclose(inner.to_ras(np.zeros(3)), whole.to_ras(np.array([20, 11, 9])), atol=1e-3)
    assert np.linalg.norm(mark(inner) - MARK_RAS) < 0.3


def test_an_inserted_microbleed_darkens_its_place_and_nothing_far_away():
    rng = np.random.default_rng(3)
    flat = phantom(spacing=(0.5, 0.5, 1.5), extent_mm=40)
    flat = flat.with_array(np.ones(flat.shape, np.float32))
    centre = real_tissue._place(rng, flat.with_array(rng.uniform(0.4, 0.6, flat.shape).astype(np.float32)))
    protocol, b = real_tissue._protocol(flat), flat.ijk_to_ras[:3, 2] / flat.spacing[2]

    bleed = bleed_with_look(rng, centre, draw_look(rng, protocol), protocol, flat.ijk_to_ras, b)
    box, left = real_tissue.factor(bleed, protocol, flat.ijk_to_ras, flat.shape, b)
    image = flat.array.copy()
    image[box] *= np.abs(left)

    darkest = flat.to_ras(np.array(np.unravel_index(image.argmin(), image.shape), float))
    assert image.min() < 0.8
    assert np.linalg.norm(darkest - centre) < 2.5
    far = np.linalg.norm(flat.to_ras(np.argwhere(np.ones(flat.shape))) - centre, axis=1) > 15
    assert np.abs(image.ravel()[far] - 1).max() < 0.05


def test_the_table_counts_each_microbleed_once():
    inserted = [
        real_tissue.Inserted(c, likelihood, s) for c, likelihood, s in ((0.3, 0, 0), (0.5, 1, 0.6), (1, 1, 0.9))
    ]

    rows = real_tissue._table(inserted, [], SimpleNamespace(thresholds={"shown": 0.8})).splitlines()

    assert rows[0].startswith("In the scan as it is: 0 candidates, 0 of them shown.")
    assert [row.split("|")[2:-1] for row in rows[4:]] == [
        [" 1 ", " 0 ", " 0 ", " 0 "],
        [" 1 ", " 1 ", " 1 ", " 0 "],
        [" 0 ", " 0 ", " 0 ", " 0 "],
        [" 1 ", " 1 ", " 1 ", " 1 "],
        [" 3 ", " 2 ", " 2 ", " 1 "],
    ]
