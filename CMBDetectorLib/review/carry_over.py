"""The verdicts of an earlier review, applied to a new detection of the same scan."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from CMBDetectorLib.candidate import Candidate, Detection
from CMBDetectorLib.review.finding import Finding, State
from CMBDetectorLib.review.review import Review

_KEPT_WITHOUT_CANDIDATE = (State.ACCEPTED, State.UNSURE)


def carry_over(old_review: Review, detection: Detection, within_mm: float = 2.0) -> list[Finding]:
    """Return the findings to begin a new review of ``detection`` with: ``Review(detection, reader, carry_over(…))``.

    Each judged, moved or commented candidate of ``old_review`` hands that to the candidate of ``detection`` nearest to
    where the old detector saw it, one to one and at most ``within_mm`` (RAS mm) away. Then each added microbleed goes
    to a candidate left over that is that near to it, so that a lesion the new detector finds by itself is not counted
    twice; the others stay added. A microbleed, or a place the reader was unsure of, that the new detector does not see
    becomes an added one; a rejected place that it does not see is dropped.
    """
    said = [f for f in old_review.findings if f.is_added or f.is_reviewed or f.is_moved or f.comment]
    detected = [finding for finding in said if not finding.is_added]
    added = [finding for finding in said if finding.is_added]
    free = {candidate.id: candidate for candidate in detection.candidates}
    carried: list[Finding] = []
    lost: list[Finding] = []
    for group, position in ((detected, "detected_ras_mm"), (added, "ras_mm")):
        pairs = _nearest_pairs([getattr(finding, position) for finding in group], free.values(), within_mm)
        for number, finding in enumerate(group):
            candidate = pairs.get(number)
            if candidate is None:
                lost.append(finding)
            else:
                del free[candidate.id]
                carried.append(_applied(finding, candidate))
    taken = {candidate.id for candidate in detection.candidates}
    for finding in lost:
        if finding.is_added or finding.state in _KEPT_WITHOUT_CANDIDATE:
            key = finding.id if finding.is_added else "r" + finding.id[1:]
            while key in taken:
                key += "x"
            taken.add(key)
            carried.append(replace(finding, id=key, detected_ras_mm=None, score=None, stage1_score=None))
    return carried


def _applied(finding: Finding, candidate: Candidate) -> Finding:
    """Return what was said in ``finding`` as said of ``candidate``; a place that the reader set stays where it is."""
    seen = tuple(candidate.ras_mm)
    return replace(
        finding,
        id=candidate.id,
        ras_mm=finding.ras_mm if finding.is_moved or finding.is_added else seen,
        detected_ras_mm=seen,
        score=candidate.score,
        stage1_score=candidate.stage1_score,
        diameter_mm=candidate.diameter_mm,
    )


def _nearest_pairs(
    positions: list[tuple[float, float, float]], candidates: Iterable[Candidate], within_mm: float
) -> dict[int, Candidate]:
    """Return position number -> candidate, each used once, nearest pairs first."""
    near = []
    for candidate in candidates:
        for number, position in enumerate(positions):
            distance = math.dist(position, candidate.ras_mm)
            if distance <= within_mm:
                near.append((distance, number, candidate.id, candidate))
    pairs: dict[int, Candidate] = {}
    used: set[str] = set()
    for _, number, key, candidate in sorted(near, key=lambda pair: pair[:3]):
        if number not in pairs and key not in used:
            pairs[number] = candidate
            used.add(key)
    return pairs
