"""Datasets in BIDS: the scans, and the annotations kept beside them under ``derivatives/cmbdetector``.

A scan ``sub-01/ses-02/swi/sub-01_ses-02_swi.nii.gz`` has its annotations in
``derivatives/cmbdetector/sub-01/ses-02/sub-01_ses-02_desc-….``: the folder of the kind of image (``swi``, ``anat``) is
left out, since a point list belongs to a head and not to a kind of image.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from CMBDetectorLib import __version__
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.files import write_json, write_table

POINTS = "desc-cmb_points.tsv"
MIMICS = "desc-mimic_points.tsv"
BRAIN_MASK = "desc-brain_mask.nii.gz"
REVIEW = "desc-review.json"

_DERIVATIVES = Path("derivatives") / "cmbdetector"
LOCK = _DERIVATIVES / ".export.lock"
_SUFFIX = re.compile(r"_(?:swi|SWI|T2starw)\.nii(?:\.gz)?$")
# The magnitude and the finished SWI show microbleeds dark; phase, real and imaginary parts do not.
_OTHER_PART = re.compile(r"_part-(?:phase|real|imag)(?:_|$)")
_MOST_ROWS = 100_000
_MOST_BYTES = 64 << 20
LOCATIONS = ("lobar", "deep", "infratentorial")
_SUBJECT = re.compile(r"(?:.*?_)?sub-[^_]+")
# Written only where some point has them.
_OPTIONAL = ("location", "near_dark", "contrast")


@dataclass(frozen=True)
class Point:
    """One annotated place: ``ras_mm`` in RAS mm of its scan; whatever else is known of it, or ``None``.

    ``diameter_mm`` is that of a sphere of the same volume, ``certainty`` the reader's word ("definite", "possible"),
    ``source`` says who or what set the point, ``mimic_class`` what a mimic really is ("vessel", "calcification").
    ``location`` is one of :data:`LOCATIONS`, ``near_dark`` whether other dark tissue lies beside it, ``contrast`` is
    1 - centre / surroundings (at most 1).
    """

    ras_mm: tuple[float, float, float]
    diameter_mm: float | None = None
    certainty: str | None = None
    source: str | None = None
    mimic_class: str | None = None
    location: str | None = None
    near_dark: bool | None = None
    contrast: float | None = None


@dataclass(frozen=True)
class Case:
    """One scan of a dataset and the places of its annotations, which need not exist.

    ``id`` is the scan's file name without its suffix ("sub-01", "sub-01_ses-02", "sub-01_run-2"), unique in a dataset.
    """

    id: str
    scan: Path
    points: Path
    mimics: Path
    brain_mask: Path | None

    @property
    def review(self) -> Path:
        """Where it is noted who reviewed the scan; a scan annotated elsewhere has no such file."""
        return self.points.with_name(self.points.name.removesuffix(POINTS) + REVIEW)

    @property
    def is_annotated(self) -> bool:
        """Whether somebody has looked for microbleeds; a list without rows says that there are none."""
        return self.points.is_file()

    def microbleeds(self) -> np.ndarray:
        """Return the annotated microbleeds as RAS mm (n, 3); (0, 3) where there is no list.

        Raises:
            BadInputError: the list is damaged.
        """
        return _positions(self.points)

    def annotations(self) -> list[Point]:
        """Return the annotated microbleeds with all that is known of them, in the order of :meth:`microbleeds`.

        Raises:
            BadInputError: the list is damaged.
        """
        return read_points(self.points) if self.points.is_file() else []

    def mimic_positions(self) -> np.ndarray:
        """Return the known mimics as RAS mm (n, 3); (0, 3) where there is no list.

        Raises:
            BadInputError: the list is damaged.
        """
        return _positions(self.mimics)


def subject_of(case_id: str) -> str:
    """Return whose scan the case is: its id up to the label of ``sub-``, with the name of the dataset where that stands
    before it; the whole id where it names no subject."""
    found = _SUBJECT.match(case_id)
    return found.group() if found else case_id


def by_subject(case_ids: Sequence[str]) -> dict[str, list[int]]:
    """Return whose scans the cases are: subject -> their numbers in ``case_ids``, in the order of first appearance."""
    found: dict[str, list[int]] = {}
    for number, case_id in enumerate(case_ids):
        found.setdefault(subject_of(case_id), []).append(number)
    return found


def read_dataset(folder: Path | str) -> list[Case]:
    """Return the scans of a BIDS dataset, sorted by id; their annotation lists are checked, the images not opened.

    Raises:
        BadInputError: there is no such folder, it holds no scans, two scans would share one annotation, or an
            annotation list is damaged.
    """
    cases: dict[str, Case] = {}
    for case in find_cases(folder):
        if case.id in cases:
            raise shared_annotation(cases[case.id], case)
        cases[case.id] = case
    if not cases:
        raise BadInputError(
            f"The dataset {folder} holds no scans.",
            "Scans are looked for as sub-XX/[ses-YY/](swi|anat)/sub-XX…_(swi|SWI|T2starw).nii.gz.",
        )
    for case in cases.values():
        case.microbleeds()
        case.mimic_positions()
    return list(cases.values())


def find_cases(folder: Path | str) -> list[Case]:
    """Return whatever is named as a scan, sorted by id, which two may share; nothing is opened or checked.

    Raises:
        BadInputError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInputError(f"There is no dataset folder {folder}.", "Check the path.")
    cases = [_case(folder, scan) for subject in sorted(folder.glob("sub-*")) for scan in _scans(subject)]
    return sorted(cases, key=lambda case: case.id)


