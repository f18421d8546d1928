"""The recipe with context: networks in either order of axes, scanners, hard negatives, training from a model on."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_networks import as_trained

from CMBDetectorLib.detection.likelihood import exact_stride, exact_windows
from CMBDetectorLib.errors import BadInputError, ModelError
from CMBDetectorLib.models.versions import load_bundle
from CMBDetectorLib.networks import backend
from CMBDetectorLib.networks.catalogue import build, window
from CMBDetectorLib.training.augmentation import vary_scanner
from CMBDetectorLib.training.bundles import _Rounds
from CMBDetectorLib.training.fitting import go_part_of_the_way
from CMBDetectorLib.training.patches import Stage1Sampler, Stage2Sampler
from CMBDetectorLib.training.retraining import retrain_settings
from CMBDetectorLib.training.settings import further, settings_from

SPACING = (0.45, 0.45, 1.0)
SMALL = {
    "kind": "context", "window": [32, 32, 16], "near": [16, 16, 8], "channels": [4, 8], "dense": [8], "dropout": 0.3,
}  # fmt: skip

SAME_IN_BOTH_ORDERS = """
import numpy as np
from CMBDetectorLib.networks.catalogue import build, window
from CMBDetectorLib.training.retraining import retrain_settings
from CMBDetectorLib.training.settings import further, settings_from
for recipe in ("paper", "context"):
    settings = settings_from(tiny=True, recipe=recipe)
    for architecture in (settings.unet_architecture, settings.cnn_architecture):
        inside, saved = build(architecture, "n", first=True), build(architecture, "n", first=False)
        rng = np.random.default_rng(0)
        # Running variances are among the vectors and must be positive.
        drawn = [rng.normal(0, 0.2, w.shape) for w in inside.get_weights()]
        inside.set_weights([np.abs(w) + 0.1 if w.ndim == 1 else w for w in drawn])
        saved.set_weights(inside.get_weights())
        windows = rng.random((3, *window(architecture), 1), np.float32)
        a, b = (np.asarray(model.predict_on_batch(windows)) for model in (inside, saved))
        assert a.shape == b.shape and a.std() > 1e-7, (recipe, a.std())
        np.testing.assert_allclose(a, b, atol=1e-5)
