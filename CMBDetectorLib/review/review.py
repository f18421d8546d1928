"""One reader's review of one scan: the findings, what can be done to them, undo and redo.

Knows no screen and no disk. Whoever wants to keep a change (the log, the scene, the table) subscribes to
:attr:`Review.changed`; each call tells the finding as it is after the change, so that a lost call costs one finding's
last change and nothing else.
"""

from __future__ import annotations

import datetime
import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from CMBDetectorLib.candidate import Detection, candidate_id
from CMBDetectorLib.review.finding import Certainty, Finding, Position, State

Change = Callable[[Finding, str], None]


def utc_now() -> str:
    """Return the time as ISO 8601 in UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


class Review:
    """The findings of ``detection`` in the eyes of ``reader``.

    ``findings`` may hold the state of an earlier sitting, by id; candidates of the detection that are not in it are
    unreviewed. ``changed`` is a list of functions called with (finding after the change, what was done: "judge",
    "move", "add", "remove", "comment", "undo", "redo").
    """

    def __init__(
        self,
        detection: Detection,
        reader: str = "",
        findings: Iterable[Finding] = (),
        now: Callable[[], str] = utc_now,
    ) -> None:
        self.detection = detection
        self.reader = reader
        self.changed: list[Change] = []
        self._now = now
        self._findings: dict[str, Finding] = {
            c.id: Finding(c.id, tuple(c.ras_mm), tuple(c.ras_mm), c.score, c.stage1_score, c.diameter_mm)
            for c in sorted(detection.candidates, key=lambda c: c.rank)
        }
        for finding in findings:
            self._findings[finding.id] = finding
        self._number = {key: number for number, key in enumerate(self._findings, 1)}
        self._done: list[tuple[Finding | None, Finding]] = []
        self._undone: list[tuple[Finding | None, Finding]] = []

    # What there is

    @property
    def findings(self) -> list[Finding]:
        """All findings, by falling score of the detector, then the added ones in the order of adding."""
        return [finding for finding in self._findings.values() if not finding.removed]

    def __contains__(self, key: str) -> bool:
        return key in self._findings and not self._findings[key].removed

    def __getitem__(self, key: str) -> Finding:
        """Return the finding with the id ``key``; ``KeyError`` where there is none."""
        return self._findings[key]

    def number(self, key: str) -> int:
        """Return the number shown to the reader: from 1, never given twice, the same in every sitting."""
        return self._number[key]

    def count(self, state: State) -> int:
        """Return how many findings are in ``state``."""
        return sum(finding.state is state for finding in self.findings)

    def is_visible(self, finding: Finding, threshold: float) -> bool:
        """Tell whether it is to be shown at a score of ``threshold``: what was judged or added always is."""
        return finding.is_reviewed or finding.score is None or finding.score >= threshold

    def unreviewed(self, threshold: float = 0.0) -> list[Finding]:
        """Return what is left to judge among the findings with a score of at least ``threshold``."""
        return [f for f in self.findings if not f.is_reviewed and self.is_visible(f, threshold)]

    def next_unreviewed(self, after: str | None, order: Sequence[str]) -> str | None:
        """Return the id of the next unreviewed finding in ``order`` (ids) after ``after``, going round; else None."""
        start = order.index(after) + 1 if after in order else 0
        for key in [*order[start:], *order[:start]]:
            if key in self and not self[key].is_reviewed:
                return key
        return None

    # What can be done; each change can be undone

    def judge(
        self, key: str, state: State, certainty: Certainty | None = None, mimic_class: str | None = None
    ) -> Finding:
        """Give a verdict; acceptance without ``certainty`` counts as definite. Nothing is recorded twice."""
        before = self[key]
        after = before.judged(state, certainty, mimic_class, self._now())
        if replace(after, judged_at=before.judged_at) == before:
            return before
        return self._change(before, after, "judge")

    def move(self, key: str, ras_mm: Sequence[float]) -> Finding:
        """Put the finding to where the lesion really is (RAS mm); the detector's position is kept."""
        before = self[key]
        return self._change(before, replace(before, ras_mm=_rounded(ras_mm)), "move")

    def add(self, ras_mm: Sequence[float], certainty: Certainty = Certainty.DEFINITE) -> Finding:
        """Add a microbleed that the detector missed, accepted at once (RAS mm)."""
        place = _rounded(ras_mm)
        key = "r" + candidate_id(place)[1:]
        while key in self._findings:
            key = "r" + hashlib.sha256(key.encode()).hexdigest()[:10]
        finding = Finding(key, place).judged(State.ACCEPTED, certainty, None, self._now())
        self._number[key] = max(self._number.values(), default=0) + 1
        return self._change(None, finding, "add")

    def remove(self, key: str) -> Finding:
        """Take back an added microbleed.

        Raises:
            ValueError: the detector found it; reject it instead.
        """
        before = self[key]
        if not before.is_added:
            raise ValueError("a candidate of the detector is rejected, not removed")
        return self._change(before, replace(before, removed=True), "remove")

    def comment(self, key: str, text: str) -> Finding:
        """Keep a remark of the reader."""
        before = self[key]
        return self._change(before, replace(before, comment=" ".join(text.split())), "comment")

    @property
    def can_undo(self) -> bool:
        """Whether there is something to undo."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        """Whether something was undone and nothing else done since."""
        return bool(self._undone)

    def undo(self) -> Finding | None:
        """Take back the last change; returns the finding as it is then."""
        if not self._done:
            return None
        self._undone.append(self._done.pop())
        return self._set(_before(self._undone[-1]), "undo")

    def redo(self) -> Finding | None:
        """Do again what was undone last; returns the finding as it is then."""
        if not self._undone:
            return None
        before, after = self._undone.pop()
        self._done.append((before, after))
        return self._set(after, "redo")

    def replay(self, finding: Finding, what: str) -> None:
        """Repeat a change that :attr:`changed` told in an earlier sitting, undo history included; no listener is told.

        Where the history does not lead to ``finding`` (changes in between were lost) it is forgotten, so that undo
        ends there; ``finding`` counts in any case. What changes nothing is no step of the history.
        """
        before = self._findings.get(finding.id)
        self._number.setdefault(finding.id, max(self._number.values(), default=0) + 1)
        if what in ("undo", "redo"):
            taken, given = (self._done, self._undone) if what == "undo" else (self._undone, self._done)
            outcome = (_before(taken[-1]) if what == "undo" else taken[-1][1]) if taken else None
            if outcome is not None and outcome.as_json() == finding.as_json():
                given.append(taken.pop())
            else:
                self._forget_history()
        elif before is None and what != "add":
            self._forget_history()
        elif before is None or before.as_json() != finding.as_json():
            self._done.append((before, finding))
            self._undone.clear()
        self._findings[finding.id] = finding

    def as_json(self) -> list[dict[str, Any]]:
        """Return every finding that differs from what the detector said, and the removed ones, as JSON values."""
        return [f.as_json() for f in self._findings.values() if f.is_reviewed or f.is_added or f.is_moved or f.comment]

    def _change(self, before: Finding | None, after: Finding, what: str) -> Finding:
        if before == after:
            return after
        self._done.append((before, after))
        self._undone.clear()
        return self._set(after, what)

    def _set(self, finding: Finding, what: str) -> Finding:
        self._findings[finding.id] = finding
        # A full disk must not keep the change from the screen: everybody is told before the first error goes on.
        failed: Exception | None = None
        for listener in list(self.changed):
            try:
                listener(finding, what)
            except Exception as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return finding

    def _forget_history(self) -> None:
        self._done.clear()
        self._undone.clear()


def _before(change: tuple[Finding | None, Finding]) -> Finding:
    """Return what taking back ``change`` leads to: an added finding is marked as removed, not forgotten."""
    before, after = change
    return before if before is not None else replace(after, removed=True)


def _rounded(ras_mm: Sequence[float]) -> Position:
    x, y, z = (round(float(v), 4) for v in ras_mm)
    if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(z)):
        raise ValueError("a position is not finite")
    return x, y, z
