"""Annotations made elsewhere, in any of the files they come in: tables, Slicer's point lists, label maps."""

from __future__ import annotations

import codecs
from dataclasses import replace
from pathlib import Path
from typing import Literal

from CMBDetectorLib.datasets.bids import Point
from CMBDetectorLib.datasets.label_maps import read_label_map
from CMBDetectorLib.datasets.places import check_distinct, check_inside
from CMBDetectorLib.datasets.point_tables import Places, read_table
from CMBDetectorLib.datasets.slicer_points import read_fcsv, read_markups
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.volume import Volume, ras_to_lps

Space = Literal["RAS", "LPS"]
Kind = Literal["microbleeds", "mimics"]

_TEXTS = {".tsv": read_table, ".csv": read_table, ".txt": read_table, ".fcsv": read_fcsv, ".json": read_markups}
_IMAGES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
# A point of a .mrk.json takes 500 bytes.
_MOST_BYTES = 20 << 20


def read_annotations(
    path: Path | str, scan: Volume, space: Space | None = None, kind: Kind = "microbleeds"
) -> list[Point]:
    """Return the places that the file ``path`` names in ``scan``, in RAS mm, in the order of the file.

    ``space`` is what x, y and z are where the file does not say (RAS by default). Of a review's own table or markups
    the accepted places are taken for ``kind`` "microbleeds" and the rejected ones for "mimics".

    Raises:
        BadInputError: it cannot be read, is too large, names something else than places, contradicts ``space``, names
            a place twice or one outside the scan; the sentence says where.
    """
    path = Path(path)
    name = path.name
    if not path.is_file():
        raise BadInputError(f"There is no file {path}.", "Check the path.")
    if name.lower().endswith(_IMAGES):
        return read_label_map(path, scan)
    read = _TEXTS.get(path.suffix.lower())
    if read is None:
        raise BadInputError(
            f"{name} is of no kind that annotations come in.",
            "Give a table (.tsv, .csv), a point list of 3D Slicer (.mrk.json, .fcsv) or a label map (.nii.gz, .nrrd).",
        )
    return _settled(read(_text(path), name, kind), name, space, scan)


def _settled(places: Places, name: str, space: Space | None, scan: Volume) -> list[Point]:
    """Return the points in RAS mm, having made sure that they are places of the scan."""
    if places.space and space and places.space != space:
        raise BadInputError(
            f"{name} says that its positions are {places.space}, and {space} was asked for.", "Leave out --space."
        )
    meant = places.space or space or "RAS"
    points = list(places.points)
    if meant == "LPS":
        # Adding 0 turns -0 into 0.
        points = [replace(p, ras_mm=tuple(float(v) + 0.0 for v in ras_to_lps(p.ras_mm))) for p in points]
    positions = [point.ras_mm for point in points]
    if points:
        check_inside(scan, positions, name, meant, bool(places.space))
    check_distinct(positions, name)
    return points


def _text(path: Path) -> str:
    try:
        with open(path, "rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise BadInputError(
            f"{path.name} cannot be read: {error.strerror or 'unknown reason'}.", "Check its permissions."
        ) from error
    if len(data) > _MOST_BYTES:
        raise BadInputError(
            f"{path.name} is larger than any list of microbleeds (more than {_MOST_BYTES >> 20} MB).",
            "Check what was exported: one row a microbleed.",
        )
    try:
        text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path.name} is no text in UTF-8.", "Save it again with the encoding UTF-8.") from error
    if "\0" in text:
        raise BadInputError(f"{path.name} is no text in UTF-8.", "Save it again with the encoding UTF-8.")
    return text.replace("\r\n", "\n").replace("\r", "\n")
