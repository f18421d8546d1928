"""The lines of a review log: each one JSON object that carries a CRC32 of the rest of itself.

The first line is the header with the whole detection; each later one holds a finding as it is after a change. All of
it is ASCII, so that a line end is a line end, and a line is found by its beginning as well as by the end of the line
before it: a damaged line end costs one line, not two.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from typing import Any

from CMBDetectorLib import __version__
from CMBDetectorLib.candidate import Detection
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.review.finding import Finding
from CMBDetectorLib.review.review import Review

SCHEMA = 1
# json.dumps puts a blank after a colon and escapes quotes: this never occurs inside a line.
_MARK = b'{"crc32":"'
_BREAK = re.compile(rb'\n|(?=\{"crc32":")')
_CRC = slice(len(_MARK), len(_MARK) + 8)


@dataclass(frozen=True)
class Change:
    """One line: the ``finding`` after ``what`` was done at ``time`` (ISO 8601, UTC), the ``sequence``-th of its log."""

    sequence: int
    time: str
    what: str
    finding: Finding


@dataclass(frozen=True)
class Recorded:
    """What a log holds: header and changes in the order they were made; ``damaged`` lines were passed over."""

    header: dict[str, Any]
    detection: Detection
    changes: list[Change]
    damaged: int

    @property
    def key(self) -> str:
        """The key of the scan that was reviewed."""
        return str(self.header["scan_key"])

    @property
    def last_change(self) -> str:
        """When the last change was made, or the review started (ISO 8601, UTC)."""
        return self.changes[-1].time if self.changes else str(self.header["started"])

    def review(self) -> Review:
        """Return the review as it was left, with its undo history."""
        findings = [Finding.from_json(data) for data in self.header["findings"]]
        review = Review(self.detection, str(self.header["reader"]), findings)
        for change in self.changes:
            review.replay(change.finding, change.what)
        return review


def header_line(key: str, review: Review, started: str) -> bytes:
    """Return the first line of the log of ``review``, a review of the scan ``key`` begun at ``started``."""
    detection = review.detection.as_json()
    header = {"schema": SCHEMA, "program": f"cmbdetector {__version__}", "scan_key": key, "reader": review.reader}
    return _line({**header, "started": started, "detection": detection, "findings": review.as_json()})


def change_line(change: Change) -> bytes:
    """Return the line for ``change``."""
    start = {"sequence": change.sequence, "time": change.time, "what": change.what}
    return _line({**start, "finding": change.finding.as_json()})


def read_records(data: bytes, name: str) -> Recorded:
    """Return what a log with the content ``data`` and the file name ``name`` holds; damaged lines are passed over.

    Raises:
        BadInputError: its header is damaged or of a newer schema.
    """
    pieces = [piece.strip() for piece in _BREAK.split(data)]
    contents = [_content(piece) for piece in pieces if piece]
    header, detection = _header(contents, name)
    changes: list[Change] = []
    # Without the header itself.
    damaged = -1
    for content in contents:
        try:
            finding = Finding.from_json(content["finding"])
            changes.append(Change(int(content["sequence"]), str(content["time"]), str(content["what"]), finding))
        except (KeyError, TypeError, ValueError):
            damaged += 1
    # By sequence, not by clock; sorting keeps the order of the file where two lines have the same number.
    changes.sort(key=lambda change: change.sequence)
    # A line whose writing was reported as failed was written again, though it may have reached the disk.
    once = [change for number, change in enumerate(changes) if number == 0 or change != changes[number - 1]]
    return Recorded(header, detection, once, damaged)


def _line(content: dict[str, Any]) -> bytes:
    rest = b", " + json.dumps(content, allow_nan=False).encode("ascii")[1:]
    return _MARK + f"{zlib.crc32(rest):08x}".encode() + b'"' + rest + b"\n"


def _content(piece: bytes) -> dict[str, Any]:
    """Return what a line holds, nothing where it is damaged."""
    rest = piece[_CRC.stop + 1 :]
    if not piece.startswith(_MARK) or piece[_CRC] != f"{zlib.crc32(rest):08x}".encode() or not rest.startswith(b", "):
        return {}
    try:
        content = json.loads(b"{" + rest[2:])
    except ValueError:
        return {}
    return content


def _header(contents: list[dict[str, Any]], name: str) -> tuple[dict[str, Any], Detection]:
    try:
        header = next(content for content in contents if "schema" in content)
        if header["schema"] != SCHEMA:
            raise BadInputError(f"The review {name} was made by a newer version.", "Update CMBDetector.")
        for entry in ("reader", "started", "scan_key"):
            header[entry]
        for data in header["findings"]:
            Finding.from_json(data)
        return header, Detection.from_json(header["detection"])
    except (StopIteration, KeyError, TypeError, ValueError) as error:
        raise BadInputError(
            f"The review {name} cannot be resumed: its first line is damaged.",
            "Start a new review, or restore the file from a backup.",
        ) from error
