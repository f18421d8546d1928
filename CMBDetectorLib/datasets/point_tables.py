"""Places from a table: tab, semicolon or comma between the cells, the columns named in the first line."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from CMBDetectorLib.datasets.bids import Point
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.review.finding import MIMIC_CLASSES, Certainty, State

MOST_POINTS = 10_000
LARGEST_MM = 100.0
# Who reads the file is to see what is meant, so that what a list calls it is taken, in any case of letters. Slicer
# writes r a s or l p s, CMBDetector's own tables x_ras_mm.
_POSITIONS = {
    ("x", "y", "z"): "",
    ("r", "a", "s"): "RAS",
    ("l", "p", "s"): "LPS",
    ("x_ras_mm", "y_ras_mm", "z_ras_mm"): "RAS",
}
_OTHERS = ("state", "defined", "diameter_mm", "certainty", "mimic_class")
_DELIMITERS = "\t;,"
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?", re.ASCII)
_NOTHING = ("", "n/a", "nan", "none")
_CERTAINTIES = {known.value: known.value for known in Certainty}
# What the screen calls them is taken, too.
_MIMICS = {key: key for key in MIMIC_CLASSES} | {words.lower(): key for key, words in MIMIC_CLASSES.items()}
STATES = {"microbleeds": State.ACCEPTED.value, "mimics": State.REJECTED.value}


@dataclass(frozen=True)
class Places:
    """What a file names: positions in mm of ``space`` ("RAS", "LPS", or "" where the file does not say)."""

    points: list[Point]
    space: str


def read_table(text: str, name: str, kind: str) -> Places:
    """Return the places in the table ``text`` of the file ``name``.

    A position has the columns x y z, r a s or l p s (mm, decimal point); ``diameter_mm``, ``certainty`` and
    ``mimic_class`` are read where they are there, and other columns passed over. Of a table with the column ``state``
    only rows of ``kind`` ("microbleeds": accepted, "mimics": rejected) are taken.

    Raises:
        BadInputError: it is no such table; the sentence names line and column.
    """
    columns, names, space = _columns(text, name)
    delimiter = _delimiter(text)
    points = []
    for line, cells in _rows(text, delimiter, name):
        if len(cells) != len(columns):
            raise BadInputError(
                f"Line {line} of {name} has {len(cells)} cells and the first line {len(columns)}.",
                "Save the table again; text with the separator in it needs quotation marks.",
            )
        row = dict(zip(columns, (cell.strip() for cell in cells), strict=True))
        if _is_meant(row, line, name, kind):
            points.append(_point(row, names, line, name))
        check_count(len(points), name)
    return Places(points, space)


def check_count(count: int, name: str) -> None:
    """Refuse a file that names more places than any head has.

    Raises:
        BadInputError: ``count`` is above 10 000.
    """
    if count > MOST_POINTS:
        raise BadInputError(
            f"{name} names more than {MOST_POINTS} places.", "Check what was exported: one place a microbleed."
        )


def number(cell: str, column: str, line: int, name: str) -> float:
    """Return the number in a cell.

    Raises:
        BadInputError: it holds something else; a formula or a decimal comma is not guessed at.
    """
    if _NUMBER.fullmatch(cell) and math.isfinite(value := float(cell)):
        return value
    hint = "Positions are millimetres with a decimal point."
    if re.fullmatch(r"[-+]?\d+,\d+", cell):
        hint = "Save the table with a decimal point instead of a comma."
    raise BadInputError(f"Line {line} of {name} has no number in column {column} ({_shown(cell)}).", hint)


def _delimiter(text: str) -> str:
    first = text.split("\n", 1)[0]
    return max(_DELIMITERS, key=first.count)


def _columns(text: str, name: str) -> tuple[list[str], tuple[str, str, str], str]:
    """Return all columns, those of the position, and the space these stand for."""
    try:
        header = next(csv.reader([text.split("\n", 1)[0]], delimiter=_delimiter(text), strict=True), [])
    except csv.Error as error:
        raise BadInputError(f"{name} is not a table: {error}.", "Export it again.") from error
    columns = [cell.strip().lower() for cell in header]
    found = [(names, space) for names, space in _POSITIONS.items() if set(names) <= set(columns)]
    if not found:
        raise BadInputError(
            f"The first line of {name} does not name the columns of a position.",
            "It has to hold x, y and z (or r, a, s or l, p, s), with tabs, semicolons or commas between them.",
        )
    if len(found) > 1 or any(columns.count(column) > 1 for column in (*found[0][0], *_OTHERS)):
        raise BadInputError(f"The first line of {name} names a column twice.", "Remove one of them.")
    if "state" not in columns and {"stage1_score", "shown"} <= set(columns):
        raise BadInputError(
            f"{name} lists candidates of the detector, which nobody has judged.", "Review them, and export the review."
        )
    return columns, *found[0]


def _rows(text: str, delimiter: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Return number and cells of each line behind the first one that is not empty."""
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    try:
        next(reader, None)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise BadInputError(
            f"{name} is not a table from line {reader.line_num} on: {error}.", "Export it again."
        ) from error


def _is_meant(row: dict[str, str], line: int, name: str, kind: str) -> bool:
    # Slicer's tables hold points that were never placed.
    if row.get("defined") == "0":
        return False
    state = row.get("state")
    if state is None:
        return True
    if state not in {known.value for known in State}:
        raise BadInputError(f"Line {line} of {name} has an unknown state ({_shown(state)}).", "Export it again.")
    return state == STATES[kind]


def _point(row: dict[str, str], names: tuple[str, str, str], line: int, name: str) -> Point:
    x, y, z = (number(row[column], column, line, name) for column in names)
    diameter = None
    if (text := row.get("diameter_mm", "")).lower() not in _NOTHING:
        diameter = number(text, "diameter_mm", line, name)
        if not 0 < diameter <= LARGEST_MM:
            raise BadInputError(
                f"Line {line} of {name} has a diameter of {diameter:g} mm.", "Diameters are millimetres above 0."
            )
    certainty = _word(row, "certainty", _CERTAINTIES, line, name)
    mimic = _word(row, "mimic_class", _MIMICS, line, name)
    return Point((x, y, z), diameter, certainty, "import", mimic)


def _word(row: dict[str, str], column: str, known: dict[str, str], line: int, name: str) -> str | None:
    word = row.get(column, "").lower()
    if word in _NOTHING:
        return None
    if word not in known:
        raise BadInputError(
            f"Line {line} of {name} has an unknown word in column {column} ({_shown(word)}).",
            f"Known words: {', '.join(dict.fromkeys(known.values()))}, or n/a.",
        )
    return known[word]


def _shown(cell: str) -> str:
    return ascii(cell[:20]) if cell else "empty"
