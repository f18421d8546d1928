"""Detections and reviews as the review tests need them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from grids import CENTRE_RAS, MARK_RAS

from CMBDetectorLib.candidate import Candidate, Detection, candidate_id
from CMBDetectorLib.review.finding import Certainty, State
from CMBDetectorLib.review.log import ReviewLog
from CMBDetectorLib.review.review import Review

MODEL = {
    "name": "default",
    "version": "1",
    "checksum": "ab" * 32,
    "training_data": "Trained on simulated scans.",
    "licence": "Apache-2.0",
}
HERE = Path(__file__).resolve().parent
KEY = "0123456789abcdef"


def detection(
    places=((1.0, 2.0, 3.0), (-10.5, 20.25, 7.125), (30.0, -40.0, 50.0)), threshold=0.5, **model
) -> Detection:
    """A detection with a candidate at each of ``places``, of falling score: 0.9, 0.8, … (rounded as on disk)."""
    candidates = [
        Candidate(
            candidate_id(place),
            tuple(place),
            round(0.95 - number / 100, 4),
            round(max(0.9 - number / 10, 0.0), 4),
            round(2.0 + 3.1 * number, 2),
        )
        for number, place in enumerate(places)
    ]
    scan = {"kind": "file", "name": "scan.nii.gz", "shape": [64, 64, 32]}
    return Detection(scan, {**MODEL, **model}, {"threshold": threshold}, candidates, {"stage 1": 1.5})


class Clock:
    """A clock that goes on by a second a look."""

    def __init__(self, start: int = 0) -> None:
        self.seconds = start

    def __call__(self) -> str:
        self.seconds += 1
        return f"2026-03-01T10:{self.seconds // 60:02d}:{self.seconds % 60:02d}+00:00"


def review(reader="Dr A", **arguments) -> Review:
    """A review of :func:`detection` on a :class:`Clock`."""
    return Review(detection(**arguments), reader, now=Clock())


def ids(of: Review) -> list[str]:
    """The ids of its findings in their order."""
    return [finding.id for finding in of.findings]


def sitting(root, of=None, close=True, now=None):
    """A review with some verdicts in a log: (review, log)."""
    of = of or review()
    log = ReviewLog.create(root, KEY, of, now or Clock())
    of.changed.append(log.append)
    first, second, _ = ids(of)[:3]
    of.judge(first, State.ACCEPTED, Certainty.POSSIBLE)
    of.judge(second, State.REJECTED, mimic_class="vessel")
    of.move(first, (1.5, 2, 3))
    of.add((7, 8, 9))
    of.comment(second, "= bright on phase; \u00fc\u2028\U0001f9e0")
    of.undo()
    if close:
        log.close()
    return of, log


def python(code, *arguments, **options):
    """Start Python on ``code`` with the library and the test helpers at hand."""
    path = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        **options,
    )


OFFSETS = ((3.0, 5.0, -4.0), (-6.0, 2.0, 1.0), (1.0, -7.0, 5.0), (0.0, 0.0, 0.0))
"""Candidates of :func:`judged`, from the centre of the phantom (RAS mm)."""


def judged(reader="Dr A", comment="faint") -> Review:
    """Accepted (moved to MARK_RAS), rejected, unsure, unreviewed, and two added of which one was taken back."""
    of = Review(detection([tuple(CENTRE_RAS + offset) for offset in OFFSETS], threshold=0.65), reader)
    keys = ids(of)
    of.judge(keys[0], State.ACCEPTED, Certainty.POSSIBLE)
    of.move(keys[0], MARK_RAS)
    of.judge(keys[1], State.REJECTED, mimic_class="vessel")
    of.judge(keys[2], State.UNSURE)
    of.comment(keys[1], comment)
    of.remove(of.add((1, 1, 1)).id)
    of.add(CENTRE_RAS)
    return of
