"""Places from a label map of lesions: each connected region of one label is a lesion."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from CMBDetectorLib.datasets.bids import Point
from CMBDetectorLib.datasets.point_tables import MOST_POINTS
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.volume import Volume, read_labels

# Microbleeds measure up to 10 mm; what is far above is another structure, or the brain.
_LARGEST_MM = 30.0
_MOST_VOXELS = 2_000_000


def read_label_map(path: Path, scan: Volume) -> list[Point]:
    """Return a point for each connected region (26 neighbours) of equal labels above 0 in a file on the scan's grid.

    A point is the centre of its voxels in RAS mm, with the diameter of a sphere of their volume (mm); sorted by the
    voxel indices of the first voxel.

    Raises:
        BadInputError: it cannot be read, lies on another grid, or marks what can be no microbleeds.
    """
    labels = read_labels(path, scan)
    where = np.argwhere(labels.array)
    if not len(where):
        return []
    if len(where) > _MOST_VOXELS:
        raise BadInputError(
            f"{path.name} marks {len(where) / labels.array.size:.0%} of the scan, far more than microbleeds take up.",
            "Choose the label map of the lesions.",
        )
    count, region = _regions(labels.array, where)
    sizes = np.bincount(region, minlength=count)
    centres = np.stack([np.bincount(region, where[:, axis], count) / sizes for axis in range(3)], axis=-1)
    volume_mm3 = sizes * abs(np.linalg.det(scan.ijk_to_ras[:3, :3]))
    diameters = np.cbrt(6 * volume_mm3 / np.pi)
    if count > MOST_POINTS or diameters.max() > _LARGEST_MM:
        raise BadInputError(
            f"{path.name} marks {count} regions of up to {diameters.max():.0f} mm, which cannot be microbleeds.",
            "Choose the label map of the lesions.",
        )
    return [
        Point(tuple(float(v) for v in place), float(diameter), source="import")
        for place, diameter in zip(scan.to_ras(centres), diameters, strict=True)
    ]


def _regions(labels: np.ndarray, where: np.ndarray) -> tuple[int, np.ndarray]:
    """Return how many regions there are and the number of that of each labelled voxel ``where`` (n, 3)."""
    low, high = where.min(axis=0), where.max(axis=0) + 1
    inside = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    box = np.pad(labels[inside], 1)
    places = where - low + 1
    number = np.zeros(box.shape, np.int32)
    number[tuple(places.T)] = np.arange(len(where))
    values = box[tuple(places.T)]
    edges = []
    for step in itertools.product((-1, 0, 1), repeat=3):
        if step > (0, 0, 0):
            beside = tuple((places + step).T)
            same = np.flatnonzero(box[beside] == values)
            edges.append(np.stack([same, number[beside][same]]))
    first, second = np.concatenate(edges, axis=1)
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(where), len(where)))
    count, region = connected_components(graph, directed=False)
    return int(count), region
