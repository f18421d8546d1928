"""FROC: sensitivity against false positives per scan, with operating points and bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from CMBDetectorLib.candidate import threshold_at
from CMBDetectorLib.datasets.bids import subject_of
from CMBDetectorLib.evaluation.matching import match
from CMBDetectorLib.evaluation.words import interval_words, number_words, plain_json, text_table

OPERATING_FP = (0.5, 1.0, 2.0, 4.1, 8.0, 14.5, 38.15)
_REPLICATES = 1000


@dataclass(frozen=True)
class ScanResult:
    """One scan: ``candidates_ras`` (n, 3) and ``truth_ras`` (m, 3) in RAS mm, ``scores`` (n,), higher is surer."""

    case_id: str
    candidates_ras: np.ndarray
    scores: np.ndarray
    truth_ras: np.ndarray


@dataclass(frozen=True)
class OperatingPoint:
    """What is reached with no more than ``fp_allowed`` false positives per scan.

    ``threshold`` is the lowest score that stays within it, ``None`` where not even the surest candidates do; the
    sensitivities (pooled over microbleeds, mean over scans) have 95 % intervals (low, high) from resampled subjects,
    NaN where fewer than two of them have microbleeds.
    """

    fp_allowed: float
    threshold: float | None
    fp_per_scan: float
    sensitivity: float
    sensitivity_ci: tuple[float, float]
    mean_sensitivity: float
    mean_sensitivity_ci: tuple[float, float]
    precision: float
    f1: float


@dataclass(frozen=True)
class Froc:
    """The curve of a set of scans. All arrays are (t,), one entry a threshold, by falling threshold.

    A candidate counts where its score is at least the threshold. ``sensitivity`` is pooled over all microbleeds,
    ``mean_sensitivity`` the mean of the sensitivities of the scans that have microbleeds (the others count for false
    positives only). Values that do not exist (no microbleeds, no candidates) are NaN. ``band_*`` (b,) are the 95 %
    intervals of the pooled sensitivity at ``band_fp`` false positives per scan.
    """

    scans: int
    scans_with_microbleeds: int
    microbleeds: int
    candidates: int
    threshold: np.ndarray
    fp_per_scan: np.ndarray
    sensitivity: np.ndarray
    mean_sensitivity: np.ndarray
    precision: np.ndarray
    f1: np.ndarray
    operating_points: list[OperatingPoint]
    band_fp: np.ndarray
    band_low: np.ndarray
    band_high: np.ndarray

    def at(self, threshold: float) -> dict[str, float]:
        """Return FP per scan, both sensitivities, precision and F1 of the candidates scored ``threshold`` or more."""
        return self._row(int(np.count_nonzero(self.threshold >= threshold)) - 1)

    def ceiling(self) -> dict[str, float]:
        """Return the same with all candidates: no threshold can find more."""
        return self._row(len(self.threshold) - 1)

    def best_f1(self) -> dict[str, float]:
        """Return the same, and the threshold, where F1 is highest; chosen on these very scans, hence optimistic."""
        if not np.isfinite(self.f1).any():
            return {"threshold": np.nan, **self._row(-1)}
        index = int(np.nanargmax(self.f1))
        return {"threshold": float(self.threshold[index]), **self._row(index)}

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values; NaN becomes ``None``."""
        curve = {name: getattr(self, name) for name in ("threshold", "fp_per_scan", *_MEASURES)}
        band = {"fp_per_scan": self.band_fp, "low": self.band_low, "high": self.band_high}
        return plain_json(
            {
                "scans": self.scans,
                "scans_with_microbleeds": self.scans_with_microbleeds,
                "microbleeds": self.microbleeds,
                "candidates": self.candidates,
                "operating_points": [dict(vars(point)) for point in self.operating_points],
                "ceiling": self.ceiling(),
                "best_f1": self.best_f1(),
                "curve": curve,
                "sensitivity_band_95": band,
            }
        )

    def rows(self) -> list[tuple[str, ...]]:
        """Return the operating points as a table of words, its first row the heading."""
        rows = [_HEADING]
        for p in self.operating_points:
            intervals = (interval_words(p.sensitivity_ci), interval_words(p.mean_sensitivity_ci))
            rows.append(_words(f"<= {p.fp_allowed:g}", vars(p), intervals, p.threshold))
        rows.append(_words("all candidates", self.ceiling(), ("", ""), None))
        best = self.best_f1()
        rows.append(_words("best F1 *", best, ("", ""), best["threshold"]))
        return rows

    def table(self) -> str:
        """Return the operating points as text for a terminal."""
        counts = f"{self.scans_with_microbleeds} have microbleeds ({self.microbleeds} in all)"
        return "\n".join(
            [
                f"Scans: {self.scans}, of which {counts}. Candidates: {self.candidates}.",
                text_table(self.rows()),
                NOTES,
            ]
        )

    def _row(self, index: int) -> dict[str, float]:
        if index < 0:
            nothing = 0.0 if self.microbleeds else np.nan
            return {"fp_per_scan": 0.0, "sensitivity": nothing, "mean_sensitivity": nothing} | {
                "precision": np.nan,
                "f1": nothing,
            }
        return {name: float(getattr(self, name)[index]) for name in ("fp_per_scan", *_MEASURES)}


