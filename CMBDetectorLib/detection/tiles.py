"""Cutting a brain into large overlapping tiles, each shrunk to the brain that it holds."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

MOST_VOXELS = 2_500_000
"""Voxels of one tile: larger ones are no faster, and the activations of the widest level stay well under 1 GB."""
LOW_MEMORY_VOXELS = 400_000
"""Voxels of one tile where memory is short: a sixth of the activations, in about half as much time again."""
_COST_PER_TILE = 100_000
"""What starting a tile costs, in voxels (compiling the network for its shape included)."""


@dataclass(frozen=True)
class Tile:
    """A box of voxels: ``start`` and ``stop`` (i, j, k) of its core, computed with ``margin`` around it."""

    start: tuple[int, int, int]
    stop: tuple[int, int, int]
    margin: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the tile with its margins."""
        sides = zip(self.start, self.stop, self.margin, strict=True)
        return tuple(b - a + 2 * m for a, b, m in sides)  # type: ignore[return-value]

    @property
    def voxels(self) -> int:
        """Voxels computed for this tile."""
        return int(np.prod(self.shape))


def plan_tiles(
    mask: np.ndarray, stride: Sequence[int], margin: Sequence[int], most_voxels: int = MOST_VOXELS
) -> list[Tile]:
    """Return tiles that cover every voxel of ``mask`` (bool, i j k) once and compute the fewest voxels.

    Starts, cores and margins are multiples of ``stride`` (margins are rounded up; the last core may reach beyond the
    volume), so that every tile is pooled on the same grid as the whole volume would be. ``most_voxels`` bounds a tile
    with its margins, as far as the stride allows.
    """
    step = np.array(stride)
    wide = -(-np.array(margin) // step) * step
    blocks = _blocks(mask, step)
    best: tuple[int, list[Tile]] | None = None
    smallest: list[Tile] = []
    for counts in itertools.product(range(1, 5), range(1, 5), range(1, 7)):
        tiles = list(_shrunk_cells(blocks, counts, step, wide))
        largest = max((t.voxels for t in tiles), default=0)
        if not smallest or largest < max(t.voxels for t in smallest):
            smallest = tiles
        cost = sum(t.voxels + _COST_PER_TILE for t in tiles)
        if largest <= most_voxels and (best is None or cost < best[0]):
            best = cost, tiles
    return best[1] if best is not None else smallest


def _blocks(mask: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Return which blocks of ``step`` voxels hold brain."""
    for axis in range(3):
        mask = np.logical_or.reduceat(mask, np.arange(0, mask.shape[axis], step[axis]), axis=axis)
    return mask


def _shrunk_cells(blocks: np.ndarray, counts: Iterable[int], step: np.ndarray, margin: np.ndarray) -> Iterable[Tile]:
    """Divide the bounding box of ``blocks`` into ``counts`` cells; yield each that holds brain, shrunk to it."""
    low, high = _bounds(blocks)
    edges = [np.linspace(a, b, n + 1).round().astype(int) for a, b, n in zip(low, high, counts, strict=True)]
    for corner in itertools.product(*[range(len(e) - 1) for e in edges]):
        first = np.array([e[c] for e, c in zip(edges, corner, strict=True)])
        last = np.array([e[c + 1] for e, c in zip(edges, corner, strict=True)])
        cell = blocks[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
        if cell.any():
            inner_low, inner_high = _bounds(cell)
            yield Tile(
                tuple(int(v) for v in (first + inner_low) * step),  # type: ignore[arg-type]
                tuple(int(v) for v in (first + inner_high) * step),  # type: ignore[arg-type]
                tuple(int(v) for v in margin),  # type: ignore[arg-type]
            )


def _bounds(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and one past the last block that holds brain, on each axis."""
    low, high = np.zeros(3, int), np.zeros(3, int)
    for axis in range(3):
        occupied = np.flatnonzero(blocks.any(axis=tuple(a for a in range(3) if a != axis)))
        if len(occupied):
            low[axis], high[axis] = occupied[0], occupied[-1] + 1
    return low, high
