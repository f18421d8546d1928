"""Places from 3D Slicer's point lists: ``.mrk.json`` (since 4.11) and the older ``.fcsv``."""

from __future__ import annotations

import csv
import json
import math
import re
from typing import Any

from CMBDetectorLib.datasets.bids import Point
from CMBDetectorLib.datasets.point_tables import STATES, Places, check_count, number
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.review.finding import MIMIC_CLASSES, Certainty, State

_FCSV_COLUMNS = ("id", "x", "y", "z")
# Old versions of Slicer wrote numbers; 2 stood for voxel indices.
_FCSV_SPACES = {"0": "RAS", "RAS": "RAS", "1": "LPS", "LPS": "LPS"}
_CANDIDATE = re.compile(r"score [\d.]+, stage 1 [\d.]+, diameter [\d.]+ mm")
_DIAMETER = re.compile(r"diameter (\d+(?:\.\d+)?) mm")


def read_markups(text: str, name: str, kind: str) -> Places:
    """Return the placed points of every point list in a ``.mrk.json``; what a review wrote by ``kind``, as tables.

    Raises:
        BadInputError: it is none, holds lines or curves, other units than mm, or positions that are no numbers.
    """
    try:
        nodes = json.loads(text)["markups"]
        if not isinstance(nodes, list) or not nodes:
            raise TypeError("no nodes")
        systems = {str(node.get("coordinateSystem") or "LPS") for node in nodes}
        units = {_unit(node.get("coordinateUnits")) for node in nodes}
        kinds = {str(node.get("type")) for node in nodes}
        controls = [point for node in nodes for point in node.get("controlPoints") or []]
        if not all(isinstance(point, dict) for point in controls):
            raise TypeError("no points")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInputError(f"{name} is no markups file of 3D Slicer.", "Save the point list again.") from error
    if kinds != {"Fiducial"}:
        raise BadInputError(f"{name} holds markups that are no point list.", "Save the point list alone.")
    if len(systems) > 1 or not systems <= {"LPS", "RAS"} or units != {"mm"}:
        raise BadInputError(f"The positions in {name} are not millimetres in RAS or LPS.", "Save the point list again.")
    check_count(len(controls), name)
    placed = [(n, point) for n, point in enumerate(controls, 1) if point.get("positionStatus", "defined") == "defined"]
    points = [_control(point, n, name) for n, point in placed]
    chosen = _chosen([str(point.get("description") or "") for _, point in placed], name, kind)
    return Places([point for point, is_meant in zip(points, chosen, strict=True) if is_meant], systems.pop())


def read_fcsv(text: str, name: str, kind: str) -> Places:
    """Return the points of a ``.fcsv``; what it says behind ``# CoordinateSystem`` is their space.

    Raises:
        BadInputError: it is none, its positions are voxel indices, or they are no numbers.
    """
    space, columns = "", _FCSV_COLUMNS
    points: list[Point] = []
    descriptions: list[str] = []
    for line, raw in enumerate(text.splitlines(), 1):
        if raw.startswith("#"):
            entry, _, value = (part.strip() for part in raw.lstrip("#").partition("="))
            if entry.lower() == "coordinatesystem":
                if value.upper() not in _FCSV_SPACES:
                    raise BadInputError(f"The positions in {name} are neither RAS nor LPS.", "Save the points again.")
                space = _FCSV_SPACES[value.upper()]
            elif entry.lower() == "columns":
                columns = tuple(column.strip() for column in value.split(","))
        elif raw.strip():
            row = dict(zip(columns, _cells(raw, line, name), strict=False))
            if not {"x", "y", "z"} <= set(row):
                raise BadInputError(f"Line {line} of {name} has no position.", "Save the points again.")
            x, y, z = (number(row[axis].strip(), axis, line, name) for axis in "xyz")
            points.append(Point((x, y, z), source="import"))
            descriptions.append(row.get("desc", ""))
            check_count(len(points), name)
    chosen = _chosen(descriptions, name, kind)
    return Places([point for point, is_meant in zip(points, chosen, strict=True) if is_meant], space)


def _cells(line: str, line_number: int, name: str) -> list[str]:
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise BadInputError(f"Line {line_number} of {name} is no row of a table: {error}.", "Save it again.") from error


def _unit(unit: Any) -> str:
    """Return the unit; newer files name it in a code as [value, scheme, meaning]."""
    return str(unit[0] if isinstance(unit, list) and unit else unit or "mm")


def _control(point: dict[str, Any], n: int, name: str) -> Point:
    position = point.get("position")
    is_numbers = isinstance(position, list) and len(position) == 3 and all(type(v) in (int, float) for v in position)
    try:
        if not is_numbers or not all(math.isfinite(v) for v in position):
            raise OverflowError("not three finite numbers")
        x, y, z = (float(v) for v in position)
    except OverflowError as error:
        raise BadInputError(f"Point {n} of {name} has no position of three numbers.", "Save the list again.") from error
    parts = [part.strip() for part in str(point.get("description") or "").split(",")]
    rejected, accepted = parts[0] == State.REJECTED.value, parts[0] == State.ACCEPTED.value
    known = next((key for key, words in MIMIC_CLASSES.items() if rejected and words.lower() in parts), None)
    certainty = next((c.value for c in Certainty if accepted and c.value in parts), None)
    size = next((float(m[1]) for part in parts[1:] if (m := _DIAMETER.fullmatch(part))), None)
    return Point((x, y, z), size or None, certainty, "import", known)


def _chosen(descriptions: list[str], name: str, kind: str) -> list[bool]:
    """Tell for each point whether it is meant: all, unless a review wrote the list, which says so in each point."""
    if any(_CANDIDATE.fullmatch(description) for description in descriptions):
        raise BadInputError(
            f"{name} lists candidates of the detector, which nobody has judged.", "Review them, and export the review."
        )
    states = [description.split(",")[0].strip() for description in descriptions]
    judged = [state in {known.value for known in State} for state in states]
    if any(judged) and not all(judged):
        # Taking all would make microbleeds of what a reader has rejected.
        raise BadInputError(
            f"{name} holds points of a review and points without a verdict.",
            "Save the new points as a list of their own.",
        )
    return [state == STATES[kind] or not any(judged) for state in states]
