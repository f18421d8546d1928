"""Keras layers in the order of axes that the back end is fast with; weights are the same in either order."""

from __future__ import annotations

from functools import partial
from typing import Any

from CMBDetectorLib.networks import backend

_WITH_FORMAT = ("Conv3D", "Conv3DTranspose", "MaxPooling3D", "AveragePooling3D", "Cropping3D", "Flatten")
_WITH_AXIS = ("BatchNormalization", "Concatenate")


class Layout:
    """The layers of ``keras.layers`` for voxels with their channels last, as files are saved, or first.

    Networks take and give (batch, i, j, k, 1) in both cases: :meth:`enter` and :meth:`leave` move the channels.
    """

    def __init__(self, first: bool | None = None) -> None:
        """``first``: channels before the voxels; ``None`` lets the back end decide."""
        self._first = backend.channels_first() if first is None else first

    def __getattr__(self, name: str) -> Any:
        from keras import layers

        kind = getattr(layers, name)
        if not self._first:
            return kind
        if name in _WITH_FORMAT:
            return partial(kind, data_format="channels_first")
        return partial(kind, axis=1) if name in _WITH_AXIS else kind

    def enter(self, x: Any) -> Any:
        """Return ``x`` (batch, i, j, k, c) in the order of this layout."""
        from keras import layers

        return layers.Permute((4, 1, 2, 3), name="enter")(x) if self._first else x

    def leave(self, x: Any) -> Any:
        """Return ``x`` in the order of this layout as (batch, i, j, k, c)."""
        from keras import layers

        return layers.Permute((2, 3, 4, 1), name="leave")(x) if self._first else x
