"""Stage 1: a 3D U-Net that turns an image into a likelihood map of the same size.

The paper gives the window (20x20x16 voxels) and batch normalisation, but neither depth nor channels. A window of 0.45 x
0.45 x 1 mm voxels is twice as coarse through the slices as in them, so the first step halves the in-plane resolution
alone, with 2x2x1 kernels that keep every voxel's value in a channel of its own; all further work is done at nearly
isotropic resolution, which makes whole-brain inference about four times cheaper than a U-Net that starts at full
resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from CMBDetectorLib.networks.layout import Layout

WINDOW = (20, 20, 16)
"""The paper's window in voxels (i, j, k)."""
MOMENTUM = 0.9
"""Of the running means of batch normalisation: a small dataset is learnt in few steps, and the means must keep up."""


def stride(architecture: dict[str, Any]) -> tuple[int, int, int]:
    """Return what the sides of an input of this U-Net must be multiples of, in voxels (i, j, k)."""
    depth = len(architecture["channels"]) - 1
    return 2 * 2**depth, 2 * 2**depth, 2**depth


def margin(architecture: dict[str, Any]) -> tuple[int, int, int]:
    """Return how far a voxel of the map looks around in the input, in voxels (i, j, k): half the receptive field."""
    depth = len(architecture["channels"]) - 1
    # Two 3x3x3 convolutions a level on the way down and, but for the deepest, on the way up; pooling adds the rest.
    reach = sum(2 * 2**level * (2 if level < depth else 1) for level in range(depth + 1)) + 2**depth
    return 2 * reach, 2 * reach, reach


def operations_per_voxel(architecture: dict[str, Any]) -> float:
    """Return the floating-point operations that one voxel costs, a multiplication and an addition counting as two."""
    channels = architecture["channels"]
    inputs = [architecture["stem"], *channels[:-1]]
    total = 0.0
    for level, (before, width) in enumerate(zip(inputs, channels, strict=True)):
        products = 27 * (before * width + width * width)
        if level < len(channels) - 1:  # the way up: enlarging, then two convolutions on twice the channels
            products += channels[level + 1] * width + 27 * 3 * width * width
        total += products / (4 * 8**level)
    return 2 * (total + architecture["stem"] + channels[0])


def build_unet(
    architecture: dict[str, Any] | None = None, batch_norm: bool = True, name: str = "unet", first: bool | None = None
) -> Any:
    """Return a Keras model from (batch, i, j, k, 1) normalised intensities to likelihoods of the same shape.

    ``architecture`` has ``stem`` (channels after the 2x2x1 step) and ``channels`` (one number a level). Sides must be
    multiples of :func:`stride`. With ``batch_norm=False`` each convolution has a bias instead, as :func:`fold` needs.
    ``first``: channels before the voxels inside (None: as the back end likes it); weights and answers are the same.
    """
    from keras import Input, Model

    architecture = architecture or DEFAULT_UNET
    channels: Sequence[int] = architecture["channels"]
    layers = Layout(first)
    image = Input((None, None, None, 1), name="image")
    # Brain tissue (0.5 after normalisation) becomes 0, so that the zeros a convolution pads with look like tissue and
    # not like a dark void at every border of a window.
    x = layers.Rescaling(2.0, -1.0, name="centre")(layers.enter(image))
    x = layers.Conv3D(architecture["stem"], (2, 2, 1), strides=(2, 2, 1), name="stem")(x)

    def block(x: Any, width: int, label: str) -> Any:
        for step in "ab":
            x = layers.Conv3D(width, 3, padding="same", use_bias=not batch_norm, name=f"{label}{step}_conv")(x)
            if batch_norm:
                x = layers.BatchNormalization(momentum=MOMENTUM, name=f"{label}{step}_norm")(x)
            x = layers.ReLU(name=f"{label}{step}_relu")(x)
        return x

    skips = []
    for level, width in enumerate(channels[:-1]):
        x = block(x, width, f"down{level}")
        skips.append(x)
        x = layers.MaxPooling3D(2, name=f"pool{level}")(x)
    x = block(x, channels[-1], "bottom")
    for level in reversed(range(len(channels) - 1)):
        x = layers.Conv3DTranspose(channels[level], 2, strides=2, name=f"enlarge{level}")(x)
        x = layers.Concatenate(name=f"join{level}")([skips[level], x])
        x = block(x, channels[level], f"up{level}")
    likelihood = layers.Conv3DTranspose(
        1, (2, 2, 1), strides=(2, 2, 1), activation="sigmoid", bias_initializer=_rare(), name="likelihood"
    )(x)
    return Model(image, layers.leave(likelihood), name=name)


DEFAULT_UNET: dict[str, Any] = {"kind": "unet", "stem": 8, "channels": [16, 32]}
"""About 77 000 parameters: chosen so that two of them search a whole brain in seconds on two cores."""


CONTEXT_UNET: dict[str, Any] = {"kind": "unet", "stem": 8, "channels": [16, 32, 64], "window": [48, 48, 24]}
"""One level deeper: sees 2 cm around a voxel instead of 1, for a third more work; 343 000 parameters."""


def lower_likelihood(model: Any, logit: float) -> None:
    """Lower what ``model`` answers by ``logit`` on the logistic scale, everywhere: its order stays the same."""
    layer = model.get_layer("likelihood")
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel, bias - logit])


def fold(model: Any, architecture: dict[str, Any]) -> Any:
    """Return ``model`` with each batch normalisation folded into its convolution: the same map, 1.5 times faster.

    With running mean m and variance v, scale g and shift b, ``g * (w*x - m) / sqrt(v + eps) + b`` is a convolution
    with weights ``w * g / sqrt(v + eps)`` and bias ``b - m * g / sqrt(v + eps)``.
    """
    folded = build_unet(architecture, batch_norm=False, name=f"{model.name}_folded")
    for layer in folded.layers:
        if not layer.weights:
            continue
        if layer.name.endswith("_conv"):
            norm = model.get_layer(layer.name.replace("_conv", "_norm"))
            gamma, beta, mean, variance = norm.get_weights()
            scale = gamma / (variance + norm.epsilon) ** 0.5
            (kernel,) = model.get_layer(layer.name).get_weights()
            layer.set_weights([kernel * scale, beta - mean * scale])
        else:
            layer.set_weights(model.get_layer(layer.name).get_weights())
    return folded


def _rare() -> Any:
    """Return a bias that makes an untrained network answer about 0.01: most voxels are no microbleed."""
    from keras import initializers

    return initializers.Constant(-4.6)
