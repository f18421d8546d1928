"""Retraining on local scans: by the real worker, killed and resumed, refused, compared, never over the old model."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from conftest import run_worker
from hypothesis import given
from hypothesis import strategies as st

from CMBDetectorLib.errors import ModelError
from CMBDetectorLib.evaluation.comparison import compare_models
from CMBDetectorLib.evaluation.froc import ScanResult
from CMBDetectorLib.files import sha256
from CMBDetectorLib.locking import FileLock
from CMBDetectorLib.models.bundle import verified
from CMBDetectorLib.models.companions import WINDOW, read_replay
from CMBDetectorLib.models.package import check_bundle
from CMBDetectorLib.models.registry import Registry
from CMBDetectorLib.progress import Progress
from CMBDetectorLib.training.comparison import comparison_folds
from CMBDetectorLib.training.finetuning import load_networks, new_share, split_scans, tune_cnns
from CMBDetectorLib.training.fitting import Care, fit
from CMBDetectorLib.training.patches import Stage2Sampler
from CMBDetectorLib.training.replay import (
    Replay,
    ReplayedCandidates,
    ReplayedMaps,
    add_replay,
    load_replay,
    make_replay,
    mixed,
    write_replay,
)
from CMBDetectorLib.training.settings import FitSettings, further, settings_from

SPACING = (0.45, 0.45, 1.0)
SHORT = ("--epochs", 2, "--steps", 30, "--seed", 5)


@pytest.fixture(scope="module")
def replay(prepared) -> Replay:
    return make_replay(prepared, [case.dark_spots[:20].astype(float) for case in prepared], 20)


@pytest.fixture(scope="module")
def old_model(beginner, replay, tmp_path_factory) -> Path:
    """A model that has much to learn, with windows to replay."""
    folder = tmp_path_factory.mktemp("old") / "beginner"
    shutil.copytree(beginner, folder)
    add_replay(verified(folder), replay)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> dict[str, str]:
    """An environment with a registry of models of its own."""
    return {"CMBDETECTOR_MODELS": str(tmp_path_factory.mktemp("home") / "models")}


@pytest.fixture(scope="module")
def retrained(crops, old_model, home):
    """What retraining once, never interrupted, leaves: its run and the old model's files before."""
    before = {path.name: sha256(path) for path in old_model.iterdir()}
    run = run_worker("retrain", crops, "--model", old_model, *SHORT, env=home)
    assert run.code == 0, run.stderr[-2000:]
    return run, before


def weights_of(folder: Path) -> dict[str, list[np.ndarray]]:
    import h5py

    found: dict[str, list[np.ndarray]] = {}
    for path in sorted(folder.glob("*.keras")):
        arrays = found[path.name] = []

        def collect(_, item, arrays=arrays):
            if isinstance(item, h5py.Dataset):
                arrays.append(item[()])

        with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as stream, h5py.File(stream) as file:
            file.visititems(collect)
    return found


def same_weights(some: Path, other: Path) -> bool:
    a, b = weights_of(some), weights_of(other)
    return list(a) == list(b) and all(
        len(a[name]) == len(b[name]) and all(map(np.array_equal, a[name], b[name])) for name in a
    )


def test_a_tuned_network_lies_between_the_old_one_and_the_best_epoch(prepared, old_model, tmp_path):
    bundle = verified(old_model)
    settings = further(settings_from(seed=3, epochs=2, steps=6, tiny=True), bundle.card)
    spots = [case.dark_spots[:20].astype(float) for case in prepared]
    mimics = [(found, np.full(len(found), 0.5)) for found in spots]
    before = [[np.array(w) for w in network.model.get_weights()] for network in load_networks(bundle, "cnns")]
    hits = [case.microbleeds for case in prepared]
    tuned = tune_cnns(load_networks(bundle, "cnns"), prepared, mimics, hits, None, settings, tmp_path, Progress())
    assert any(network.is_new for network in tuned)
    bleeds = sum(len(case.microbleeds_ras) for case in prepared)
    share = bleeds / (bleeds + 40)
    assert 0 < share < 0.5
    for network, old in zip(tuned, before, strict=True):
        with np.load(tmp_path / f"{network.name}.npz") as saved:
            best = [saved[f"best{number}"] for number in range(len(old))]
        assert network.is_new == (not all(map(np.array_equal, best, old)))
        for weight, first, last in zip(network.model.get_weights(), old, best, strict=True):
            np.testing.assert_allclose(weight, first + share * (last - first), atol=1e-6)


