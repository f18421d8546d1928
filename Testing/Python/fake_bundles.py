"""Small bundles with networks of a few bytes, for the tests of the registry."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import warnings
import zipfile
from pathlib import Path

import pytest

from CMBDetectorLib.models.bundle import card_text
from CMBDetectorLib.models.registry import Registry

h5py = pytest.importorskip("h5py")
DENSE = {
    "module": "keras.layers", "class_name": "Dense", "registered_name": None,
    "config": {"name": "dense", "units": 1, "activation": "sigmoid"},
}  # fmt: skip


def layer(**changes) -> dict:
    return {**DENSE, **changes}


def network_config(*layers) -> dict:
    config = {"name": "net", "layers": list(layers or [DENSE])}
    return {
        "module": "keras.src.models.functional", "class_name": "Functional", "registered_name": "Functional",
        "config": config,
    }  # fmt: skip


@functools.cache
def weights(number: float = 0.0) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["layers/dense/vars/0"] = [number] * 64
    return buffer.getvalue()


def keras_bytes(config=None, data: bytes | None = None, more: dict[str, bytes] | None = None) -> bytes:
    """Return a ``.keras`` file: the zip archive that Keras would write."""
    members = {"metadata.json": b"{}", "config.json": json.dumps(config or network_config()).encode()}
    members |= {"model.weights.h5": weights() if data is None else data, **(more or {})}
    return zip_bytes(members)


def zip_bytes(members, method=zipfile.ZIP_STORED) -> bytes:
    """Return an archive of (name or ZipInfo, content) pairs, or of a mapping."""
    buffer = io.BytesIO()
    pairs = members.items() if isinstance(members, dict) else members
    with zipfile.ZipFile(buffer, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of duplicate names
        for name, data in pairs:
            # A time of its own would give the same bundle another checksum two seconds later.
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)
            archive.writestr(info, data, method)
    return buffer.getvalue()


def card_of(name: str = "local", version: str = "1", **changes) -> dict:
    networks = {
        "unets": [{"file": "unet.keras", "architecture": {"kind": "unet"}}],
        "cnns": [{"file": "cnn.keras", "architecture": {"kind": "cnn"}}],
    }
    card = {
        "name": name, "version": version, "parent": None, "created": "2026-11-22", "description": "A fake.",
        "training_data": "Trained on nothing.", "licence": "Apache-2.0", "metrics": {}, "networks": networks,
        "spacing_mm": [0.45, 0.45, 1.0], "window": [20, 20, 16],
        "thresholds": {"stage1": 0.2, "mimics": 0.15, "shown": 0.9},
    }  # fmt: skip
    return {**card, **changes}


def fake(folder: Path, name="local", version="1", number=0.0, unet: bytes | None = None, **changes) -> Path:
    """Write a small bundle; ``number`` sets its weights apart from those of others."""
    files = {"unet.keras": keras_bytes(data=weights(number)) if unet is None else unet, "cnn.keras": keras_bytes()}
    checksums = {file: hashlib.sha256(data).hexdigest() for file, data in files.items()}
    card = {"schema": 1, **card_of(name, version, **changes), "files": checksums}
    files["model.json"] = json.dumps(card, ensure_ascii=False).encode()
    files["README.md"] = card_text(card).encode()
    folder.mkdir()
    for file, data in files.items():
        (folder / file).write_bytes(data)
    return folder


def members_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def own(registry: Registry) -> list[str]:
    return [version.reference for version in registry.versions() if not version.is_bundled]


def assert_clean(registry: Registry, *references: str) -> None:
    """Exactly these models are installed and whole, and nothing temporary lies about."""
    assert own(registry) == list(references)
    for reference in references:
        registry.load(reference)
    left = {path.name for path in registry.folder.iterdir() if path.name.startswith(".")}
    assert not left
