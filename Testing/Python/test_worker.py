"""The worker process as its users meet it: results, events, exit codes, cancelling, bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import SimpleITK as sitk  # noqa: N813

from CMBDetectorLib.candidate import read_detection
from CMBDetectorLib.datasets.bids import read_dataset
from CMBDetectorLib.models.versions import load_bundle
from CMBDetectorLib.volume import Volume, read_volume, write_volume

PROGRAM = [sys.executable, "-m", "CMBDetectorLib"]


@pytest.fixture(scope="module")
def scan(crops) -> Path:
    return read_dataset(crops)[0].scan


@pytest.fixture(scope="module")
def detected(worker, scan, tiny_model, tmp_path_factory):
    """One detection with everything kept: the run and its folder, in a path with spaces and umlauts."""
    folder = tmp_path_factory.mktemp("Ergebnisse für Dr Ü") / "erste Messung"
    run = worker(
        "detect", scan, "--output", folder, "--model", tiny_model, "--brain-mask", "none",
        "--keep", "preprocessed,likelihood,brain-mask", "--threshold", "0.3", "--stage1-threshold", "0.05",
    )  # fmt: skip
    assert run.code == 0, run.stderr[-2000:]
    return run, folder


def test_detect_writes_all_its_results(detected, scan):
    run, folder = detected
    assert sorted(p.name for p in folder.iterdir()) == [
        "brain_mask.nii.gz", "candidates.csv", "candidates.json", "candidates.mrk.json", "likelihood.nii.gz",
        "preprocessed.nii.gz", "report.html",
    ]  # fmt: skip
    detection = read_detection(folder / "candidates.json")
    assert run.last("result")["candidates"] == len(detection.candidates) > 0
    scores = [c.score for c in detection.candidates]
    assert scores == sorted(scores, reverse=True)
    assert detection.settings["threshold"] == 0.3
    assert detection.model["name"] == "tiny"
    assert set(detection.seconds) >= {"reading", "brain mask", "bias field", "stage 1", "stage 2"}
    stored = read_volume(scan)
    ijk = stored.to_ijk([c.ras_mm for c in detection.candidates])
    assert ((ijk > -1) & (ijk < stored.shape)).all()
    rows = (folder / "candidates.csv").read_text().splitlines()
    assert len(rows) == 1 + len(detection.candidates)
    points = json.loads((folder / "candidates.mrk.json").read_text())["markups"][0]["controlPoints"]
    assert len(points) == len(detection.shown())
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert "Not for clinical use" in report
    assert "simulated" in report


def test_detect_finds_the_microbleeds_it_was_trained_on(worker, crops, tiny_model, tmp_path):
    run = worker(
        "detect", crops, "--output", tmp_path / "found", "--model", tiny_model, "--brain-mask", "dataset",
        "--stage1-threshold", "0.05",
    )  # fmt: skip
    assert run.code == 0, run.stderr[-2000:]
    assert run.last("result")["scans"] == 4
    judged = worker("evaluate", crops, "--predictions", tmp_path / "found", "--output", tmp_path / "report")
    assert judged.code == 0, judged.stderr[-2000:]
    froc = json.loads((tmp_path / "report" / "froc.json").read_text())
    assert froc["final"]["ceiling"]["sensitivity"] >= 0.5
    assert (tmp_path / "report" / "froc.png").stat().st_size > 10_000
    # The simulator recorded all that groups are made of.
    groups = {group["name"]: group["microbleeds"] for group in froc["groups"]}
    assert groups["all"] == groups["beside dark tissue"] + groups["elsewhere"] == 12
    assert groups["lobar"] + groups["deep"] + groups["infratentorial"] == 12
    assert groups["contrast < 0.5"] + groups["contrast >= 0.5"] == 12
    card = shutil.copytree(tiny_model, tmp_path / "copy")
    noted = worker("evaluate", crops, "--predictions", tmp_path / "found", "--card", card)
    assert noted.code == 0, noted.stderr[-2000:]
    assert "12 microbleeds in 4 scans" in load_bundle(card).card["metrics"]["crops"]
    # What is there is not computed again; a scan that cannot be read is named, the others are kept.
    stamp = (tmp_path / "found" / "sub-01" / "candidates.json").stat().st_mtime_ns
    asked = ("detect", crops, "--output", tmp_path / "found", "--model", tiny_model, "--stage1-threshold", "0.05")
    again = worker(*asked, "--brain-mask", "dataset")
    assert again.code == 0
    assert again.last("result")["scans"] == 4
    assert (tmp_path / "found" / "sub-01" / "candidates.json").stat().st_mtime_ns == stamp
    shutil.rmtree(tmp_path / "found" / "sub-02")
    mixed = worker(*asked, "--brain-mask", "none")
    assert mixed.code == 2
    assert "sub-01 differs in --brain-mask" in mixed.last("error")["message"]
    assert not (tmp_path / "found" / "sub-02").exists()


def test_results_of_another_model_or_settings_are_neither_kept_nor_replaced(worker, crops, tiny_model, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(crops / "sub-01", data / "sub-01")
    asked = ("detect", data, "--output", out, "--model", tiny_model, "--brain-mask", "none")
    assert worker(*asked).code == 0
    # A second scan comes to the cohort: it would be searched, the first one kept.
    shutil.copytree(crops / "sub-02", data / "sub-02")
    file = out / "sub-01" / "candidates.json"
    for changed, words in (
        (["--threshold", "0.77"], "--threshold"),
        (["--stage1-threshold", "0.3"], "--stage1-threshold"),
        (["--inference", "exact"], "--stage1-threshold, --inference"),
    ):
        run = worker(*asked, *changed)
        assert run.code == 2
        assert f"(sub-01 differs in {words})" in run.last("error")["message"]
        assert "another output folder" in run.last("error")["hint"]
    known = json.loads(file.read_text(encoding="utf-8"))
    other = {**known, "model": {**known["model"], "checksum": "0" * 64}}
    file.write_text(json.dumps(other), encoding="utf-8")
    run = worker(*asked)
    assert run.code == 2
    assert "(sub-01 differs in --model)" in run.last("error")["message"]
    assert [path.name for path in out.iterdir()] == ["sub-01"]
    assert json.loads(file.read_text(encoding="utf-8")) == other
    # A damaged result is none.
    file.write_text("{", encoding="utf-8")
    run = worker(*asked)
    assert (run.code, run.last("result")["scans"]) == (0, 2)
    assert json.loads(file.read_text(encoding="utf-8"))["candidates"] == known["candidates"]


def test_one_unreadable_scan_does_not_stop_a_cohort(worker, crops, tiny_model, tmp_path):
    data = tmp_path / "data"
    for name in ("sub-01", "sub-02"):
        shutil.copytree(crops / name, data / name)
    bad = next((data / "sub-01").rglob("*.nii.gz"))
    bad.write_bytes(b"no image")
    run = worker("detect", data, "--output", tmp_path / "out", "--model", tiny_model, "--brain-mask", "none")
    assert run.code == 0, run.stderr[-2000:]
    assert list(run.last("result")["failed"]) == ["sub-01"]
    assert (tmp_path / "out" / "sub-02" / "candidates.json").is_file()
    assert not (tmp_path / "out" / "sub-01").exists()
    assert list(json.loads((tmp_path / "out" / "failed.json").read_text())) == ["sub-01"]
    shutil.copyfile(next((crops / "sub-01").rglob("*.nii.gz")), bad)
    again = ("detect", data, "--output", tmp_path / "out", "--model", tiny_model, "--brain-mask", "none")
    run = worker(*again, "--keep", "likelihood")
    assert (run.code, run.last("result")["failed"]) == (0, {})
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["sub-01", "sub-02"]
    assert len(list((tmp_path / "out").glob("*/likelihood.nii.gz"))) == 2, "also of the scan that was searched before"


def test_events_are_ascii_json_lines_and_move_forward(detected):
    run, _ = detected
    assert run.stdout.isascii()
    kinds = [event["event"] for event in run.events]
    assert kinds[-1] == "result"
    fractions = [event["fraction"] for event in run.events if event["event"] == "progress"]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1, abs=0.01)
    stages = list(dict.fromkeys(e["stage"] for e in run.events if e["event"] == "progress"))
    assert stages == ["reading", "brain mask", "bias field", "normalisation", "stage 1", "stage 2", "report"]


def test_heartbeats_keep_coming(worker, crops, tmp_path):
    process = subprocess.Popen(
        [*PROGRAM, "train", crops, "--output", tmp_path / "m", "--epochs", "50", "--events"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        times = []
        started = time.monotonic()
        while time.monotonic() - started < 12:
            json.loads(process.stdout.readline())
            times.append(time.monotonic())
    finally:
        process.kill()
        process.wait()
    # The contract is 2 s; test machines are noisy.
    assert max(np.diff(times)) < 3


def test_a_terminal_sees_a_table(worker, scan, tiny_model, tmp_path):
    run = worker(
        "detect", scan, "--output", tmp_path / "out", "--model", tiny_model, "--brain-mask", "none",
        "--threshold", "0", "--stage1-threshold", "0.05", events=False,
    )  # fmt: skip
    assert run.code == 0, run.stderr
    assert "rank" in run.stdout
    assert "Not for clinical use." in run.stdout
    assert str(tmp_path / "out" / "report.html") in run.stdout
    assert "stage 1 ..." in run.stderr


CENTRE_RAS = np.array([30, -20, 10], float)
PATTERN_RAS = CENTRE_RAS + np.array([[0, 0, 0], [9, 2, -3], [-7, 8, 6], [3, -9, 9], [-8, -6, -8]])


def _phantom(spacing, axes, angle_deg=0.0) -> Volume:
    """Dark balls of 2.6 mm in grey tissue at ``PATTERN_RAS``, on a grid with the axes ``axes`` turned by an angle."""
    turn = np.deg2rad(angle_deg)
    rotation = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
    directions = rotation @ np.array(axes, float).T
    shape = np.round(46 / np.array(spacing)).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((shape - 1) / 2) + CENTRE_RAS
    fine = 4
    grid = [(np.arange(n * fine) + 0.5) / fine - 0.5 for n in shape]
    array = np.full(shape, 600, np.float32)
    offset = affine[:3, 3]
    for ball in PATTERN_RAS:
        centre = np.linalg.solve(affine[:3, :3], ball - offset)
        reach = np.ceil(2.5 / np.array(spacing)).astype(int)
        low = np.maximum(np.floor(centre).astype(int) - reach, 0)
        high = np.minimum(np.floor(centre).astype(int) + reach + 2, shape)
        axes_mm = [
            (g[a * fine : b * fine] - c) * s for g, a, b, c, s in zip(grid, low, high, centre, spacing, strict=True)
        ]
        inside = sum(d**2 for d in np.meshgrid(*axes_mm, indexing="ij")) < 1.3**2
        part = inside.reshape(*[v for n in high - low for v in (n, fine)]).mean(axis=(1, 3, 5))
        array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] -= 500 * part
    array += np.random.default_rng(0).normal(0, 8, array.shape)
    return Volume(array.astype(np.float32), affine)


RAS, LPS = np.eye(3), np.diag([-1, -1, 1])
SAGITTAL = [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
CORONAL_FLIPPED = [[-1, 0, 0], [0, 0, -1], [0, 1, 0]]


@pytest.mark.parametrize(
    ("name", "spacing", "axes", "angle"),
    [
        ("as the model sees it", (0.45, 0.45, 1.0), RAS, 0),
        ("LPS", (0.45, 0.45, 1.0), LPS, 0),
        ("sagittal", (0.45, 1.0, 0.45), SAGITTAL, 0),
        ("coronal, flipped", (0.45, 1.0, 0.45), CORONAL_FLIPPED, 0),
        ("oblique", (0.45, 0.45, 1.0), LPS, 17),
        ("isotropic", (0.6, 0.6, 0.6), RAS, 0),
        ("0.5 x 0.5 x 1.2, oblique", (0.5, 0.5, 1.2), RAS, -12),
    ],
)
def test_the_same_pattern_is_found_in_every_orientation(worker, tiny_model, tmp_path, name, spacing, axes, angle):
    phantom = _phantom(spacing, axes, angle)
    write_volume(tmp_path / "p.nii.gz", phantom)
    run = worker(
        "detect", tmp_path / "p.nii.gz", "--output", tmp_path / "o", "--model", tiny_model, "--brain-mask", "none",
        "--stage1-threshold", "0.05",
    )  # fmt: skip
    assert run.code == 0, run.stderr[-2000:]
    found = np.array([c.ras_mm for c in read_detection(tmp_path / "o" / "candidates.json").candidates]).reshape(-1, 3)
    half_voxel = np.linalg.norm(spacing) / 2
    for ball in PATTERN_RAS:
        assert np.linalg.norm(found - ball, axis=1).min(initial=np.inf) < half_voxel, f"{name}: {ball}"


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 6), (signal.SIGINT, 6), (signal.SIGKILL, -9)])
def test_cancelling_leaves_nothing_behind(scan, tiny_model, tmp_path, number, code):
    process = subprocess.Popen(
        [*PROGRAM, "detect", scan, "--output", tmp_path / "o", "--model", tiny_model, "--brain-mask", "none",
         "--inference", "exact", "--events"],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job would ignore it
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "progress" and event["stage"] == "stage 1" and event["step"] > 0:
            break
    children = psutil.Process(process.pid).children(recursive=True)
    asked = time.monotonic()
    process.send_signal(number)
    process.stdout.read()
    assert process.wait(timeout=10) == code
    # The contract is 2 s; test machines are noisy.
    assert time.monotonic() - asked < 4
    assert not any(child.is_running() for child in children)
    assert not list(tmp_path.iterdir())


def test_the_real_crop_gives_a_report(worker, real_crop, tiny_model, tmp_path):
    image = sitk.ReadImage(str(real_crop / "gre_mag.nii"))
    refused = worker("detect", real_crop / "gre_mag.nii", "--output", tmp_path / "o", "--model", tiny_model)
    assert refused.code == 2
    assert "4-D" in refused.last("error")["message"]
    sitk.WriteImage(image[..., 2], str(tmp_path / "echo3.nii.gz"))
    for mask in ("simple", "none"):
        run = worker("detect", tmp_path / "echo3.nii.gz", "--output", tmp_path / "o", "--model", tiny_model,
                     "--brain-mask", mask)  # fmt: skip
        assert run.code == 0, run.stderr[-2000:]


def test_preprocess_writes_both_images(worker, scan, tiny_model, tmp_path):
    run = worker("preprocess", scan, "--output", tmp_path / "o", "--model", tiny_model, "--brain-mask", "none")
    assert run.code == 0, run.stderr[-2000:]
    made = read_volume(tmp_path / "o" / "preprocessed.nii.gz")
    assert made.orientation == "RAS"
    assert made.spacing == pytest.approx((0.45, 0.45, 1.0), rel=0.06)
    assert (tmp_path / "o" / "brain_mask.nii.gz").is_file()


def test_a_broken_archive_of_weights_is_refused(worker, tmp_path):
    (tmp_path / "w.zip").write_bytes(b"PK no zip")
    env = {"CMBDETECTOR_HD_BET_WEIGHTS": str(tmp_path / "weights")}
    run = worker("models", "install", "--hd-bet", tmp_path / "w.zip", env=env)
    assert run.code in (2, 4), run.stderr
    assert run.last("error")["message"].endswith(".")
    assert [path.name for path in tmp_path.iterdir()] == ["w.zip"]


def test_hd_bet_without_weights_says_how_to_get_on(worker, scan, tiny_model, tmp_path):
    env = {"CMBDETECTOR_HD_BET_WEIGHTS": str(tmp_path / "absent")}
    asked = ("detect", scan, "--output", tmp_path / "o", "--model", tiny_model)
    run = worker(*asked, "--brain-mask", "hd-bet", env=env)
    assert run.code in (3, 4)  # 3 where HD-BET itself is missing
    assert "--brain-mask simple" in run.last("error")["hint"]
    assert not (tmp_path / "o").exists()
    run = worker(*asked, env=env)
    assert run.code == 0, run.stderr[-2000:]
    assert any("HD-BET is not set up" in event["message"] for event in run.events if event["event"] == "log")


def test_models_are_listed(worker):
    run = worker("models", "list")
    assert run.code == 0
    assert "default" in [model["name"] for model in run.last("result")["models"]]