def test_with_forty_microbleeds_and_more_weights_go_halfway():
    assert new_share(40) == new_share(400) == 0.5
    assert 0.1 < new_share(5) < new_share(11) < 0.25


def test_a_new_version_is_registered_and_not_active(retrained, home, old_model):
    run, before = retrained
    result = run.last("result")
    registry = Registry(Path(home["CMBDETECTOR_MODELS"]))
    assert result["reference"] == "beginner@1"
    assert result["parent"] == "beginner@1"
    assert registry.active_reference().startswith("default@")
    assert {path.name: sha256(path) for path in old_model.iterdir()} == before
    bundle = check_bundle(Path(result["folder"]))
    assert bundle.checksum == result["checksum"] != verified(old_model).checksum
    training = bundle.card["training"]
    assert training["settings"]["depth"] == "second-stage"
    assert training["settings"]["seed"] == 5
    assert training["settings"]["replay_share"] > 0
    assert [scan["id"] for scan in training["manifest"]] == [f"sub-0{n}" for n in range(1, 5)]
    assert sum(scan["microbleeds"] for scan in training["manifest"]) == 12
    assert bundle.coarsest_mm == verified(old_model).coarsest_mm
    assert bundle.replay is not None
    # Stage 1 is what it was, byte for byte.
    for path in old_model.glob("unet-*.keras"):
        assert sha256(path) == bundle.card["files"][path.name]


def test_the_comparison_is_kept_with_the_model(retrained):
    run, _ = retrained
    result = run.last("result")
    folder = Path(result["folder"])
    content = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    assert content == result["comparison"]
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(chain(*content["folds"])) == [f"sub-0{n}" for n in range(1, 5)]
    assert [rate["fp"] for rate in content["rates"]] == [1.0, 4.1, 14.5]
    judged = content["rates"][1]
    gained = judged["new"]["sensitivity"] - judged["old"]["sensitivity"]
    assert gained == pytest.approx((len(content["won"]) - len(content["lost"])) / 12, abs=1e-5)
    # It was trained on these very scans.
    assert content["old"]["seen"] == [f"sub-0{n}" for n in range(1, 5)]
    assert "flatters" in content["verdict"]


def test_epochs_are_told_as_events(retrained):
    run, _ = retrained
    epochs = [event for event in run.events if event["event"] == "epoch"]
    assert {event["network"] for event in epochs} == {"cnn-20", "cnn-30"}
    assert all(event["epochs"] == 2 and event["loss"] > 0 and event["validation"] > 0 for event in epochs)
    stages = list(dict.fromkeys(event["stage"] for event in run.events if event["event"] == "progress"))
    assert stages == ["preprocessing", "mimics", "CNNs", "comparison"]
    fractions = [event["fraction"] for event in run.events if event["event"] == "progress"]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_a_retrained_model_travels(retrained, home, tmp_path):
    run, _ = retrained
    Registry(Path(home["CMBDETECTOR_MODELS"])).export(run.last("result")["reference"], tmp_path / "model.zip")
    bundle, is_new = Registry(tmp_path / "elsewhere").install(tmp_path / "model.zip")
    assert is_new
    assert bundle.checksum == run.last("result")["checksum"]
    assert (bundle.folder / "comparison.json").is_file()
    assert bundle.replay is not None


