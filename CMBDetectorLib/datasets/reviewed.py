"""The note beside a scan's point lists: who judged it, whether all of it, and what the lists held then."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from CMBDetectorLib.datasets import bids
from CMBDetectorLib.errors import BadInputError

SCHEMA = 1
_MOST_BYTES = 1 << 20
_KEY = re.compile(r"[0-9a-f]{16}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LONGEST_NAME = 100


@dataclass(frozen=True)
class ReviewNote:
    """What the note says; ``lists`` are the checksums of microbleeds and mimics (``None`` in notes of before 0.1).

    ``missing`` is how many places are not judged, ``checksum`` the SHA-256 of the log or of the imported file.
    """

    key: str
    reader: str
    is_complete: bool
    missing: int | None
    counts: tuple[int, int] | None
    lists: tuple[str, str] | None
    checksum: str
    exported: str
    is_imported: bool

    def doubts(self, microbleeds: Sequence[bids.Point], mimics: Sequence[bids.Point]) -> list[str]:
        """Return sentences that say why these lists are not the whole of a review."""
        found = []
        if self.lists is not None:
            whole = self.lists == (bids.checksum(microbleeds), bids.checksum(mimics))
        else:
            whole = self.counts in (None, (len(microbleeds), len(mimics)))
        if not whole:
            found.append(
                "Its points are not those of its review: adding it was broken off or a file was changed; "
                "export or import it again."
            )
        if not self.is_complete:
            left = "" if not self.missing else f": {self.missing} places are not judged"
            found.append(
                "Nobody has said that all its microbleeds are annotated; import it again as complete."
                if self.is_imported
                else f"Its review is not complete{left}; finish it and export it again."
            )
        return found


def read_review_note(path: Path) -> ReviewNote | None:
    """Return the note in the file ``path``, ``None`` where there is none.

    Raises:
        BadInputError: it is damaged or of a newer version.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError(None, "it is no file")
        with open(path, "rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadInputError(
            f"The note {path.name} cannot be read: {error.strerror}.", "Check its permissions."
        ) from error
    try:
        if len(data) > _MOST_BYTES:
            raise ValueError("no note is that long")
        return _parsed(json.loads(data.decode("utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInputError(
            f"The note {path.name}, which says who reviewed the scan, is damaged.", "Export or import the scan again."
        ) from error


def one_line(text: str, longest: int = _LONGEST_NAME) -> str:
    """Return ``text`` as one line of at most ``longest`` printable characters."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split())[:longest]


def _parsed(note: dict[str, Any]) -> ReviewNote:
    if note["schema"] != SCHEMA or not _KEY.fullmatch(note["scan_key"]) or not isinstance(note["complete"], bool):
        raise ValueError("not a note of this version")
    counts, lists = note.get("counts") or {}, note.get("points")
    accepted, rejected, missing = (_count(counts.get(name)) for name in ("accepted", "rejected", "not_reviewed"))
    origin = note.get("log") or (note.get("imported") or {}).get("microbleeds") or {}
    return ReviewNote(
        key=note["scan_key"],
        reader=one_line(str(note["reader"])),
        is_complete=note["complete"],
        missing=missing,
        counts=None if accepted is None or rejected is None else (accepted, rejected),
        lists=None if lists is None else (_checksum(lists["microbleeds"]), _checksum(lists["mimics"])),
        checksum=_checksum(origin["sha256"]) if origin else "",
        exported=one_line(str(note.get("exported") or "")),
        is_imported="imported" in note,
    )


def _count(value: Any) -> int | None:
    if value is None or (type(value) is int and value >= 0):
        return value
    raise ValueError("not a count")


def _checksum(text: Any) -> str:
    if not _SHA256.fullmatch(text):
        raise ValueError("not a checksum")
    return text
