"""Patches, augmentation, fitting with checkpoints, mimics, folds."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from CMBDetectorLib.datasets.bids import Case, Point, read_dataset, read_points, write_points
from CMBDetectorLib.errors import BadInputError, Cancelled
from CMBDetectorLib.evaluation.matching import HIT_RADIUS_MM
from CMBDetectorLib.networks.unet import WINDOW, build_unet
from CMBDetectorLib.progress import Progress
from CMBDetectorLib.training.augmentation import flip_and_rotate, random_shifts
from CMBDetectorLib.training.bundles import training_stages
from CMBDetectorLib.training.cases import prepare_cases
from CMBDetectorLib.training.crossvalidation import crossvalidate, make_folds
from CMBDetectorLib.training.fitting import fit
from CMBDetectorLib.training.patches import (
    Stage1Sampler,
    Stage2Sampler,
    away_from,
    centre_map,
    slice_shift,
    target_sigma,
)
from CMBDetectorLib.training.proposals import BESIDE_MM, Proposals, hits_in, mined_in
from CMBDetectorLib.training.settings import FitSettings, settings_from
from CMBDetectorLib.training.work import describe_cases, open_work
from CMBDetectorLib.volume import read_volume

SPACING = (0.45, 0.45, 1.0)
SMALL = {"kind": "unet", "stem": 4, "channels": [4, 8]}


def test_preprocessed_cases_hold_their_microbleeds(prepared):
    assert len(prepared) == 4
    assert sum(len(case.microbleeds) for case in prepared) == 12
    for case in prepared:
        brain = case.image[case.mask]
        assert 0.4 < np.median(brain) < 0.8
        assert not case.image[~case.mask].any()
        for ijk in case.microbleeds:
            i, j, k = np.round(ijk).astype(int)
            around = np.asarray(case.image[i - 2 : i + 3, j - 2 : j + 3, k - 1 : k + 2], float)
            assert around.min() < 0.8 * np.median(brain)


def test_preprocessing_is_not_repeated(crops, tmp_path):
    cases = read_dataset(crops)[:2]
    first = prepare_cases(cases, tmp_path, SPACING, "dataset", Progress())
    times = [(case.folder / "image.npy").stat().st_mtime_ns for case in first]
    again = prepare_cases(cases, tmp_path, SPACING, "dataset", Progress())
    assert [(case.folder / "image.npy").stat().st_mtime_ns for case in again] == times
    np.testing.assert_array_equal(again[0].ijk_to_ras, first[0].ijk_to_ras)


@given(st.integers(0, 2**32 - 1))
def test_augmentation_moves_image_and_target_together(seed):
    rng = np.random.default_rng(seed)
    window = rng.random(WINDOW, np.float32)
    image, target = flip_and_rotate(rng, window, window > 0.5)
    assert image.shape == WINDOW
    np.testing.assert_array_equal(image > 0.5, target)
    np.testing.assert_array_equal(np.sort(image, axis=None), np.sort(window, axis=None))


def test_augmentation_reaches_all_sixteen_positions():
    window = np.arange(np.prod(WINDOW), dtype=float).reshape(WINDOW)
    rng = np.random.default_rng(0)
    seen = {flip_and_rotate(rng, window)[0].tobytes() for _ in range(400)}
    assert len(seen) == 16  # 8 positions of a square, each with and without a flip through the slices


def test_shifts_stay_within_bounds_and_reach_them():
    shifts = random_shifts(np.random.default_rng(0), 2000, (2, 1, 0))
    np.testing.assert_array_equal(shifts.min(0), [-2, -1, 0])
    np.testing.assert_array_equal(shifts.max(0), [2, 1, 0])


@given(st.tuples(*[st.floats(2, n - 3) for n in WINDOW]))
def test_centre_map_peaks_at_the_microbleed(centre):
    target = centre_map(np.array([centre]), np.array(SPACING), 1.0)
    peak = np.unravel_index(target.argmax(), WINDOW)
    assert (np.abs(np.array(peak) - centre) <= 0.5 + 1e-6).all()
    assert 0.8 < target.max() <= 1


def test_centre_map_keeps_neighbours_apart_and_ignores_the_far():
    target = centre_map(np.array([[5, 10, 8], [12, 10, 8], [60, 0, 0]]), np.array(SPACING), 1.0)
    assert target[5, 10, 8] == target[12, 10, 8] == 1
    assert target[8, 10, 8] < 0.7


@pytest.mark.parametrize("thick", [1.0, 3.0, 5.0])
def test_a_target_is_as_wide_as_its_slice(thick):
    sigma = target_sigma(1.0, (0.45, 0.45, thick))
    target = centre_map(np.array([[10, 10, 8]]), np.array(SPACING), sigma)
    half = (target[10, 10] >= np.exp(-0.5)).sum() / 2
    assert abs(half * SPACING[2] - max(1.0, thick / 2)) <= 0.5
    assert (target[:, 10, 8] >= np.exp(-0.5)).sum() == 5  # 1 mm to each side in the slice, whatever its thickness
    assert slice_shift((2, 2, 1), (0.45, 0.45, thick), SPACING) == (2, 2, max(1, int(thick / 2)))


def test_what_shows_a_microbleed_in_the_next_slice_is_no_mimic():
    spacing, bleed = np.array(SPACING), np.array([[40.0, 40, 20]])
    above = bleed + np.array([0, 0, 8])
    beside = bleed + np.array([6 / SPACING[0], 0, 0])
    both = np.concatenate([above, beside])
    assert len(away_from(both, bleed, spacing)) == 2
    np.testing.assert_array_equal(away_from(both, bleed, spacing, (0.45, 0.45, 5.0)), beside)


def test_of_candidates_at_a_microbleed_the_nearest_is_it_and_those_beside_are_mimics(prepared):
    case = next(case for case in prepared if len(case.microbleeds))
    bleed, per_mm = case.microbleeds[0], 1 / np.array(SPACING)
    right = np.array([1.0, 0, 0])

    def found(*beside_mm):
        places = np.array([bleed + far * right * per_mm for far in beside_mm])
        return Proposals(places, np.linspace(0.9, 0.5, len(places)))

    apart = np.linalg.norm((case.microbleeds - bleed) * SPACING, axis=1)
    assert np.sort(apart)[1:].min(initial=np.inf) > 12, "no other microbleed may have a say here"
    for places in ((4.0,), (0.5, 1.5), (4.0, 1.0)):
        mimics = mined_in(case, found(*places))
        expected = [far for far in places if far > BESIDE_MM and far != min(places)]
        np.testing.assert_allclose(mimics, found(*expected).ijk if expected else np.zeros((0, 3)))
        np.testing.assert_allclose(hits_in(case, found(*places)), found(min(places)).ijk)
    np.testing.assert_allclose(mined_in(case, found(6.0)), found(6.0).ijk)
    assert not len(mined_in(case, found()))
    assert not len(hits_in(case, found()))
    assert not len(hits_in(case, found(6.0)))


def test_a_prepared_case_knows_the_voxels_of_its_scan(prepared, crops):
    for case in prepared:
        (scan,) = (c.scan for c in read_dataset(crops) if c.id == case.id)
        np.testing.assert_allclose(case.stored_mm, read_volume(scan).canonical().spacing, rtol=1e-5)
        assert case.volume.source["stored_mm"] == pytest.approx(case.stored_mm)


def test_stage1_windows_come_with_their_targets(prepared):
    sample = Stage1Sampler(prepared, SPACING, (3, 3, 2), 1.0)
    images, targets = sample(np.random.default_rng(0), 40)
    assert images.shape == targets.shape == (40, *WINDOW, 1)
    marked = targets.max(axis=(1, 2, 3, 4)) > 0.8
    assert marked.sum() >= 20
    assert not marked.all()
    # Microbleeds are dark: under the target the image is darker than around it.
    under = [image[target > 0.7].min() for image, target in zip(images[marked], targets[marked], strict=True)]
    assert np.median(under) < 0.4
    again, _ = sample(np.random.default_rng(0), 40)
    np.testing.assert_array_equal(again, images)


def test_stage2_windows_are_half_microbleeds(prepared):
    mimics = [case.dark_spots[:5].astype(float) for case in prepared]
    images, labels = Stage2Sampler(prepared, mimics, SPACING, (1, 1, 1))(np.random.default_rng(0), 60)
    assert images.shape == (60, *WINDOW, 1)
    assert labels.sum() == 30
    centre = images[:, 9:12, 9:12, 7:10, 0].min(axis=(1, 2, 3))
    assert np.median(centre[labels[:, 0] == 1]) < 0.45


def test_hits_of_stage1_are_learnt_from_as_microbleeds(prepared):
    nothing = [np.zeros((0, 3))] * len(prepared)
    off = [np.round(case.microbleeds) + np.array([3, 0, 0]) for case in prepared]
    sampler = Stage2Sampler(prepared, nothing, SPACING, (0, 0, 0), hits=off)
    places = [sampler._draw(np.random.default_rng(seed), True) for seed in range(200)]
    assert 60 < sum(any(np.array_equal(ijk, hit) for hit in off[number]) for number, ijk in places) < 140


def test_no_negative_lies_on_a_microbleed(prepared):
    for case in prepared:
        left = away_from(case.dark_spots, case.microbleeds, SPACING)
        assert 0 < len(left) < len(case.dark_spots)
        apart = np.linalg.norm((left[:, None] - case.microbleeds[None]) * SPACING, axis=-1)
        assert apart.min() > HIT_RADIUS_MM


class _StopAfter(Progress):
    """Cancels a training in the middle of an epoch."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def show(self, stage, step, steps, fraction):
        if step >= self.steps:
            raise Cancelled


