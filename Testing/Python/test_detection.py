"""Tiles, likelihood maps, candidates, sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from CMBDetectorLib.detection import likelihood
from CMBDetectorLib.detection.candidates import find_peaks
from CMBDetectorLib.detection.detector import Detector
from CMBDetectorLib.detection.patches import cut_windows
from CMBDetectorLib.detection.size import apparent_diameter
from CMBDetectorLib.detection.tiles import plan_tiles
from CMBDetectorLib.errors import OutOfMemoryError
from CMBDetectorLib.models.versions import load_bundle
from CMBDetectorLib.networks import backend, unet
from CMBDetectorLib.progress import Progress
from CMBDetectorLib.volume import Volume

SPACING = (0.45, 0.45, 1.0)
SMALL = {"kind": "unet", "stem": 8, "channels": [8, 16]}


@pytest.fixture(scope="module")
def networks() -> list:
    backend.set_seed(5)
    models = [unet.build_unet(SMALL), unet.build_unet(SMALL)]
    for model in models:  # untrained networks answer nearly the same everywhere: make them sensitive
        for layer in model.layers:
            if layer.name.endswith("_norm"):
                gamma, beta, mean, variance = layer.get_weights()
                layer.set_weights([gamma * 2, beta, mean, variance * 0.5])
    return [unet.fold(model, SMALL) for model in models]


@pytest.fixture(scope="module")
def brain() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (70, 90, 50)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    mask = (grid**2).sum(0) < 0.8
    image = ndimage.gaussian_filter(rng.normal(0.5, 0.4, shape), 1).astype(np.float32) * mask
    return image, mask


@given(
    st.tuples(st.integers(3, 40), st.integers(3, 40), st.integers(3, 30)),
    st.integers(0, 2**32 - 1),
    st.sampled_from([2_000, 20_000, 10**9]),
)
@settings(max_examples=40, deadline=None)
def test_tiles_cover_every_voxel_of_the_brain_once(shape, seed, most):
    mask = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 1.5) > 0.5
    counted = np.zeros(shape, int)
    for tile in plan_tiles(mask, (4, 4, 2), (5, 8, 3), most):
        assert all(s % n == 0 for s, n in zip(tile.start, (4, 4, 2), strict=True))
        assert all(s % n == 0 for s, n in zip(tile.shape, (4, 4, 2), strict=True))
        counted[tuple(slice(a, b) for a, b in zip(tile.start, tile.stop, strict=True))] += 1
    assert (counted[mask] == 1).all()
    assert counted.max(initial=0) <= 1


def test_large_masks_are_cut_into_tiles_below_the_limit():
    tiles = plan_tiles(np.ones((200, 200, 100), bool), (4, 4, 2), (12, 12, 6), 600_000)
    assert len(tiles) > 4
    assert max(tile.voxels for tile in tiles) <= 600_000


def test_tiles_and_one_piece_give_the_same_map(networks, brain):
    image, mask = brain
    margin = unet.margin(SMALL)
    whole = likelihood.dense_map(networks, SMALL, image, mask, margin=margin)
    tiled = likelihood.dense_map(networks, SMALL, image, mask, most_voxels=150_000, margin=margin)
    assert len(plan_tiles(mask, unet.stride(SMALL), margin, 150_000)) > 4
    assert whole[mask].std() > 1e-4
    assert (whole[~mask] == 0).all()
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


def test_the_default_margin_is_enough_for_a_trained_network(brain):
    bundle = load_bundle()
    detector = Detector.from_bundle(bundle)
    architecture = bundle.networks("unets")[0][1]
    image, mask = brain
    image = np.where(mask, 0.5 + (image - 0.5) * 0.2, 0).astype(np.float32)
    grid = np.stack(np.meshgrid(*[np.arange(n) * s for n, s in zip(image.shape, SPACING, strict=True)], indexing="ij"))
    for centre in ((16, 20, 25), (10, 22, 30), (18, 12, 18), (15, 30, 25)):
        image[((grid - np.array(centre)[:, None, None, None]) ** 2).sum(0) < 1.5**2] = 0.1
    maps = [
        likelihood.dense_map(detector._folded, architecture, image, mask, most_voxels=most, margin=margin)
        for most, margin in ((10**9, unet.margin(architecture)), (100_000, None))
    ]
    assert len(plan_tiles(mask, unet.stride(architecture), likelihood.tile_margin(architecture), 100_000)) > 4
    assert maps[0].max() > 0.2
    assert np.abs(maps[0] - maps[1]).max() < 0.03


def test_exact_map_is_the_mean_over_all_windows(networks, brain):
    image, mask = (array[20:44, 30:52, 15:33] for array in brain)
    found = likelihood.exact_map(networks[:1], image, mask)
    pad = np.array(unet.WINDOW) - 1
    padded = np.pad(image, [(p, p + 3) for p in pad])
    total, count = np.zeros(padded.shape), np.zeros(padded.shape)
    corners = [range(0, n - w + 1, 3) for n, w in zip(padded.shape, unet.WINDOW, strict=True)]
    boxes = [
        tuple(slice(a, a + w) for a, w in zip((i, j, k), unet.WINDOW, strict=True))
        for i in corners[0] for j in corners[1] for k in corners[2]
    ]  # fmt: skip
    for first in range(0, len(boxes), 128):
        part = boxes[first : first + 128]
        maps = networks[0].predict_on_batch(np.stack([padded[box] for box in part])[..., None])
        for box, one in zip(part, np.asarray(maps), strict=True):
            total[box] += one[..., 0]
            count[box] += 1
    mean = (total / np.maximum(count, 1))[tuple(slice(p, p + n) for p, n in zip(pad, image.shape, strict=True))]
    np.testing.assert_allclose(found, np.where(mask, mean, 0), atol=1e-5)


def test_a_map_without_brain_is_empty(networks):
    empty = np.zeros((30, 30, 20), np.float32)
    assert not likelihood.dense_map(networks, SMALL, empty, empty > 0).any()
    assert likelihood.exact_windows(empty > 0) == 0


def _blobs(centres_mm, shape=(80, 80, 40), sigma=1.0):
    grid = np.stack(np.meshgrid(*[np.arange(n) * s for n, s in zip(shape, SPACING, strict=True)], indexing="ij"), -1)
    maps = [height * np.exp(-0.5 * ((grid - c) ** 2).sum(-1) / sigma**2) for *c, height in centres_mm]
    return np.max(maps, axis=0).astype(np.float32)


def test_neighbours_3_mm_apart_stay_apart():
    found = find_peaks(_blobs([(15, 15, 15, 0.9), (18, 15, 15, 0.8), (15, 15, 18, 0.7)]), SPACING, 0.2)
    assert len(found.ijk) == 3
    np.testing.assert_allclose(found.ijk * SPACING, [(15, 15, 15), (18, 15, 15), (15, 15, 18)], atol=0.45)


def test_one_microbleed_in_two_thick_slices_is_one_candidate():
    # A column with a maximum in each of two slices of 5 mm; the second column is a neighbour 3 mm beside it.
    columns = [(15, 15, 12, 0.9), (15.4, 15, 17, 0.6), (18.5, 15, 12, 0.7)]
    apart = find_peaks(_blobs(columns), SPACING, 0.2)
    assert len(apart.ijk) == 3
    found = find_peaks(_blobs(columns), SPACING, 0.2, stored_mm=(0.45, 0.45, 5.0))
    np.testing.assert_allclose(found.ijk * SPACING, [(15, 15, 12), (18.5, 15, 12)], atol=0.45)
    np.testing.assert_allclose(found.likelihood, [0.9, 0.7], atol=0.05)
    # Three slices further up it is another one.
    far = find_peaks(_blobs([(15, 15, 12, 0.9), (15, 15, 27, 0.6)]), SPACING, 0.2, stored_mm=(0.45, 0.45, 5.0))
    assert len(far.ijk) == 2


@pytest.mark.parametrize("direction", [0, 1, 2])
def test_thick_slices_in_any_direction(direction):
    stored = np.where(np.arange(3) == direction, 5.0, 0.5)
    second = np.array([15.0, 15, 12]) + 5 * (np.arange(3) == direction)
    found = find_peaks(_blobs([(15, 15, 12, 0.9), (*second, 0.6)]), SPACING, 0.2, stored_mm=stored)
    np.testing.assert_allclose(found.ijk * SPACING, [(15, 15, 12)], atol=0.45)


def test_a_large_flat_lesion_is_one_candidate():
    grid = np.stack(np.meshgrid(*[np.arange(n) * s for n, s in zip((80, 80, 40), SPACING, strict=True)], indexing="ij"))
    ball = ((grid - np.array([18, 18, 20])[:, None, None, None]) ** 2).sum(0) < 3.5**2
    flat = ndimage.gaussian_filter(ball.astype(float), 0.6 / np.array(SPACING))
    noise = np.random.default_rng(0).normal(0, 0.01, ball.shape)
    found = find_peaks((flat * (0.9 + noise)).astype(np.float32), SPACING, 0.2)
    assert len(found.ijk) == 1
    assert np.linalg.norm(found.ijk[0] * SPACING - [18, 18, 20]) < 3.5


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.6))
@settings(max_examples=20, deadline=None)
def test_candidates_lie_above_the_threshold_and_do_not_crowd(seed, threshold):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((30, 30, 16)), (2, 2, 1))
    array = ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)
    found = find_peaks(array, SPACING, threshold)
    assert (found.likelihood >= threshold).all()
    assert (np.diff(found.likelihood) <= 0).all()
    assert found.likelihood[0] == array.max()
    assert ((found.ijk >= 0) & (found.ijk <= np.array(array.shape) - 1)).all()


def test_no_candidates_in_an_empty_map():
    assert find_peaks(np.zeros((20, 20, 16), np.float32), SPACING, 0.2).ijk.shape == (0, 3)


@pytest.mark.parametrize("diameter", [2.0, 4.0, 7.0])
def test_apparent_diameter_of_a_dark_ball(diameter):
    fine = np.stack(np.meshgrid(*[np.arange(n) * s for n, s in zip((60, 60, 30), SPACING, strict=True)], indexing="ij"))
    centre = np.array([13.5, 13.5, 15])
    ball = ((fine - centre[:, None, None, None]) ** 2).sum(0) < (diameter / 2) ** 2
    image = np.where(ball, 0.1, 0.5).astype(np.float32)
    found = apparent_diameter(image, np.ones(image.shape, bool), centre / SPACING, SPACING)
    assert found == pytest.approx(diameter, abs=0.5)


def test_windows_are_centred_and_padded_with_no_brain():
    image = np.arange(30 * 30 * 20, dtype=np.float32).reshape(30, 30, 20) + 1
    windows = cut_windows(image, np.array([[15, 15, 10], [0, 0, 0], [29, 29, 19], [500, 0, 0]]))
    assert windows.shape == (4, 20, 20, 16)
    assert windows[0, 10, 10, 8] == image[15, 15, 10]
    assert windows[1, 10, 10, 8] == image[0, 0, 0]
    assert not windows[1, :10].any()
    assert windows[2, 10, 10, 8] == image[29, 29, 19]
    assert not windows[3].any()


class _Short:
    """A network in a computer that has memory for ``most`` voxels at once."""

    def __init__(self, network, most):
        self.network, self.most, self.refused = network, most, 0

    def predict_on_batch(self, batch):
        if batch.size > self.most:
            self.refused += 1
            raise type("ResourceExhaustedError", (RuntimeError,), {})("OOM when allocating tensor")
        return self.network.predict_on_batch(batch)


@pytest.mark.parametrize(("inference", "threshold"), [("dense", 0.54), ("exact", 0.07)])
def test_without_memory_the_search_goes_on_in_small_pieces_once(networks, brain, monkeypatch, inference, threshold):
    bundle = load_bundle()
    cnns, cnn = [backend.load(path) for path, _ in bundle.networks("cnns")], bundle.networks("cnns")[0][1]
    image, mask = (Volume(array[20:60, 20:60, 15:45], np.diag([*SPACING, 1.0])) for array in brain)
    monkeypatch.setattr("CMBDetectorLib.detection.detector.LOW_MEMORY_VOXELS", 40_000)
    sparing = Detector([], cnns, SMALL, cnn, low_memory=True)
    sparing._folded = networks
    expected = sparing.detect(image, mask, threshold, inference)
    assert len(expected.candidates) > 8
    notes = []
    progress = Progress()
    progress.log = notes.append
    most = 80_000
    short = [_Short(network, most) for network in networks]
    ten_windows = 10 * int(np.prod(cnn["window"]))
    detector = Detector([], [_Short(network, ten_windows) for network in cnns], SMALL, cnn)
    detector._folded = short
    found = detector.detect(image, mask, threshold, inference, progress)
    assert found.candidates == expected.candidates
    assert sum(network.refused for network in short) == 1
    assert len(notes) == 1
    assert "smaller pieces" in notes[0]
    # Once, and not for ever smaller.
    detector._folded = [_Short(network, 1) for network in networks]
    with pytest.raises(OutOfMemoryError, match="not enough memory"):
        detector.detect(image, mask, threshold, inference)
