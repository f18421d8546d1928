"""Two models on the same scans: what the new one gains and loses, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from CMBDetectorLib.evaluation.froc import Froc, OperatingPoint, Pool, ScanResult, froc
from CMBDetectorLib.evaluation.matching import match
from CMBDetectorLib.evaluation.words import plain_json

RATES = (1.0, 4.1, 14.5)
"""False positives a scan at which the models are compared."""
JUDGED_FP = 4.1
Outcome = Literal["better", "same", "worse"]


@dataclass(frozen=True)
class Rate:
    """The sensitivities of both models with at most ``fp`` false positives a scan, and their difference (new - old).

    ``difference_ci`` is its 95 % interval over resamplings of whole subjects, the same ones for both models; NaN where
    fewer than two subjects have microbleeds.
    """

    fp: float
    old: OperatingPoint
    new: OperatingPoint
    difference: float
    difference_ci: tuple[float, float]


@dataclass(frozen=True)
class Changed:
    """A microbleed that one model finds at ``JUDGED_FP`` and the other does not: its scan, place (RAS mm) and scores.

    A score is ``None`` where stage 1 never proposed it.
    """

    scan: str
    ras_mm: tuple[float, float, float]
    old_score: float | None
    new_score: float | None


@dataclass(frozen=True)
class Comparison:
    """Both curves, the rates and the microbleeds ``won`` and ``lost`` by the new model."""

    old: Froc
    new: Froc
    rates: list[Rate]
    won: list[Changed]
    lost: list[Changed]

    @property
    def judged(self) -> Rate:
        """The rate at which the models are judged."""
        return next(rate for rate in self.rates if rate.fp == JUDGED_FP)

    @property
    def outcome(self) -> Outcome:
        """Whether the difference is more than chance: its interval lies on one side of 0."""
        low, high = self.judged.difference_ci
        return "better" if low > 0 else "worse" if high < 0 else "same"

    def verdict(self) -> str:
        """Return what the comparison says, for a radiologist."""
        rate, total = self.judged, self.old.microbleeds
        if not total:
            return "The scans hold no microbleeds: nothing can be compared."
        found = (
            f"With {rate.fp:g} false positives a scan the new model finds {round(rate.new.sensitivity * total)} of "
            f"{total} microbleeds and the old one {round(rate.old.sensitivity * total)}"
        )
        interval = f"difference {100 * rate.difference:+.0f} %, 95 % interval {_limits(rate)}"
        meaning = {
            "better": "the new model is better on these scans.",
            "worse": "the new model is worse on these scans: keep the old one.",
            "same": "on so few scans that may be chance."
            if rate.difference > 0
            else "nothing shows that the new model is better.",
        }[self.outcome]
        return f"{found} ({interval}): {meaning}"

    def to_json(self) -> dict[str, Any]:
        """Return ``rates``, ``curves``, ``won``, ``lost``, ``outcome`` and ``verdict`` as plain JSON values."""
        rates = [
            {
                "fp": rate.fp,
                "old": _point(rate.old),
                "new": _point(rate.new),
                "difference": rate.difference,
                "difference_ci": rate.difference_ci,
            }
            for rate in self.rates
        ]
        curves = {
            name: {"fp": curve.fp_per_scan, "sensitivity": curve.sensitivity, "threshold": curve.threshold}
            for name, curve in (("old", self.old), ("new", self.new))
        }
        content = {
            "scans": self.old.scans,
            "microbleeds": self.old.microbleeds,
            "rates": rates,
            "curves": curves,
            "won": [dict(vars(changed)) for changed in self.won],
            "lost": [dict(vars(changed)) for changed in self.lost],
            "outcome": self.outcome,
            "verdict": self.verdict(),
        }
        return plain_json(content)

    def table(self) -> str:
        """Return the rates as text for a terminal."""
        lines = ["FP/scan          old          new   difference (95 %)"]
        for rate in self.rates:
            lines.append(
                f"<= {rate.fp:<5g}  {rate.old.sensitivity:9.1%}    {rate.new.sensitivity:9.1%}   "
                f"{100 * rate.difference:+.1f} ({_limits(rate)}) %"
            )
        return "\n".join(lines)


def compare_models(old: Sequence[ScanResult], new: Sequence[ScanResult], seed: int = 0) -> Comparison:
    """Return the comparison of two models on the same scans in the same order; ``seed`` is that of the resampling.

    Raises:
        ValueError: there are no scans, or they are not the same.
    """
    if [result.case_id for result in old] != [result.case_id for result in new]:
        raise ValueError("the models were not run on the same scans")
    curves = froc(old, seed), froc(new, seed)
    intervals = _paired(old, new, seed)
    rates = []
    for number, fp in enumerate(RATES):
        before, after = (next(p for p in curve.operating_points if p.fp_allowed == fp) for curve in curves)
        rates.append(Rate(fp, before, after, after.sensitivity - before.sensitivity, intervals[number]))
    judged = next(rate for rate in rates if rate.fp == JUDGED_FP)
    won, lost = _changed(old, new, judged)
    return Comparison(*curves, rates, won, lost)


def _paired(old: Sequence[ScanResult], new: Sequence[ScanResult], seed: int) -> list[tuple[float, float]]:
    """Return the 95 % interval of the difference at each of ``RATES``."""
    pools = Pool(new), Pool(old)
    # The same subjects are drawn for both.
    drawn = [np.subtract(*(_sensitivities(pool, weight) for pool in pools)) for weight in pools[0].resampled(seed)]
    if not drawn:
        return [(np.nan, np.nan)] * len(RATES)
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def _sensitivities(pool: Pool, weight: np.ndarray) -> np.ndarray:
    counts = pool.curve(weight)
    index = np.searchsorted(counts["fp_per_scan"], RATES, side="right")
    return np.concatenate([[0.0], counts["sensitivity"]])[index]


def _limits(rate: Rate) -> str:
    low, high = rate.difference_ci
    return f"{100 * low:+.0f} to {100 * high:+.0f}" if np.isfinite(low) else "unknown"


def _changed(old: Sequence[ScanResult], new: Sequence[ScanResult], rate: Rate) -> tuple[list[Changed], list[Changed]]:
    """Return the microbleeds that only the new model finds, and those that only the old one finds."""
    won, lost = [], []
    limits = [np.inf if point.threshold is None else point.threshold for point in (rate.old, rate.new)]
    for before, after in zip(old, new, strict=True):
        scores = [_scores(result) for result in (before, after)]
        for place, *both in zip(np.reshape(before.truth_ras, (-1, 3)), *scores, strict=True):
            had, has = (score >= limit for score, limit in zip(both, limits, strict=True))
            if had != has:
                known = [float(score) if np.isfinite(score) else None for score in both]
                changed = Changed(before.case_id, tuple(round(float(v), 3) for v in place), *known)
                (won if has else lost).append(changed)
    return won, lost


def _scores(result: ScanResult) -> np.ndarray:
    """Return for each microbleed (m,) the score of the candidate that hits it, -inf without one."""
    found = match(result.candidates_ras, result.scores, result.truth_ras)
    return np.append(np.asarray(result.scores, float), -np.inf)[found.candidate]


def _point(point: OperatingPoint) -> dict[str, Any]:
    return {
        "sensitivity": point.sensitivity,
        "ci": point.sensitivity_ci,
        "fp_per_scan": point.fp_per_scan,
        "threshold": point.threshold,
    }
