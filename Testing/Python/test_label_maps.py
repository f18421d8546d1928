"""Label maps of lesions: each region of a label becomes its centre and size, and what is no such map a sentence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from local_datasets import SCANS, refused, written
from scipy import ndimage

from CMBDetectorLib.datasets.annotations import read_annotations
from CMBDetectorLib.volume import Volume, write_volume


@pytest.fixture
def plain() -> Volume:
    """A phantom of 28 mm around CENTRE_RAS (12, -7, 20)."""
    return SCANS["plain"]


@pytest.mark.parametrize("scan", SCANS.values(), ids=SCANS)
def test_a_label_map_gives_centres_and_diameters(tmp_path, scan):
    labels = np.zeros(scan.shape, np.int16)
    centre = np.array(scan.shape) // 2
    labels[tuple(slice(c - 1, c + 2) for c in centre)] = 7
    # Another label that touches it, and one of its own further away whose voxels meet at a corner.
    labels[centre[0] - 1 : centre[0] + 2, centre[1] - 1 : centre[1] + 2, centre[2] + 2] = 30_000
    labels[2, 3, 4] = labels[3, 4, 5] = 7
    path = tmp_path / "labels.nii.gz"
    write_volume(path, scan.with_array(labels))
    points = read_annotations(path, scan)
    wanted = [scan.to_ras([2.5, 3.5, 4.5]), scan.to_ras(centre), scan.to_ras(centre + np.array([0, 0, 2]))]
    np.testing.assert_allclose([point.ras_mm for point in points], wanted, atol=1e-3)
    voxel = float(np.prod(scan.spacing))
    np.testing.assert_allclose([p.diameter_mm for p in points], np.cbrt(6 * np.array([2, 27, 9]) * voxel / np.pi))
    write_volume(path, scan.with_array(np.zeros(scan.shape, np.uint8)))
    assert read_annotations(path, scan) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.02, 0.1, 0.3]), values=st.integers(1, 4))
def test_regions_are_those_of_each_label_by_itself(tmp_path, seed, share, values):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(8, 13, 3))
    grid = Volume(np.zeros(shape, np.uint8), np.diag([-1.0, 1.0, 2.0, 1.0]))
    labels = (rng.random(shape) < share) * rng.integers(1, values + 1, shape).astype(np.uint8)
    write_volume(tmp_path / "labels.nii", grid.with_array(labels))
    points = read_annotations(tmp_path / "labels.nii", grid)
    wanted = []
    for value in range(1, values + 1):
        regions, count = ndimage.label(labels == value, structure=np.ones((3, 3, 3)))
        for number in range(1, count + 1):
            where = np.argwhere(regions == number)
            wanted.append((*grid.to_ras(where.mean(axis=0)), np.cbrt(12 * len(where) / np.pi)))
    found = [(*point.ras_mm, point.diameter_mm) for point in points]
    # Rounded first: noise in the last digit would change the order.
    found, wanted = (sorted(np.round(rows, 6).tolist()) for rows in (found, wanted))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_label_maps_that_are_none(tmp_path, plain):
    path = tmp_path / "map.nii.gz"
    write_volume(path, plain)
    assert "marks" in refused(path, plain)
    write_volume(path, plain.with_array((plain.array / 1000).astype(np.float32)))
    assert "no label map" in refused(path, plain)
    write_volume(path, plain.with_array(-plain.array.astype(np.int16)))
    assert "no label map" in refused(path, plain)
    write_volume(path, plain.cropped((0, 0, 0), (20, 20, 20)))
    assert "another grid" in refused(path, plain)
    written(tmp_path, "map.nii.gz", path.read_bytes()[:400])
    assert "map.nii.gz" in refused(path, plain)
    written(tmp_path, "map.nrrd", "no image")
    assert "map.nrrd" in refused(tmp_path / "map.nrrd", plain)
    noise = Volume(np.zeros((200, 200, 60), np.uint8), np.diag([1.0, 1.0, 1.0, 1.0]))
    noise.array[::2, ::2, ::2] = 1
    write_volume(path, noise)
    assert "300000 regions" in refused(path, noise)
    noise.array[:] = np.random.default_rng(0).integers(0, 200, noise.shape)
    write_volume(path, noise)
    assert "% of the scan" in refused(path, noise)
