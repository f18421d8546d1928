"""How much faster a training step is on PyTorch than on TensorFlow, and with bfloat16 where the processor has it.

    python benchmarks/training.py [--rounds 3]

Both stages of both recipes. Each round starts the ways one after the other, so that all meet the same other load of the
machine; the ratios are those of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

WAYS = {
    "TensorFlow": {"KERAS_BACKEND": "tensorflow"},
    "PyTorch, float32": {"KERAS_BACKEND": "torch", "CMBDETECTOR_FLOAT32": "1"},
    "PyTorch": {"KERAS_BACKEND": "torch"},
}
STEPS, WARM_UP = 5, 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often both are measured")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_steps()))
        return
    seconds: dict[str, dict[str, list[float]]] = {}
    for _ in range(options.rounds):
        for way, variables in WAYS.items():
            environment = {**os.environ, "CMBDETECTOR_FLOAT32": "", **variables, "OMP_WAIT_POLICY": "PASSIVE"}
            environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
            command = [sys.executable, __file__, "--one", way]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            for name, value in json.loads(done.stdout.splitlines()[-1]).items():
                seconds.setdefault(name, {}).setdefault(way, []).append(value)
    for name, measured in seconds.items():
        slow, plain, fast = (statistics.median(measured[way]) for way in WAYS)
        print(
            f"{name:40} TensorFlow {slow:6.2f} s   PyTorch, float32 {plain:6.2f} s   ratio {slow / plain:.1f}"
            f"   PyTorch {fast:6.2f} s   ratio {plain / fast:.1f}"
        )


def _steps() -> dict[str, float]:
    """Return the seconds of a training step of each network with the back end of this process."""
    import keras
    import numpy as np

    from CMBDetectorLib.networks import backend
    from CMBDetectorLib.networks.catalogue import build, window
    from CMBDetectorLib.networks.cnn import build_cnn, unfold
    from CMBDetectorLib.training.fitting import centre_loss
    from CMBDetectorLib.training.settings import settings_from

    rng = np.random.default_rng(0)
    measured = {}
    for recipe in ("paper", "context"):
        settings = settings_from(recipe=recipe)
        for stage, architecture, fit in (
            ("U-Net", settings.unet_architecture, settings.unet),
            ("CNN", settings.cnn_architecture, settings.cnn),
        ):
            batch, size = fit.batch_sizes[0], window(architecture)
            windows = rng.random((batch, *size, 1), np.float32)
            labels = (rng.random((batch, *size, 1) if stage == "U-Net" else (batch, 1)) > 0.5).astype(np.float32)
            if architecture["kind"] == "cnn" and not backend.channels_first():
                model, windows = build_cnn(architecture, "cnn", unfolded=True), unfold(windows)
            else:
                model = build(architecture, "network")
            model.compile(optimizer=keras.optimizers.Adam(1e-3, clipnorm=1.0), loss=centre_loss)
            with backend.mixed_precision():
                for step in range(WARM_UP + STEPS):
                    if step == WARM_UP:
                        started = time.perf_counter()
                    model.train_on_batch(windows, labels)
            name = f"{recipe}, {stage}, {batch} windows of {'x'.join(map(str, size))}"
            measured[name] = (time.perf_counter() - started) / STEPS
    return measured


if __name__ == "__main__":
    main()
