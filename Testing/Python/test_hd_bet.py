"""HD-BET in its own process, run for real on a tiny nnU-Net model whose mask is known: it thresholds the intensity."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import psutil
import pytest
from head_phantom import make_head, oblique_affine

from CMBDetectorLib.errors import BadInputError, Cancelled, CMBDetectorError, MissingPackageError, ModelError
from CMBDetectorLib.models import hd_bet as weights
from CMBDetectorLib.models.hd_bet import REQUIRED, WEIGHTS_VARIABLE, install_weights, package_version, weights_present
from CMBDetectorLib.preprocessing import hd_bet
from CMBDetectorLib.preprocessing.hd_bet import hd_bet_available, hd_bet_mask, kill_tree
from CMBDetectorLib.preprocessing.pipeline import preprocess
from CMBDetectorLib.progress import Progress
from CMBDetectorLib.volume import Volume

needs_hd_bet = pytest.mark.skipif(importlib.util.find_spec("HD_BET") is None, reason="HD-BET is not installed")

ARCHITECTURE = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {
        "n_stages": 2,
        "features_per_stage": [2, 2],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[1, 1, 1], [1, 1, 1]],
        "strides": [[1, 1, 1], [2, 2, 2]],
        "n_conv_per_stage": [1, 1],
        "n_conv_per_stage_decoder": [1],
        "conv_bias": True,
        "norm_op": None,
        "norm_op_kwargs": {},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    },
    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
}


def plans() -> dict:
    """Return nnU-Net plans of a network for 3 mm voxels that z-scores its input."""
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [32, 32, 32],
        "median_image_size_in_voxels": [64, 64, 64],
        "spacing": [3.0, 3.0, 3.0],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resampling,
        "architecture": ARCHITECTURE,
        "batch_dice": False,
    }
    return {
        "dataset_name": "Dataset001_Tiny",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [2.0, 2.0, 2.0],
        "original_median_shape_after_transp": [64, 64, 64],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {"mean": 0.0, "std": 1.0}},
    }


def write_model(folder: Path) -> None:
    """Write a model whose mask is True where the intensity is 1.4 standard deviations above the scan's mean."""
    import torch
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    arguments = dict(ARCHITECTURE["arch_kwargs"], conv_op=torch.nn.Conv3d, nonlin=torch.nn.LeakyReLU)
    network = PlainConvUNet(input_channels=1, num_classes=2, deep_supervision=False, **arguments)
    state = network.state_dict()
    for name, values in state.items():
        values.zero_()
        if name.endswith("weight") and "encoder.stages.0" in name:
            values[0, 0] = 1.0  # the input as it is
        elif name.endswith("weight") and name.startswith("decoder.stages"):
            values[0, 2] = 1.0  # after the upsampled channels come those skipped over
        elif name.startswith("decoder.seg_layers"):
            values[1] = 1.0 if name.endswith("weight") else -1.4
    (folder / "fold_all").mkdir(parents=True)
    torch.save(
        {
            "network_weights": state,
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": "3d_fullres"},
            "inference_allowed_mirroring_axes": (0, 1, 2),
        },
        folder / "fold_all" / "checkpoint_final.pth",
    )
    (folder / "plans.json").write_text(json.dumps(plans()), encoding="utf-8")
    labels = {"background": 0, "brain": 1}
    dataset = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")


def zipped(folder: Path, archive: Path, top: str = "") -> Path:
    with zipfile.ZipFile(archive, "w") as opened:
        for path in sorted(folder.rglob("*")):
            opened.write(path, top + path.relative_to(folder).as_posix())
    return archive


@pytest.fixture
def target(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "Gewichte für HD-BET" / "release_2.0.0"
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(folder))
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    pytest.importorskip("nnunetv2", reason="HD-BET is not installed")
    folder = tmp_path_factory.mktemp("tiny-model")
    write_model(folder)
    return folder


@pytest.fixture
def fake_model(tmp_path) -> Path:
    """A folder that looks like a model to all but torch."""
    folder = tmp_path / "fake"
    (folder / "fold_all").mkdir(parents=True)
    (folder / "dataset.json").write_text('{"labels": {}}', encoding="utf-8")
    (folder / "plans.json").write_text('{"configurations": {}}', encoding="utf-8")
    with zipfile.ZipFile(folder / "fold_all" / "checkpoint_final.pth", "w") as checkpoint:
        checkpoint.writestr("data.pkl", os.urandom(5000))
    return folder


