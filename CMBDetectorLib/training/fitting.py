"""Fitting one network with a checkpoint after each epoch, so that a killed run goes on where it was.

Everything random comes from the seed, the epoch and the saved state: a run that was killed and resumed ends with the
same weights as one that was not.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.files import atomic_path
from CMBDetectorLib.networks import backend
from CMBDetectorLib.progress import Progress
from CMBDetectorLib.training.settings import FitSettings

Sampler = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]
POSITIVE_WEIGHT = 30.0
"""A voxel at the centre of a microbleed weighs this much more than one of the background, which is 150 times as
frequent: with less a short training learns to see nothing."""


@dataclass(frozen=True)
class Care:
    """How a network is trained further without losing what it knows.

    ``validate(model)`` is its loss on scans that it does not learn from. The weights of the best epoch are kept, those
    it began with included, and after ``patience`` epochs that are no better the training ends. Batch normalisation
    stays as it is: the means of a few scans are worse than those it was made with.
    """

    validate: Callable[[Any], float]
    patience: int


@dataclass
class _History:
    """What a checkpoint tells: a loss for each epoch, and with :class:`Care` the validation before the first (index 0)
    and after each, and the best weights."""

    losses: list[float] = field(default_factory=list)
    validations: list[float] = field(default_factory=list)
    best: list[np.ndarray] = field(default_factory=list)

    def note(self, validation: float, weights: list[np.ndarray]) -> None:
        if not self.validations or validation < min(self.validations):
            self.best = weights
        self.validations.append(validation)

    def is_over(self, patience: int) -> bool:
        return len(self.validations) - 1 - int(np.argmin(self.validations)) >= patience


def fit(
    build: Callable[[], Any],
    sample: Sampler,
    settings: FitSettings,
    batch_size: int,
    seed: int,
    checkpoint: Path,
    progress: Progress,
    stage: str,
    initial: Sequence[np.ndarray] | None = None,
    before_epoch: Callable[[Any, int], None] | None = None,
    care: Care | None = None,
) -> Any:
    """Return the network that ``build`` makes, fitted to what ``sample(rng, count)`` draws.

    ``checkpoint`` (.npz) holds the state after each epoch; where it exists the run goes on from it. The learning rate
    rises over the first epoch and falls to 0 along a cosine. ``initial`` are weights to start from instead of random
    ones. ``before_epoch(model, epochs done)`` is called before each epoch, the first of a resumed run included, and may
    change what ``sample`` draws. With ``care`` the network of the best epoch is returned, not that of the last.

    Raises:
        BadInputError: the checkpoint is damaged or belongs to another recipe.
    """
    progress.plan([(stage, 1.0)])
    backend.set_seed(seed)
    model = build()
    if initial is not None:
        model.set_weights(initial)
    if care is not None:
        _freeze_norms(model)
    model.compile(optimizer=_optimizer(settings), loss=centre_loss)
    model.optimizer.build(model.trainable_variables)
    recipe = json.dumps([settings.__dict__ | {"batch": batch_size, "seed": seed}, model.count_params()], default=list)
    history = _restore(model, checkpoint, recipe)
    if care is not None and not history.validations:
        history.note(care.validate(model), copied_weights(model))
    steps = settings.epochs * settings.steps
    progress.report(stage, len(history.losses) * settings.steps, steps)
    for epoch in range(len(history.losses), settings.epochs):
        if care is not None and history.is_over(care.patience):
            break
        if before_epoch is not None:
            before_epoch(model, epoch)
        # PyTorch draws dropout from a state that no checkpoint holds.
        backend.set_seed(seed * 1009 + epoch)
        rng = np.random.default_rng([seed, epoch])
        epoch_loss = 0.0
        for step in range(settings.steps):
            epoch_loss += _one_step(model, *sample(rng, batch_size))
            progress.report(stage, epoch * settings.steps + step + 1, steps)
        history.losses.append(epoch_loss / settings.steps)
        if care is not None:
            history.note(care.validate(model), copied_weights(model))
        _save(model, checkpoint, recipe, history)
        validation = history.validations[-1] if care is not None else None
        progress.epoch(stage, epoch + 1, settings.epochs, history.losses[-1], validation)
    progress.report(stage, steps, steps)
    if care is not None:
        model.set_weights(history.best)
    return model


def _one_step(model: Any, windows: np.ndarray, targets: np.ndarray) -> float:
    with backend.memory_guard(), backend.mixed_precision():
        loss = float(model.train_on_batch(windows, targets))
        # Without this Keras would return the mean since the network was built.
        model.reset_metrics()
    return loss


def copied_weights(model: Any) -> list[np.ndarray]:
    """Return the weights of ``model`` as they are now: PyTorch's own arrays would change with the training."""
    return [np.array(weight) for weight in model.get_weights()]


