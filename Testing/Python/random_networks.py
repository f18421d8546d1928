"""Networks that no training has made but that are not in their first state either."""

from __future__ import annotations

from typing import Any

import numpy as np

from CMBDetectorLib.networks import backend
from CMBDetectorLib.networks.catalogue import build


def as_trained(architecture: dict[str, Any], name: str, seed: int) -> Any:
    """Return a network with random weights, scales and running means, as after a training; channels last."""
    backend.set_seed(seed)
    model = build(architecture, name, first=False)
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if layer.name.endswith("_norm"):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model
