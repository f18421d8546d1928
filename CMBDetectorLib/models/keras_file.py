"""What is inside a ``.keras`` file, looked at without Keras: whether loading it could run or read anything else.

Keras refuses code in safe mode, but that guard was got round more than once by naming classes and functions that are
not what a network is made of. Here only what this project's networks consist of is let through.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

from CMBDetectorLib.errors import ModelError
from CMBDetectorLib.models.archives import HINT, LARGEST_BYTES, opened, safe_entries

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_LARGEST_TEXT = 8 << 20
_HDF5 = b"\x89HDF\r\n\x1a\n"
_MODULES = {"keras", "keras.layers", "keras.initializers", "keras.models", "keras.src.models.functional", None}
_CLASSES = {
    # The layers of the room ``networks``, and what Keras writes around them
    "AveragePooling3D", "BatchNormalization", "Concatenate", "Conv3D", "Conv3DTranspose", "Cropping3D", "Dense",
    "Dropout", "Flatten", "InputLayer", "MaxPooling3D", "ReLU", "Rescaling", "Functional", "DTypePolicy",
    "__keras_tensor__",
    "Constant", "GlorotUniform", "Ones", "Zeros",
}  # fmt: skip
_ACTIVATIONS = {"linear", "relu", "sigmoid"}
# Deeper or more than any network's weights; hard links may form circles.
_DEEPEST, _MOST_OBJECTS = 12, 10_000


def check_network(path: Path) -> None:
    """Refuse a ``.keras`` file that is damaged, or is more than layers of this project's kinds and their weights.

    Raises:
        ModelError: it is such a file.
    """
    label = f"The network {path.name}"
    with opened(path, label) as archive:
        entries = safe_entries(archive, label, {_CONFIG, _METADATA, _WEIGHTS}.__contains__)
        if len(entries) < 3:
            raise ModelError(f"{label} is no Keras model.", HINT)
        _read_json(archive, entries[_METADATA], label)
        _check_config(_read_json(archive, entries[_CONFIG], label), label)
        # Reading to the end compares the archive's own checksum.
        weights = archive.read(entries[_WEIGHTS])
    if not weights.startswith(_HDF5):
        raise ModelError(f"{label} holds weights that are no HDF5 file.", HINT)
    _check_weights(weights, label)


def _read_json(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, label: str) -> Any:
    if entry.file_size > _LARGEST_TEXT:
        raise ModelError(f"{label} is larger than any model.", HINT)
    try:
        return json.loads(archive.read(entry))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{label} has a damaged {entry.filename}.", HINT) from error


def _check_config(config: Any, label: str) -> None:
    """Look at every object of the architecture, however deep it lies."""
    if not isinstance(config, dict) or config.get("class_name") != "Functional":
        raise ModelError(f"{label} is no network of this program.", HINT)
    waiting = [config]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            _check_object(part, label)
            waiting += part.values()


def _check_object(part: dict[str, Any], label: str) -> None:
    name = part.get("class_name")
    if name == "Lambda" or name == "__lambda__":
        raise ModelError(f"{label} holds a Lambda layer, which is code.", "Do not use this model: ask who made it.")
    if "class_name" in part or "registered_name" in part or "module" in part:
        known = isinstance(name, str) and name in _CLASSES
        module, registered = part.get("module"), part.get("registered_name")
        if not known or not _is_one_of(module, _MODULES) or not _is_one_of(registered, {None, name}):
            shown = repr(str(registered or name)[:60])
            raise ModelError(
                f"{label} holds {shown}, which is no part of this program's networks.",
                "Use a model that was trained with this program.",
            )
    for key, value in part.items():
        # A dictionary here is an object of its own and is looked at in its turn.
        if key.endswith("activation") and isinstance(value, str) and value not in _ACTIVATIONS:
            raise ModelError(f"{label} has an unknown activation {value[:60]!r}.", HINT)


def _is_one_of(value: Any, known: set[Any]) -> bool:
    return isinstance(value, str | None) and value in known


def _check_weights(data: bytes, label: str) -> None:
    """Refuse weights that lie in other files (HDF5 may point anywhere), or that unpack to more than memory holds."""
    try:
        import h5py
    except ImportError:
        # It comes with Keras: without it no network can be loaded here either.
        return
    left = [_MOST_OBJECTS, LARGEST_BYTES]

    def check(group: Any, depth: int) -> None:
        for name in group:
            left[0] -= 1
            if depth > _DEEPEST or left[0] < 0 or not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ModelError(f"{label} has weights that point elsewhere.", HINT)
            item = group[name]
            if isinstance(item, h5py.Group):
                check(item, depth + 1)
                continue
            if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "fiu" or item.external or item.is_virtual:
                raise ModelError(f"{label} has weights that are no numbers of its own.", HINT)
            left[1] -= item.nbytes
            if left[1] < 0:
                raise ModelError(f"{label} is larger than any model.", HINT)

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            check(file, 0)
    # What h5py raises for a damaged file.
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{label} has damaged weights.", HINT) from error