def go_part_of_the_way(model: Any, start: Sequence[np.ndarray], share: float) -> None:
    """Set the weights of a trained ``model`` back to ``share`` (0 to 1) of the way from ``start``, those it began with.

    There it has learnt much of what is new and forgotten little (Wortsman et al. 2022,
    doi:10.1109/CVPR52688.2022.00780). At 1 nothing changes.
    """
    trained = model.get_weights()
    model.set_weights([(1 - share) * old + share * new for old, new in zip(start, trained, strict=True)])


def centre_loss(target: Any, answer: Any) -> Any:
    """Return the binary cross-entropy of ``answer`` (likelihoods) against the centre map ``target``, each voxel
    weighted by ``1 + 30 * target`` for maps; plain for the labels of stage 2, of which half are positive."""
    from keras import ops

    # In bfloat16 1 - 1e-6 would be 1.
    answer = ops.clip(ops.cast(answer, "float32"), 1e-6, 1 - 1e-6)
    entropy = -(target * ops.log(answer) + (1 - target) * ops.log(1 - answer))
    is_map = len(target.shape) == 5
    return ops.mean(entropy * (1 + POSITIVE_WEIGHT * target) if is_map else entropy)


def _optimizer(settings: FitSettings) -> Any:
    from keras import optimizers

    steps = settings.epochs * settings.steps
    rise = min(settings.steps, max(1, steps // 10))
    rate = optimizers.schedules.CosineDecay(
        settings.learning_rate / 20, max(1, steps - rise), warmup_target=settings.learning_rate, warmup_steps=rise
    )
    return optimizers.Adam(rate, clipnorm=1.0)


def _variables(model: Any) -> list[Any]:
    """Return all that a resumed run needs: weights, running means, states of the random layers and the optimizer."""
    return [*model.variables, *model.optimizer.variables]


def _freeze_norms(model: Any) -> None:
    for layer in model.layers:
        if layer.name.endswith("_norm") or layer.name.startswith("norm"):
            layer.trainable = False


def _save(model: Any, checkpoint: Path, recipe: str, history: _History) -> None:
    arrays = {f"v{number}": np.asarray(variable) for number, variable in enumerate(_variables(model))}
    arrays |= {f"best{number}": array for number, array in enumerate(history.best)}
    told = {"losses": np.array(history.losses), "validations": np.array(history.validations)}
    with atomic_path(checkpoint) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, recipe=np.array(recipe), **told, **arrays)


def _restore(model: Any, checkpoint: Path, recipe: str) -> _History:
    """Put the saved state into ``model``; return what is known of the epochs that are done."""
    if not checkpoint.is_file():
        return _History()
    try:
        with np.load(checkpoint, allow_pickle=False) as saved:
            if str(saved["recipe"]) != recipe:
                raise BadInputError(
                    f"The unfinished training {checkpoint.parent.name} was started with other settings.",
                    "Repeat the command with the settings it was started with, or without --resume.",
                )
            validations = [float(v) for v in saved["validations"]] if "validations" in saved else []
            best = [saved[f"best{number}"] for number in range(len(model.weights))] if validations else []
            history = _History([float(v) for v in saved["losses"]], validations, best)
            values = [saved[f"v{number}"] for number in range(len(_variables(model)))]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise BadInputError(
            f"The checkpoint {checkpoint.name} is damaged.", "Start the training again without --resume."
        ) from error
    for variable, value in zip(_variables(model), values, strict=True):
        variable.assign(value)
    return history