def test_a_killed_training_resumes_to_the_same_weights(prepared, tmp_path):
    sample = Stage1Sampler(prepared, SPACING, (3, 3, 2), 1.0)
    recipe = FitSettings((4,), 3, 4, 1e-3, (3, 3, 2))

    def train(checkpoint, progress):
        return fit(lambda: build_unet(SMALL), sample, recipe, 4, 11, checkpoint, progress, "unet").get_weights()

    whole = train(tmp_path / "whole.npz", Progress())
    with pytest.raises(Cancelled):
        train(tmp_path / "killed.npz", _StopAfter(6))
    resumed = train(tmp_path / "killed.npz", Progress())
    for a, b in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(a, b)
    repeated = train(tmp_path / "again.npz", Progress())
    for a, b in zip(whole, repeated, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not list(tmp_path.glob(".partial*"))


def test_a_checkpoint_of_another_recipe_or_a_damaged_one_is_refused(prepared, tmp_path):
    sample = Stage1Sampler(prepared, SPACING, (3, 3, 2), 1.0)
    checkpoint = tmp_path / "unet.npz"

    def train(steps):
        recipe = FitSettings((4,), 1, steps, 1e-3, (3, 3, 2))
        fit(lambda: build_unet(SMALL), sample, recipe, 4, 11, checkpoint, Progress(), "unet")

    train(1)
    with pytest.raises(BadInputError, match="other settings"):
        train(2)
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    with pytest.raises(BadInputError, match=r"unet\.npz is damaged"):
        train(1)


@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 1000))
def test_each_scan_is_left_out_once(count, leave_out, seed):
    ids = [f"sub-{number:02d}" for number in range(count)]
    if leave_out >= count:
        with pytest.raises(BadInputError):
            make_folds(ids, leave_out, seed)
        return
    folds = make_folds(ids, leave_out, seed)
    assert sorted(index for fold in folds for index in fold) == list(range(count))
    assert all(len(fold) == leave_out for fold in folds[:-1])
    assert folds == make_folds(ids, leave_out, seed)


