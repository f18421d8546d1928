"""Peak memory and time of a detection under a limit of memory, with either brain mask, in one run.

Each detection is the real program (`cmbdetector detect`) in a control group of LIMIT gigabytes: whatever needs more is
ended by the kernel. Without a scan one of 448x512x144 voxels of 0.45x0.45x1 mm is simulated. The weights of HD-BET
are used where they are set up; elsewhere a network of nnU-Net's usual size for such images (six stages, patches of
128 voxels a side) with weights that take what is bright for brain: time and memory of HD-BET, not its mask.

    python benchmarks/memory.py [SCAN] [--limit 4] [--model NAME] [--masks simple,hd-bet]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "Testing" / "Chaos"), str(ROOT)]

from memory_group import MemoryGroup, resident_bytes  # noqa: E402

from CMBDetectorLib.models.hd_bet import CHECKPOINT, WEIGHTS_VARIABLE, package_version, weights_present  # noqa: E402

_FEATURES = (32, 64, 128, 256, 320, 320)
_PATCH = (128, 128, 128)


@dataclass
class Measured:
    """What one detection took: exit code, seconds, and the peak (bytes) of the whole tree while each stage ran."""

    code: int
    seconds: float
    last: dict
    kills: int
    how: str
    peaks: dict[str, int] = field(default_factory=dict)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path, nargs="?")
    parser.add_argument("--limit", type=float, default=4.0, help="gigabytes (2^30 bytes) that a detection may use")
    parser.add_argument("--model", default="default")
    parser.add_argument("--masks", default="simple,hd-bet")
    parser.add_argument("options", nargs="*", help="further options of detect, behind --")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cmbdetector-memory-") as name:
        folder = Path(name)
        scan = options.scan or _simulated(folder)
        print(f"{scan.name}, limit {options.limit:g} GiB, {os.cpu_count()} cores, model {options.model}")
        for mask in options.masks.split(","):
            environment = dict(os.environ)
            note = ""
            if mask == "hd-bet":
                if package_version() is None:
                    print("hd-bet     not measured: HD-BET is not installed")
                    continue
                if not weights_present():
                    write_stand_in(folder / "weights")
                    environment[WEIGHTS_VARIABLE] = str(folder / "weights")
                    note = " (stand-in for the weights)"
            arguments = ["detect", str(scan), "--output", str(folder / f"found-{mask}"), "--model", options.model]
            arguments += ["--brain-mask", mask, *options.options]
            _print(mask + note, measure(arguments, int(options.limit * 2**30), environment))


def measure(arguments: list[str], limit_bytes: int, environment: dict[str, str]) -> Measured:
    """Run ``cmbdetector ARGUMENTS`` under the limit."""
    command = [sys.executable, "-m", "CMBDetectorLib", *arguments, "--events"]
    environment = {**environment, "PYTHONPATH": str(ROOT)}
    stage, last, peaks = "start", {}, {}
    with MemoryGroup(limit_bytes) as group:
        started = time.perf_counter()
        process = subprocess.Popen(
            group.command(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        errors: list[bytes] = []
        reader = threading.Thread(target=lambda: errors.append(process.stderr.read()), daemon=True)
        reader.start()

        def watch() -> None:
            while process.poll() is None:
                peaks[stage] = max(peaks.get(stage, 0), resident_bytes(process.pid))
                time.sleep(0.2)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        for line in process.stdout:
            event = json.loads(line)
            stage = event.get("stage", stage)
            if event["event"] in ("result", "error", "log"):
                last = event if event["event"] != "log" else last
                if event["event"] == "log":
                    print(f"  {event['message']}")
        code = process.wait()
        seconds = time.perf_counter() - started
        watcher.join()
        reader.join()
        if code != 0 and errors:
            print(errors[0].decode("utf-8", "replace")[-1500:], file=sys.stderr)
        return Measured(code, seconds, last, group.kills(), group.how, peaks)


def write_stand_in(folder: Path) -> None:
    """Write an nnU-Net model of the usual size for 1 mm voxels whose mask is what is brighter than the mean."""
    import torch

    stages = len(_FEATURES)
    architecture = {
        "n_stages": stages, "features_per_stage": list(_FEATURES), "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * stages, "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
        "n_conv_per_stage": [2] * stages, "n_conv_per_stage_decoder": [2] * (stages - 1), "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }  # fmt: skip
    dataset = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "brain": 1}, "numTraining": 1}
    (folder / CHECKPOINT).parent.mkdir(parents=True)
    torch.save(
        {
            "network_weights": _weights(architecture), "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": "3d_fullres"}, "inference_allowed_mirroring_axes": (0, 1, 2),
        },
        folder / CHECKPOINT,
    )  # fmt: skip
    (folder / "plans.json").write_text(json.dumps(_plans(architecture)), encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps({**dataset, "file_ending": ".nii.gz"}), encoding="utf-8")


def _weights(architecture: dict[str, Any]) -> dict[str, Any]:
    """Return the network's weights by name: all 0 but for those that hand the input on, voxel by voxel."""
    import torch
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    built = dict(architecture, conv_op=torch.nn.Conv3d, norm_op=torch.nn.InstanceNorm3d, nonlin=torch.nn.LeakyReLU)
    state: dict[str, Any] = PlainConvUNet(input_channels=1, num_classes=2, deep_supervision=False, **built).state_dict()
    for name, values in state.items():
        if name.endswith("norm.weight") or ".all_modules.1.weight" in name:
            values.fill_(1.0)
            continue
        values.zero_()
        middle = (1, 1, 1)
        if name.endswith("weight") and "encoder.stages.0" in name:
            values[0, 0][middle] = 1.0  # the input as it is
        elif name.endswith("weight") and name.startswith("decoder.stages") and values.ndim == 5:
            # After the upsampled channels come those skipped over.
            values[0, values.shape[0] if values.shape[1] == 2 * values.shape[0] else 0][middle] = 1.0
        elif name.startswith("decoder.seg_layers"):
            values[1] = 1.0 if name.endswith("weight") else 0.0
    return state


def _plans(architecture: dict[str, Any]) -> dict[str, Any]:
    """Return the plans from which nnU-Net builds the network and cuts a scan."""
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
        "patch_size": list(_PATCH), "median_image_size_in_voxels": [160, 200, 170], "spacing": [1.0, 1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape", "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": architecture, "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }  # fmt: skip
    return {
        "dataset_name": "Dataset001_StandIn", "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [160, 200, 170], "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration}, "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {"mean": 0.0, "std": 1.0}},
    }  # fmt: skip


def _simulated(folder: Path) -> Path:
    command = [sys.executable, "-m", "CMBDetectorLib", "simulate", "--scans", "1", "--seed", "5"]
    command += ["--protocol", "swi-3t", "--output", str(folder / "dataset")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return next((folder / "dataset").glob("sub-*/*/*.nii.gz"))


def _print(label: str, measured: Measured) -> None:
    peak = max(measured.peaks.values(), default=0)
    print(f"{label}: exit code {measured.code}, {measured.seconds:.1f} s, peak {peak / 2**30:.2f} GiB")
    print(f"  limited by {measured.how}, processes ended by the kernel: {measured.kills}")
    print("  " + ", ".join(f"{stage} {bytes_ / 2**30:.2f}" for stage, bytes_ in measured.peaks.items()) + " GiB")
    if measured.code != 0:
        print(f"  {measured.last.get('message', '')} {measured.last.get('hint', '')}")
    else:
        print(f"  {measured.last['candidates']} candidates, {measured.last['shown']} shown")


if __name__ == "__main__":
    main()
