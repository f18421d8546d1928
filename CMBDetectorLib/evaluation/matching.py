"""Which candidate hits which microbleed: one to one, the highest score choosing first, centres within 5 mm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HIT_RADIUS_MM = 5.0


@dataclass(frozen=True)
class Match:
    """The outcome for n candidates and m microbleeds, in the order in which they were given.

    ``truth`` (n,) is the index of the microbleed that each candidate hit, or -1; ``distance_mm`` (n,) how far the
    centres lie apart, NaN without a hit; ``candidate`` (m,) the index of the candidate that hit each microbleed, or -1.
    """

    truth: np.ndarray
    distance_mm: np.ndarray
    candidate: np.ndarray

    @property
    def is_hit(self) -> np.ndarray:
        """Whether each candidate (n,) hit a microbleed; the others are false positives."""
        return self.truth >= 0


def match(
    candidates_ras: np.ndarray, scores: np.ndarray, truth_ras: np.ndarray, radius_mm: float = HIT_RADIUS_MM
) -> Match:
    """Match candidates to microbleeds: by falling score, each takes the nearest microbleed that is still free.

    Candidates of one score choose in the order of their distance to the nearest microbleed, so that the outcome does
    not depend on the order of the input. What the candidates above a threshold hit does not depend on those below it.

    Args:
        candidates_ras: (n, 3) in RAS mm.
        scores: (n,), higher is surer.
        truth_ras: (m, 3) in RAS mm.
        radius_mm: largest distance of a hit, itself included.

    Raises:
        ValueError: the shapes do not fit or a value is NaN.
    """
    candidates = _positions(candidates_ras)
    truth = _positions(truth_ras)
    scores = np.asarray(scores, dtype=float).reshape(-1)
    if len(scores) != len(candidates) or np.isnan(scores).any():
        raise ValueError(f"{len(scores)} scores, none NaN, are needed for {len(candidates)} candidates")
    hit = np.full(len(candidates), -1)
    distance = np.full(len(candidates), np.nan)
    hit_by = np.full(len(truth), -1)
    if len(candidates) and len(truth):
        apart = np.linalg.norm(candidates[:, None] - truth[None], axis=-1)
        # np.lexsort takes its most important key last.
        for index in np.lexsort((*candidates.T, apart.min(axis=1), -scores)):
            free = np.where(hit_by < 0, apart[index], np.inf)
            nearest = int(np.argmin(free))
            if free[nearest] <= radius_mm:
                hit[index], distance[index], hit_by[nearest] = nearest, free[nearest], index
    return Match(hit, distance, hit_by)


def _positions(values: np.ndarray) -> np.ndarray:
    positions = np.asarray(values, dtype=float).reshape(-1, 3)
    if np.isnan(positions).any():
        raise ValueError("a position is NaN")
    return positions
