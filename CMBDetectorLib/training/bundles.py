"""The whole recipe on a set of cases: two U-Nets, their mimics, two CNNs; and the bundle made of them."""

from __future__ import annotations

import datetime
import math
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import CMBDetectorLib
from CMBDetectorLib.detection.detector import Detector
from CMBDetectorLib.models.bundle import Bundle, write_bundle
from CMBDetectorLib.networks.cnn import build_cnn, refold, unfold
from CMBDetectorLib.networks.unet import WINDOW, build_unet, lower_likelihood
from CMBDetectorLib.progress import Part, Progress
from CMBDetectorLib.training.cases import PreparedCase
from CMBDetectorLib.training.fitting import POSITIVE_WEIGHT, Sampler, fit
from CMBDetectorLib.training.mimics import mine_mimics
from CMBDetectorLib.training.patches import Stage1Sampler, Stage2Sampler
from CMBDetectorLib.training.settings import FitSettings, TrainingSettings

_MISS_COST = 5.0
"""What a missed voxel of a microbleed costs stage 1 against a false one, once it is trained."""
STAGES = [("U-Nets", 60.0), ("mimics", 25.0), ("CNNs", 15.0)]
"""The stages of :func:`train_networks` and their usual shares of the time."""


@dataclass(frozen=True)
class Trained:
    """Fitted networks by batch size, and how many microbleeds and mimics stage 2 learnt from."""

    unets: dict[int, Any]
    cnns: dict[int, Any]
    microbleeds: int
    mimics: int
    settings: TrainingSettings

    @property
    def shown_threshold(self) -> float:
        """The score from which a candidate is rather a microbleed than a mimic.

        Stage 2 learns from as many of both; stage 1 proposes ``mimics`` for ``microbleeds``, so by Bayes' rule the odds
        are even at a score of ``mimics / (mimics + microbleeds)``.
        """
        return round(min(0.98, max(0.5, self.mimics / max(1, self.mimics + self.microbleeds))), 2)

    @property
    def detector(self) -> Detector:
        """The networks as a detector."""
        return Detector(list(self.unets.values()), list(self.cnns.values()), self.settings.unet_architecture)


def train_networks(
    cases: Sequence[PreparedCase], settings: TrainingSettings, work: Path, progress: Progress
) -> Trained:
    """Train both stages on ``cases``; checkpoints and mimics are kept in the folder ``work``.

    What ``work`` already holds of the same recipe is not done again.

    Raises:
        BadInputError: ``work`` holds a run with other settings.
    """
    progress.plan(STAGES)
    unet, cnn = settings.unet, settings.cnn
    sampler = Stage1Sampler(cases, settings.spacing_mm, unet.shift, settings.target_sigma_mm)
    unets = _fit_each(
        "unet", "U-Nets", unet, settings.seed, sampler, partial(build_unet, settings.unet_architecture), work, progress
    )
    for model in unets.values():
        # The weight of the loss raises every likelihood; taken back but for the cost of a miss, the paper's thresholds
        # leave about a hundred candidates a scan instead of a thousand, with the same microbleeds among them.
        lower_likelihood(model, math.log(POSITIVE_WEIGHT / _MISS_COST))
    stage1 = Detector(list(unets.values()), [], settings.unet_architecture)
    mimics = []
    for number, case in enumerate(cases):
        path = work / "mimics" / f"{case.id}_desc-mimic_points.tsv"
        part = Part(progress, "mimics", number, len(cases))
        mimics.append(mine_mimics(stage1, case, settings.mimic_threshold, path, part))
        progress.report("mimics", number + 1, len(cases))
    progress.log(f"{sum(map(len, mimics))} mimics in {len(cases)} scans")
    sampler2 = Stage2Sampler(cases, mimics, settings.spacing_mm, cnn.shift)

    def unfolded(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        windows, labels = sampler2(rng, count)
        return unfold(windows), labels

    build = partial(build_cnn, settings.cnn_architecture, unfolded=True)
    fitted = _fit_each("cnn", "CNNs", cnn, settings.seed, unfolded, build, work, progress)
    cnns = {batch: refold(model, settings.cnn_architecture) for batch, model in fitted.items()}
    microbleeds = sum(len(case.microbleeds_ras) for case in cases)
    return Trained(unets, cnns, microbleeds, sum(map(len, mimics)), settings)


def _fit_each(
    kind: str,
    stage: str,
    settings: FitSettings,
    seed: int,
    sample: Sampler,
    build: Callable[..., Any],
    work: Path,
    progress: Progress,
) -> dict[int, Any]:
    """Return a network fitted for each batch size of ``settings``; ``build(name=...)`` makes an untrained one."""
    models = {}
    for number, batch in enumerate(settings.batch_sizes):
        name = f"{kind}-{batch}"
        part = Part(progress, stage, number, len(settings.batch_sizes))
        seed_of_network = network_seed(seed, name)
        checkpoint = work / f"{name}.npz"
        models[batch] = fit(partial(build, name=name), sample, settings, batch, seed_of_network, checkpoint, part, name)
    return models


def save_bundle(
    trained: Trained,
    folder: Path,
    name: str,
    cases: Sequence[PreparedCase],
    training_data: str,
    description: str,
) -> Bundle:
    """Write the networks as a bundle; ``training_data`` is the sentence that every report will carry.

    Raises:
        OutputError: the folder cannot be written or holds something else.
    """
    settings = trained.settings
    card: dict[str, Any] = {
        "name": name,
        "version": "1",
        "parent": None,
        "created": datetime.date.today().isoformat(),
        "program": f"cmbdetector {CMBDetectorLib.__version__}",
        "description": description,
        "training_data": training_data,
        "licence": "Apache-2.0",
        "spacing_mm": list(settings.spacing_mm),
        "window": list(WINDOW),
        "thresholds": {
            "stage1": settings.stage1_threshold,
            "mimics": settings.mimic_threshold,
            "shown": trained.shown_threshold,
        },
        "training": {
            "scans": [case.id for case in cases],
            "microbleeds": trained.microbleeds,
            "mimics": trained.mimics,
            "settings": settings.to_json(),
        },
        "metrics": {},
        "networks": {"unets": [], "cnns": []},
    }
    with tempfile.TemporaryDirectory(prefix="cmbdetector-") as temporary:
        files = {}
        groups = (
            ("unets", trained.unets, settings.unet_architecture),
            ("cnns", trained.cnns, settings.cnn_architecture),
        )
        for kind, networks, architecture in groups:
            for batch, model in networks.items():
                file = f"{kind[:-1]}-{batch}.keras"
                # Compiled models would carry their optimizer, three times the weights, and this project's loss.
                _uncompiled(model, kind, architecture).save(Path(temporary) / file)
                files[file] = Path(temporary) / file
                entry = {"file": file, "batch_size": batch, "architecture": architecture}
                card["networks"][kind].append(entry)
        return write_bundle(folder, card, files)


def network_seed(seed: int, name: str) -> int:
    """Return a seed for one network that depends on the run's seed and the network's name."""
    return int(np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1)[0])


def _uncompiled(model: Any, kind: str, architecture: dict[str, Any]) -> Any:
    build = build_unet if kind == "unets" else build_cnn
    copy = build(architecture, name=model.name)
    copy.set_weights(model.get_weights())
    return copy
