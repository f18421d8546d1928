"""Sensitivity by group of microbleeds: in clusters, beside dark tissue, by location, by contrast."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from CMBDetectorLib.datasets.bids import LOCATIONS, Point, subject_of
from CMBDetectorLib.evaluation.froc import Froc
from CMBDetectorLib.evaluation.matching import HIT_RADIUS_MM
from CMBDetectorLib.evaluation.words import number_words, plain_json, text_table

GROUP_FP = (0.5, 1.0, 4.1, 14.5)
_REPLICATES = 1000
_STRONG_CONTRAST = 0.5
GROUP_NOTES = (
    f"In clusters: another microbleed within {HIT_RADIUS_MM:g} mm. What is not recorded puts into no group.\n"
    f"Thresholds of the FROC above. 95 % intervals: {_REPLICATES} resamplings of whole subjects, thresholds held; "
    "none from one."
)


@dataclass(frozen=True)
class HitScan:
    """The microbleeds of one scan and, for each, the score (m,) of the candidate that hit it, -inf without one.

    ``case_id`` tells whose scan it is.
    """

    microbleeds: Sequence[Point]
    scores: np.ndarray
    case_id: str


@dataclass(frozen=True)
class GroupPoint:
    """What a group reaches at the threshold of all microbleeds for ``fp_allowed`` false positives per scan.

    ``found`` counts microbleeds, ``sensitivity`` is pooled over them and NaN where the group is empty; its 95 %
    interval ``sensitivity_ci`` (low, high) is NaN where the group lies in fewer than two subjects. ``threshold`` is
    ``None`` where not even the surest candidates stay within ``fp_allowed``: then nothing is found.
    """

    fp_allowed: float
    threshold: float | None
    found: int
    sensitivity: float
    sensitivity_ci: tuple[float, float]


@dataclass(frozen=True)
class Group:
    """A group of microbleeds, how many there are, in how many scans, and what is found of them."""

    name: str
    microbleeds: int
    scans: int
    points: list[GroupPoint]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; NaN becomes ``None``."""
        return plain_json({**vars(self), "points": [dict(vars(point)) for point in self.points]})


def by_group(scans: Sequence[HitScan], final: Froc, seed: int = 0) -> list[Group]:
    """Return the groups that the annotations of ``scans`` support, "all" first; none without microbleeds.

    A group is supported where its property is recorded for some microbleed. ``final`` is the FROC of the same scans,
    ``seed`` that of the resampled subjects.
    """
    bleeds = [point for scan in scans for point in scan.microbleeds]
    if not bleeds:
        return []
    number = np.repeat(np.arange(len(scans)), [len(scan.microbleeds) for scan in scans])
    scores = np.concatenate([np.asarray(scan.scores, float).reshape(-1) for scan in scans])
    thresholds = _thresholds(final)
    # (m, t): whether each microbleed is found at each threshold; a score of -inf is never found.
    found = np.isfinite(scores)[:, None] & (
        scores[:, None] >= np.array([np.inf if t is None else t for t in thresholds])
    )
    members = _members(bleeds, np.concatenate([in_cluster(scan.microbleeds) for scan in scans]))
    inside = np.stack(list(members.values())).astype(float)
    of_scan = (number == np.arange(len(scans))[:, None]).astype(float)
    # Counts of each scan (s) and group (g), and what is found of them at each threshold (t).
    count = of_scan @ inside.T
    hits = np.einsum("sm,gm,mt->sgt", of_scan, inside, found.astype(float), optimize=True)
    subjects = list(dict.fromkeys(subject_of(scan.case_id) for scan in scans))
    of_subject = np.array([[subject_of(scan.case_id) == name for scan in scans] for name in subjects], float)
    low, high = _intervals(of_subject @ count, np.tensordot(of_subject, hits, 1), seed)
    groups = []
    for g, name in enumerate(members):
        total, found_of = int(count[:, g].sum()), hits[:, g].sum(axis=0)
        points = [
            GroupPoint(fp, thresholds[t], int(found_of[t]), _share(found_of[t], total), (low[g, t], high[g, t]))
            for t, fp in enumerate(GROUP_FP)
        ]
        groups.append(Group(name, total, int(np.count_nonzero(count[:, g])), points))
    return groups


