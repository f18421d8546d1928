"""The whole recipe on a set of cases: two U-Nets, their mimics, two CNNs; and the bundle made of them."""

from __future__ import annotations

import datetime
import math
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import CMBDetectorLib
from CMBDetectorLib.detection.detector import Detector
from CMBDetectorLib.files import atomic_path
from CMBDetectorLib.models.bundle import Bundle, write_bundle
from CMBDetectorLib.networks import backend
from CMBDetectorLib.networks.catalogue import build, window
from CMBDetectorLib.networks.cnn import build_cnn, refold, unfold
from CMBDetectorLib.networks.unet import lower_likelihood
from CMBDetectorLib.networks.widening import widened
from CMBDetectorLib.progress import Part, Progress
from CMBDetectorLib.training.cases import PreparedCase, coarsest
from CMBDetectorLib.training.fitting import POSITIVE_WEIGHT, fit, go_part_of_the_way
from CMBDetectorLib.training.mimics import Mined, mine_mimics
from CMBDetectorLib.training.patches import Stage1Sampler, Stage2Sampler
from CMBDetectorLib.training.settings import FitSettings, TrainingSettings

MISS_COST = 5.0
"""What a missed voxel of a microbleed costs stage 1 against a false one, once it is trained."""
_SCORED_AT_ONCE = 64
# About how long one core trains on a voxel of a window, and searches a scan for mimics.
_VOXEL_S = {"unet": 1.5e-6, "cnn": 6e-7, "context": 1.3e-7}
_SCAN_S = 20.0


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
        settings = self.settings
        return Detector(
            list(self.unets.values()), list(self.cnns.values()), settings.unet_architecture, settings.cnn_architecture
        )


def training_stages(settings: TrainingSettings, scans: int) -> list[tuple[str, float]]:
    """Return the stages of :func:`train_networks` on so many ``scans``, and about how many seconds each takes."""
    unets = 0.0 if settings.keep_unets else _fit_seconds(settings.unet, settings.unet_architecture)
    cnns = _fit_seconds(settings.cnn, settings.cnn_architecture)
    return [("U-Nets", unets), ("mimics", scans * _SCAN_S), ("CNNs", cnns)]


def _fit_seconds(fit: FitSettings, architecture: dict[str, Any]) -> float:
    windows = fit.epochs * fit.steps * sum(fit.batch_sizes)
    return windows * math.prod(window(architecture)) * _VOXEL_S[architecture["kind"]]


def train_networks(
    cases: Sequence[PreparedCase],
    settings: TrainingSettings,
    work: Path,
    progress: Progress,
    start: Bundle | None = None,
) -> Trained:
    """Train both stages on ``cases``; checkpoints and mimics are kept in the folder ``work``.

    What ``work`` already holds of the same recipe is not done again. The networks of ``start``, which must have the
    architectures of ``settings`` (its CNNs may have fewer channels), are trained further instead of new ones; with
    ``keep_unets`` only its CNNs.

    Raises:
        BadInputError: ``work`` holds a run with other settings.
        ModelError: a network of ``start`` cannot be loaded.
    """
    progress.plan(training_stages(settings, len(cases)))
    unets = _fit_unets(cases, settings, work, progress, start)
    stage1 = Detector(list(unets.values()), [], settings.unet_architecture)
    mined = []
    for number, case in enumerate(cases):
        part = Part(progress, "mimics", number, len(cases))
        mined.append(mine_mimics(stage1, case, settings.mimic_threshold, work, part))
        progress.report("mimics", number + 1, len(cases))
    mimics = sum(len(scan.mimics) for scan in mined)
    progress.log(f"{mimics} mimics in {len(cases)} scans")
    cnns = _fit_cnns(cases, mined, settings, work, progress, start)
    microbleeds = sum(len(case.microbleeds_ras) for case in cases)
    return Trained(unets, cnns, microbleeds, mimics, settings)


def _fit_unets(
    cases: Sequence[PreparedCase], settings: TrainingSettings, work: Path, progress: Progress, start: Bundle | None
) -> dict[int, Any]:
    unet, architecture = settings.unet, settings.unet_architecture
    if start is not None and settings.keep_unets:
        return {batch: _network(start, "unets", number) for number, batch in enumerate(unet.batch_sizes)}
    sampler = Stage1Sampler(
        cases, settings.spacing_mm, unet.shift, settings.target_sigma_mm, window(architecture), unet.scanners
    )
    unets = {}
    for number, batch in enumerate(unet.batch_sizes):
        name = f"unet-{batch}"
        part = Part(progress, "U-Nets", number, len(unet.batch_sizes))
        seed, make = network_seed(settings.seed, name), partial(build, architecture, name)
        # The weight of the loss raises every likelihood; taken back but for the cost of a miss, the paper's thresholds
        # leave about a hundred candidates a scan instead of a thousand, with the same microbleeds among them.
        raised = math.log(POSITIVE_WEIGHT / MISS_COST)
        initial = None
        if start is not None:
            known = _network(start, "unets", number)
            lower_likelihood(known, -raised)
            initial = known.get_weights()
        unets[batch] = fit(make, sampler, unet, batch, seed, work / f"{name}.npz", part, name, initial)
        if initial is not None:
            go_part_of_the_way(unets[batch], initial, settings.new_share)
        lower_likelihood(unets[batch], raised)
    return unets


