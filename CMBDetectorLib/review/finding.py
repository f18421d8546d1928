"""One place in a scan under review, and the words a reader judges it with."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from enum import Enum
from typing import Any

Position = tuple[float, float, float]


class State(str, Enum):
    """What a reader has decided about a place."""

    UNREVIEWED = "unreviewed"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNSURE = "unsure"


class Certainty(str, Enum):
    """How sure the reader is that it is a microbleed (MARS, Gregoire 2009: definite or possible)."""

    DEFINITE = "definite"
    POSSIBLE = "possible"


MIMIC_CLASSES = {
    "vessel": "Vessel",
    "calcification": "Calcification",
    "cavernoma": "Cavernous malformation",
    "partial-volume": "Partial volume",
    "artefact": "Artefact",
    "iron": "Iron deposition",
    "haemorrhage": "Haemorrhagic lesion",
    "other": "Other",
}
"""What a rejected place really is: key in files -> words on the screen."""

LARGEST_SMALL_MM = 5.0
"""Microbleeds below this diameter count as small (BOMBS, Cordonnier 2009: < 5 mm and 5-10 mm)."""


@dataclass(frozen=True)
class Finding:
    """A candidate of the detector, or a microbleed that the reader added, with what the reader says of it.

    Positions are RAS mm of the scan as stored. ``detected_ras_mm`` is where the detector saw it (``None`` for what a
    reader added) and never changes; ``ras_mm`` is where the lesion is, which a reader may move. ``score`` and
    ``stage1_score`` (0..1) are ``None`` for an added one. ``judged_at`` is the time of the verdict (ISO 8601, UTC).
    ``removed`` marks an added place that the reader took back.
    """

    id: str
    ras_mm: Position
    detected_ras_mm: Position | None = None
    score: float | None = None
    stage1_score: float | None = None
    diameter_mm: float | None = None
    state: State = State.UNREVIEWED
    certainty: Certainty | None = None
    mimic_class: str | None = None
    comment: str = ""
    judged_at: str | None = None
    removed: bool = False

    @property
    def is_added(self) -> bool:
        """Whether a reader set it, not the detector."""
        return self.detected_ras_mm is None

    @property
    def is_moved(self) -> bool:
        """Whether a reader moved it from where the detector saw it."""
        return self.detected_ras_mm is not None and math.dist(self.ras_mm, self.detected_ras_mm) > 1e-3

    @property
    def is_reviewed(self) -> bool:
        """Whether the reader has decided; "unsure" is a decision, too."""
        return self.state is not State.UNREVIEWED

    def judged(self, state: State, certainty: Certainty | None, mimic_class: str | None, when: str | None) -> Finding:
        """Return it with a verdict; certainty belongs to acceptance only, and a mimic class to rejection."""
        if mimic_class is not None and mimic_class not in MIMIC_CLASSES:
            raise ValueError(f"unknown mimic class {mimic_class!r}")
        accepted, rejected = state is State.ACCEPTED, state is State.REJECTED
        return replace(
            self,
            state=state,
            certainty=(certainty or Certainty.DEFINITE) if accepted else None,
            mimic_class=mimic_class if rejected else None,
            judged_at=when if state is not State.UNREVIEWED else None,
        )

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values; :meth:`from_json` takes them back."""
        data = asdict(self)
        for key, value in data.items():
            if isinstance(value, Enum):
                data[key] = value.value
            elif isinstance(value, tuple):
                data[key] = [round(float(v), 4) for v in value]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Finding:
        """Return the finding that ``data`` describes; unknown entries are passed over.

        Raises:
            ValueError, TypeError, KeyError: it describes none.
        """
        known = {field.name for field in fields(cls)}
        values = {key: value for key, value in data.items() if key in known}
        values["id"] = str(data["id"])
        values["ras_mm"] = _position(data["ras_mm"])
        if values.get("detected_ras_mm") is not None:
            values["detected_ras_mm"] = _position(values["detected_ras_mm"])
        for key in ("score", "stage1_score", "diameter_mm"):
            if values.get(key) is not None:
                values[key] = _finite(values[key])
        values["state"] = State(values.get("state", "unreviewed"))
        if values.get("certainty") is not None:
            values["certainty"] = Certainty(values["certainty"])
        if values.get("mimic_class") is not None and values["mimic_class"] not in MIMIC_CLASSES:
            raise ValueError(f"unknown mimic class {values['mimic_class']!r}")
        values["comment"] = str(values.get("comment") or "")
        values["removed"] = bool(values.get("removed", False))
        return cls(**values)


def _position(values: Any) -> Position:
    x, y, z = (_finite(v) for v in values)
    return x, y, z


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("a number is not finite")
    return number
