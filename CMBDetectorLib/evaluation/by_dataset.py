"""Datasets that were evaluated together: each with the threshold of all and with its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from CMBDetectorLib.evaluation.froc import Froc, ScanResult, froc
from CMBDetectorLib.evaluation.groups import GROUP_FP
from CMBDetectorLib.evaluation.words import number_words, plain_json, text_table

DATASET_NOTE = (
    "First at the threshold of all datasets together (in brackets the FP/scan that it gives in this one), "
    "then at its own."
)


@dataclass(frozen=True)
class DatasetPoint:
    """What a dataset reaches for ``fp_allowed`` false positives per scan, allowed over all datasets or in it alone.

    Thresholds are ``None`` where not even the surest candidates stay within, sensitivities (pooled over microbleeds)
    NaN without microbleeds.
    """

    fp_allowed: float
    pooled_threshold: float | None
    pooled_fp_per_scan: float
    pooled_sensitivity: float
    own_threshold: float | None
    own_fp_per_scan: float
    own_sensitivity: float


@dataclass(frozen=True)
class DatasetFigures:
    """One of several datasets, how many scans and microbleeds it has, and what is found of them."""

    name: str
    scans: int
    microbleeds: int
    points: list[DatasetPoint]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; NaN becomes ``None``."""
        return plain_json({**vars(self), "points": [dict(vars(point)) for point in self.points]})


def by_dataset(results: Iterable[ScanResult], names: Mapping[str, str], pooled: Froc) -> list[DatasetFigures]:
    """Return the figures of each dataset; ``names`` says whose each case id is, ``pooled`` is the FROC of all."""
    parts: dict[str, list[ScanResult]] = {}
    for result in results:
        parts.setdefault(names[result.case_id], []).append(result)
    figures = []
    for name, part in parts.items():
        own = froc(part)
        points = [_point(fp, pooled, own) for fp in GROUP_FP]
        figures.append(DatasetFigures(name, own.scans, own.microbleeds, points))
    return figures


def dataset_words(datasets: Sequence[DatasetFigures]) -> list[tuple[str, ...]]:
    """Return ``datasets`` as a table of words, its first row the heading."""
    heading = ["dataset", "scans", "microbleeds"]
    for fp in GROUP_FP:
        heading += [f"<= {fp:g}", "own"]
    rows = [tuple(heading)]
    for d in datasets:
        cells = [d.name, str(d.scans), str(d.microbleeds)]
        for point in d.points:
            cells.append(f"{_percent(point.pooled_sensitivity)} ({point.pooled_fp_per_scan:.1f})")
            cells.append(_percent(point.own_sensitivity))
        rows.append(tuple(cells))
    return rows


def dataset_table(datasets: Sequence[DatasetFigures]) -> str:
    """Return ``datasets`` as text for a terminal."""
    return f"Sensitivity by dataset (FP/scan)\n{text_table(dataset_words(datasets), (0,))}\n{DATASET_NOTE}"


def dataset_rows(datasets: Iterable[DatasetFigures]) -> list[dict[str, Any]]:
    """Return the rows of ``datasets.tsv``: one a dataset and rate, its columns ``DATASET_COLUMNS``."""
    return [
        {"dataset": d.name, "scans": d.scans, "microbleeds": d.microbleeds, **plain_json(dict(vars(point)))}
        for d in datasets
        for point in d.points
    ]


DATASET_COLUMNS = ("dataset", "scans", "microbleeds", *DatasetPoint.__annotations__)


def _point(fp: float, pooled: Froc, own: Froc) -> DatasetPoint:
    of_all, of_own = (next(p for p in curve.operating_points if p.fp_allowed == fp) for curve in (pooled, own))
    reached = own.at(np.inf if of_all.threshold is None else of_all.threshold)
    return DatasetPoint(
        fp,
        of_all.threshold,
        reached["fp_per_scan"],
        reached["sensitivity"],
        of_own.threshold,
        of_own.fp_per_scan,
        of_own.sensitivity,
    )


def _percent(share: float) -> str:
    return number_words(100 * share, ".1f", " %")