NOTES = (
    "Each sensitivity is that of a threshold that exists: the curve is read as steps, never interpolated upward.\n"
    f"95 % intervals: percentiles of {_REPLICATES} resamplings of whole subjects, none from one with microbleeds.\n"
    "* Threshold chosen on these very scans, hence optimistic."
)
_HEADING = ("FP/scan", "reached", "sensitivity", "95 %", "mean of scans", "95 %", "precision", "F1", "threshold")
_MEASURES = ("sensitivity", "mean_sensitivity", "precision", "f1")


def froc(results: Sequence[ScanResult], seed: int = 0) -> Froc:
    """Return the FROC of ``results`` under the hit rule of :func:`~CMBDetectorLib.evaluation.matching.match`.

    Each scan is matched once: hits of the higher scores do not change when the threshold falls, so counts cumulate.
    The intervals are the 2.5th and 97.5th percentile over 1000 resamplings of whole subjects (all scans of
    one, :func:`~CMBDetectorLib.datasets.bids.subject_of`), drawn with ``seed``.

    Raises:
        ValueError: there are no scans.
    """
    if not results:
        raise ValueError("no scans to evaluate")
    pool = Pool(results)
    counts = pool.curve(np.ones(len(results)))
    grid = np.union1d(OPERATING_FP, np.geomspace(0.1, max(1.0, counts["fp_per_scan"].max(initial=0.0)), 40))
    pooled, mean = pool.bootstrap(grid, seed)
    curve = Froc(
        len(results),
        int(np.count_nonzero(pool.truths)),
        int(pool.truths.sum()),
        len(pool.scores),
        pool.scores[pool.last],
        **counts,
        operating_points=[],
        band_fp=grid,
        band_low=pooled[0],
        band_high=pooled[1],
    )
    for fp in OPERATING_FP:
        index = int(np.searchsorted(grid, fp))
        curve.operating_points.append(_operating_point(curve, fp, pooled[:, index], mean[:, index]))
    return curve


