"""More channels for a trained stage 2 without losing what it knows: a network that learns no more gets room to.

After Chen et al. 2016 (Net2Net, arXiv 1511.05641): the wider network begins as the same function. Here its new features
are random instead of copies, and nothing listens to them yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from CMBDetectorLib.errors import ModelError
from CMBDetectorLib.networks.catalogue import build

_VIEWS = ("near", "far")


def widened_architecture(architecture: dict[str, Any], channels: Sequence[int]) -> dict[str, Any]:
    """Return ``architecture`` (kind ``context``) with ``channels``, one number a level.

    Raises:
        ModelError: another kind of network, or a level would become narrower.
    """
    known = architecture.get("channels", [])
    if architecture.get("kind") != "context":
        raise ModelError("Only CNNs of the recipe context can become wider.", "Train new ones with --recipe context.")
    if len(channels) != len(known) or any(new < old for new, old in zip(channels, known, strict=True)):
        raise ModelError(
            f"CNNs with {list(known)} channels cannot become {list(channels)}.", "Give as many or more for each level."
        )
    return {**architecture, "channels": list(channels)}


def widened(model: Any, architecture: dict[str, Any]) -> Any:
    """Return a Keras model of ``architecture``, a :func:`widened_architecture`, that answers as ``model`` does."""
    result = build(architecture, model.name, first=False)
    for layer in result.layers:
        old, new = model.get_layer(layer.name).get_weights(), layer.get_weights()
        if layer.name == "dense1":
            new = [_rows_spread(old[0], new[0], model, result), old[1]]
        else:
            for before, after in zip(old, new, strict=True):
                _put(before, after)
        layer.set_weights(new)
    return result


def _put(before: np.ndarray, after: np.ndarray) -> None:
    """Copy weights, one a feature or (..., inputs, features), into larger ones; old features do not hear new inputs."""
    if before.ndim > 1:
        after[..., before.shape[-2] :, : before.shape[-1]] = 0
    after[tuple(slice(n) for n in before.shape)] = before


def _rows_spread(before: np.ndarray, after: np.ndarray, model: Any, wider: Any) -> np.ndarray:
    """Return the weights of the first dense layer, whose inputs are the positions and features of both views."""
    after = np.zeros_like(after)
    start = goal = 0
    for view in _VIEWS:
        *positions, narrow = model.get_layer(f"{view}_flatten").input.shape[1:]
        wide = wider.get_layer(f"{view}_flatten").input.shape[-1]
        count = int(np.prod(positions))
        rows = before[start : start + count * narrow].reshape(count, narrow, -1)
        after[goal : goal + count * wide].reshape(count, wide, -1)[:, :narrow] = rows
        start, goal = start + count * narrow, goal + count * wide
    return after
