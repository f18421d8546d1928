"""Stage 2: a 3D CNN that tells from the 20x20x16 voxels around a candidate whether its centre is a microbleed.

Layers after Dou et al. 2016 (doi 10.1109/TMI.2016.2528129), with the batch normalisation that Rau et al. 2026 add.
"""

from __future__ import annotations

from typing import Any

from CMBDetectorLib.networks.unet import MOMENTUM, WINDOW

DEFAULT_CNN: dict[str, Any] = {"kind": "cnn", "channels": [32, 64], "dense": [500, 100], "dropout": 0.3}
"""About 1.36 million parameters, nearly all in the first dense layer."""


def build_cnn(architecture: dict[str, Any] | None = None, name: str = "cnn") -> Any:
    """Return a Keras model from (batch, 20, 20, 16, 1) normalised intensities to (batch, 1) probabilities."""
    from keras import Input, Model, layers

    architecture = architecture or DEFAULT_CNN
    first, second = architecture["channels"]
    patch = Input((*WINDOW, 1), name="patch")
    x = layers.Rescaling(2.0, -1.0, name="centre")(patch)
    x = layers.Conv3D(first, (7, 7, 5), use_bias=False, name="conv1")(x)
    x = layers.BatchNormalization(momentum=MOMENTUM, name="norm1")(x)
    x = layers.MaxPooling3D(2, name="pool1")(x)
    x = layers.ReLU(name="relu1")(x)
    x = layers.Conv3D(second, (5, 5, 3), use_bias=False, name="conv2")(x)
    x = layers.BatchNormalization(momentum=MOMENTUM, name="norm2")(x)
    x = layers.ReLU(name="relu2")(x)
    x = layers.Flatten(name="flatten")(x)
    for number, width in enumerate(architecture["dense"], 1):
        x = layers.Dense(width, activation="relu", name=f"dense{number}")(x)
        x = layers.Dropout(architecture["dropout"], name=f"dropout{number}")(x)
    return Model(patch, layers.Dense(1, activation="sigmoid", name="probability")(x), name=name)
