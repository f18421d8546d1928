"""Training the networks of a model further on a few local scans, watched on scans that each of them does not see.

Every network leaves other scans out, so that together they have learnt from all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from CMBDetectorLib.datasets.bids import subject_of
from CMBDetectorLib.detection.patches import cut_windows
from CMBDetectorLib.models.bundle import Bundle
from CMBDetectorLib.networks import backend
from CMBDetectorLib.networks.catalogue import build, window
from CMBDetectorLib.networks.unet import lower_likelihood
from CMBDetectorLib.progress import Part, Progress
from CMBDetectorLib.training.bundles import MISS_COST, network_seed
from CMBDetectorLib.training.cases import PreparedCase
from CMBDetectorLib.training.fitting import POSITIVE_WEIGHT, Care, Sampler, copied_weights, fit, go_part_of_the_way
from CMBDetectorLib.training.patches import Stage1Sampler, Stage2Sampler
from CMBDetectorLib.training.replay import Replay, ReplayedCandidates, ReplayedMaps, mixed
from CMBDetectorLib.training.settings import FitSettings, TrainingSettings

PATIENCE = 3
"""Epochs without a better one after which the training of a network ends."""
_MOST_NEW_SHARE = 0.5
"""How far each weight goes at most from the old one to the tuned one."""
_HALFWAY_MICROBLEEDS = 40
"""Local microbleeds from which the weights go that far; with fewer, what a network learns of them is the less to be
relied on, and so is the scan that calls it better."""
_VALIDATION_PART = 5  # one scan in five
_MOST_MIMICS = 60  # of a validation scan: scoring them costs as much as training with them
_MAPS = 32
_AT_ONCE = 16
_MIRRORS: tuple[tuple[int, ...], ...] = ((), (1,), (2,), (1, 2))


@dataclass(frozen=True)
class Network:
    """One network of a model: file name without ending, architecture, Keras model; ``is_new``: it was improved."""

    name: str
    architecture: dict[str, Any]
    model: Any
    is_new: bool = False


def load_networks(bundle: Bundle, kind: str) -> list[Network]:
    """Return the networks of ``kind`` ("unets" or "cnns") in the order of axes that the back end is fast with.

    Raises:
        ModelError: one cannot be loaded.
    """
    networks = []
    for path, architecture in bundle.networks(kind):
        model = build(architecture, path.stem)
        model.set_weights(backend.load(path).get_weights())
        networks.append(Network(path.stem, architecture, model))
    return networks


def tune_unets(
    networks: Sequence[Network],
    cases: Sequence[PreparedCase],
    replay: Replay | None,
    settings: TrainingSettings,
    work: Path,
    progress: Progress,
) -> list[Network]:
    """Return the U-Nets trained further on ``cases``; one that gets no better on its validation scans stays as it is.

    Checkpoints are kept in ``work``.
    """
    unet, size = settings.unet, window(settings.unet_architecture)
    replayed = None
    if replay is not None:
        replayed = ReplayedMaps(replay, settings.spacing_mm, size, unet.shift, settings.target_sigma_mm, unet.scanners)

    def sampler(some: Sequence[PreparedCase], scanners: bool) -> Sampler:
        return Stage1Sampler(some, settings.spacing_mm, unet.shift, settings.target_sigma_mm, size, scanners)

    # Trained networks answer with likelihoods from which the weight of the loss was taken back.
    raised = math.log(POSITIVE_WEIGHT / MISS_COST)
    share = new_share(sum(len(case.microbleeds_ras) for case in cases))
    tuned = []
    for number, network in enumerate(networks):
        held, rest = split_scans(cases, number, settings.seed)
        images, targets = sampler(held, False)(np.random.default_rng(settings.seed), _MAPS)
        lower_likelihood(network.model, -raised)
        start = copied_weights(network.model)
        lower_likelihood(network.model, raised)
        model = _fit(
            network, start, mixed(sampler(rest, unet.scanners), replayed), unet, settings.seed,
            partial(_map_loss, images=images, targets=targets), share, work,
            Part(progress, "U-Nets", number, len(networks)),
        )  # fmt: skip
        if _same(model.get_weights(), start):
            tuned.append(network)
            continue
        lower_likelihood(model, raised)
        tuned.append(Network(network.name, network.architecture, model, True))
    return tuned


def tune_cnns(
    networks: Sequence[Network],
    cases: Sequence[PreparedCase],
    mimics: Sequence[tuple[np.ndarray, np.ndarray]],
    hits: Sequence[np.ndarray],
    replay: Replay | None,
    settings: TrainingSettings,
    work: Path,
    progress: Progress,
) -> list[Network]:
    """Do the same for the CNNs. ``mimics`` are for each case voxel positions (n, 3) and how far each deceives the model
    (n,; 0 to 1): the worst are drawn most often. ``hits`` are where stage 1 proposes the microbleeds (m, 3)."""
    cnn, size = settings.cnn, window(settings.cnn_architecture)
    replayed = None if replay is None else ReplayedCandidates(replay, size, cnn.shift, cnn.scanners)
    of = {case.id: found for case, found in zip(cases, mimics, strict=True)}
    hit = {case.id: found for case, found in zip(cases, hits, strict=True)}
    share = new_share(sum(len(case.microbleeds_ras) for case in cases))
    tuned = []
    for number, network in enumerate(networks):
        held, rest = split_scans(cases, number, settings.seed)
        local = Stage2Sampler(
            rest, [of[case.id][0] for case in rest], settings.spacing_mm, cnn.shift, size, cnn.scanners,
            [hit[case.id] for case in rest], cnn.transplants,
        )  # fmt: skip
        local.weigh_mimics(np.concatenate([of[case.id][1] for case in rest]))
        windows, labels = _candidates(held, [of[case.id] for case in held], size)
        start = copied_weights(network.model)
        model = _fit(
            network, start, mixed(local, replayed), cnn, settings.seed,
            partial(_ranking_loss, windows=windows, labels=labels), share, work,
            Part(progress, "CNNs", number, len(networks)),
        )  # fmt: skip
        improved = not _same(model.get_weights(), start)
        tuned.append(Network(network.name, network.architecture, model, True) if improved else network)
    return tuned


def split_scans(cases: Sequence[PreparedCase], number: int, seed: int) -> tuple[list[PreparedCase], list[PreparedCase]]:
    """Return the scans on which network ``number`` (0, 1, ...) is validated, one in five, and those it learns from.

    Both hold microbleeds; the next network is validated on others, as far as there are enough.

    Raises:
        ValueError: fewer than two of ``cases`` have microbleeds.
    """
    rng = np.random.default_rng([seed, len(cases)])
    order = [cases[index] for index in rng.permutation(len(cases))]
    bleeding = [case for case in order if len(case.microbleeds_ras)]
    clean = [case for case in order if not len(case.microbleeds_ras)]
    if len(bleeding) < 2:
        raise ValueError("two scans with microbleeds are needed")
    held: list[PreparedCase] = []
    for group, least in ((bleeding, 1), (clean, 0)):
        count = max(least, round(len(group) / _VALIDATION_PART))
        held += [group[(number * count + step) % len(group)] for step in range(count)]
    # What is watched must not be known from another scan of its subject, as far as others are left to learn from.
    for chosen in ({subject_of(case.id) for case in held}, {case.id for case in held}):
        kept = [case for case in cases if not chosen & {case.id, subject_of(case.id)}]
        if any(len(case.microbleeds_ras) for case in kept):
            break
    return held, kept


def new_share(microbleeds: int) -> float:
    """Return how far weights go from the old ones to those tuned on so many local microbleeds (0 to 0.5)."""
    return min(_MOST_NEW_SHARE, microbleeds / (microbleeds + _HALFWAY_MICROBLEEDS))


def _fit(
    network: Network,
    start: list[np.ndarray],
    sample: Sampler,
    settings: FitSettings,
    seed: int,
    validate: Callable[[Any], float],
    share: float,
    work: Path,
    progress: Progress,
) -> Any:
    make = partial(build, network.architecture, network.name)
    checkpoint = work / f"{network.name}.npz"
    batch, seed = settings.batch_sizes[0], network_seed(seed, network.name)
    care = Care(validate, PATIENCE)
    model = fit(make, sample, settings, batch, seed, checkpoint, progress, network.name, start, care=care)
    go_part_of_the_way(model, start, share)
    return model


def _same(some: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))


def _candidates(
    cases: Sequence[PreparedCase], mimics: Sequence[tuple[np.ndarray, np.ndarray]], size: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return windows (n, *size, 1) and labels (n,) to validate with: every microbleed in each of its mirror images,
    since there are few, and the mimics of each scan that deceived the model most."""
    windows, labels = [], []
    for case, (found, scores) in zip(cases, mimics, strict=True):
        bleeds = cut_windows(case.image, case.microbleeds, size)[..., None]
        windows += [np.flip(bleeds, axes) for axes in _MIRRORS]
        hardest = found[np.argsort(-scores, kind="stable")[:_MOST_MIMICS]]
        windows.append(cut_windows(case.image, hardest, size)[..., None])
        labels += [1.0] * (len(_MIRRORS) * len(bleeds)) + [0.0] * len(hardest)
    return np.concatenate(windows), np.array(labels)


