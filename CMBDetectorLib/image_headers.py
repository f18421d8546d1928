"""What the header of an image file may claim: no more voxels than a scan has or the file can hold, no foreign files.

Looked at before ITK allocates what a header of a few bytes asks for, or opens the file that it names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod
from pathlib import Path

from CMBDetectorLib.errors import BadInputError

TEXT_HEADERS = (".nrrd", ".nhdr", ".mha", ".mhd")
_NRRD = (".nrrd", ".nhdr")
MOST_VOXELS = 1 << 29
"""About 800 along each axis; a head at 0.25 mm has 400 million."""

# gzip packs at most 1032 bytes into one.
_MOST_PACKED = 1100
_LARGEST_HEADER = 1 << 20
# ITK's reader of NRRD writes behind its buffer, and crashes, over a field of 1000 bytes that it does not understand;
# comments and "key:=value" may be longer.
_LONGEST_FIELD = 500
_DAMAGED = "The file is damaged or was made to do harm; export the scan again."
# What says how an image lies in a patient: NRRD's spaces and MetaImage's matrix, which has three names.
_ANATOMICAL = re.compile(
    r"space\s*:\s*((left|right)-(posterior|anterior)-(superior|inferior)(-time)?|[LR][PA][SI]T?)\s*", re.IGNORECASE
)
_DIRECTIONS = re.compile(r"space directions\s*:.*\(.*", re.IGNORECASE)
_MATRIX = re.compile(r"\s*(transformmatrix|rotation|orientation)\s*=.*", re.IGNORECASE)
_DATA_FILE = re.compile(r"\s*(?:data ?file\s*:|elementdatafile\s*=)\s*(.*)", re.IGNORECASE)
# Numbered files: a pattern for printf, and the numbers.
_PATTERN = re.compile(r"%0?\d*d")


def check_size(name: str, size: Sequence[int]) -> None:
    """Refuse an image of ``size`` voxels along its axes that is larger than any scan of a head.

    Raises:
        BadInputError: it has more than :data:`MOST_VOXELS`.
    """
    voxels = prod(int(n) for n in size)
    if voxels > MOST_VOXELS:
        raise BadInputError(
            f"{name} claims to hold {voxels:.3g} voxels, more than any scan of a head.", "Choose another scan, or crop."
        )


def check_stored(path: Path, size: Sequence[int]) -> None:
    """Refuse an image file that claims more voxels than it could hold (``size``: along its axes), however well packed.

    For files that may be packed or lie in pieces; of others ITK itself says that they are too short.

    Raises:
        BadInputError: it is too small.
    """
    check_size(path.name, size)
    stored = sum(file.stat().st_size for file in {path, *_data_files(path)} if file.is_file())
    if prod(int(n) for n in size) > stored * _MOST_PACKED:
        raise BadInputError(f"{path.name} is damaged: it is shorter than its header says.", _DAMAGED)


def check_data_files(path: Path) -> None:
    """Refuse a NRRD or MetaImage file whose voxels lie in a file that is not beside it, or whose fields are endless.

    Raises:
        BadInputError: it names another folder, a link out of its own, or something that is no file; a line of a NRRD
            header is longer than any field.
    """
    head = _head(path) if path.name.lower().endswith(_NRRD) else b""
    if head.startswith(b"NRRD"):
        for line in _header_lines(head):
            if len(line) > _LONGEST_FIELD and not line.startswith("#") and ":=" not in line:
                raise BadInputError(f"{path.name} is damaged: its header makes no sense.", _DAMAGED)
    folder = path.parent.resolve()
    for file in _data_files(path):
        is_beside = file.resolve().is_relative_to(folder)
        if not is_beside or (file.exists() and not file.is_file()):
            raise BadInputError(
                f"The voxels of {path.name} lie in another folder, or in no file at all.",
                "Put header and image file into one folder, or save the scan as one file.",
            )


def states_orientation(path: Path) -> bool:
    """Tell whether the header of a NRRD or MetaImage file says how the image lies in the patient."""
    head = _head(path)
    lines = _header_lines(head)
    wanted = (_ANATOMICAL, _DIRECTIONS) if head.startswith(b"NRRD") else (_MATRIX,)
    return all(any(pattern.fullmatch(line) for line in lines) for pattern in wanted)


def _data_files(path: Path) -> list[Path]:
    """Return the other files that the text header of ``path`` names; numbered ones as they are found."""
    if not path.name.lower().endswith(TEXT_HEADERS):
        return []
    lines = _header_lines(_head(path))
    for number, line in enumerate(lines):
        found = _DATA_FILE.fullmatch(line)
        if not found:
            continue
        value = found[1].strip()
        if value.upper() == "LOCAL":
            return []
        names = lines[number + 1 :] if value.upper().split(" ")[0] == "LIST" else [value]
        return [file for name in names if name.strip() for file in _named(path.parent, name.strip())]
    return []


def _head(path: Path) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(_LARGEST_HEADER)
    except OSError:
        return b""


def _header_lines(head: bytes) -> list[str]:
    """Return the lines of the header: up to an empty line (NRRD), or the one that names the data (MetaImage)."""
    lines: list[str] = []
    is_list = False
    for raw in head.split(b"\n"):
        line = raw.decode("utf-8", "surrogateescape").rstrip("\r")
        found = _DATA_FILE.fullmatch(line)
        # What follows is text only where the voxels lie elsewhere.
        if not line.strip() and not is_list:
            break
        lines.append(line)
        if found and line.lstrip().lower().startswith("element") and "list" not in found[1].lower():
            break
        is_list = is_list or bool(found and found[1].strip().upper().startswith("LIST"))
    return lines


def _named(folder: Path, name: str) -> list[Path]:
    pattern = name.split(" ")[0]
    if not _PATTERN.search(pattern):
        return [folder / name]
    where = folder / pattern
    numbered = re.compile(_PATTERN.sub(r"\\d+", re.escape(where.name)))
    try:
        beside = [file for file in where.parent.iterdir() if numbered.fullmatch(file.name)]
    except OSError:
        beside = []
    # Named even where none is there, so that its folder is looked at.
    return [where, *beside]