@given(st.lists(st.integers(1, 4), min_size=2, max_size=12), st.integers(1, 5), st.integers(0, 99))
def test_all_scans_of_a_subject_are_left_out_together(sessions, leave_out, seed):
    ids = [f"site_sub-{s:02d}_ses-{n}" for s, count in enumerate(sessions) for n in range(count)]
    if leave_out > len(ids) - max(sessions):
        return
    folds = make_folds(ids, leave_out, seed)
    assert sorted(index for fold in folds for index in fold) == list(range(len(ids)))
    held = [{ids[index].split("_ses")[0] for index in fold} for fold in folds]
    assert sum(map(len, held)) == len(sessions), "no subject in two folds"
    assert all(len(fold) >= leave_out for fold in folds[:-1])


def test_only_the_same_run_is_resumed(tmp_path):
    work = tmp_path / "work"
    open_work(work, {"settings": {"seed": 1}, "cases": {"sub-01": "a"}}, resume=False)
    with pytest.raises(BadInputError, match="interrupted run"):
        open_work(work, {"settings": {"seed": 1}, "cases": {"sub-01": "a"}}, resume=False)
    open_work(work, {"settings": {"seed": 1}, "cases": {"sub-01": "a"}}, resume=True)
    with pytest.raises(BadInputError, match=r"another one \(cases changed\)"):
        open_work(work, {"settings": {"seed": 1}, "cases": {"sub-01": "b"}}, resume=True)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(BadInputError, match="holds other files"):
        open_work(tmp_path / "photos", {}, resume=True)


