"""The candidates of one scan as a table for a spreadsheet (``candidates.csv``)."""

from __future__ import annotations

from pathlib import Path

from CMBDetectorLib.candidate import Candidate, Detection
from CMBDetectorLib.files import write_table

COLUMNS = (
    "rank",
    "id",
    "x_ras_mm",
    "y_ras_mm",
    "z_ras_mm",
    "score",
    "stage1_score",
    "diameter_mm",
    "shown",
)


def ranked(detection: Detection) -> list[tuple[int, Candidate, bool]]:
    """Return (rank from 1, candidate, whether it is shown) by falling score."""
    shown = {candidate.id for candidate in detection.shown()}
    order = sorted(detection.candidates, key=lambda c: c.rank)
    return [(rank, candidate, candidate.id in shown) for rank, candidate in enumerate(order, 1)]


def write_candidate_table(path: Path | str, detection: Detection) -> None:
    """Write every candidate of ``detection``, shown or not, as one row of a CSV file.

    Raises:
        OutputError: it cannot be written.
    """
    rows = []
    for rank, candidate, shown in ranked(detection):
        places = (round(float(v), 3) for v in candidate.ras_mm)
        values = (round(candidate.score, 4), round(candidate.stage1_score, 4), round(candidate.diameter_mm, 2))
        cells = (rank, candidate.id, *places, *values, "yes" if shown else "no")
        rows.append(dict(zip(COLUMNS, cells, strict=True)))
    write_table(path, COLUMNS, rows)
