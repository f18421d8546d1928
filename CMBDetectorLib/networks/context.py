"""Stage 2 with context: by themselves microbleeds and their mimics look alike; what is around a candidate decides.

Two views of one window: the candidate at full resolution, and nearly 3 cm around it at half of that. Rau et al. 2026
name the weakness of 20x20x16 voxels: there a microbleed beside dark tissue looks like a vessel.
"""

from __future__ import annotations

from typing import Any

from CMBDetectorLib.networks.layout import Layout
from CMBDetectorLib.networks.unet import MOMENTUM

DEFAULT_CONTEXT: dict[str, Any] = {
    "kind": "context", "window": [64, 64, 24], "near": [24, 24, 16], "channels": [16, 32, 64], "dense": [96],
    "dropout": 0.4, "flips": True, "stage1_weight": 0.25,
}  # fmt: skip


def build_context(architecture: dict[str, Any], name: str = "context", first: bool | None = None) -> Any:
    """Return a Keras model from (batch, *window, 1) normalised intensities to (batch, 1) probabilities.

    ``near`` is the part of ``window`` in the middle that is seen at full resolution; all of it is seen at half the
    resolution in the slice. ``first`` as for :func:`CMBDetectorLib.networks.unet.build_unet`.
    """
    from keras import Input, Model

    layers = Layout(first)
    channels = architecture["channels"]
    patch = Input((*architecture["window"], 1), name="patch")
    whole = layers.Rescaling(2.0, -1.0, name="centre")(layers.enter(patch))

    def view(x: Any, label: str, step: tuple[int, int, int]) -> Any:
        x = layers.Conv3D(channels[0], step, strides=step, name=f"{label}_stem")(x)
        for level, width in enumerate(channels):
            for part in "ab":
                x = layers.Conv3D(width, 3, padding="same", use_bias=False, name=f"{label}{level}{part}_conv")(x)
                x = layers.BatchNormalization(momentum=MOMENTUM, name=f"{label}{level}{part}_norm")(x)
                x = layers.ReLU(name=f"{label}{level}{part}_relu")(x)
            if level < len(channels) - 1:
                x = layers.MaxPooling3D(2, name=f"{label}{level}_pool")(x)
        # One number a channel and quarter of the slice would lose where the centre is; the flattened rest keeps it.
        x = layers.Conv3D(channels[-1] // 2, 1, activation="relu", name=f"{label}_squeeze")(x)
        return layers.Flatten(name=f"{label}_flatten")(x)

    margins = [(w - n) // 2 for w, n in zip(architecture["window"], architecture["near"], strict=True)]
    near = layers.Cropping3D(margins, name="near_crop")(whole)
    far = layers.AveragePooling3D((2, 2, 1), name="far_mean")(whole)
    x = layers.Concatenate(name="join", axis=-1)([view(near, "near", (2, 2, 1)), view(far, "far", (2, 2, 2))])
    for number, width in enumerate(architecture["dense"], 1):
        x = layers.Dropout(architecture["dropout"], name=f"dropout{number}")(x)
        x = layers.Dense(width, activation="relu", name=f"dense{number}")(x)
    return Model(patch, layers.Dense(1, activation="sigmoid", name="probability")(x), name=name)
