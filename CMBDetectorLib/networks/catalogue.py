"""Every kind of network by the name that a model card gives it."""

from __future__ import annotations

from typing import Any

from CMBDetectorLib.errors import ModelError
from CMBDetectorLib.networks.cnn import build_cnn
from CMBDetectorLib.networks.context import build_context
from CMBDetectorLib.networks.unet import WINDOW, build_unet

_KINDS = {"unet": build_unet, "cnn": build_cnn, "context": build_context}


def build(architecture: dict[str, Any], name: str, first: bool | None = None) -> Any:
    """Return an untrained Keras model of ``architecture``; ``first`` as for each of the kinds.

    Raises:
        ModelError: this program has no such kind.
    """
    if architecture.get("kind") not in _KINDS:
        raise ModelError(f"The model needs a kind of network ({architecture.get('kind')}) that this version lacks.",
                         "Install a newer version of CMBDetector.")  # fmt: skip
    return _KINDS[architecture["kind"]](architecture, name=name, first=first)


def window(architecture: dict[str, Any]) -> tuple[int, int, int]:
    """Return the voxels (i, j, k) of the windows that a network of ``architecture`` is trained on."""
    i, j, k = architecture.get("window", WINDOW)
    return int(i), int(j), int(k)