class Pool:
    """The candidates of all scans by falling score, ready to be counted with any weight of each scan."""

    def __init__(self, results: Sequence[ScanResult]) -> None:
        scores, hits, scans = [], [], []
        for number, result in enumerate(results):
            found = match(result.candidates_ras, result.scores, result.truth_ras)
            scores.append(np.asarray(result.scores, dtype=float).reshape(-1))
            hits.append(found.is_hit)
            scans.append(np.full(len(found.truth), number))
        order = np.argsort(-np.concatenate(scores), kind="stable")
        self.scores = np.concatenate(scores)[order]
        self._hit = np.concatenate(hits)[order]
        self._scan = np.concatenate(scans)[order].astype(int)
        self.truths = np.array([len(np.reshape(result.truth_ras, (-1, 3))) for result in results])
        subjects: dict[str, int] = {}
        self._subject = np.array([subjects.setdefault(subject_of(r.case_id), len(subjects)) for r in results])
        # Candidates of one score are above a threshold together: only the last of each counts.
        self.last = np.flatnonzero(np.diff(self.scores, append=-np.inf)) if len(self.scores) else np.zeros(0, int)

    def curve(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """Return the measures at every threshold (t,) where scan s counts ``weight[s]`` times."""
        each = weight[self._scan]
        hits = np.cumsum(each * self._hit)[self.last]
        false = np.cumsum(each * ~self._hit)[self.last]
        share = np.cumsum(each * self._hit / np.maximum(1, self.truths)[self._scan])[self.last]
        truths = float(weight @ self.truths)
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                "fp_per_scan": false / weight.sum(),
                "sensitivity": hits / np.float64(truths),
                "mean_sensitivity": share / np.float64(weight @ (self.truths > 0)),
                "precision": hits / (hits + false),
                "f1": 2 * hits / (hits + false + truths) if truths else np.full(len(hits), np.nan),
            }

    def resampled(self, seed: int) -> Iterator[np.ndarray]:
        """Yield the weights (s,) of the scans in 1000 resamplings of whole subjects, as far as they hold microbleeds;
        none where fewer than two subjects have any: an interval of no width would pretend to be sure."""
        subjects = int(self._subject.max()) + 1
        if np.count_nonzero(np.bincount(self._subject, self.truths)) < 2:
            return
        generator = np.random.default_rng(seed)
        for _ in range(_REPLICATES):
            drawn = np.bincount(generator.integers(subjects, size=subjects), minlength=subjects)
            weight = drawn[self._subject].astype(float)
            if weight @ self.truths:
                yield weight

    def bootstrap(self, fp_allowed: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the 95 % intervals (2, b) of the pooled and of the mean sensitivity at each of ``fp_allowed`` (b,)."""
        drawn = []
        for weight in self.resampled(seed):
            counts = self.curve(weight)
            index = np.searchsorted(counts["fp_per_scan"], fp_allowed, side="right")
            drawn.append([np.concatenate([[0.0], counts[name]])[index] for name in ("sensitivity", "mean_sensitivity")])
        if not drawn:
            return np.full((2, len(fp_allowed)), np.nan), np.full((2, len(fp_allowed)), np.nan)
        low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
        return np.stack([low[0], high[0]]), np.stack([low[1], high[1]])


def _operating_point(curve: Froc, fp: float, pooled: np.ndarray, mean: np.ndarray) -> OperatingPoint:
    # Both counts only grow as the threshold falls, so the last threshold allowed is the most sensitive.
    index = int(np.searchsorted(curve.fp_per_scan, fp, side="right")) - 1
    row = curve._row(index)
    return OperatingPoint(
        fp,
        float(curve.threshold[index]) if index >= 0 else None,
        row["fp_per_scan"],
        row["sensitivity"],
        (float(pooled[0]), float(pooled[1])),
        row["mean_sensitivity"],
        (float(mean[0]), float(mean[1])),
        row["precision"],
        row["f1"],
    )


def _words(
    name: str, values: Mapping[str, Any], intervals: tuple[str, str], threshold: float | None
) -> tuple[str, ...]:
    """Return one row of :meth:`Froc.rows`; numbers that do not exist become "-"."""
    pooled, mean = (number_words(100 * values[key], ".1f", " %") for key in ("sensitivity", "mean_sensitivity"))
    precision, f1 = (number_words(values[key], ".3f") for key in ("precision", "f1"))
    reached = f"{values['fp_per_scan']:.2f}"
    # With fewer decimals it could drop the candidate that it stands for.
    score = "-" if threshold is None or np.isnan(threshold) else f"{threshold_at(threshold):.4f}"
    return (name, reached, pooled, intervals[0], mean, intervals[1], precision, f1, score)