def test_killed_at_any_moment_it_ends_with_the_same_weights(retrained, crops, old_model, tmp_path):
    env = {**os.environ, "CMBDETECTOR_MODELS": str(tmp_path / "models")}
    words = ["retrain", crops, "--model", old_model, *SHORT, "--events"]
    rng = random.Random()
    for moment in ('"mimics"', '"network": "cnn-20"', "Comparison 2"):
        resume = ["--resume"] if (tmp_path / "retrain").exists() else []
        command = [sys.executable, "-m", "CMBDetectorLib", *map(str, words), *resume]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env)
        for line in process.stdout:
            if moment.encode() in line:
                break
        time.sleep(0.5 * rng.random())
        process.kill()
        process.wait()
        process.stdout.close()
        assert not (tmp_path / "models").exists()
    other = run_worker(*words[:-1], "--steps", 4, "--resume", env={"CMBDETECTOR_MODELS": str(tmp_path / "models")})
    assert other.code == 2
    assert "have changed" in other.last("error")["message"]
    run = run_worker(*words[:-1], "--resume", env={"CMBDETECTOR_MODELS": str(tmp_path / "models")})
    assert run.code == 0, run.stderr[-2000:]
    result, whole = run.last("result"), retrained[0].last("result")
    assert same_weights(Path(result["folder"]), Path(whole["folder"]))
    assert result["comparison"] == whole["comparison"]
    assert Registry(tmp_path / "models").active_reference().startswith("default@")
    (place,) = (tmp_path / "retrain").iterdir()
    assert not (place / "run").exists()
    assert not list(tmp_path.rglob(".partial*"))


def test_too_little_is_refused_with_what_is_missing(crops, old_model, tmp_path, home):
    few = tmp_path / "few"
    shutil.copytree(crops, few)
    for name in ("sub-02", "sub-03"):
        shutil.rmtree(few / name)
    for check in ((), ("--check",)):
        run = run_worker("retrain", few, "--model", old_model, *check, env=home)
        assert run.code == 2
        assert "too few" in run.last("error")["message"]
        assert "1 more completely reviewed scan" in run.last("error")["message"]
    told = run.last("result")
    assert not told["enough"]
    assert told["scans"] == 2
    run = run_worker("retrain", crops, "--model", old_model, "--depth", "from-scratch", env=home)
    assert run.code == 2
    assert "4 more completely reviewed scans" in run.last("error")["message"]


def test_check_says_what_would_be_done(crops, old_model, home, retrained):
    told = run_worker("retrain", crops, "--model", old_model, "--check", env=home).last("result")
    assert told["enough"]
    assert told["missing"] == []
    assert (told["scans"], told["microbleeds"], told["folds"]) == (4, 12, 2)
    assert told["replay"]
    assert not told["resumable"]
    assert told["minutes"] > 0


def test_wrong_wishes_are_refused_before_any_work(crops, old_model, tmp_path, home):
    run = run_worker("retrain", crops, "--model", old_model, "--name", "default", env=home)
    assert run.code == 2
    assert "belongs to a model of this program" in run.last("error")["message"]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    run = run_worker("retrain", crops, "--model", old_model, "--work", tmp_path / "photos", env=home)
    assert run.code == 2
    assert "holds other files" in run.last("error")["message"]
    lock = FileLock(tmp_path / "work" / ".lock")
    lock.path.parent.mkdir()
    assert lock.acquire()
    run = run_worker("retrain", crops, "--model", old_model, "--work", tmp_path / "work", env=home)
    lock.release()
    assert run.code == 2
    assert "going on already" in run.last("error")["message"]


