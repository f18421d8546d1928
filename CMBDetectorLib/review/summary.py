"""What a review found, in numbers and in the words of a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from CMBDetectorLib import __version__
from CMBDetectorLib.report.page import NOT_CLINICAL
from CMBDetectorLib.review.finding import LARGEST_SMALL_MM, MIMIC_CLASSES, Certainty, Finding, State
from CMBDetectorLib.review.review import Review

LARGEST_MM = 10.0
"""Above this diameter a microbleed is unusual (STRIVE-2: 2-10 mm)."""

SMALL, MEDIUM, LARGE, UNKNOWN = "< 5 mm", "5-10 mm", "> 10 mm", "unknown"
SIZE_CLASSES = (SMALL, MEDIUM, LARGE, UNKNOWN)
_SIZE_WORDS = {SMALL: "below 5 mm", MEDIUM: "of 5-10 mm", LARGE: "above 10 mm", UNKNOWN: "of unknown diameter"}


def size_class(diameter_mm: float | None) -> str:
    """Return the one of :data:`SIZE_CLASSES` for an apparent diameter in mm, ``None`` being unknown."""
    if diameter_mm is None:
        return UNKNOWN
    if diameter_mm < LARGEST_SMALL_MM:
        return SMALL
    return MEDIUM if diameter_mm <= LARGEST_MM else LARGE


@dataclass(frozen=True)
class Summary:
    """The counts of one review at a ``threshold`` of the score (0..1).

    ``states`` counts what is shown at the threshold: candidates at or above it and whatever was judged or added.
    ``microbleeds`` are the accepted ones, as certainty -> size class -> count; ``added`` and ``moved`` are how many of
    them the reader set or moved. ``mimics`` counts the rejected ones by class ("" where none was given). ``hidden``
    is how many candidates below the threshold nobody looked at.
    """

    reader: str
    threshold: float
    states: dict[str, int]
    microbleeds: dict[str, dict[str, int]]
    mimics: dict[str, int]
    added: int
    moved: int
    hidden: int
    model: dict[str, Any]

    @property
    def count(self) -> int:
        """How many microbleeds there are."""
        return self.states[State.ACCEPTED.value]

    @property
    def shown(self) -> int:
        """How many places there were to judge."""
        return sum(self.states.values())

    @property
    def not_reviewed(self) -> int:
        """How many of them are not judged."""
        return self.states[State.UNREVIEWED.value]

    @property
    def is_complete(self) -> bool:
        """Whether all are judged."""
        return self.not_reviewed == 0

    def of_certainty(self, certainty: Certainty) -> int:
        """Return how many microbleeds are of this certainty."""
        return sum(self.microbleeds[certainty.value].values())

    def of_size(self, size: str) -> int:
        """Return how many microbleeds are of this one of :data:`SIZE_CLASSES`."""
        return sum(sizes[size] for sizes in self.microbleeds.values())

    def counts(self) -> dict[str, Any]:
        """Return the numbers alone as JSON values."""
        return {
            "threshold": self.threshold,
            "complete": self.is_complete,
            "shown": self.shown,
            "reviewed": self.shown - self.not_reviewed,
            "not_reviewed": self.not_reviewed,
            "hidden": self.hidden,
            **{state.value: self.states[state.value] for state in State if state is not State.UNREVIEWED},
            "microbleeds": self.microbleeds,
            "mimics": self.mimics,
            "added": self.added,
            "moved": self.moved,
        }

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        start = {"reader": self.reader, "program": f"cmbdetector {__version__}", "model": self.model}
        return {**start, "notice": NOT_CLINICAL, **self.counts()}

    def as_text(self) -> str:
        """Return sentences to paste into a report; an incomplete review says so first."""
        score = f"at a score threshold of {self.threshold:g}"
        if self.is_complete:
            done = [f"Review complete: all places shown {score} were judged ({self.shown})."]
            lines = [self._microbleeds(), self._others(), *done]
        else:
            left = f"Review NOT complete: {self.not_reviewed} of {self.shown} places shown {score} are not judged."
            lines = [left, self._microbleeds(), self._others()]
        name = " ".join(self.reader.split()) or "not named"
        model = {entry: str(self.model.get(entry) or "unknown") for entry in ("name", "version", "checksum")}
        trained = self.model.get("training_data") or "It is not stated what the model was trained on."
        lines.append(f"Reader: {name}. Candidates by CMBDetector {__version__}.")
        lines.append(f"Model {model['name']} {model['version']} ({model['checksum'][:12]}): {trained}")
        return "\n".join([*(line for line in lines if line), NOT_CLINICAL])

    def _microbleeds(self) -> str:
        if not self.count:
            return "No microbleeds." if self.is_complete else "No microbleeds among those judged."
        sure = ", ".join(f"{self.of_certainty(certainty)} {certainty.value}" for certainty in Certainty)
        sizes = ", ".join(f"{self.of_size(size)} {words}" for size, words in _SIZE_WORDS.items() if self.of_size(size))
        text = f"{self.count} microbleed{'s' * (self.count != 1)}: {sure}; {sizes} (apparent diameter)"
        by_hand = [(self.added, "added by the reader"), (self.moved, "moved by the reader")]
        return "; ".join([text, *(f"{count} {words}" for count, words in by_hand if count)]) + "."

    def _others(self) -> str:
        parts = []
        if rejected := self.states[State.REJECTED.value]:
            words = [(MIMIC_CLASSES.get(key, "").lower() or "no class given", n) for key, n in self.mimics.items()]
            parts.append(f"{rejected} rejected ({', '.join(f'{word} {n}' for word, n in words)})")
        if unsure := self.states[State.UNSURE.value]:
            parts.append(f"{unsure} unsure, not counted")
        text = "; ".join(parts)
        return f"Other places: {text}." if text else ""


def summarise(review: Review, threshold: float | None = None) -> Summary:
    """Return the counts of ``review`` at ``threshold`` of the score, by default that of its detection."""
    least = float(review.detection.settings["threshold"]) if threshold is None else float(threshold)
    everything = review.findings
    visible = [finding for finding in everything if review.is_visible(finding, least)]
    accepted = [finding for finding in visible if finding.state is State.ACCEPTED]
    microbleeds = {certainty.value: dict.fromkeys(SIZE_CLASSES, 0) for certainty in Certainty}
    for finding in accepted:
        microbleeds[(finding.certainty or Certainty.DEFINITE).value][size_class(finding.diameter_mm)] += 1
    return Summary(
        reader=review.reader,
        threshold=least,
        states={state.value: sum(finding.state is state for finding in visible) for state in State},
        microbleeds=microbleeds,
        mimics=_mimics(visible),
        added=sum(finding.is_added for finding in accepted),
        moved=sum(finding.is_moved for finding in accepted),
        hidden=len(everything) - len(visible),
        model=dict(review.detection.model),
    )


def _mimics(findings: list[Finding]) -> dict[str, int]:
    rejected = [finding.mimic_class or "" for finding in findings if finding.state is State.REJECTED]
    return {key: rejected.count(key) for key in (*MIMIC_CLASSES, "") if key in rejected}
