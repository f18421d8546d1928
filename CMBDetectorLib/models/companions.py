"""What a bundle may hold beside its networks: windows to learn from again, and how it compared with its parent."""

from __future__ import annotations

import ast
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from CMBDetectorLib.errors import ModelError
from CMBDetectorLib.models.archives import HINT, opened, safe_entries

REPLAY = "replay.npz"
COMPARISON = "comparison.json"
PLOT = "comparison.png"
COMPANIONS = (REPLAY, COMPARISON, PLOT)
WINDOW = (64, 64, 24)
"""Voxels of a replayed window: the largest that a network of this program is trained on."""
SCALE = 200
"""A voxel of a replayed window is this times its normalised intensity, at most 255; 0 stays for what is no brain."""

MOST_WINDOWS = 2000
_MOST_CENTRES = 20_000
_LARGEST = {REPLAY: 256 << 20, COMPARISON: 16 << 20, PLOT: 16 << 20}
_PNG = b"\x89PNG\r\n\x1a\n"
_ARRAYS = {"windows": "u1", "labels": "u1", "centres": "f4", "counts": "i4", "stored_mm": "f4"}


def check_companion(path: Path) -> None:
    """Refuse a companion (named as one of :data:`COMPANIONS`) that is damaged, too large or something else.

    Raises:
        ModelError: it is such a file.
    """
    if path.stat().st_size > _LARGEST[path.name]:
        raise ModelError(f"{path.name} is larger than that of any model.", HINT)
    if path.name == REPLAY:
        read_replay(path)
    elif path.name == COMPARISON:
        read_comparison(path)
    else:
        with open(path, "rb") as stream:
            if stream.read(len(_PNG)) != _PNG:
                raise ModelError(f"{path.name} is no picture.", HINT)


def read_comparison(path: Path) -> dict[str, Any]:
    """Return the content of a ``comparison.json``.

    Raises:
        ModelError: it is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != 1 or not isinstance(content["verdict"], str):
            raise ValueError("no comparison")
        json.dumps(content, allow_nan=False)
        return content
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{path.name} is damaged.", HINT) from error


def read_replay(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a ``replay.npz``: ``windows`` (n, 64, 64, 24) uint8, ``labels`` (n,) uint8 (1: centred on
    a microbleed), ``centres`` (m, 3) float32 (all microbleeds of all windows, voxels of theirs), ``counts`` (n,) int32,
    ``stored_mm`` (n, 3) float32 (voxels of each window's scan).

    Headers are looked at before anything is unpacked; nothing in the file is ever run.

    Raises:
        ModelError: it is damaged or something else.
    """
    label = path.name
    try:
        with opened(path, label) as archive:
            entries = safe_entries(archive, label, {f"{name}.npy" for name in _ARRAYS}.__contains__, _LARGEST[REPLAY])
            if len(entries) != len(_ARRAYS):
                raise ModelError(f"{label} lacks a part.", HINT)
            shapes = {name: _shape(archive, entries[f"{name}.npy"], kind) for name, kind in _ARRAYS.items()}
        count = shapes["labels"][0]
        fits = shapes["windows"] == (count, *WINDOW) and shapes["counts"] == (count,) and 1 <= count <= MOST_WINDOWS
        if not fits or shapes["labels"] != (count,) or shapes["centres"][1:] != (3,):
            raise ValueError("shapes")
        if shapes["stored_mm"] != (count, 3):
            raise ValueError("shapes")
        if shapes["centres"][0] > _MOST_CENTRES:
            raise ValueError("too many centres")
        with np.load(path, allow_pickle=False) as saved:
            arrays = {name: saved[name] for name in _ARRAYS}
        if (arrays["counts"] < 0).any() or int(arrays["counts"].sum(dtype=np.int64)) != len(arrays["centres"]):
            raise ValueError("counts")
        if not np.isfinite(arrays["centres"]).all() or arrays["labels"].max() > 1:
            raise ValueError("values")
        if not ((arrays["stored_mm"] > 0) & (arrays["stored_mm"] < 100)).all():
            raise ValueError("values")
        return arrays
    # The header of an array is Python's notation: whatever its parser says of a made-up one.
    except (OSError, ValueError, LookupError, EOFError, SyntaxError, RecursionError, zipfile.BadZipFile) as error:
        raise ModelError(f"{label} is damaged.", HINT) from error


def _shape(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, kind: str) -> tuple[int, ...]:
    """Return the shape that the header of one array states, having made sure of its type and size.

    Raises:
        ValueError: it is no such array.
    """
    with archive.open(entry) as stream:
        # numpy's own reader of headers is not for strangers' files of any length.
        magic = stream.read(10)
        if magic[:8] != b"\x93NUMPY\x01\x00":
            raise ValueError("header")
        (length,) = struct.unpack("<H", magic[8:])
        header = ast.literal_eval(stream.read(length).decode("latin-1").strip()) if length < 1000 else None
    if not isinstance(header, dict) or header.get("fortran_order") is not False:
        raise ValueError("header")
    dtype, shape = header.get("descr"), header.get("shape")
    if dtype != np.dtype(kind).str or not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("header")
    if not 1 <= len(shape) <= 4 or int(np.prod(shape, dtype=object)) * np.dtype(kind).itemsize > entry.file_size:
        raise ValueError("size")
    return shape