def test_replayed_windows_come_back_as_they_were(prepared, replay, tmp_path):
    assert replay.windows.shape == (len(replay.labels), *WINDOW)
    assert 0 < replay.labels.sum() <= 12
    assert (replay.labels == 0).sum() == 10
    write_replay(tmp_path / "replay.npz", replay)
    again = load_replay(tmp_path / "replay.npz")
    np.testing.assert_array_equal(again.windows, replay.windows)
    np.testing.assert_array_equal(again.labels, replay.labels)
    for a, b in zip(again.lesions, replay.lesions, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    # A microbleed lies in the middle of its window, in whatever part is cut out of it, and is dark.
    darkest = []
    for number in np.flatnonzero(replay.labels):
        image, lesions = again.cut(number, np.array([3, -2, 1]), (20, 20, 16))
        middle = np.array([10, 10, 8]) - (3, -2, 1)
        assert np.abs(lesions - middle).max(axis=1).min() <= 0.5 + 1e-4
        i, j, k = middle
        darkest.append(image[i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 2].min())
    assert np.median(darkest) < 0.45


def test_a_part_of_each_batch_is_replayed(prepared, replay):
    local = Stage2Sampler(prepared, [case.dark_spots[:5].astype(float) for case in prepared], SPACING, (1, 1, 1))
    rng = np.random.default_rng(0)
    windows, labels = mixed(local, ReplayedCandidates(replay, (20, 20, 16), (1, 1, 1), True), 0.5)(rng, 12)
    assert windows.shape == (12, 20, 20, 16, 1)
    assert labels.shape == (12, 1)
    assert labels.sum() == 6
    images, targets = ReplayedMaps(replay, SPACING, (48, 48, 24), (8, 8, 4), 1.0)(rng, 6)
    assert images.shape == targets.shape == (6, 48, 48, 24, 1)
    assert targets.max() > 0.8
    assert mixed(local, None) is local


@pytest.mark.parametrize("damage", ["torn", "pickle", "shape", "counts", "more", "bomb", "nan"])
def test_a_strange_replay_is_refused(replay, tmp_path, damage):
    path = tmp_path / "replay.npz"
    parts = {"windows": replay.windows, "labels": replay.labels}
    parts |= {"centres": np.zeros((2, 3), np.float32), "counts": np.zeros(len(replay.labels), np.int32)}
    parts["counts"][0] = 2
    if damage == "pickle":
        parts["labels"] = np.array([{}] * len(replay.labels), dtype=object)
    elif damage == "shape":
        parts["windows"] = replay.windows[:, :32]
    elif damage == "counts":
        parts["counts"][0] = 3
    elif damage == "more":
        parts["code"] = np.zeros(1)
    elif damage == "nan":
        parts["centres"][0, 0] = np.nan
    np.savez(path, **parts)
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "bomb":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            header = "{'descr': '|u1', 'fortran_order': False, 'shape': (900000, 64, 64, 24), }\n"
            for name in ("windows", "labels", "centres", "counts"):
                data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
                archive.writestr(f"{name}.npy", data)
    with pytest.raises(ModelError, match=r"replay\.npz"):
        read_replay(path)


def test_comparison_by_hand():
    # Two scans, microbleeds 100 mm apart; "old" finds the first of each, "new" all but one, with false positives below.
    truth = np.array([[0, 0, 0], [100, 0, 0], [200, 0, 0]], float)
    far = np.array([[0, 500, 0]], float)
    old = [ScanResult(case, np.concatenate([truth[:1], far]), np.array([0.9, 0.1]), truth) for case in ("a", "b")]
    new = [
        ScanResult("a", np.concatenate([truth, far]), np.array([0.9, 0.8, 0.7, 0.1]), truth),
        ScanResult("b", np.concatenate([truth[1:], far]), np.array([0.8, 0.7, 0.1]), truth),
    ]
    comparison = compare_models(old, new)
    judged = comparison.judged
    assert judged.old.sensitivity == pytest.approx(2 / 6)
    assert judged.new.sensitivity == pytest.approx(5 / 6)
    assert judged.difference == pytest.approx(3 / 6)
    # Scan a alone gains 2 of 3, scan b alone 1 of 3.
    assert judged.difference_ci == pytest.approx((1 / 3, 2 / 3))
    assert [(c.scan, c.ras_mm) for c in comparison.won] == [
        ("a", (100, 0, 0)), ("a", (200, 0, 0)), ("b", (100, 0, 0)), ("b", (200, 0, 0)),
    ]  # fmt: skip
    (lost,) = comparison.lost
    assert (lost.scan, lost.ras_mm, lost.old_score, lost.new_score) == ("b", (0, 0, 0), 0.9, None)
    assert comparison.outcome == "better"
    assert "finds 5 of 6 microbleeds and the old one 2" in comparison.verdict()
    assert compare_models(new, old).outcome == "worse"
    same = compare_models(old, old)
    assert same.outcome == "same"
    assert same.judged.difference_ci == (0, 0)
    json.dumps(same.to_json(), allow_nan=False)


def test_a_network_that_gets_no_better_stays_as_it_is(prepared, tmp_path):
    from CMBDetectorLib.networks import backend
    from CMBDetectorLib.networks.catalogue import build

    backend.prepare()
    small = {"kind": "cnn", "channels": [4, 4], "dense": [8, 4], "dropout": 0.3}
    sampler = Stage2Sampler(prepared, [np.zeros((0, 3))] * len(prepared), SPACING, (1, 1, 1))
    start = build(small, "cnn").get_weights()

    def tuned(name, validations):
        told = iter(validations)
        epochs = []

        class Count(Progress):
            def epoch(self, *words):
                epochs.append(words)

        care = Care(lambda model: next(told), patience=2)
        model = fit(
            lambda: build(small, "cnn"), sampler, FitSettings((4,), 6, 2, 1e-2, (1, 1, 1)), 4, 1, tmp_path / name,
            Count(), "cnn", start, care=care,
        )  # fmt: skip
        return model.get_weights(), len(epochs)

    worse, epochs = tuned("worse.npz", [1.0, 1.1, 1.2, 1.3])
    assert epochs == 2
    assert all(map(np.array_equal, worse, start))
    better, epochs = tuned("better.npz", [1.0, 1.1, 0.9, 1.3, 1.4])
    assert epochs == 4
    assert not all(map(np.array_equal, better, start))


@given(st.lists(st.integers(0, 9), min_size=3, max_size=30), st.integers(1, 6), st.integers(0, 99))
def test_folds_leave_enough_to_learn_from(counts, leave_out, seed):
    ids = [f"sub-{number:02d}" for number in range(len(counts))]
    if sum(count > 0 for count in counts) < 3:
        with pytest.raises(ValueError, match="three scans"):
            comparison_folds(ids, counts, leave_out, seed, 5)
        return
    folds = comparison_folds(ids, counts, leave_out, seed, 5)
    assert sorted(chain(*folds)) == list(range(len(counts)))
    assert 2 <= len(folds) <= max(5, 3)
    for fold in folds:
        assert sum(counts[index] > 0 for index in range(len(counts)) if index not in fold) >= 2


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), min_size=3, max_size=12), st.integers(0, 99))
def test_a_comparison_leaves_out_all_scans_of_a_subject(subjects, seed):
    ids = [f"sub-{s:02d}_run-{n}" for s, (_bleeds, runs) in enumerate(subjects) for n in range(runs)]
    counts = [bleeds for bleeds, runs in subjects for _ in range(runs)]
    if sum(bleeds > 0 for bleeds, _ in subjects) < 3:
        return
    folds = comparison_folds(ids, counts, 2, seed, 5)
    assert sorted(chain(*folds)) == list(range(len(ids)))
    assert sum(len({ids[index][:6] for index in fold}) for fold in folds) == len(subjects)


def test_no_network_learns_from_another_scan_of_a_subject_it_is_watched_on(prepared):
    sessions = [replace(case, id=f"sub-{n // 2:02d}_ses-{n % 2}") for n, case in enumerate(prepared * 2)]
    for number in range(2):
        held, rest = split_scans(sessions, number, 0)
        assert held
        assert any(len(case.microbleeds_ras) for case in rest)
        assert not {case.id[:6] for case in held} & {case.id[:6] for case in rest}


def test_each_network_is_watched_on_other_scans(prepared):
    seen = []
    for number in range(2):
        held, rest = split_scans(prepared, number, 0)
        assert sorted(case.id for case in (*held, *rest)) == [case.id for case in prepared]
        assert any(len(case.microbleeds_ras) for case in held)
        assert any(len(case.microbleeds_ras) for case in rest)
        seen += [case.id for case in held]
    assert len(set(seen)) == len(seen)
