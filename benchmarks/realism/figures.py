"""The real figures (figures.json), and the mark of a simulated figure that lies too far from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

_FILE = Path(__file__).with_name("figures.json")
_FINE_MM = 0.7
_TOO_FAR = 0.25
_ROUNDING = 0.01


@dataclass(frozen=True)
class Line:
    """One line of the table ``section``: for each of ``labels`` a number in ``real``, lowest and highest in ``ranges``.

    ``quantiles`` (percent) or ``pool`` ("mean", "spearman") say how the values of all scans become one figure; else
    each scan has one and their median counts. ``borrowed`` figures come from another family: shown, never marked.
    """

    key: str
    section: str
    what: str
    labels: tuple[str, ...]
    real: tuple[float, ...] | None
    ranges: tuple[tuple[float, float], ...] | None = None
    quantiles: tuple[float, ...] | None = None
    pool: str | None = None
    borrowed: bool = False

    def simulated(self, scans: Sequence[np.ndarray]) -> np.ndarray | None:
        """Return one number for each label from the values of each scan; None where nothing was measured."""
        scans = [np.asarray(values, float) for values in scans]
        if self.quantiles is None and self.pool is None:
            return np.nanmedian(np.stack(scans), 0).reshape(-1) if scans else None
        filled = [values for values in scans if len(values)]
        if not filled:
            return None
        values = np.concatenate(filled)
        if self.quantiles is not None:
            return np.nanpercentile(values, self.quantiles)
        if self.pool == "spearman":
            return np.array([stats.spearmanr(*values.T).statistic if len(values) > 4 else np.nan])
        return np.nanmean(values, 0).reshape(-1)

    def mark(self, simulated: Sequence[float]) -> str:
        """Say which of the ``simulated`` figures lie outside the real range, or without one differ by over 25 %."""
        if self.borrowed:
            return ""
        marks = []
        for index, (label, value) in enumerate(zip(self.labels, simulated, strict=True)):
            said = self._deviation(index, float(value))
            if said:
                marks.append(f"{label}: {said}" if label else said)
        return ", ".join(marks)

    def _deviation(self, index: int, value: float) -> str:
        real = self.real[index] if self.real else None
        if self.ranges:
            low, high = self.ranges[index]
            if low * (1 - _ROUNDING) <= value <= high * (1 + _ROUNDING) or not np.isfinite(value):
                return ""
            nearest = low if value < low else high
            real = real or nearest
        elif real is None or not np.isfinite(value) or abs(value - real) <= _TOO_FAR * abs(real):
            return ""
        word = "high" if value > real else "low"
        return f"{word} {100 * (value / real - 1):+.0f} %" if real else word


def read_lines(family: str, pixel_mm: float) -> list[Line]:
    """Return the lines of the tables for scans of a ``family`` ("t2star", "swi") whose voxels measure ``pixel_mm``."""
    fineness = "fine" if pixel_mm < _FINE_MM else "coarse"
    lines = []
    for entry in _content()["lines"]:
        found = {name: _choose(entry.get(name, {}), family, fineness) for name in ("real", "range")}
        borrowed = family != "t2star" and all(value is None for value in found.values())
        if borrowed:
            found = {name: _choose(entry.get(name, {}), "t2star", fineness) for name in ("real", "range")}
        lines.append(
            Line(
                entry["key"],
                entry["section"],
                entry["what"],
                tuple(entry["labels"]),
                tuple(found["real"]) if found["real"] else None,
                tuple((low, high) for low, high in found["range"]) if found["range"] else None,
                tuple(entry["quantiles"]) if "quantiles" in entry else None,
                entry.get("pool"),
                borrowed,
            )
        )
    return lines


def sources() -> dict[str, str]:
    """Return where the figures of each family come from."""
    return _content()["sources"]


def _choose(entry: dict, family: str, fineness: str) -> list | None:
    return entry.get(f"{family} {fineness}", entry.get(family))


def _content() -> dict:
    return json.loads(_FILE.read_text(encoding="utf-8"))
