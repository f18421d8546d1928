"""The grid of a scan: where it lies in the head, how it is stored, and the finer grid it is simulated on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from CMBDetectorLib.simulation.anatomy import rotation
from CMBDetectorLib.simulation.protocols import Protocol

# Directions of i, j, k in RAS as scanners and converters store axial scans, and how often.
_ORIENTATIONS = {"LPS": 0.6, "LAS": 0.2, "RAS": 0.1, "LPI": 0.1}
_AXES = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
_CROP_MARGIN = 16  # voxels simulated around a crop and cut off, because the transforms wrap around


@dataclass(frozen=True)
class Grid:
    """``affine`` and ``shape`` of the simulated grid; ``stored_affine`` of the scan as written (both to RAS mm)."""

    affine: np.ndarray
    shape: tuple[int, int, int]
    stored_affine: np.ndarray
    stored_shape: tuple[int, int, int]
    margin: int

    @property
    def spacing(self) -> np.ndarray:
        """Voxel size (3,) of the simulated grid in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def stored_axes(self) -> np.ndarray:
        """Unit vectors of i, j and k of the scan as written, in RAS, as columns (3, 3)."""
        return self.stored_affine[:3, :3] / np.linalg.norm(self.stored_affine[:3, :3], axis=0)

    @property
    def b(self) -> np.ndarray:
        """Unit vector of B0 (along S) in the axes of the grid."""
        return (self.affine[:3, :3] / self.spacing).T @ np.array([0.0, 0.0, 1.0])

    def inside(self, ras_mm: np.ndarray, border: float = 3.0) -> np.ndarray:
        """Tell for positions (n, 3) whether they lie at least ``border`` mm and one voxel inside the stored scan."""
        index = (ras_mm - self.stored_affine[:3, 3]) @ np.linalg.inv(self.stored_affine[:3, :3]).T
        edge = np.maximum(1, border / np.linalg.norm(self.stored_affine[:3, :3], axis=0))
        return ((index >= edge) & (index <= np.array(self.stored_shape) - 1 - edge)).all(-1)

    def trimmed(self, array: np.ndarray) -> np.ndarray:
        """Return ``array`` (stored resolution) without the margin."""
        if not self.margin:
            return array
        return np.ascontiguousarray(array[self.margin : -self.margin, self.margin : -self.margin])


def draw_grid(rng: np.random.Generator, protocol: Protocol, centre_mm: np.ndarray) -> Grid:
    """Return the grid of a scan whose field of view is centred at ``centre_mm`` (RAS of the head).

    Half of the scans are oblique: turned by up to 12 degrees about the left-right axis, a little about the others.
    """
    name = str(rng.choice(list(_ORIENTATIONS), p=list(_ORIENTATIONS.values())))
    directions = np.zeros((3, 3))
    for column, letter in enumerate(name):
        axis, sign = _AXES[letter]
        directions[axis, column] = sign
    if rng.random() < 0.5:
        tilt, sway, roll = np.deg2rad(rng.uniform((-12, -2, -2), (12, 2, 2)))
        directions = rotation(0, tilt) @ rotation(1, sway) @ rotation(2, roll) @ directions
    spacing, shape = np.array(protocol.spacing_mm), np.array(protocol.shape)
    stored = centred_affine(directions, spacing, shape, centre_mm)
    margin = _CROP_MARGIN if protocol.crop else 0
    finer = np.array([protocol.oversampling, protocol.oversampling, protocol.sublayers])
    wider = shape + np.array([2 * margin, 2 * margin, 0])
    affine = centred_affine(directions, spacing / finer, wider * finer, centre_mm)
    return Grid(affine, tuple(int(n) for n in wider * finer), stored, protocol.shape, margin)


def centred_affine(directions: np.ndarray, spacing: np.ndarray, shape: np.ndarray, centre_mm: np.ndarray) -> np.ndarray:
    """Return the affine (4, 4) to RAS mm of a grid of ``shape`` voxels, ``spacing`` (mm), around ``centre_mm`` (3,).

    ``directions`` (3, 3) are the unit vectors of i, j and k in RAS, as columns.
    """
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = centre_mm - affine[:3, :3] @ ((shape - 1) / 2)
    return affine
