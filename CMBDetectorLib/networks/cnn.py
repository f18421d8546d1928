"""Stage 2: a 3D CNN that tells from the 20x20x16 voxels around a candidate whether its centre is a microbleed.

Layers after Dou et al. 2016 (doi 10.1109/TMI.2016.2528129), with the batch normalisation that Rau et al. 2026 add.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from CMBDetectorLib.networks.layout import Layout
from CMBDetectorLib.networks.unet import MOMENTUM, WINDOW

DEFAULT_CNN: dict[str, Any] = {"kind": "cnn", "channels": [32, 64], "dense": [500, 100], "dropout": 0.3}
"""About 1.36 million parameters, nearly all in the first dense layer."""


_KERNEL = (7, 7, 5)


def build_cnn(
    architecture: dict[str, Any] | None = None, name: str = "cnn", unfolded: bool = False, first: bool | None = None
) -> Any:
    """Return a Keras model from (batch, 20, 20, 16, 1) normalised intensities to (batch, 1) probabilities.

    With ``unfolded`` the input is what :func:`unfold` makes of the windows, and the first convolution a matrix
    product with the same weights: on a processor its gradient is then five times faster, and half of a training step.
    :func:`refold` brings such a model back. ``first`` as for :func:`CMBDetectorLib.networks.unet.build_unet`.
    """
    from keras import Input, Model

    architecture = architecture or DEFAULT_CNN
    layers = Layout(False if unfolded else first)
    narrow, wide = architecture["channels"]
    if unfolded:
        positions = [n - k + 1 for n, k in zip(WINDOW, _KERNEL, strict=True)]
        patch = Input((*positions, _KERNEL[0] * _KERNEL[1] * _KERNEL[2]), name="patch")
        convolution = layers.Dense(narrow, use_bias=False, name="conv1")
    else:
        patch = Input((*WINDOW, 1), name="patch")
        convolution = layers.Conv3D(narrow, _KERNEL, use_bias=False, name="conv1")
    x = layers.Rescaling(2.0, -1.0, name="centre")(patch if unfolded else layers.enter(patch))
    x = convolution(x)
    x = layers.BatchNormalization(momentum=MOMENTUM, name="norm1")(x)
    x = layers.MaxPooling3D(2, name="pool1")(x)
    x = layers.ReLU(name="relu1")(x)
    x = layers.Conv3D(wide, (5, 5, 3), use_bias=False, name="conv2")(x)
    x = layers.BatchNormalization(momentum=MOMENTUM, name="norm2")(x)
    x = layers.ReLU(name="relu2")(x)
    x = layers.Flatten(name="flatten")(x)
    for number, width in enumerate(architecture["dense"], 1):
        x = layers.Dense(width, activation="relu", name=f"dense{number}")(x)
        x = layers.Dropout(architecture["dropout"], name=f"dropout{number}")(x)
    return Model(patch, layers.Dense(1, activation="sigmoid", name="probability")(x), name=name)


def unfold(windows: np.ndarray) -> np.ndarray:
    """Return windows (n, 20, 20, 16, 1) as (n, 14, 14, 12, 245): for each position the voxels under the kernel."""
    views = np.lib.stride_tricks.sliding_window_view(windows[..., 0], _KERNEL, axis=(1, 2, 3))
    return views.reshape(*views.shape[:4], -1)


def refold(model: Any, architecture: dict[str, Any]) -> Any:
    """Return the ordinary model with the weights of the unfolded ``model``."""
    ordinary = build_cnn(architecture, name=model.name)
    for layer in ordinary.layers:
        weights = [w.reshape(target.shape) for w, target in zip(
            model.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True
        )]  # fmt: skip
        layer.set_weights(weights)
    return ordinary