def in_cluster(microbleeds: Sequence[Point]) -> np.ndarray:
    """Tell for each microbleed (m,) of one scan whether another one lies within the hit radius."""
    places = np.array([point.ras_mm for point in microbleeds], float).reshape(-1, 3)
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    return np.count_nonzero(apart <= HIT_RADIUS_MM, axis=1) > 1


def group_words(groups: Sequence[Group]) -> list[tuple[str, ...]]:
    """Return ``groups`` as a table of words, its first row the heading."""
    heading = ("group", "microbleeds", "scans", *(f"<= {fp:g} FP/scan" for fp in GROUP_FP))
    rows = [(g.name, str(g.microbleeds), str(g.scans), *map(_cell, g.points)) for g in groups]
    return [heading, *rows]


def group_table(groups: Sequence[Group]) -> str:
    """Return ``groups`` as text for a terminal."""
    return f"Sensitivity by group (95 %)\n{text_table(group_words(groups), (0,))}\n{GROUP_NOTES}"


def group_rows(groups: Iterable[Group]) -> list[dict[str, Any]]:
    """Return the rows of ``groups.tsv``: one a group and rate of false positives, its columns ``GROUP_COLUMNS``."""
    rows = []
    for group in groups:
        for point in group.points:
            low, high = (None if np.isnan(v) else v for v in point.sensitivity_ci)
            sensitivity = None if np.isnan(point.sensitivity) else point.sensitivity
            figures = {"sensitivity": sensitivity, "sensitivity_low": low, "sensitivity_high": high}
            about = {"group": group.name, "microbleeds": group.microbleeds, "scans": group.scans}
            rows.append({**about, **vars(point), **figures})
    return rows


GROUP_COLUMNS = (
    "group", "microbleeds", "scans", "fp_allowed", "threshold", "found",
    "sensitivity", "sensitivity_low", "sensitivity_high",
)  # fmt: skip


def _thresholds(final: Froc) -> list[float | None]:
    known = {point.fp_allowed: point.threshold for point in final.operating_points}
    return [known[fp] for fp in GROUP_FP]


def _members(bleeds: Sequence[Point], clustered: np.ndarray) -> dict[str, np.ndarray]:
    """Return which microbleeds (m,) belong to each group; microbleeds of unknown property to none of its groups."""
    dark = np.array([-1 if point.near_dark is None else int(point.near_dark) for point in bleeds])
    location = np.array([point.location or "" for point in bleeds])
    # NaN lies neither below nor above.
    contrast = np.array([np.nan if point.contrast is None else point.contrast for point in bleeds])
    members = {"all": np.ones(len(bleeds), bool), "in clusters": clustered, "alone": ~clustered}
    if (dark >= 0).any():
        members |= {"beside dark tissue": dark == 1, "elsewhere": dark == 0}
    if (location != "").any():
        members |= {name: location == name for name in LOCATIONS}
    if not np.isnan(contrast).all():
        limit = _STRONG_CONTRAST
        members |= {f"contrast < {limit:g}": contrast < limit, f"contrast >= {limit:g}": contrast >= limit}
    return members


def _intervals(count: np.ndarray, hits: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return both ends (g, t) of the 95 % intervals; ``count`` (s, g), ``hits`` (s, g, t) of each subject."""
    subjects, groups, rates = hits.shape
    # How often each scan is drawn when as many as there are are drawn with replacement.
    weight = (
        np.random.default_rng(seed).multinomial(subjects, np.full(subjects, 1 / subjects), _REPLICATES).astype(float)
    )
    total = weight @ count
    reached = (weight @ hits.reshape(subjects, -1)).reshape(_REPLICATES, groups, rates)
    low, high = np.full((2, groups, rates), np.nan)
    for g in range(groups):
        seen = total[:, g] > 0
        # One subject can only be drawn again and again: an interval of no width would pretend to be sure.
        if np.count_nonzero(count[:, g]) > 1:
            low[g], high[g] = np.percentile(reached[seen, g] / total[seen, g, None], [2.5, 97.5], axis=0)
    return low, high


def _share(part: float, whole: int) -> float:
    return float(part) / whole if whole else float("nan")


def _cell(point: GroupPoint) -> str:
    low, high = point.sensitivity_ci
    words = number_words(100 * point.sensitivity, ".1f", " %")
    return words if np.isnan(low) else f"{words} ({100 * low:.0f}-{100 * high:.0f})"