def _fit_cnns(
    cases: Sequence[PreparedCase],
    mined: Sequence[Mined],
    settings: TrainingSettings,
    work: Path,
    progress: Progress,
    start: Bundle | None,
) -> dict[int, Any]:
    cnn, architecture = settings.cnn, settings.cnn_architecture
    mimics, hits = [scan.mimics for scan in mined], [scan.hits for scan in mined]
    sampler = Stage2Sampler(
        cases, mimics, settings.spacing_mm, cnn.shift, window(architecture), cnn.scanners, hits, cnn.transplants
    )
    # TensorFlow alone is slow with the paper's large kernels.
    unfolded = architecture["kind"] == "cnn" and not backend.channels_first()

    def sample(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        windows, labels = sampler(rng, count)
        return (unfold(windows) if unfolded else windows), labels

    cnns = {}
    for number, batch in enumerate(cnn.batch_sizes):
        name = f"cnn-{batch}"
        part = Part(progress, "CNNs", number, len(cnn.batch_sizes))
        make = partial(build_cnn, architecture, name, True) if unfolded else partial(build, architecture, name)
        seed = network_seed(settings.seed, name)
        weigh = _Rounds(sampler, cnn, work / f"{name}-mimics.npz", unfolded, new=start is None)
        initial = None
        if start is not None:
            initial = _cnn_weights(start, number, architecture)
            if unfolded:
                initial = [w.reshape(new.shape) for w, new in zip(initial, make().get_weights(), strict=True)]
        model = fit(make, sample, cnn, batch, seed, work / f"{name}.npz", part, name, initial, weigh)
        if initial is not None:
            go_part_of_the_way(model, initial, settings.new_share)
        cnns[batch] = refold(model, architecture) if unfolded else model
    return cnns


def _network(bundle: Bundle, kind: str, number: int) -> Any:
    """Return network ``number`` of ``kind`` of a bundle; where it has fewer, they are taken in turn."""
    networks = bundle.networks(kind)
    return backend.load(networks[number % len(networks)][0])


def _cnn_weights(bundle: Bundle, number: int, architecture: dict[str, Any]) -> list[np.ndarray]:
    """Return the weights of CNN ``number`` of a bundle, with the channels of ``architecture``."""
    networks = bundle.networks("cnns")
    known, model = networks[number % len(networks)][1], _network(bundle, "cnns", number)
    if known != architecture:
        model = widened(model, architecture)
    weights: list[np.ndarray] = model.get_weights()
    return weights


class _Rounds:
    """Weighs the mimics anew at the beginning of each round of a CNN's training: hard negatives first.

    To a ``new`` network all are alike until the second round; one that is trained further begins with what deceives it.
    """

    def __init__(self, sampler: Stage2Sampler, settings: FitSettings, path: Path, unfolded: bool, new: bool) -> None:
        self._sampler, self._path, self._unfolded = sampler, path, unfolded
        self._length = -(-settings.epochs // settings.rounds)
        self._first = self._length if new or settings.rounds == 1 else 0

    def __call__(self, model: Any, epoch: int) -> None:
        """Score all mimics where ``epoch`` (0, 1, ...) begins a round; elsewhere a resumed run reads the scores."""
        if epoch < self._first:
            if epoch == 0:
                self._sampler.weigh_mimics(None)
        elif epoch % self._length == 0:
            batches = self._sampler.mimic_windows(_SCORED_AT_ONCE)
            answers = [model.predict_on_batch(unfold(w) if self._unfolded else w) for w in batches]
            scores = np.concatenate([np.asarray(a)[:, 0] for a in answers]) if answers else np.zeros(0)
            with atomic_path(self._path) as temporary, open(temporary, "wb") as stream:
                np.savez(stream, scores=scores)
            self._sampler.weigh_mimics(scores)
        elif self._path.is_file():
            with np.load(self._path) as saved:
                self._sampler.weigh_mimics(saved["scores"])


def save_bundle(
    trained: Trained,
    folder: Path,
    name: str,
    cases: Sequence[PreparedCase],
    training_data: str,
    description: str,
    start: Bundle | None = None,
) -> Bundle:
    """Write the networks as a bundle; ``training_data`` is the sentence that every report will carry.

    ``start`` is the model that was trained further: the new one's parent.

    Raises:
        OutputError: the folder cannot be written or holds something else.
    """
    settings = trained.settings
    card: dict[str, Any] = {
        "name": name,
        "version": "1",
        "parent": start.reference if start is not None else None,
        "created": datetime.date.today().isoformat(),
        "program": f"cmbdetector {CMBDetectorLib.__version__}",
        "description": description,
        "training_data": training_data,
        "licence": "Apache-2.0",
        "spacing_mm": list(settings.spacing_mm),
        "coarsest_mm": coarsest([c.stored_mm for c in cases] + ([] if start is None else [start.coarsest_mm])),
        "window": list(window(settings.cnn_architecture)),
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
                uncompiled(model, architecture).save(Path(temporary) / file)
                files[file] = Path(temporary) / file
                entry = {"file": file, "batch_size": batch, "architecture": architecture}
                card["networks"][kind].append(entry)
        return write_bundle(folder, card, files)


def network_seed(seed: int, name: str) -> int:
    """Return a seed for one network that depends on the run's seed and the network's name."""
    return int(np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1)[0])


def uncompiled(model: Any, architecture: dict[str, Any]) -> Any:
    """Return ``model`` without its optimizer, in the order of axes that every back end can load."""
    copy = build(architecture, model.name, first=False)
    copy.set_weights(model.get_weights())
    return copy
