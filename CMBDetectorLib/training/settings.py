"""What a training run is made of; saved with its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.networks.cnn import DEFAULT_CNN
from CMBDetectorLib.networks.context import DEFAULT_CONTEXT
from CMBDetectorLib.networks.unet import CONTEXT_UNET, DEFAULT_UNET
from CMBDetectorLib.networks.widening import widened_architecture
from CMBDetectorLib.preprocessing.pipeline import MODEL_SPACING_MM


@dataclass(frozen=True)
class FitSettings:
    """How one kind of network is fitted.

    One network is trained for each of ``batch_sizes``. An epoch is ``steps`` batches and ends with a checkpoint.
    ``shift`` is the largest random shift of a microbleed from the centre of its window, in voxels (i, j, k).
    ``scanners``: windows also vary in what scanners do to intensities. After each but the last of ``rounds`` equal
    parts of the training the mistakes are weighed anew, hardest first (stage 2). ``transplants``: microbleeds that
    were transplanted into other tissue are learnt from as if the dataset had so many more (stage 2).
    """

    batch_sizes: tuple[int, ...]
    epochs: int
    steps: int
    learning_rate: float
    shift: tuple[int, int, int]
    scanners: bool = False
    rounds: int = 1
    transplants: int = 0


@dataclass(frozen=True)
class TrainingSettings:
    """The whole recipe of a bundle; ``recipe`` is its name.

    ``target_sigma_mm`` is the width of the Gaussian centre map the U-Nets learn, ``mimic_threshold`` the likelihood
    at which stage 1's mistakes are collected, ``stage1_threshold`` what goes into the card. ``keep_unets``: of a model
    that is trained further stage 1 stays as it is; ``new_share``: how far its weights go to the trained ones.
    """

    seed: int = 0
    recipe: str = "paper"
    spacing_mm: tuple[float, float, float] = MODEL_SPACING_MM
    unet: FitSettings = field(default_factory=lambda: FitSettings((20, 30), 48, 50, 2e-3, (8, 8, 6)))
    cnn: FitSettings = field(default_factory=lambda: FitSettings((20, 30), 24, 50, 2e-3, (1, 1, 1)))
    unet_architecture: dict[str, Any] = field(default_factory=lambda: dict(DEFAULT_UNET))
    cnn_architecture: dict[str, Any] = field(default_factory=lambda: dict(DEFAULT_CNN))
    target_sigma_mm: float = 1.0
    mimic_threshold: float = 0.15
    stage1_threshold: float = 0.2
    keep_unets: bool = False
    new_share: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON values."""
        return asdict(self)


_CONTEXT: dict[str, Any] = {
    "recipe": "context",
    "unet": FitSettings((6, 8), 24, 50, 2e-3, (16, 16, 8), scanners=True),
    "cnn": FitSettings((20, 30), 30, 50, 1e-3, (2, 2, 1), scanners=True, rounds=3, transplants=40),
    "unet_architecture": CONTEXT_UNET,
    "cnn_architecture": DEFAULT_CONTEXT,
    "mimic_threshold": 0.05,
    "stage1_threshold": 0.05,
}
_TINY: dict[str, dict[str, Any]] = {
    "paper": {
        "unet_architecture": {"kind": "unet", "stem": 8, "channels": [8, 8]},
        "cnn_architecture": {"kind": "cnn", "channels": [8, 8], "dense": [32, 16], "dropout": 0.3},
    },
    "context": {
        "unet_architecture": {"kind": "unet", "stem": 8, "channels": [8, 8], "window": [32, 32, 16]},
        "cnn_architecture": {
            "kind": "context", "window": [32, 32, 16], "near": [16, 16, 8], "channels": [8, 8], "dense": [16],
            "dropout": 0.3, "flips": True, "stage1_weight": 1.0,
        },
    },
}  # fmt: skip
RECIPES = {"paper": {}, "context": _CONTEXT}
"""What differs from :class:`TrainingSettings`' own values: the paper's recipe, and the one with more context."""


_FURTHER_RATE = 0.25
"""Learning rate of networks that are trained further, against that of new ones."""
_WIDENED_RATE = 0.5
"""The same for CNNs that have got new channels."""


def recipe_of(card: Mapping[str, Any]) -> str:
    """Return the recipe by which the model of ``card`` was trained; before there were several it was the paper's."""
    return str(card.get("training", {}).get("settings", {}).get("recipe", "paper"))


def with_networks_of(settings: TrainingSettings, card: Mapping[str, Any]) -> TrainingSettings:
    """Return ``settings`` for networks like those of the model of ``card``: its voxel size and its architectures."""
    networks = card["networks"]
    return replace(
        settings,
        spacing_mm=tuple(card["spacing_mm"]),
        unet_architecture=networks["unets"][0]["architecture"],
        cnn_architecture=networks["cnns"][0]["architecture"],
    )


def further(
    settings: TrainingSettings, card: Mapping[str, Any], cnn_channels: Sequence[int] | None = None
) -> TrainingSettings:
    """Return ``settings`` for training the networks of a model further: its architectures and thresholds, smaller
    steps.

    ``card`` is the model's. Its CNNs get ``cnn_channels`` (one number a level) where these are given.

    Raises:
        ModelError: its CNNs cannot have these channels.
    """
    settings, cnn_rate = with_networks_of(settings, card), _FURTHER_RATE
    if cnn_channels is not None:
        wider = widened_architecture(settings.cnn_architecture, cnn_channels)
        if wider != settings.cnn_architecture:
            cnn_rate = _WIDENED_RATE
        settings = replace(settings, cnn_architecture=wider)
    return replace(
        settings,
        unet=replace(settings.unet, learning_rate=settings.unet.learning_rate * _FURTHER_RATE),
        cnn=replace(settings.cnn, learning_rate=settings.cnn.learning_rate * cnn_rate),
        mimic_threshold=float(card["thresholds"]["mimics"]),
        stage1_threshold=float(card["thresholds"]["stage1"]),
    )


def settings_from(
    seed: int = 0,
    epochs: int | None = None,
    steps: int | None = None,
    tiny: bool = False,
    recipe: str = "paper",
    cnn_epochs: int | None = None,
) -> TrainingSettings:
    """Return a recipe with another seed or length; ``tiny`` has small networks, for trials of a minute.

    ``epochs`` are those of a U-Net; a CNN, whose steps cost less, gets ``cnn_epochs`` or twice as many.

    Raises:
        BadInputError: a length is below 1.
    """
    if any(length is not None and length < 1 for length in (epochs, cnn_epochs, steps)):
        raise BadInputError("A training needs at least one epoch of one step.", "Give larger numbers.")
    base = TrainingSettings(seed=seed, **RECIPES[recipe])
    if tiny:
        base = replace(base, **_TINY[recipe])
    unet = replace(base.unet, epochs=epochs or base.unet.epochs, steps=steps or base.unet.steps)
    cnn_epochs = cnn_epochs or (2 * epochs if epochs else base.cnn.epochs)
    cnn = replace(base.cnn, epochs=cnn_epochs, steps=steps or base.cnn.steps)
    return replace(base, unet=unet, cnn=cnn)