print("same")
"""


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_networks_answer_alike_in_both_orders_of_axes():
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    command = [sys.executable, "-c", SAME_IN_BOTH_ORDERS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip().endswith("same"), done.stderr[-2000:]


def test_the_network_with_context_sees_the_rim_of_its_window():
    model = build(SMALL, "context")
    windows = np.full((2, *window(SMALL), 1), 0.5, np.float32)
    windows[1, :4] = 0
    answers = np.asarray(model.predict_on_batch(windows))
    assert answers.shape == (2, 1)
    assert abs(answers[0, 0] - answers[1, 0]) > 1e-6


def test_an_unknown_kind_of_network_is_refused():
    with pytest.raises(ModelError, match="transformer"):
        build({"kind": "transformer"}, "n")


@given(st.integers(0, 2**32 - 1))
def test_another_scanner_keeps_air_and_what_is_dark(seed):
    rng = np.random.default_rng(seed)
    image = np.full((12, 12, 8), 0.5, np.float32)
    image[4:8, 4:8, 3:6] = 0.1
    image[:2] = 0
    varied = vary_scanner(rng, image)
    assert varied.dtype == np.float32
    assert not varied[:2].any()
    assert (varied[2:] > 0).all()
    assert varied[5:7, 5:7, 4].mean() < 0.7 * np.median(varied[9:, 9:])


def test_windows_have_the_size_of_the_architecture(prepared):
    settings = settings_from(recipe="context", tiny=True)
    size = window(settings.unet_architecture)
    images, targets = Stage1Sampler(prepared, SPACING, (4, 4, 2), 1.0, size, True)(np.random.default_rng(0), 4)
    assert images.shape == targets.shape == (4, *size, 1)
    under = [image[target > 0.7].min() for image, target in zip(images, targets, strict=True) if target.max() > 0.9]
    assert len(under) >= 2
    assert np.median(under) < 0.4


def test_mimics_that_deceive_are_drawn_more_often(prepared):
    mimics = [case.dark_spots[:3].astype(float) for case in prepared]
    sampler = Stage2Sampler(prepared, mimics, SPACING, (0, 0, 0), (8, 8, 8))
    windows = np.concatenate(list(sampler.mimic_windows(5)))
    assert windows.shape == (12, 8, 8, 8, 1)
    scores = np.zeros(12)
    scores[7] = 1
    sampler.weigh_mimics(scores)
    rng = np.random.default_rng(0)
    drawn = [sampler._draw(rng, False) for _ in range(400)]
    hard = np.mean([number == 2 and np.array_equal(ijk, mimics[2][1]) for number, ijk in drawn])
    # 80 % of the negatives are mimics; 1.03 of 1.36 is the weight of this one.
    assert 0.5 < hard < 0.7
    sampler.weigh_mimics(None)
    drawn = [sampler._draw(rng, False) for _ in range(400)]
    assert np.mean([number == 2 and np.array_equal(ijk, mimics[2][1]) for number, ijk in drawn]) < 0.2


@pytest.mark.parametrize("new", [True, False])
def test_what_deceives_a_network_comes_first_when_it_is_trained_further(prepared, tmp_path, new):
    settings = settings_from(tiny=True, recipe="context", cnn_epochs=6)
    size = window(settings.cnn_architecture)
    mimics = [case.dark_spots[:3].astype(float) for case in prepared]
    sampler = Stage2Sampler(prepared, mimics, SPACING, (0, 0, 0), size)
    weigh = _Rounds(sampler, settings.cnn, tmp_path / "scores.npz", False, new)
    model = build(settings.cnn_architecture, "cnn")
    weigh(model, 0)
    assert (tmp_path / "scores.npz").exists() != new
    weigh(model, 2)
    assert (tmp_path / "scores.npz").exists()
    with np.load(tmp_path / "scores.npz") as saved:
        assert saved["scores"].shape == (12,)


@pytest.mark.parametrize("share", [0, 1])
def test_either_end_of_the_way_is_reached_exactly(share):
    old, new = (as_trained(SMALL, "cnn", seed).get_weights() for seed in (1, 2))
    model = as_trained(SMALL, "cnn", 2)
    go_part_of_the_way(model, old, share)
    for kept, wanted in zip(model.get_weights(), (old, new)[share], strict=True):
        assert np.array_equal(kept, wanted)


def test_larger_windows_slide_by_a_third_of_themselves():
    assert exact_stride((20, 20, 16)) == (3, 3, 3)
    assert exact_stride((48, 48, 24)) == (16, 16, 8)
    mask = np.zeros((48, 48, 24), bool)
    mask[24, 24, 12] = True
    assert exact_windows(mask, (48, 48, 24)) == 27


SHORT = ("--tiny", "--epochs", 1, "--steps", 2, "--seed", 3)


@pytest.fixture(scope="module")
def first(worker, crops, tmp_path_factory):
    """A folder with a model ``first`` (mimics from 0.1 on) and ``train``: trains that model further, into a name."""
    folder = tmp_path_factory.mktemp("further")

    def train(name, *options):
        run = worker("train", crops, "--output", folder / name, *SHORT, "--cases", folder / "cases", *options)
        assert run.code == 0, run.stderr[-2000:]
        return load_bundle(folder / name)

    train("first", "--mimic-threshold", 0.1)
    return folder, lambda name, *options: train(name, "--from", folder / "first", *options)


def test_a_model_is_trained_further(first):
    folder, train = first
    times = [path.stat().st_mtime_ns for path in (folder / "cases").rglob("image.npy")]
    parent, child = load_bundle(folder / "first"), train("second")
    assert [path.stat().st_mtime_ns for path in (folder / "cases").rglob("image.npy")] == times
    assert child.card["parent"] == parent.reference
    assert child.card["training"]["settings"]["recipe"] == "context"
    assert child.checksum != parent.checksum
    assert child.thresholds == parent.thresholds | {"shown": child.thresholds["shown"]}
    assert parent.thresholds["mimics"] == 0.1
    assert child.networks("cnns")[0][1] == parent.networks("cnns")[0][1]


def test_of_a_model_the_u_nets_are_kept_and_the_cnns_go_part_of_the_way(first):
    folder, train = first
    parent = load_bundle(folder / "first")
    kept, part = train("kept", "--keep-unets"), train("part", "--keep-unets", "--new-share", 0.25)
    for kind, stays in (("unets", True), ("cnns", False)):
        for (old, _), (new, _) in zip(parent.networks(kind), kept.networks(kind), strict=True):
            weights = zip(backend.load(old).get_weights(), backend.load(new).get_weights(), strict=True)
            assert all(np.array_equal(a, b) for a, b in weights) == stays
    three = [model.networks("cnns")[1][0] for model in (parent, part, kept)]
    for old, between, new in zip(*(backend.load(path).get_weights() for path in three), strict=True):
        np.testing.assert_allclose(between, 0.75 * old + 0.25 * new, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("asked", [["--keep-unets"], ["--new-share", 0.5]])
def test_only_what_a_model_has_can_be_kept(worker, crops, tmp_path, asked):
    refused = worker("train", crops, "--output", tmp_path / "model", *asked)
    assert refused.code == 2
    assert "--from" in refused.events[-1]["hint"]


def test_a_model_s_cnns_are_widened(worker, crops, first, tmp_path):
    folder, train = first
    known = load_bundle(folder / "first").networks("cnns")[0][1]["channels"]
    narrow = ("--from", folder / "first", "--keep-unets", "--cnn-channels", *[n - 1 for n in known])
    refused = worker("train", crops, "--output", tmp_path / "narrow", *SHORT, "--cases", folder / "cases", *narrow)
    assert refused.code != 0
    assert "cannot become" in refused.events[-1]["message"]
    wide = train("wide", "--keep-unets", "--cnn-channels", *[n + 2 for n in known])
    path, architecture = wide.networks("cnns")[0]
    assert architecture["channels"] == [n + 2 for n in known]
    assert backend.load(path).get_layer("near0a_conv").get_weights()[0].shape[-1] == known[0] + 2


def test_only_new_channels_are_learnt_faster():
    card = load_bundle("default").card
    settings = settings_from(recipe="context")
    channels = card["networks"]["cnns"][0]["architecture"]["channels"]
    as_before, same = further(settings, card), further(settings, card, channels)
    wider = further(settings, card, [n + 1 for n in channels])
    assert same == as_before
    assert wider.cnn.learning_rate > as_before.cnn.learning_rate
    assert wider.unet == as_before.unet


def test_where_a_model_shows_candidates_is_measured(worker, crops, tiny_model, tmp_path):
    import shutil

    model = shutil.copytree(tiny_model, tmp_path / "model")
    found = worker("detect", crops, "--output", tmp_path / "found", "--model", model, "--brain-mask", "dataset")
    assert found.code == 0, found.stderr[-2000:]
    refused = worker("evaluate", crops, "--predictions", tmp_path / "found", "--show-at", "1.0")
    assert refused.code == 2
    written = worker("evaluate", crops, "--predictions", tmp_path / "found", "--card", model, "--show-at", "4.1")
    assert written.code == 0, written.stderr[-2000:]
    points = json.loads((model / "model.json").read_text())["operating_points"][crops.name]
    assert load_bundle(model).thresholds["shown"] == pytest.approx(points["4.1"], abs=1e-3)


def test_from_scratch_a_model_is_retrained_by_its_recipe_and_else_with_its_own_thresholds():
    start = load_bundle("default")
    recipe = settings_from(recipe="context")
    anew, tuned = (retrain_settings(start, depth) for depth in ("from-scratch", "second-stage"))
    assert (anew.mimic_threshold, anew.stage1_threshold) == (recipe.mimic_threshold, recipe.stage1_threshold)
    assert anew.cnn.learning_rate == recipe.cnn.learning_rate > tuned.cnn.learning_rate
    assert anew.cnn.transplants == recipe.cnn.transplants > tuned.cnn.transplants == 0
    known = start.thresholds
    assert (tuned.mimic_threshold, tuned.stage1_threshold) == (known["mimics"], known["stage1"])
    assert known["mimics"] != recipe.mimic_threshold


def test_recipes_differ_where_they_should():
    paper, context = settings_from(recipe="paper"), settings_from(recipe="context")
    assert paper.recipe == "paper"
    assert not paper.unet.scanners
    assert window(paper.unet_architecture) == window(paper.cnn_architecture) == (20, 20, 16)
    assert context.cnn.rounds > 1
    with pytest.raises(BadInputError):
        settings_from(epochs=0, recipe="context")
