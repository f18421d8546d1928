"""Winding lines through the template, led by its maps. Positions in its voxels (1 mm), lines in MNI mm."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from CMBDetectorLib.simulation.anatomy import TEMPLATE_TO_RAS, Template, voxels_at

_SHORTEST = 5  # mm


def walk(
    rng: np.random.Generator,
    start: np.ndarray,
    direction: np.ndarray,
    steps: np.ndarray,
    bend: float,
    guide: tuple[np.ndarray, float] | None,
    template: Template,
) -> list[np.ndarray]:
    """Return winding lines (n, 3) in MNI mm, steps of 1 mm, from ``start`` (voxels of the template).

    ``bend`` is the SD of the change of direction a step; ``guide`` a map of the template to climb and its pull. A
    line ends where it leaves the brain.
    """
    position = np.asarray(start, float).copy()
    heading = np.asarray(direction, float) / np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-6)
    track = [position.copy()]
    limit = np.array(template.depth.shape) - 1
    alive = np.ones(len(position), bool)
    length = np.ones(len(position), int)
    for step in range(int(np.max(steps, initial=1))):
        heading = heading + rng.normal(0, bend, heading.shape)
        if guide is not None:
            heading = heading + guide[1] * slope(guide[0], position)
        heading /= np.maximum(np.linalg.norm(heading, axis=1, keepdims=True), 1e-6)
        position = np.clip(position + heading, 0, limit)
        here = np.round(position).astype(int)
        alive &= (step < steps) & (template.depth[tuple(here.T)] > -0.5)
        length += alive
        track.append(position.copy())
    lines = np.stack(track, 1) + TEMPLATE_TO_RAS[:3, 3]
    return [line[:n] for line, n in zip(lines, length, strict=True) if n >= 3]


def while_in(field: np.ndarray, least: float, line: np.ndarray) -> np.ndarray | None:
    """Return a line (n, 3; MNI mm) up to where a map of the template falls to ``least`` for 3 mm or more; None if it is
    short by then."""
    inside = field[voxels_at(line)] > least
    out = ndimage.binary_opening(~inside, np.ones(3))
    line = line[: int(np.argmax(out))] if out.any() else line
    return line if len(line) >= _SHORTEST else None


def slope(field: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Return the slope (n, 3) of a map of the template at the nearest voxels of ``position`` (n, 3)."""
    index = np.clip(np.round(position).astype(int), 1, np.array(field.shape) - 2)
    steps = np.eye(3, dtype=int)
    return np.stack([field[tuple((index + s).T)] - field[tuple((index - s).T)] for s in steps], -1) / 2


def pick(rng: np.random.Generator, index: np.ndarray, count: int) -> np.ndarray:
    """Return ``count`` positions (count, 3) within voxels of ``index`` (n, 3)."""
    return index[rng.integers(0, len(index), count)] + rng.uniform(-0.5, 0.5, (count, 3))


def directions(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return unit vectors (count, 3), evenly spread."""
    way = rng.standard_normal((count, 3))
    return way / np.linalg.norm(way, axis=1, keepdims=True)
