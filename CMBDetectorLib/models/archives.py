"""Zip archives from strangers: nothing is read or written before names, kinds and sizes are found harmless."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from CMBDetectorLib.errors import ModelError

LARGEST_BYTES = 1 << 30
"""Size of the largest model, unpacked; the bundled one has 12 MB."""
HINT = "Ask for the model again, as one file made by: cmbdetector models export."

_MOST_ENTRIES = 64
_ENCRYPTED = 0x1
# What zipfile raises for archives that are torn, altered or of a kind that it does not know.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError,
    OverflowError,
)  # fmt: skip


@contextmanager
def opened(source: Path | IO[bytes], label: str) -> Iterator[zipfile.ZipFile]:
    """Yield the archive ``source``; whatever shows later that it is damaged becomes a :class:`ModelError`, too."""
    try:
        archive = zipfile.ZipFile(source)
    except (*_DAMAGE, OSError) as error:
        raise ModelError(f"{label} is not a complete zip archive.", HINT) from error
    with archive:
        try:
            yield archive
        except _DAMAGE as error:
            raise ModelError(f"{label} is damaged.", HINT) from error


def safe_entries(
    archive: zipfile.ZipFile, label: str, may_hold: Callable[[str], bool], limit: int = LARGEST_BYTES
) -> dict[str, zipfile.ZipInfo]:
    """Return the entries by name, all of them plain files that ``may_hold`` knows, of ``limit`` bytes together.

    Raises:
        ModelError: an entry is anything else.
    """
    entries = archive.infolist()
    if len(entries) > _MOST_ENTRIES or sum(entry.file_size for entry in entries) > limit:
        raise ModelError(f"{label} is larger than any model.", HINT)
    # Of a torn archive zipfile may find one that lies in it; and nothing else may stand in front.
    if min((entry.header_offset for entry in entries), default=0):
        raise ModelError(f"{label} is not a complete zip archive.", HINT)
    names: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        name = entry.orig_filename
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in name or "\0" in name:
            raise ModelError(f"{label} holds a file that would be written outside its folder.", HINT)
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            raise ModelError(f"{label} holds a link or something else that is no file.", HINT)
        if not may_hold(name):
            raise ModelError(f"{label} holds {_shown(name)}, which belongs to no model.", HINT)
        if name.lower() in (known.lower() for known in names):
            raise ModelError(f"{label} holds {name} twice.", HINT)
        if entry.flag_bits & _ENCRYPTED or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ModelError(f"{label} is encrypted or packed in an unusual way.", HINT)
        names[name] = entry
    return names


def copy_stream(stream: IO[bytes], target: Path, limit: int, label: str) -> int:
    """Copy ``stream`` to the new file ``target`` and return its size; what an archive claims is not trusted.

    Raises:
        ModelError: it cannot be read, or has more than ``limit`` bytes.
        OSError: the file cannot be written.
    """
    size = 0
    with open(target, "xb") as out:
        while True:
            try:
                block = stream.read(1 << 20)
            except OSError as error:
                raise ModelError(f"{label} cannot be read.", "Check the file and the drive.") from error
            if not block:
                return size
            size += len(block)
            if size > limit:
                raise ModelError(f"{label} is larger than any model.", HINT)
            out.write(block)


def _shown(name: str) -> str:
    """Return a stranger's file name for a message: no control characters, no essay."""
    return repr(name[:60])