def shared_annotation(case: Case, other: Case) -> BadInputError:
    """Return the sentence for two scans with one id."""
    return BadInputError(
        f"{case.id} has two scans ({case.scan.name} and {other.scan.name}) for one annotation.",
        "Keep one of them in the dataset, or tell them apart by an entity such as acq- or run-.",
    )


def derivative_path(dataset: Path | str, scan: Path | str, desc: str) -> Path:
    """Return where the derivative ``desc`` (:data:`POINTS`, :data:`MIMICS`, :data:`BRAIN_MASK`) of ``scan`` lies.

    ``scan`` lies in the BIDS folder ``dataset``, or is a path relative to it; neither has to exist.
    """
    dataset, scan = Path(dataset), Path(scan)
    inside = scan.relative_to(dataset) if scan.is_relative_to(dataset) else scan
    folders = [part for part in inside.parts[:-1] if part.startswith(("sub-", "ses-"))]
    return dataset.joinpath(_DERIVATIVES, *folders, f"{_prefix(scan)}_{desc}")


def read_points(path: Path | str) -> list[Point]:
    """Read a point list: tab-separated, with a header naming at least ``x``, ``y`` and ``z`` (RAS mm).

    Raises:
        BadInputError: it is missing, no table, lacks a column, holds something else than finite numbers or has more
            than 100 000 rows; the sentence names file and line.
    """
    path = Path(path)
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            raise OSError("no file, or none that a point list fits in")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"The point list {path} cannot be read.", "Check that it is a text file.") from error
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
        missing = [name for name in "xyz" if name not in (rows.fieldnames or [])]
        if missing:
            raise BadInputError(
                f"The point list {path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)} in line 1.",
                "The first line names the columns x, y and z, separated by tabs.",
            )
        points = []
        for row in rows:
            if len(points) == _MOST_ROWS:
                raise BadInputError(
                    f"The point list {path} goes on after {_MOST_ROWS} rows (line {rows.line_num}).",
                    "A point list has one row a microbleed; check what was exported.",
                )
            points.append(_point(row, path, rows.line_num))
    except csv.Error as error:
        raise BadInputError(f"The point list {path} is not a table: {error}.", "Export it again.") from error
    return points


def write_points(path: Path | str, rows: Iterable[Point], mimics: bool = False) -> None:
    """Write ``rows`` as a point list, whole or not at all; ``mimics`` adds the column ``mimic_class``.

    ``location``, ``near_dark`` (1 or 0) and ``contrast`` become columns only where a point has them.

    Raises:
        OutputError: it cannot be written.
        ValueError: a position is not three finite numbers, or a location or contrast could not be read back.
    """
    rows = list(rows)
    columns = ["x", "y", "z", "diameter_mm", "certainty", "source"] + ["mimic_class"] * mimics
    columns += [name for name in _OPTIONAL if any(getattr(point, name) is not None for point in rows)]
    table = []
    for point in rows:
        x, y, z = (float(v) for v in point.ras_mm)
        if not all(math.isfinite(v) for v in (x, y, z)):
            raise ValueError(f"the position {point.ras_mm} is not finite")
        diameter = None if point.diameter_mm is None else float(point.diameter_mm)
        table.append({"x": x, "y": y, "z": z, "diameter_mm": diameter, "certainty": point.certainty})
        table[-1] |= {"source": point.source, "mimic_class": point.mimic_class} | _optional_cells(point)
    write_table(path, columns, table)


def checksum(points: Iterable[Point]) -> str:
    """Return the SHA-256 of the positions of a point list as :func:`write_points` writes them."""
    lines = [" ".join(f"{float(v):.6g}" for v in point.ras_mm) for point in points]
    return hashlib.sha256("\n".join(lines).encode("ascii")).hexdigest()


