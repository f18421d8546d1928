"""Fitting one network with a checkpoint after each epoch, so that a killed run goes on where it was.

Everything random comes from the seed, the epoch and the saved state: a run that was killed and resumed ends with the
same weights as one that was not.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
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
) -> Any:
    """Return the network that ``build`` makes, fitted to what ``sample(rng, count)`` draws.

    ``checkpoint`` (.npz) holds the state after each epoch; where it exists the run goes on from it. The learning rate
    rises over the first epoch and falls to 0 along a cosine. ``initial`` are weights to start from instead of random
    ones. ``before_epoch(model, epochs done)`` is called before each epoch, the first of a resumed run included, and may
    change what ``sample`` draws.

    Raises:
        BadInputError: the checkpoint is damaged or belongs to another recipe.
    """
    backend.set_seed(seed)
    model = build()
    if initial is not None:
        model.set_weights(initial)
    model.compile(optimizer=_optimizer(settings), loss=centre_loss)
    model.optimizer.build(model.trainable_variables)
    recipe = json.dumps([settings.__dict__ | {"batch": batch_size, "seed": seed}, model.count_params()], default=list)
    done, losses = _restore(model, checkpoint, recipe)
    steps = settings.epochs * settings.steps
    progress.report(stage, done * settings.steps, steps)
    for epoch in range(done, settings.epochs):
        if before_epoch is not None:
            before_epoch(model, epoch)
        rng = np.random.default_rng([seed, epoch])
        epoch_loss = 0.0
        for step in range(settings.steps):
            with backend.memory_guard():
                epoch_loss += float(model.train_on_batch(*sample(rng, batch_size)))
                # Without this Keras would return the mean since the network was built.
                model.reset_metrics()
            progress.report(stage, epoch * settings.steps + step + 1, steps)
        losses.append(epoch_loss / settings.steps)
        _save(model, checkpoint, recipe, losses)
        progress.log(f"{stage}: epoch {epoch + 1} of {settings.epochs}, loss {losses[-1]:.4f}")
    return model


def centre_loss(target: Any, answer: Any) -> Any:
    """Return the binary cross-entropy of ``answer`` (likelihoods) against the centre map ``target``, each voxel
    weighted by ``1 + 30 * target`` for maps; plain for the labels of stage 2, of which half are positive."""
    from keras import ops

    answer = ops.clip(answer, 1e-6, 1 - 1e-6)
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


def _save(model: Any, checkpoint: Path, recipe: str, losses: list[float]) -> None:
    arrays = {f"v{number}": np.asarray(variable) for number, variable in enumerate(_variables(model))}
    with atomic_path(checkpoint) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, recipe=np.array(recipe), losses=np.array(losses), **arrays)


def _restore(model: Any, checkpoint: Path, recipe: str) -> tuple[int, list[float]]:
    """Put the saved state into ``model``; return how many epochs are done and their losses."""
    if not checkpoint.is_file():
        return 0, []
    try:
        with np.load(checkpoint, allow_pickle=False) as saved:
            if str(saved["recipe"]) != recipe:
                raise BadInputError(
                    f"The unfinished training {checkpoint.parent.name} was started with other settings.",
                    "Repeat the command with the settings it was started with, or without --resume.",
                )
            losses = [float(v) for v in saved["losses"]]
            values = [saved[f"v{number}"] for number in range(len(_variables(model)))]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise BadInputError(
            f"The checkpoint {checkpoint.name} is damaged.", "Start the training again without --resume."
        ) from error
    for variable, value in zip(_variables(model), values, strict=True):
        variable.assign(value)
    return len(losses), losses