def _ranking_loss(model: Any, windows: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean logarithm of how many mimics stand before a microbleed, softly counted.

    That is what a FROC is made of. Cross-entropy would also fall where all scores do, and the order gets worse.
    """
    answers = np.clip(_answers(model, windows).reshape(-1), 1e-6, 1 - 1e-6)
    logits = np.log(answers / (1 - answers))
    ahead = logits[labels < 0.5][None] - logits[labels > 0.5][:, None]
    return float(np.mean(np.log1p((1 / (1 + np.exp(-ahead))).sum(1))))


def _map_loss(model: Any, images: np.ndarray, targets: np.ndarray) -> float:
    """Return the loss of stage 1, as it is trained with."""
    answers = np.clip(_answers(model, images), 1e-6, 1 - 1e-6)
    entropy = -(targets * np.log(answers) + (1 - targets) * np.log(1 - answers))
    return float(np.mean(entropy * (1 + POSITIVE_WEIGHT * targets)))


def _answers(model: Any, windows: np.ndarray) -> np.ndarray:
    parts = [windows[first : first + _AT_ONCE] for first in range(0, len(windows), _AT_ONCE)]
    with backend.memory_guard():
        return np.concatenate([np.asarray(model.predict_on_batch(part)) for part in parts]).astype(float)
