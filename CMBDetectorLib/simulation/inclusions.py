"""Small magnetic inclusions - blood, calcium, bone - and how they dim the voxels around: sub-voxel dipole fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from CMBDetectorLib.simulation.physics import gradient_dephasing, inclusion_decay, phase_mask, sphere_field
from CMBDetectorLib.simulation.protocols import Protocol

_SUBVOXEL_MM = 0.25
_WIDEST_MM = 9.0
_CHI = (0.06, 4.0)
_FAINTEST_PHASE = 0.15
_REMAINING_WATER = {True: 0.9, False: 0.25}  # blood products keep their water, calcium and bone have little


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


def factor(
    inclusion: Inclusion, protocol: Protocol, ijk_to_ras: np.ndarray, shape: Sequence[int], b: Sequence[float]
) -> tuple[tuple[slice, slice, slice], np.ndarray]:
    """Return the box (slices of a grid) around an inclusion and the complex factor it puts on the signal there.

    The factor is the mean of exp(i phase) and of the decay inside over sub-voxels of 0.25 mm: dephasing within the
    voxel is what makes a bleed bloom. ``b`` is B0 in RAS. The box may be empty where the inclusion is off the grid.
    """
    axes = ijk_to_ras[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    moment = abs(inclusion.chi) * float((inclusion.radii_mm**3).sum())
    reach = (protocol.radians_per_ppm * 2 / 3 * moment / _FAINTEST_PHASE) ** (1 / 3)
    reach = float(np.clip(reach, inclusion.radii_mm.max() + 1.0, _WIDEST_MM))
    centre = np.linalg.inv(axes) @ (inclusion.centre_mm - ijk_to_ras[:3, 3])
    lower = np.clip(np.floor(centre - reach / spacing), 0, shape).astype(int)
    upper = np.clip(np.ceil(centre + reach / spacing) + 1, 0, shape).astype(int)
    box = tuple(slice(a, max(a, z)) for a, z in zip(lower, upper, strict=True))
    parts = np.maximum(1, np.round(spacing / _SUBVOXEL_MM)).astype(int)
    size = np.maximum(upper - lower, 0)
    if not size.all():
        return box, np.ones(tuple(size), np.complex64)
    sub = [(np.arange(n * p, dtype=np.float32) + 0.5) / p - 0.5 + a for n, p, a in zip(size, parts, lower, strict=True)]
    grid = np.stack(np.meshgrid(*sub, indexing="ij"), -1) @ axes.T.astype(np.float32)
    grid += (ijk_to_ras[:3, 3]).astype(np.float32)
    phase = np.zeros(grid.shape[:3], np.float32)
    slope = np.zeros(grid.shape[:3], np.float32)
    covered = np.zeros(grid.shape[:3], np.float32)
    for position, radius in zip(inclusion.centres_mm, inclusion.radii_mm, strict=True):
        offset = grid - position.astype(np.float32)
        own = np.float32(protocol.radians_per_ppm) * sphere_field(offset, float(radius), inclusion.chi, b)
        square = (offset**2).sum(-1)
        phase -= own
        # The field falls with the third power of the distance.
        slope += 3 * np.abs(own) / np.sqrt(np.maximum(square, radius**2))
        covered += square < radius**2
    left = np.float32(inclusion_decay(inclusion.chi, protocol)) ** covered
    left *= np.float32(_REMAINING_WATER[inclusion.chi > 0])
    within = np.abs(gradient_dephasing(np.minimum(slope * _SUBVOXEL_MM, 2 * np.pi)))
    signal = np.exp(1j * phase) * np.where(covered > 0, left, within)
    blocks = signal.reshape(size[0], parts[0], size[1], parts[1], size[2], parts[2])
    return box, blocks.mean((1, 3, 5)).astype(np.complex64)


def with_contrast(
    rng: np.random.Generator, inclusion: Inclusion, protocol: Protocol, b: Sequence[float], contrast: float
) -> Inclusion:
    """Return ``inclusion`` with the susceptibility (0.06 to 4 ppm) that makes its darkest voxel lose ``contrast``.

    Looked for by bisection on a few acquired voxels that lie at random against the centre. What is too small to lose a
    third at 4 ppm (thick slices) is made wider.
    """
    spacing = np.array(protocol.spacing_mm) * (protocol.zero_filling, protocol.zero_filling, 1)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = inclusion.centre_mm - (1 + rng.uniform(-0.5, 0.5, 3)) * spacing

    def loss(candidate: Inclusion) -> float:
        _, change = factor(candidate, protocol, affine, (3, 3, 3), b)
        left = np.abs(change)
        if protocol.family == "swi":
            left = left * phase_mask(np.angle(change))
        return float(1 - left.min())

    inclusion = inclusion.changed(_CHI[1])
    for _ in range(12):
        if loss(inclusion) > 0.36:
            break
        inclusion = inclusion.changed(_CHI[1], 1.15)
    low, high = np.log(_CHI)
    for _ in range(8):
        middle = (low + high) / 2
        low, high = (low, middle) if loss(inclusion.changed(float(np.exp(middle)))) > contrast else (middle, high)
    return inclusion.changed(float(np.exp(high)))
