"""Vessels as volume fractions of voxels: partial volume by depositing small, evenly spread pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from CMBDetectorLib.simulation.physics import cylinder_self_field
from CMBDetectorLib.simulation.tubes import ARTERY, CHOROID, CISTERN, DURA, PERIVASCULAR, VEIN, Sheet, Vessel

_STEP_MM = 0.25


@dataclass(frozen=True)
class VesselMaps:
    """Fractions (0..1, float32) of each voxel: ``fraction[kind]``; and of the veins chi (ppm) and field (ppm).

    ``chi`` is the voxel mean of the susceptibility, ``self_field`` the voxel mean of the field that each vein, as a
    long cylinder, makes inside itself: finer than the grid can show.
    """

    fraction: dict[str, np.ndarray]
    chi: np.ndarray
    self_field: np.ndarray


def rasterise(
    vessels: Sequence[Vessel | Sheet],
    ijk_to_ras: np.ndarray,
    shape: Sequence[int],
    b: Sequence[float],
    rng: np.random.Generator,
) -> VesselMaps:
    """Return the maps of ``vessels`` (centre lines in RAS mm of the head) on a grid; ``b`` is B0 in RAS."""
    ras_to_ijk = np.linalg.inv(ijk_to_ras)
    voxel_mm3 = abs(float(np.linalg.det(ijk_to_ras[:3, :3])))
    maps = {kind: np.zeros(tuple(shape), np.float32) for kind in (VEIN, ARTERY, PERIVASCULAR, DURA, CHOROID)}
    chi, self_field = np.zeros(tuple(shape), np.float32), np.zeros(tuple(shape), np.float32)
    border = 5 / np.linalg.norm(ijk_to_ras[:3, :3], axis=0)
    for vessel in vessels:
        line = vessel.points_mm @ ras_to_ijk[:3, :3].T + ras_to_ijk[:3, 3]
        if ((line.max(0) < -border) | (line.min(0) > np.array(shape) + border)).any():
            continue
        if vessel.kind == CISTERN:
            _fill(maps[PERIVASCULAR], vessel, line, ijk_to_ras)
            continue
        if isinstance(vessel, Sheet):
            pieces, cosine = vessel.points_mm, np.zeros(len(vessel.points_mm))
            volume = np.full(len(pieces), vessel.volume_mm3)
        else:
            pieces, volume, cosine = _pieces(vessel, np.asarray(b, float), rng)
        index = np.round(pieces @ ras_to_ijk[:3, :3].T + ras_to_ijk[:3, 3]).astype(int)
        here = ((index >= 0) & (index < np.array(shape))).all(1)
        if not here.any():
            continue
        flat = np.ravel_multi_index(tuple(index[here].T), tuple(shape))
        share = (volume[here] / voxel_mm3 * getattr(vessel, "strength", 1.0)).astype(np.float32)
        np.add.at(maps[vessel.kind].ravel(), flat, share)
        if isinstance(vessel, Vessel) and vessel.kind == VEIN:
            np.add.at(chi.ravel(), flat, share * np.float32(vessel.chi))
            own = vessel.chi * cylinder_self_field(cosine[here])
            np.add.at(self_field.ravel(), flat, share * own.astype(np.float32))
    # Where tubes overlap the sums pass 1: the voxel is full, and no more magnetic than a full one.
    over = np.maximum(maps[VEIN], 1)
    chi /= over
    self_field /= over
    for kind in maps:
        np.minimum(maps[kind], 1, out=maps[kind])
    return VesselMaps(maps, chi, self_field)


def _fill(fraction: np.ndarray, vessel: Vessel, line: np.ndarray, ijk_to_ras: np.ndarray) -> None:
    """Fill the voxels within ``vessel.radius_mm`` of a centre line (n, 3; voxel indices), with an edge of 1 mm."""
    axes = ijk_to_ras[:3, :3].astype(np.float32)
    reach = (vessel.radius_mm + 1) / np.linalg.norm(axes, axis=0)
    for at in line:
        low = np.clip(np.floor(at - reach), 0, fraction.shape).astype(int)
        high = np.clip(np.ceil(at + reach) + 1, low, fraction.shape).astype(int)
        box = tuple(slice(a, z) for a, z in zip(low, high, strict=True))
        offset = [(np.arange(a, z) - c).astype(np.float32) for a, z, c in zip(low, high, at, strict=True)]
        i, j, k = np.meshgrid(*offset, indexing="ij", sparse=True)
        square = sum((i * r[0] + j * r[1] + k * r[2]) ** 2 for r in axes)
        np.maximum(fraction[box], np.clip(vessel.radius_mm + 0.5 - np.sqrt(square), 0, 1), out=fraction[box])


def _pieces(vessel: Vessel, b: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return positions (n, 3) in mm, volumes (n,) in mm3 and cosines to B0 (n,) of the pieces of a tube."""
    line = vessel.points_mm
    lengths = np.linalg.norm(np.diff(line, axis=0), axis=1)
    at = np.r_[0, np.cumsum(lengths)]
    count = max(2, int(np.ceil(at[-1] / _STEP_MM)))
    along = (np.arange(count) + 0.5) / count * at[-1]
    centres = np.stack([np.interp(along, at, line[:, a]) for a in range(3)], -1)
    segment = np.clip(np.searchsorted(at, along, side="right") - 1, 0, len(lengths) - 1)
    tangent = (np.diff(line, axis=0) / np.maximum(lengths, 1e-6)[:, None])[segment]
    first = np.cross(tangent, np.where(np.abs(tangent[:, :1]) < 0.8, [[1.0, 0, 0]], [[0, 1.0, 0]]))
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(tangent, first)
    # Sunflower pattern: evenly spread over the disc, turned at random from one disc to the next.
    dots = max(3, int(np.ceil(np.pi * (vessel.radius_mm / 0.2) ** 2)))
    radius = vessel.radius_mm * np.sqrt((np.arange(dots) + 0.5) / dots)
    angle = np.arange(dots) * 2.399963 + rng.uniform(0, 2 * np.pi, (count, 1))
    width = vessel.width(along)
    radius = width[:, None] * radius
    pieces = (
        centres[:, None]
        + (radius * np.cos(angle))[..., None] * first[:, None]
        + (radius * np.sin(angle))[..., None] * second[:, None]
    )
    volume = np.pi * (vessel.radius_mm * width) ** 2 * at[-1] / (count * dots)
    return pieces.reshape(-1, 3), np.repeat(volume, dots), np.repeat(tangent @ b, dots)
