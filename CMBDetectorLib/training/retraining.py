"""A model trained further on local scans, as deep as was asked for: stage 2, both stages, or all from the beginning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from CMBDetectorLib.detection.detector import Detector
from CMBDetectorLib.files import atomic_path
from CMBDetectorLib.models.bundle import Bundle
from CMBDetectorLib.progress import Part, Progress
from CMBDetectorLib.training.bundles import train_networks, uncompiled
from CMBDetectorLib.training.cases import PreparedCase
from CMBDetectorLib.training.finetuning import PATIENCE, Network, load_networks, tune_cnns, tune_unets
from CMBDetectorLib.training.proposals import Proposals, hits_in, mimics_of, propose
from CMBDetectorLib.training.replay import SHARE, Replay
from CMBDetectorLib.training.settings import TrainingSettings, further, recipe_of, settings_from, with_networks_of

Depth = Literal["second-stage", "both-stages", "from-scratch"]
DEPTHS: tuple[Depth, ...] = ("second-stage", "both-stages", "from-scratch")

_STAGES: dict[Depth, list[tuple[str, float]]] = {
    "second-stage": [("CNNs", 1.0)],
    "both-stages": [("U-Nets", 50.0), ("mimics", 30.0), ("CNNs", 20.0)],
}
# Small batches: with batch normalisation held, their size does not matter. Most of the epochs are done only where the
# scans are unlike those that the model knows; otherwise the scans left out end the training after a few.
_TUNED_UNET = {"batch_sizes": (8,), "epochs": 6, "steps": 15, "learning_rate": 1e-4}
_TUNED_CNN = {"batch_sizes": (16,), "epochs": 16, "steps": 25, "learning_rate": 3e-4, "rounds": 1, "transplants": 0}


@dataclass(frozen=True)
class LocalCase:
    """A preprocessed scan with what a reader rejected in it (``rejected_ras`` (n, 3), RAS mm) and what the model to
    start from says of it: its ``proposals`` and their final ``scores`` (n,)."""

    case: PreparedCase
    rejected_ras: np.ndarray
    proposals: Proposals
    scores: np.ndarray


@dataclass(frozen=True)
class Plan:
    """How to retrain: ``settings`` of the networks, ``replay`` (``None``: nothing is replayed)."""

    depth: Depth
    settings: TrainingSettings
    replay: Replay | None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        share = SHARE if self.replay is not None and self.depth != "from-scratch" else 0
        return {"depth": self.depth, "replay_share": share, "patience": PATIENCE, **self.settings.to_json()}


@dataclass(frozen=True)
class Retrained:
    """The networks that came out; ``mimics``: how many negatives stage 2 learnt from."""

    unets: list[Network]
    cnns: list[Network]
    mimics: int

    @property
    def is_new(self) -> bool:
        """Whether any network was improved."""
        return any(network.is_new for network in (*self.unets, *self.cnns))

    @property
    def detector(self) -> Detector:
        """The networks as a detector."""
        return detector_of(self.unets, self.cnns)


def detector_of(unets: Sequence[Network], cnns: Sequence[Network]) -> Detector:
    """Return a detector of networks of one architecture a kind."""
    models = [network.model for network in unets], [network.model for network in cnns]
    return Detector(*models, unets[0].architecture, cnns[0].architecture)


def retrain_settings(
    start: Bundle, depth: Depth, seed: int = 0, epochs: int | None = None, steps: int | None = None
) -> TrainingSettings:
    """Return the settings for retraining ``start``; ``epochs`` and ``steps`` are those of each network.

    From scratch they and the thresholds are those of its recipe. Else small steps, as many as help: the networks know
    already what a microbleed looks like.

    Raises:
        BadInputError: a length is below 1.
    """
    recipe = settings_from(seed, epochs, steps, recipe=recipe_of(start.card))
    if depth == "from-scratch":
        return with_networks_of(recipe, start.card)
    settings = further(recipe, start.card)
    asked = {key: value for key, value in (("epochs", epochs), ("steps", steps)) if value}
    return replace(
        settings,
        unet=replace(settings.unet, **{**_TUNED_UNET, **asked}),
        cnn=replace(settings.cnn, **{**_TUNED_CNN, **asked}),
    )


def known_of(
    start: Detector, case: PreparedCase, rejected_ras: np.ndarray, threshold: float, path: Path, progress: Progress
) -> LocalCase:
    """Return ``case`` with what the model to start from says of it, kept in ``path`` (.npz) and beside it."""
    proposals = propose(start, case, threshold, path, progress)
    return LocalCase(case, rejected_ras, proposals, scores_of(start, case, proposals, path.with_suffix(".scores.npy")))


def scores_of(detector: Detector, case: PreparedCase, proposals: Proposals, path: Path) -> np.ndarray:
    """Return the final scores (n,) of ``proposals`` by ``detector``, read from ``path`` (.npy) where it exists."""
    try:
        scores = np.load(path, allow_pickle=False)
        if scores.shape == (len(proposals.ijk),):
            return scores
    except (OSError, ValueError, EOFError):
        pass
    scores = detector.discriminate(np.asarray(case.image, np.float32), proposals.ijk, proposals.likelihood)
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.save(stream, scores)
    return scores


def retrain(local: Sequence[LocalCase], start: Bundle, plan: Plan, work: Path, progress: Progress) -> Retrained:
    """Retrain ``start`` on ``local``; what the folder ``work`` already holds of the same plan is not done again.

    Raises:
        BadInputError: ``work`` holds another run.
        ModelError: a network of ``start`` cannot be loaded.
    """
    settings, cases = plan.settings, [known.case for known in local]
    if plan.depth == "from-scratch":
        return _from_scratch(cases, settings, work, progress)
    progress.plan(_STAGES[plan.depth])
    unets, cnns = load_networks(start, "unets"), load_networks(start, "cnns")
    if plan.depth == "both-stages":
        unets = tune_unets(unets, cases, plan.replay, settings, work, progress)
        if any(network.is_new for network in unets):
            local = _proposed_anew(local, detector_of(unets, cnns), settings, work, progress)
    mimics = [mimics_of(k.case, k.proposals, k.scores, k.rejected_ras) for k in local]
    hits = [hits_in(k.case, k.proposals) for k in local]
    cnns = tune_cnns(cnns, cases, mimics, hits, plan.replay, settings, work, progress)
    return Retrained(unets, cnns, sum(len(found) for found, _ in mimics))


def save_networks(retrained: Retrained, start: Bundle, folder: Path) -> dict[str, Path]:
    """Write the networks as files of ``folder``; returns file name -> file, of an unchanged one that of ``start``."""
    files = {}
    for network in (*retrained.unets, *retrained.cnns):
        name = f"{network.name}.keras"
        files[name] = start.folder / name
        if network.is_new:
            files[name] = folder / name
            uncompiled(network.model, network.architecture).save(files[name])
    return files


def _from_scratch(
    cases: Sequence[PreparedCase], settings: TrainingSettings, work: Path, progress: Progress
) -> Retrained:
    trained = train_networks(cases, settings, work, progress)
    kinds = (("unet", trained.unets, settings.unet_architecture), ("cnn", trained.cnns, settings.cnn_architecture))
    unets, cnns = (
        [Network(f"{kind}-{batch}", architecture, model, True) for batch, model in networks.items()]
        for kind, networks, architecture in kinds
    )
    return Retrained(unets, cnns, trained.mimics)


def _proposed_anew(
    local: Sequence[LocalCase], detector: Detector, settings: TrainingSettings, work: Path, progress: Progress
) -> list[LocalCase]:
    """Return ``local`` with what the new U-Nets propose, scored by the old CNNs."""
    anew = []
    for number, known in enumerate(local):
        part = Part(progress, "mimics", number, len(local))
        path = work / "mimics" / f"{known.case.id}.npz"
        anew.append(known_of(detector, known.case, known.rejected_ras, settings.mimic_threshold, path, part))
        progress.report("mimics", number + 1, len(local))
    return anew