def test_microbleeds_outside_their_scan_are_refused_before_any_work(crops, tmp_path):
    first, second, *_ = read_dataset(crops)
    mirrored = tmp_path / "points.tsv"
    write_points(mirrored, [Point((float(-x - 900), float(-y), float(z))) for x, y, z in second.microbleeds()])
    cases = [first, replace(second, points=mirrored)]
    with pytest.raises(BadInputError, match=f"microbleeds of {second.id} lie outside the scan"):
        prepare_cases(cases, tmp_path / "work", SPACING, "dataset", Progress())
    assert not (tmp_path / "work").exists()


def test_an_unannotated_or_empty_dataset_cannot_train(crops, tmp_path):
    cases = read_dataset(crops)
    with pytest.raises(BadInputError, match="1 annotated"):
        prepare_cases(cases[:1], tmp_path, SPACING, "dataset", Progress())


def test_the_length_of_a_training_must_be_positive():
    with pytest.raises(BadInputError):
        settings_from(epochs=0)
    assert settings_from(epochs=3, steps=2).unet.epochs == 3
    assert settings_from(epochs=3, steps=2).cnn.epochs == 6
    assert settings_from(epochs=3, cnn_epochs=5).cnn.epochs == 5
    with pytest.raises(BadInputError):
        settings_from(cnn_epochs=0)


def test_another_brain_mask_or_a_missing_scan_is_no_run_to_go_on_with(tmp_path):
    scan, mask = tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz"
    scan.write_bytes(b"scan")
    mask.write_bytes(b"mask")
    case = Case("sub-01", scan, tmp_path / "points.tsv", tmp_path / "mimics.tsv", mask)
    before = describe_cases([case])
    assert describe_cases([case]) == before
    mask.write_bytes(b"another mask")
    assert describe_cases([case]) != before
    assert describe_cases([replace(case, brain_mask=None)]) != before
    scan.unlink()
    with pytest.raises(BadInputError, match="sub-01 cannot be read"):
        describe_cases([case])


def test_a_fold_that_teaches_nothing_is_refused_before_any_training(tmp_path):
    cases = [SimpleNamespace(id=f"sub-{n}", microbleeds_ras=np.zeros((int(n == 3), 3))) for n in range(6)]
    with pytest.raises(BadInputError, match=r"Without .*sub-3.* no microbleed is left"):
        crossvalidate(cases, settings_from(), 2, tmp_path / "work", Progress())
    assert not (tmp_path / "work").exists()


def test_stages_weigh_what_is_to_be_done():
    both = dict(training_stages(settings_from(recipe="context"), 30))
    kept = dict(training_stages(replace(settings_from(recipe="context"), keep_unets=True), 30))
    longer = dict(training_stages(settings_from(recipe="context", epochs=48), 60))
    assert kept == {**both, "U-Nets": 0}
    assert longer["U-Nets"] == pytest.approx(2 * both["U-Nets"])
    assert longer["mimics"] == 2 * both["mimics"]
    assert both["U-Nets"] > both["CNNs"] > 60, "seconds: U-Nets take most of the time"


def test_mimic_files_hold_positions_in_ras(tmp_path):
    write_points(tmp_path / "m.tsv", [Point((1.5, -2.0, 3.25), mimic_class="vessel")], mimics=True)
    assert read_points(tmp_path / "m.tsv")[0].ras_mm == (1.5, -2.0, 3.25)
