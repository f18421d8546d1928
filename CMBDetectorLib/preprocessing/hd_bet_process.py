"""The process that runs HD-BET: ``python -m CMBDetectorLib.preprocessing.hd_bet_process IN OUT --device auto``.

A process of its own, because HD-BET replaces ``sys.stdout``, loads torch beside the parent's TensorFlow, and can only
be stopped by being killed. It never downloads anything: without weights it fails.
"""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import threading
from pathlib import Path
from typing import Any

from CMBDetectorLib.errors import CMBDetectorError, ModelError, OutOfMemoryError, is_out_of_memory
from CMBDetectorLib.models.hd_bet import check_plans

# The parent looks for lines with this mark in the log and shows them to the user.
NOTE = "cmbdetector note: "

# What torch and nnU-Net raise, besides RuntimeError, on weights that are damaged or of another program.
_UNLOADABLE = (KeyError, ValueError, EOFError, OSError, AttributeError, TypeError, pickle.UnpicklingError)


def main(arguments: list[str] | None = None) -> int:
    """Predict a brain mask; returns the exit code of the error kind (see :mod:`CMBDetectorLib.errors`)."""
    parser = argparse.ArgumentParser(description="Brain mask by HD-BET 2 in one process")
    parser.add_argument("input", type=Path, help="3D .nii.gz, axes nearest to R, A, S")
    parser.add_argument("output", type=Path, help=".nii.gz, 1 inside the brain")
    parser.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto")
    parser.add_argument("--tta", action="store_true", help="mirror along all axes: 8 times slower, little better")
    parser.add_argument("--weights", type=Path, required=True, help="folder of the weights")
    parser.add_argument("--stop-with-stdin", action="store_true", help="end when standard input is closed")
    options = parser.parse_args(arguments)
    if options.stop_with_stdin:
        _follow_parent()
    # nnU-Net, which reads this when imported, would start 8 threads for each step on any machine.
    os.environ.update({"nnUNet_def_n_proc": str(_processors())})
    try:
        check_plans(options.weights)
        _predict(options)
    except CMBDetectorError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    return 0


def _predict(options: argparse.Namespace) -> None:
    import torch

    _allow_numbers_only(torch)
    for device in _devices(options.device, torch):
        try:
            _predict_on(device, options, torch)
            return
        except (RuntimeError, MemoryError, NotImplementedError) as error:
            memory = is_out_of_memory(error) or "memory" in str(error).lower()
            if device != "cpu":
                reason = "it ran out of memory" if memory else "it failed"
                print(f"{error}\n{NOTE}HD-BET ran on the CPU, since {reason} on {device}.", file=sys.stderr)
            elif memory:
                raise OutOfMemoryError("HD-BET ran out of memory.", "Close other programs.") from error
            else:
                raise


def _allow_numbers_only(torch: Any) -> None:
    """Let a checkpoint hold numbers and texts: nnU-Net would run whatever program is hidden in one (a pickle)."""
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
        # It cannot be told what else to let in, and would refuse every checkpoint of nnU-Net.
        return
    os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
    # It overrules the weights_only=False that nnU-Net asks for.
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    import numpy as np
    from numpy._core import multiarray

    # nnU-Net's checkpoints hold its log: numbers of numpy, which torch does not know by itself.
    kinds = {type(np.dtype(kind)) for kind in "?bBhHiIlLqQefdU"}
    parts = [(multiarray.scalar, "scalar"), (multiarray._reconstruct, "_reconstruct")]
    named = [(part, f"{module}.{name}") for module in ("numpy.core.multiarray", "numpy._core.multiarray")
             for part, name in parts]  # fmt: skip
    torch.serialization.add_safe_globals([np.dtype, np.ndarray, *kinds, *named])


def _predict_on(device: str, options: argparse.Namespace, torch: Any) -> None:
    from HD_BET import hd_bet_prediction

    # The folder is a constant of the package; get_hdbet_predictor reads it from its own module.
    hd_bet_prediction.folder_with_parameter_files = str(options.weights)
    try:
        predictor = hd_bet_prediction.get_hdbet_predictor(use_tta=options.tta, device=torch.device(device))
    except (*_UNLOADABLE, RuntimeError) as error:
        if device != "cpu" or is_out_of_memory(error):
            raise RuntimeError(str(error)) from error
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        raise ModelError("The weights of HD-BET cannot be loaded.") from error
    if device == "cpu":
        torch.set_num_threads(_processors())
    reader = predictor.plans_manager.image_reader_writer_class()
    image, properties = reader.read_images([str(options.input)])
    # hdbet_predict would start a dozen processes for this one image.
    mask = predictor.predict_single_npy_array(image, properties)
    reader.write_seg(mask, str(options.output), properties)


def _devices(wanted: str, torch: object) -> list[str]:
    """Return the devices to try, the CPU last."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return [*[name for name in ("cuda", "mps") if there[name]][:1], "cpu"]
    if not there[wanted]:
        print(f"{NOTE}HD-BET ran on the CPU, since there is no {wanted} device.", file=sys.stderr)
    return ["cpu"] if wanted == "cpu" or not there[wanted] else [wanted, "cpu"]


def _processors() -> int:
    """Return how many processors this process may use, which in a container are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _follow_parent() -> None:
    """End this process once the parent is gone: its end of our standard input closes even when it was killed."""

    def wait() -> None:
        # Not sys.stdin: a thread waiting for its lock makes Python abort at the end of a run that went well.
        while os.read(0, 4096):
            continue
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
