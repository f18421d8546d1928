"""What a training run is made of; saved with its results."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.networks.cnn import DEFAULT_CNN
from CMBDetectorLib.networks.unet import DEFAULT_UNET
from CMBDetectorLib.preprocessing.pipeline import MODEL_SPACING_MM


@dataclass(frozen=True)
class FitSettings:
    """How one kind of network is fitted.

    One network is trained for each of ``batch_sizes``. An epoch is ``steps`` batches and ends with a checkpoint.
    ``shift`` is the largest random shift of a microbleed from the centre of its window, in voxels (i, j, k).
    """

    batch_sizes: tuple[int, ...]
    epochs: int
    steps: int
    learning_rate: float
    shift: tuple[int, int, int]


@dataclass(frozen=True)
class TrainingSettings:
    """The whole recipe of a bundle.

    ``target_sigma_mm`` is the width of the Gaussian centre map the U-Nets learn, ``mimic_threshold`` the likelihood
    at which stage 1's mistakes are collected, ``stage1_threshold`` what goes into the card.
    """

    seed: int = 0
    spacing_mm: tuple[float, float, float] = MODEL_SPACING_MM
    unet: FitSettings = field(default_factory=lambda: FitSettings((20, 30), 12, 50, 2e-3, (8, 8, 6)))
    cnn: FitSettings = field(default_factory=lambda: FitSettings((20, 30), 24, 50, 2e-3, (1, 1, 1)))
    unet_architecture: dict[str, Any] = field(default_factory=lambda: dict(DEFAULT_UNET))
    cnn_architecture: dict[str, Any] = field(default_factory=lambda: dict(DEFAULT_CNN))
    target_sigma_mm: float = 1.0
    mimic_threshold: float = 0.15
    stage1_threshold: float = 0.2

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON values."""
        return asdict(self)


def settings_from(
    seed: int = 0, epochs: int | None = None, steps: int | None = None, tiny: bool = False
) -> TrainingSettings:
    """Return the default recipe with another seed or length; ``tiny`` has small networks, for trials of a minute.

    ``epochs`` are those of a U-Net; a CNN, whose steps cost less, gets twice as many.

    Raises:
        BadInputError: a length is below 1.
    """
    if (epochs is not None and epochs < 1) or (steps is not None and steps < 1):
        raise BadInputError("A training needs at least one epoch of one step.", "Give larger numbers.")
    base = TrainingSettings(seed=seed)
    fits = {}
    for kind in ("unet", "cnn"):
        fit: FitSettings = getattr(base, kind)
        fits[kind] = FitSettings(
            fit.batch_sizes, _epochs(kind, epochs) or fit.epochs, steps or fit.steps, fit.learning_rate, fit.shift
        )
    architectures = {}
    if tiny:
        architectures = {
            "unet_architecture": {"kind": "unet", "stem": 8, "channels": [8, 8]},
            "cnn_architecture": {"kind": "cnn", "channels": [8, 8], "dense": [32, 16], "dropout": 0.3},
        }
    return TrainingSettings(seed=seed, **fits, **architectures)


def _epochs(kind: str, epochs: int | None) -> int | None:
    return epochs and epochs * (2 if kind == "cnn" else 1)
