"""Small magnetic inclusions - blood, calcium, bone - and how they dim the voxels around: sub-voxel dipole fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from CMBDetectorLib.simulation.physics import gradient_dephasing, inclusion_decay
from CMBDetectorLib.simulation.protocols import Protocol

_SUBVOXEL_MM = 0.25
_WIDEST_MM = 9.0
_FAINTEST_PHASE = 0.15
_REMAINING_WATER = {True: 0.9, False: 0.25}  # blood products keep their water, calcium and bone have little
_MOST_IN_ROW = 6
_SHELL_SPHERES = 30


@dataclass(frozen=True)
class Inclusion:
    """A few overlapping spheres: ``centres_mm`` (n, 3) RAS of the head, ``radii_mm`` (n,), one ``chi`` (ppm)."""

    centres_mm: np.ndarray
    radii_mm: np.ndarray
    chi: float

    @property
    def centre_mm(self) -> np.ndarray:
        """Centre of mass (3,)."""
        return np.average(self.centres_mm, axis=0, weights=self.radii_mm**3)

    def changed(self, chi: float, scale: float = 1.0) -> Inclusion:
        """Return the same shape with another ``chi``, ``scale`` times as wide."""
        middle = self.centre_mm
        return Inclusion(middle + scale * (self.centres_mm - middle), self.radii_mm * scale, chi)


@dataclass(frozen=True)
class Unit:
    """What an inclusion of 1 ppm does at each position: ``phase`` (rad), its ``slope`` (rad/mm) and how many spheres
    the position lies in (``covered``). All of it grows with chi, so that other values of chi come cheaply."""

    phase: np.ndarray
    slope: np.ndarray
    covered: np.ndarray

    def signal(self, chi: float, protocol: Protocol) -> np.ndarray:
        """Return the complex factor on the signal at each position, for ``chi`` ppm."""
        left = np.float32(inclusion_decay(chi, protocol)) ** self.covered
        left *= np.float32(_REMAINING_WATER[chi > 0])
        within = np.abs(gradient_dephasing(np.minimum(self.slope * np.float32(abs(chi) * _SUBVOXEL_MM), 2 * np.pi)))
        amount = np.where(self.covered > 0, left, within)
        turned = self.phase * np.float32(chi)
        result = np.empty(turned.shape, np.complex64)
        result.real = amount * np.cos(turned)
        result.imag = amount * np.sin(turned)
        return result


def blob(rng: np.random.Generator, centre_mm: np.ndarray, diameter_mm: float, chi: float) -> Inclusion:
    """Return one to five overlapping spheres around ``centre_mm`` with about the volume of the given diameter.

    Where spheres overlap there is more iron: most blobs are darker in the middle than at the rim.
    """
    count = int(rng.choice([1, 2, 3, 5], p=[0.25, 0.25, 0.3, 0.2]))
    radius = diameter_mm / 2 / count ** (1 / 3) * 1.2 ** (count > 1)
    offsets = rng.normal(0, 0.45 * radius, (count, 3)) if count > 1 else np.zeros((1, 3))
    radii = radius * np.clip(rng.normal(1, 0.2, count), 0.5, 1.4)
    offsets -= np.average(offsets, axis=0, weights=radii**3)
    return Inclusion(np.asarray(centre_mm, float) + offsets, radii, chi)


def row(rng: np.random.Generator, centre_mm: np.ndarray, radius_mm: float, length_mm: np.ndarray) -> Inclusion:
    """Return a row of spheres of 1 ppm around ``centre_mm`` that is longer than a sphere by ``length_mm`` (3,), RAS."""
    count = int(np.clip(np.ceil(np.linalg.norm(length_mm) / radius_mm / 1.2) + 1, 1, _MOST_IN_ROW))
    if np.linalg.norm(length_mm) < 0.2 * radius_mm:
        count = 1
    along = np.linspace(-0.5, 0.5, count) if count > 1 else np.zeros(1)
    radii = radius_mm * np.clip(rng.normal(1, 0.1, count), 0.7, 1.3)
    offsets = along[:, None] * np.asarray(length_mm) + rng.normal(0, 0.1 * radius_mm, (count, 3)) * (count > 1)
    offsets -= np.average(offsets, axis=0, weights=radii**3)
    return Inclusion(np.asarray(centre_mm, float) + offsets, radii, 1.0)


def popcorn(rng: np.random.Generator, centre_mm: np.ndarray, diameter_mm: float, chi: float) -> Inclusion:
    """Return a cavernous malformation: a ragged, closed shell of blood around a core that still sends a signal.

    Beads with tissue between them would be a cluster of microbleeds.
    """
    radius = diameter_mm / 2
    way = rng.standard_normal((_SHELL_SPHERES, 3))
    # Evenly around, or chance would leave gaps: each moves away from the others a few times.
    for _ in range(12):
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        apart = way[:, None] - way
        distance = np.linalg.norm(apart, axis=-1) + np.eye(len(way))
        way = way + 0.02 * (apart / distance[..., None] ** 3).sum(1)
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    offsets = way * radius * rng.uniform(0.65, 0.85, (_SHELL_SPHERES, 1))
    return Inclusion(np.asarray(centre_mm, float) + offsets, radius * rng.uniform(0.25, 0.36, _SHELL_SPHERES), chi)


def unit(offsets_mm: np.ndarray, inclusion: Inclusion, protocol: Protocol, b: Sequence[float]) -> Unit:
    """Return what ``inclusion`` does per ppm at positions (..., 3), RAS mm from its centre; ``b`` is B0 in RAS."""
    x, y, z = (np.ascontiguousarray(offsets_mm[..., axis], np.float32) for axis in range(3))
    phase = np.zeros(x.shape, np.float32)
    slope = np.zeros_like(phase)
    covered = np.zeros_like(phase)
    middle = inclusion.centre_mm
    b = np.asarray(b, np.float32)
    for position, radius in zip(inclusion.centres_mm - middle, inclusion.radii_mm, strict=True):
        i, j, k = (line - np.float32(p) for line, p in zip((x, y, z), position, strict=True))
        square = i * i + j * j + k * k
        inside = square < np.float32(radius**2)
        near = 1 / np.sqrt(np.maximum(square, np.float32(radius**2)))
        cosine = (b[0] * i + b[1] * j + b[2] * k) * near
        # As physics.sphere_field: nothing inside, a dipole outside.
        strength = np.float32(protocol.radians_per_ppm / 3 * radius**3) * near**3
        own = strength * (3 * cosine * cosine - 1)
        own[inside] = 0
        phase -= own
        # The field falls with the third power of the distance.
        slope += 3 * np.abs(own) * near
        covered += inside
    return Unit(phase, slope, covered)


def factor(
    inclusion: Inclusion, protocol: Protocol, ijk_to_ras: np.ndarray, shape: Sequence[int], b: Sequence[float]
) -> tuple[tuple[slice, slice, slice], np.ndarray]:
    """Return the box (slices of a grid) around an inclusion and the complex factor it puts on the signal there.

    The factor is the mean of exp(i phase) and of the decay inside over sub-voxels of 0.25 mm: dephasing within the
    voxel is what makes a bleed bloom. ``b`` is B0 in RAS. The box may be empty where the inclusion is off the grid.
    """
    axes = ijk_to_ras[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    middle = inclusion.centre_mm
    moment = abs(inclusion.chi) * float((inclusion.radii_mm**3).sum())
    reach = (protocol.radians_per_ppm * 2 / 3 * moment / _FAINTEST_PHASE) ** (1 / 3)
    span = (np.linalg.norm(inclusion.centres_mm - middle, axis=1) + inclusion.radii_mm).max()
    reach = max(min(reach, _WIDEST_MM), float(span) + 1.0)
    centre = np.linalg.inv(axes) @ (middle - ijk_to_ras[:3, 3])
    lower = np.clip(np.floor(centre - reach / spacing), 0, shape).astype(int)
    upper = np.clip(np.ceil(centre + reach / spacing) + 1, 0, shape).astype(int)
    box = tuple(slice(a, max(a, z)) for a, z in zip(lower, upper, strict=True))
    parts = np.maximum(1, np.round(spacing / _SUBVOXEL_MM)).astype(int)
    size = np.maximum(upper - lower, 0)
    if not size.all():
        return box, np.ones(tuple(size), np.complex64)
    sub = [(np.arange(n * p, dtype=np.float32) + 0.5) / p - 0.5 + a for n, p, a in zip(size, parts, lower, strict=True)]
    grid = np.stack(np.meshgrid(*sub, indexing="ij"), -1) @ axes.T.astype(np.float32)
    grid += (ijk_to_ras[:3, 3] - middle).astype(np.float32)
    signal = unit(grid, inclusion, protocol, b).signal(inclusion.chi, protocol)
    blocks = signal.reshape(size[0], parts[0], size[1], parts[1], size[2], parts[2])
    return box, blocks.mean((1, 3, 5)).astype(np.complex64)
