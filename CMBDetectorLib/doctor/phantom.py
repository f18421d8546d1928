"""A phantom with a known answer: tissue with dark balls, and what a detector that works finds in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from CMBDetectorLib.candidate import Candidate
from CMBDetectorLib.volume import Volume, write_volume

BALLS_RAS_MM = np.array([(-13, -11, -9), (12, -13, 6), (-11, 13, 10), (14, 12, -8)], float)
"""Centres of the balls; no two of them share a coordinate, so that no mirrored or swapped axis fits."""
_DIAMETERS_MM = (2.4, 2.6, 2.8, 2.5)  # as microbleeds mostly are: black balls of 3.5 mm a model may well doubt
_SIZE_MM = (54.0, 54.0, 44.0)
_SEED = 1
_NEAR_MM = 2.0


@dataclass(frozen=True)
class Answer:
    """How many of the ``balls`` have a candidate within 2 mm, how many candidates are elsewhere, and how far (mm) the
    candidates lie from the balls at most."""

    found: int
    elsewhere: int
    farthest_mm: float
    scores: tuple[float, ...]

    @property
    def is_right(self) -> bool:
        """Whether this is the known answer: every ball, and nothing else."""
        return self.found == len(BALLS_RAS_MM) and not self.elsewhere

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values; as arguments they make the answer again."""
        return {**vars(self), "scores": [round(score, 4) for score in self.scores]}


def write_phantom(path: Path, spacing_mm: Sequence[float]) -> None:
    """Write the phantom as an image with the voxels ``spacing_mm`` (along R, A, S), stored as scanners do: axes that
    run to L, P and S, and a tilted head.

    Raises:
        OutputError: it cannot be written.
    """
    spacing = np.array(spacing_mm, float)
    shape = np.maximum(np.round(np.array(_SIZE_MM) / spacing), 8).astype(int)
    cos, sin = np.cos(0.1), np.sin(0.1)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ np.diag([-1.0, -1.0, 1.0]) * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((shape - 1) / 2)
    grid = Volume(np.zeros(tuple(shape), np.float32), affine)
    places = grid.to_ras(np.moveaxis(np.indices(tuple(shape)), 0, -1))
    rng = np.random.default_rng(_SEED)
    texture = gaussian_filter(rng.normal(size=tuple(shape)), 2.5 / spacing)
    image = 100 + 4 * texture / texture.std()
    for centre, diameter in zip(BALLS_RAS_MM, _DIAMETERS_MM, strict=True):
        beyond = np.linalg.norm(places - centre, axis=-1) - diameter / 2
        image *= 1 - 0.85 / (1 + np.exp(np.clip(beyond / 0.25, -50, 50)))
    # A shading that N4 has to take away, and the noise of a magnitude image.
    image *= np.exp(0.15 * np.sin(places[..., 0] / 25))
    noisy = np.hypot(image + rng.normal(0, 3, image.shape), rng.normal(0, 3, image.shape))
    write_volume(path, grid.with_array(noisy.astype(np.float32)))


def judge(candidates: Sequence[Candidate], threshold: float) -> Answer:
    """Return how the ``candidates`` that score ``threshold`` or more agree with the phantom (RAS mm)."""
    sure = [candidate for candidate in candidates if candidate.score >= threshold]
    places = np.array([candidate.ras_mm for candidate in sure], float).reshape(-1, 3)
    distances = np.linalg.norm(places[:, None] - BALLS_RAS_MM, axis=-1)
    near = distances <= _NEAR_MM
    hit = near.any(axis=0)
    farthest = max((float(distances[:, ball].min()) for ball in np.flatnonzero(hit)), default=0.0)
    scores = tuple(float(candidate.score) for candidate in sure)
    return Answer(int(hit.sum()), int((~near.any(axis=1)).sum()), round(farthest, 2), scores)
