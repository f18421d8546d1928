"""How much faster a training step is on PyTorch than on TensorFlow: both stages of both recipes, measured in turns.

    python benchmarks/training.py [--rounds 3]

Each round starts both back ends one after the other, so that both meet the same other load of the machine; the ratio
is that of the medians.
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

BACK_ENDS = ("tensorflow", "torch")
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
        for back_end in BACK_ENDS:
            environment = {**os.environ, "KERAS_BACKEND": back_end, "OMP_WAIT_POLICY": "PASSIVE"}
            environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
            command = [sys.executable, __file__, "--one", back_end]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            for name, value in json.loads(done.stdout.splitlines()[-1]).items():
                seconds.setdefault(name, {}).setdefault(back_end, []).append(value)
    for name, measured in seconds.items():
        slow, fast = (statistics.median(measured[back_end]) for back_end in BACK_ENDS)
        print(f"{name:40} TensorFlow {slow:6.2f} s   PyTorch {fast:6.2f} s   ratio {slow / fast:.1f}")


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
            for _ in range(WARM_UP):
                model.train_on_batch(windows, labels)
            started = time.perf_counter()
            for _ in range(STEPS):
                model.train_on_batch(windows, labels)
            name = f"{recipe}, {stage}, {batch} windows of {'x'.join(map(str, size))}"
            measured[name] = (time.perf_counter() - started) / STEPS
    return measured


if __name__ == "__main__":
    main()
