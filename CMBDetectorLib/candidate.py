"""One microbleed candidate, and reading and writing of a scan's list of them (``candidates.json``)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.files import write_json

SCHEMA = 1
_DIGITS = 4  # of scores


@dataclass(frozen=True)
class Candidate:
    """A place that may be a microbleed.

    ``ras_mm`` is its centre in RAS mm of the scan as stored, ``stage1_score`` the combined likelihood of the U-Nets
    and ``score`` that of the CNNs (``Detector.discriminate``; both 0..1), ``diameter_mm`` that of a sphere of the same
    volume.
    """

    id: str
    ras_mm: tuple[float, float, float]
    stage1_score: float
    score: float
    diameter_mm: float

    @property
    def rank(self) -> tuple[float, float, str]:
        """What candidates are sorted by, the surest first: in results, tables and the review alike.

        Scores count as they are written, so that reading a result changes nothing in its order.
        """
        return -round(self.score, _DIGITS), -round(self.stage1_score, _DIGITS), self.id


@dataclass(frozen=True)
class Detection:
    """The candidates of one scan by falling score, with what made them.

    ``scan`` (name, shape, spacing, orientation), ``model`` (name, version, checksum), ``settings`` and ``seconds``
    (stage -> s) are plain JSON values.
    """

    scan: dict[str, Any]
    model: dict[str, Any]
    settings: dict[str, Any]
    candidates: list[Candidate]
    seconds: dict[str, float] = field(default_factory=dict)

    def shown(self) -> list[Candidate]:
        """Return the candidates at or above the threshold of the settings."""
        threshold = float(self.settings["threshold"])
        # As they are written: a result that was read again shows the same.
        return [c for c in self.candidates if round(c.score, _DIGITS) >= threshold]

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values (schema 1), candidates by falling score; :meth:`from_json` takes them back."""
        return {
            "schema": SCHEMA,
            "scan": self.scan,
            "model": self.model,
            "settings": self.settings,
            "seconds": self.seconds,
            "candidates": [
                {
                    "id": c.id,
                    "ras_mm": [round(float(v), 3) for v in c.ras_mm],
                    "stage1_score": round(float(c.stage1_score), _DIGITS),
                    "score": round(float(c.score), _DIGITS),
                    "diameter_mm": round(float(c.diameter_mm), 2),
                }
                for c in sorted(self.candidates, key=lambda c: c.rank)
            ],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Detection:
        """Return the detection that ``data`` describes.

        Raises:
            ValueError, KeyError, TypeError: it describes none, or one of another schema.
        """
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema {data['schema']}")
        candidates = [
            Candidate(
                str(c["id"]),
                tuple(float(v) for v in c["ras_mm"]),
                float(c["stage1_score"]),
                float(c["score"]),
                float(c["diameter_mm"]),
            )
            for c in data["candidates"]
        ]
        if any(len(c.ras_mm) != 3 for c in candidates):
            raise ValueError("a position has not three numbers")
        # Python's JSON reader takes NaN, which would sort anywhere and hit nothing.
        if not all(math.isfinite(v) for c in candidates for v in (*c.ras_mm, c.score, c.stage1_score, c.diameter_mm)):
            raise ValueError("a number is not finite")
        float(data["settings"]["threshold"])
        return cls(data["scan"], data["model"], data["settings"], candidates, data["seconds"])


def threshold_at(score: float) -> float:
    """Return the threshold that a candidate of this score just reaches: scores count as they are written."""
    return round(float(score), _DIGITS)


def candidate_id(ras_mm: Iterable[float]) -> str:
    """Return an id that depends only on the position (RAS mm, to 0.01 mm): the same in every run that finds it."""
    text = ",".join(f"{v + 0.0:.2f}" for v in ras_mm).replace("-0.00", "0.00")
    return "c" + hashlib.sha256(text.encode()).hexdigest()[:10]


def write_detection(path: Path | str, detection: Detection) -> None:
    """Write ``detection`` as ``candidates.json`` (schema 1)."""
    write_json(path, detection.as_json())


def read_detection(path: Path | str) -> Detection:
    """Read a ``candidates.json``.

    Raises:
        BadInputError: it is missing, damaged or of another schema.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise BadInputError(
                f"{path} is of schema {data['schema']}, this program reads {SCHEMA}.", "Update CMBDetector."
            )
        return Detection.from_json(data)
    except FileNotFoundError as error:
        raise BadInputError(f"There is no file {path}.", "Run the detection first.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise BadInputError(f"{path} is not a candidate list.", "Run the detection again.") from error