class Listener(Progress):
    """Keeps the times of the reports; raises ``error`` once a child has run for ``after`` seconds."""

    def __init__(self, error: type[BaseException] | None = None, after: float = 0.0) -> None:
        super().__init__()
        self.times: list[float] = []
        self.error, self.after, self.seen, self.children = error, after, 0.0, []

    def show(self, stage: str, step: int, steps: int, fraction: float) -> None:
        self.times.append(time.monotonic())
        running = psutil.Process().children(recursive=True)
        self.children += [child for child in running if child not in self.children]
        self.seen = self.seen or (self.times[-1] if running else 0.0)
        if self.error and self.seen and self.times[-1] - self.seen > self.after:
            raise self.error


def scan_with_known_mask(axes: str, degrees: float) -> tuple[Volume, np.ndarray]:
    """Return an off-centre bright ellipsoid in noise and its mask; half its brightness is what the model cuts at."""
    rng = np.random.default_rng(0)
    shape = (60, 52, 30)
    affine = oblique_affine((2.0, 2.4, 4.0), axes, degrees)
    affine[:3, 3] = (12, -30, 7)
    ijk = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    bright = (((ijk - (22, 30, 12)) / (14, 16, 9)) ** 2).sum(-1) < 1
    array = np.where(bright, 100, 10) + rng.normal(0, 2, shape)
    return Volume(array.astype(np.float32), affine), bright


@needs_hd_bet
def test_the_real_process_returns_a_mask_on_the_stored_grid(model, target, tmp_path):
    assert install_weights(zipped(model, tmp_path / "release.zip")) == target
    assert hd_bet_available()
    scan, bright = scan_with_known_mask("SAL", 14)
    listener = Listener()
    mask, notes = hd_bet_mask(scan, listener, device="cpu")
    assert notes == []
    assert mask.array.dtype == bool
    assert mask.same_grid(scan)
    overlap = 2 * (mask.array & bright).sum() / (mask.array.sum() + bright.sum())
    assert overlap > 0.93
    assert max(np.diff(listener.times)) < 1.0
    assert listener.children
    assert not any(child.is_running() for child in listener.children)


@needs_hd_bet
def test_a_missing_device_falls_back_to_the_cpu_with_a_note(model, target):
    import torch

    if torch.backends.mps.is_available():
        pytest.skip("this machine has the device")
    install_weights(model)
    scan, bright = scan_with_known_mask("LPS", 0)
    mask, notes = hd_bet_mask(scan, device="mps")
    assert len(notes) == 1
    assert "CPU" in notes[0]
    assert (mask.array & bright).sum() > 0.9 * bright.sum()


@needs_hd_bet
@pytest.mark.parametrize("error", [Cancelled, KeyboardInterrupt])
def test_cancelling_leaves_no_process_and_no_file(error, model, target, tmp_path, monkeypatch):
    install_weights(model)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    scan, _ = scan_with_known_mask("LPS", 0)
    listener = Listener(error, after=0.7)
    with pytest.raises(error):
        hd_bet_mask(scan, listener, device="cpu")
    assert listener.children
    assert not any(child.is_running() for child in listener.children)
    assert list((tmp_path / "temporary").iterdir()) == []


@needs_hd_bet
def test_weights_torch_cannot_load_are_called_damaged(fake_model, target):
    install_weights(fake_model)
    scan, _ = scan_with_known_mask("LPS", 0)
    with pytest.raises(ModelError, match="damaged") as caught:
        hd_bet_mask(scan, device="cpu")
    assert "HD-BET said" in caught.value.hint


@needs_hd_bet
def test_missing_weights_are_a_model_error_and_nothing_is_fetched(target):
    with pytest.raises(ModelError) as caught:
        preprocess(make_head((6, 6, 6)).scan, "hd-bet")
    assert "models install --hd-bet" in caught.value.hint
    assert "--brain-mask simple" in caught.value.hint
    assert not target.exists()
    assert not hd_bet_available()