def write_descriptions(folder: Path | str, name: str) -> None:
    """Write the two ``dataset_description.json`` that BIDS asks for: of the dataset ``name`` and of its derivatives.

    Raises:
        OutputError: they cannot be written.
    """
    program = {"Name": "CMBDetector", "Version": __version__}
    dataset = {"Name": name, "BIDSVersion": "1.9.0", "GeneratedBy": [program]}
    write_json(Path(folder) / "dataset_description.json", {**dataset, "DatasetType": "raw"})
    derivative = {**dataset, "Name": f"{name}: annotations", "DatasetType": "derivative"}
    write_json(Path(folder) / _DERIVATIVES / "dataset_description.json", derivative)


def _scans(subject: Path) -> list[Path]:
    found = []
    for place in ("swi", "anat", "ses-*/swi", "ses-*/anat"):
        for path in sorted(subject.glob(f"{place}/{subject.name}_*")):
            if _SUFFIX.search(path.name) and not _OTHER_PART.search(_prefix(path)):
                found.append(path)
    return found


def _prefix(scan: Path) -> str:
    return _SUFFIX.sub("", scan.name)


def _case(dataset: Path, scan: Path) -> Case:
    mask = derivative_path(dataset, scan, BRAIN_MASK)
    return Case(
        _prefix(scan),
        scan,
        derivative_path(dataset, scan, POINTS),
        derivative_path(dataset, scan, MIMICS),
        mask if mask.is_file() else None,
    )


def _positions(path: Path) -> np.ndarray:
    points = read_points(path) if path.is_file() else []
    return np.array([point.ras_mm for point in points], dtype=float).reshape(-1, 3)


def _optional_cells(point: Point) -> dict[str, Any]:
    if point.location not in (None, *LOCATIONS):
        raise ValueError(f"the location {point.location!r} is none of {LOCATIONS}")
    contrast = None if point.contrast is None else float(point.contrast)
    if contrast is not None and not -math.inf < contrast <= 1:
        raise ValueError(f"the contrast {contrast} is no finite number up to 1")
    near_dark = None if point.near_dark is None else int(point.near_dark)
    return {"location": point.location, "near_dark": near_dark, "contrast": contrast}


def _point(row: dict[str, str | None], path: Path, line: int) -> Point:
    x, y, z = (_number(row[name], name, path, line) for name in "xyz")
    names = ("diameter_mm", "certainty", "source", "mimic_class", *_OPTIONAL)
    words = {name: _cell(row.get(name)) for name in names}
    diameter, contrast = words["diameter_mm"], words["contrast"]
    near_dark = _choice(words["near_dark"], ("0", "1"), "near_dark", path, line)
    return Point(
        (x, y, z),
        _number(diameter, "diameter_mm", path, line) if diameter else None,
        words["certainty"],
        words["source"],
        words["mimic_class"],
        _choice(words["location"], LOCATIONS, "location", path, line),
        None if near_dark is None else near_dark == "1",
        _contrast(contrast, path, line) if contrast else None,
    )


def _cell(text: str | None) -> str | None:
    return text if text and text.lower() != "n/a" else None


def _number(text: str | None, column: str, path: Path, line: int) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadInputError(
            f"The point list {path} has no number in column {column} of line {line} ({(text or 'empty')[:20]!r}).",
            "Positions are RAS millimetres with a decimal point.",
        )
    return value


def _contrast(text: str, path: Path, line: int) -> float:
    value = _number(text, "contrast", path, line)
    # Per cent would count as strong contrast, whatever they are.
    if value > 1:
        raise BadInputError(
            f"The point list {path} has a contrast above 1 in line {line} ({text[:20]!r}).",
            "It is 1 - centre / surroundings, a fraction and not per cent.",
        )
    return value


def _choice(text: str | None, allowed: tuple[str, ...], column: str, path: Path, line: int) -> str | None:
    if text is None or text in allowed:
        return text
    raise BadInputError(
        f"The point list {path} has an unknown value in column {column} of line {line} ({text[:20]!r}).",
        f"Known values: {', '.join(allowed)}, or n/a.",
    )


def is_simulated(folder: Path | str) -> bool:
    """Tell whether the dataset says that no person was scanned: ``"Simulated": true`` in dataset_description.json."""
    try:
        return json.loads((Path(folder) / "dataset_description.json").read_text(encoding="utf-8"))["Simulated"] is True
    except (OSError, ValueError, KeyError, TypeError):
        return False
