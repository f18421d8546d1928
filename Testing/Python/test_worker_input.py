"""Bad, odd and unlucky input through the real worker: a sentence, an exit code, nothing lost, nothing half-written."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from CMBDetectorLib.candidate import read_detection
from CMBDetectorLib.datasets.bids import read_dataset
from CMBDetectorLib.volume import Volume, read_volume, write_volume


@pytest.fixture(scope="module")
def scan(crops) -> Path:
    return read_dataset(crops)[0].scan


def _image(array, spacing=(0.9, 0.9, 2.0)):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing[: image.GetDimension()])
    return image


def _noise(shape=(24, 40, 40), dtype=np.float32):
    return np.random.default_rng(0).normal(500, 60, shape).astype(dtype)


def _bad_inputs(folder: Path) -> dict[str, Path]:
    """Write the bad scans; name -> path."""
    paths = {
        name: folder / f"{name}.nii.gz" for name in ("cut", "text", "zero", "nan", "inf", "two-d", "four-d", "slice")
    }
    sitk.WriteImage(_image(_noise()), str(paths["cut"]))
    paths["cut"].write_bytes(paths["cut"].read_bytes()[:20_000])
    paths["text"].write_text("Patient will bring the CD tomorrow.\n")
    sitk.WriteImage(_image(np.zeros((24, 40, 40), np.float32)), str(paths["zero"]))
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        array = _noise()
        array[3, 4, 5] = value
        sitk.WriteImage(_image(array), str(paths[name]))
    sitk.WriteImage(_image(_noise((40, 40))), str(paths["two-d"]))
    four = sitk.JoinSeries([_image(_noise()), _image(_noise())])
    sitk.WriteImage(four, str(paths["four-d"]))
    sitk.WriteImage(_image(_noise((1, 40, 40))), str(paths["slice"]))
    raw = folder / "spacing.nii"
    sitk.WriteImage(_image(_noise()), str(raw))
    header = bytearray(raw.read_bytes())
    header[80:92] = np.zeros(3, "<f4").tobytes()  # pixdim
    header[252:256] = np.zeros(2, "<i2").tobytes()  # neither qform nor sform
    raw.write_bytes(header)
    return {**paths, "spacing": raw, "absent": folder / "absent.nii.gz", "folder": folder / "empty"}


@pytest.fixture(scope="module")
def bad_inputs(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty").mkdir()
    return _bad_inputs(folder)


@pytest.mark.parametrize(
    "name", ["cut", "text", "zero", "nan", "inf", "two-d", "four-d", "slice", "spacing", "absent", "folder"]
)
def test_bad_input_is_refused_with_a_sentence(worker, bad_inputs, tiny_model, tmp_path, name):
    run = worker("detect", bad_inputs[name], "--output", tmp_path / "o", "--model", tiny_model, "--brain-mask", "none")
    assert run.code == 2, run.stderr
    error = run.last("error")
    assert error["code"] == "bad-input"
    assert error["message"].endswith(".")
    assert error["hint"].endswith(".")
    assert "Traceback" not in run.stderr
    assert not list(tmp_path.iterdir())


def test_a_scan_without_orientation_says_so(worker, tiny_model, tmp_path):
    path = tmp_path / "s.nii"
    sitk.WriteImage(_image(_noise()), str(path))
    header = bytearray(path.read_bytes())
    header[252:256] = np.zeros(2, "<i2").tobytes()  # neither qform nor sform
    path.write_bytes(header)
    run = worker("detect", path, "--output", tmp_path / "o", "--model", tiny_model, "--brain-mask", "none")
    assert run.code == 0, run.stderr[-2000:]
    note = "left and right are a guess"
    assert any(note in event["message"] for event in run.events if event["event"] == "log")
    assert note in (tmp_path / "o" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["unsigned", "negative", "long"])
def test_odd_but_valid_scans_are_searched(worker, tiny_model, tmp_path, kind):
    array = _noise(dtype=np.uint16) if kind == "unsigned" else _noise()
    if kind == "negative":
        array -= 700 * (np.random.default_rng(1).random(array.shape) > 0.98)
    if kind == "long":
        array = _noise((12, 40, 1000))
    spacing = (0.45, 0.9, 2.0) if kind == "long" else (0.9, 0.9, 2.0)
    sitk.WriteImage(_image(array, spacing), str(tmp_path / "s.nrrd"))
    run = worker(
        "detect", tmp_path / "s.nrrd", "--output", tmp_path / "o", "--model", tiny_model, "--brain-mask", "none"
    )
    assert run.code == 0, run.stderr[-2000:]
    assert (tmp_path / "o" / "candidates.json").is_file()


def test_masks_of_another_grid_or_without_brain_are_refused(worker, scan, tiny_model, tmp_path):
    volume = read_volume(scan)
    moved = Volume(np.ones(volume.shape, np.uint8), volume.ijk_to_ras + np.diag([0, 0, 0, 0]))
    moved.ijk_to_ras[:3, 3] += 5
    write_volume(tmp_path / "moved.nii.gz", moved)
    write_volume(tmp_path / "empty.nii.gz", volume.with_array(np.zeros(volume.shape, np.uint8)))
    for name, words in (("moved", "another grid"), ("empty", "is empty"), ("absent", "no mask file")):
        run = worker(
            "detect", scan, "--output", tmp_path / "o", "--model", tiny_model,
            "--brain-mask", tmp_path / f"{name}.nii.gz",
        )  # fmt: skip
        assert run.code == 2
        assert words in run.last("error")["message"]
    assert not (tmp_path / "o").exists()


def test_a_given_mask_is_used(worker, scan, tiny_model, tmp_path):
    volume = read_volume(scan)
    half = np.zeros(volume.shape, np.uint8)
    half[: volume.shape[0] // 2] = 1
    write_volume(tmp_path / "half.nii.gz", volume.with_array(half))
    run = worker(
        "detect", scan, "--output", tmp_path / "o", "--model", tiny_model, "--brain-mask", tmp_path / "half.nii.gz",
        "--stage1-threshold", "0.05",
    )  # fmt: skip
    assert run.code == 0, run.stderr[-2000:]
    detection = read_detection(tmp_path / "o" / "candidates.json")
    assert detection.settings["brain_mask"] == "file"
    assert len(detection.candidates) > 0
    assert volume.to_ijk([c.ras_mm for c in detection.candidates])[:, 0].max() < volume.shape[0] // 2 + 0.5


def test_a_missing_or_changed_model_is_refused(worker, scan, tiny_model, tmp_path):
    run = worker("detect", scan, "--output", tmp_path / "o", "--model", "absent")
    assert (run.code, run.last("error")["code"]) == (4, "model")
    changed = shutil.copytree(tiny_model, tmp_path / "changed")
    (changed / "cnn-20.keras").write_bytes(b"x" + (changed / "cnn-20.keras").read_bytes())
    run = worker("detect", scan, "--output", tmp_path / "o", "--model", changed)
    assert run.code == 4
    assert "wrong checksum" in run.last("error")["message"]
    assert not (tmp_path / "o").exists()


def test_a_folder_with_other_files_is_never_overwritten(worker, scan, tiny_model, tmp_path):
    (tmp_path / "thesis.docx").write_text("four years")
    run = worker("detect", scan, "--output", tmp_path, "--model", tiny_model)
    assert (run.code, run.last("error")["code"]) == (2, "output")
    assert (tmp_path / "thesis.docx").read_text() == "four years"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_unwritable_output_is_an_error_with_a_sentence(worker, scan, tiny_model, tmp_path):
    (tmp_path / "file").write_text("")
    run = worker("detect", scan, "--output", tmp_path / "file" / "o", "--model", tiny_model, "--brain-mask", "none")
    assert (run.code, run.last("error")["code"]) == (2, "output")


def test_a_full_disk_leaves_nothing_half_written(scan, tiny_model, tmp_path, worker):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = (
        shutil.which("mount")
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True
        ).returncode
    )
    if not mounted:
        pytest.skip("mounting a small file system needs root")
    try:
        run = worker(
            "detect", scan, "--output", disk / "o", "--model", tiny_model, "--brain-mask", "none",
            "--keep", "preprocessed,likelihood",
        )  # fmt: skip
        assert (run.code, run.last("error")["code"]) == (2, "output"), run.stderr
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", disk], check=True)


def test_wrong_words_on_the_command_line(worker, tmp_path):
    assert worker("detect", events=False).code == 2
    assert worker("detekt", "x", events=False).code == 2
    run = worker("detect", "x", "--output", tmp_path / "o", "--threshold", "7")
    assert run.code == 2
    assert "threshold" in run.last("error")["message"]
    run = worker("detect", tmp_path, "--output", tmp_path / "o", "--keep", "everything")
    assert "--keep does not know everything" in run.last("error")["message"]