def test_a_child_without_parent_ends_itself(tmp_path):
    (tmp_path / "plans.json").write_text("{}")
    command = [sys.executable, "-m", "CMBDetectorLib.preprocessing.hd_bet_process", "in", "out"]
    command += ["--weights", str(tmp_path), "--stop-with-stdin"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdin.close()
    assert process.wait(timeout=30) != 0


def test_the_whole_family_is_killed():
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    process = subprocess.Popen([sys.executable, "-c", script])
    parent = psutil.Process(process.pid)
    deadline = time.monotonic() + 20
    while not (children := parent.children(recursive=True)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert children
    kill_tree(process)
    assert not any(member.is_running() and member.status() != psutil.STATUS_ZOMBIE for member in [parent, *children])


@pytest.mark.parametrize(
    ("code", "text", "kind", "exit_code"),
    [
        (-9, "", CMBDetectorError, 5),
        (5, "", CMBDetectorError, 5),
        (1, "ModuleNotFoundError: No module named 'nnunetv2'", MissingPackageError, 3),
        (1, "RuntimeError: something", CMBDetectorError, 1),
    ],
)
def test_each_end_of_the_process_has_its_error(code, text, kind, exit_code, target):
    error = hd_bet._error(code, text)
    assert isinstance(error, kind)
    assert error.exit_code == exit_code
    assert error.hint


@pytest.mark.parametrize("version", [1, None])
def test_a_missing_or_old_package_is_named(version, tmp_path, monkeypatch):
    """The extension HDBrainExtraction puts an HD_BET 1.1 before everything else on the path."""
    if version is None:
        monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    else:
        (tmp_path / "HD_BET").mkdir()
        (tmp_path / "HD_BET" / "__init__.py").write_text("")
        (tmp_path / "HD_BET" / "run.py").write_text("")
        monkeypatch.delitem(sys.modules, "HD_BET", raising=False)
        monkeypatch.syspath_prepend(str(tmp_path))
    assert package_version() in (None, "1")
    with pytest.raises(MissingPackageError) as caught:
        hd_bet_mask(make_head((8, 8, 8)).scan)
    assert "runtime setup --part hd-bet" in caught.value.hint
    assert not hd_bet_available()


@pytest.mark.parametrize("top", ["", "release_v1.5.0/", "a/b/"])
def test_weights_are_installed_from_any_layout_of_the_archive(top, fake_model, target, tmp_path):
    assert not weights_present()
    install_weights(zipped(fake_model, tmp_path / "w.zip", top))
    assert weights_present()
    for name in REQUIRED:
        assert (target / name).read_bytes() == (fake_model / name).read_bytes()


def test_weights_are_installed_from_a_folder_and_replaced(fake_model, target):
    install_weights(fake_model)
    (fake_model / "plans.json").write_text('{"configurations": {"new": 1}}', encoding="utf-8")
    install_weights(fake_model.parent / "fake")
    assert "new" in (target / "plans.json").read_text(encoding="utf-8")
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def damaged(fake_model: Path, tmp_path: Path, kind: str) -> Path:
    archive = tmp_path / "bad.zip"
    if kind == "truncated":
        whole = zipped(fake_model, archive).read_bytes()
        archive.write_bytes(whole[: len(whole) // 2])
    elif kind == "flipped bits":
        whole = bytearray(zipped(fake_model, archive).read_bytes())
        place = whole.find(b"data.pkl") + 200
        whole[place : place + 50] = bytes(50)
        archive.write_bytes(bytes(whole))
    elif kind == "no zip":
        archive.write_bytes(b"<html>404</html>")
    elif kind == "no plans":
        (fake_model / "plans.json").unlink()
        zipped(fake_model, archive)
    elif kind == "json":
        (fake_model / "plans.json").write_text("[]", encoding="utf-8")
        zipped(fake_model, archive)
    elif kind == "checkpoint":
        (fake_model / "fold_all" / "checkpoint_final.pth").write_bytes(b"torn")
        zipped(fake_model, archive)
    elif kind in ("..", "absolute"):
        zipped(fake_model, archive)
        with zipfile.ZipFile(archive, "a") as opened:
            opened.writestr("../escaped.txt" if kind == ".." else "/escaped.txt", "x")
    elif kind == "bomb":
        (fake_model / "plans.json").write_bytes(b" " * 300_000)
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
            for name in REQUIRED:
                opened.write(fake_model / name, name)
    return archive


@pytest.mark.parametrize(
    "kind", ["truncated", "flipped bits", "no zip", "no plans", "json", "checkpoint", "..", "absolute", "bomb"]
)
def test_bad_archives_are_refused_and_old_weights_survive(kind, fake_model, target, tmp_path, monkeypatch):
    install_weights(fake_model)
    before = {name: (target / name).read_bytes() for name in REQUIRED}
    if kind == "bomb":
        monkeypatch.setattr(weights, "_LARGEST_BYTES", 100_000)
    with pytest.raises(ModelError) as caught:
        install_weights(damaged(fake_model, tmp_path, kind))
    assert caught.value.hint
    assert {name: (target / name).read_bytes() for name in REQUIRED} == before
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert not list(tmp_path.rglob("escaped.txt"))


def test_a_folder_of_other_files_is_not_replaced(fake_model, target):
    target.mkdir(parents=True)
    (target / "thesis.docx").write_text("years of work", encoding="utf-8")
    with pytest.raises(CMBDetectorError):
        install_weights(fake_model)
    assert (target / "thesis.docx").read_text(encoding="utf-8") == "years of work"


def test_an_empty_mask_of_hd_bet_is_bad_input(monkeypatch):
    scan = make_head((6, 6, 6)).scan
    empty = scan.with_array(np.zeros(scan.shape, bool))
    monkeypatch.setattr("CMBDetectorLib.preprocessing.pipeline.hd_bet_mask", lambda *_: (empty, []))
    with pytest.raises(BadInputError, match="empty"):
        preprocess(scan, "hd-bet")
