"""The complex image of one head on the simulated grid: anatomy, vessels, fields and inclusions put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813

from CMBDetectorLib.progress import Progress
from CMBDetectorLib.simulation.anatomy import TEMPLATE_TO_RAS, Template, Warp
from CMBDetectorLib.simulation.fields import sample, to_image
from CMBDetectorLib.simulation.grid import Grid
from CMBDetectorLib.simulation.inclusions import Inclusion, factor
from CMBDetectorLib.simulation.physics import dipole_field
from CMBDetectorLib.simulation.protocols import Protocol
from CMBDetectorLib.simulation.raster import VesselMaps
from CMBDetectorLib.simulation.tissue import TissueValues, brain_signal, noise_maps
from CMBDetectorLib.simulation.tubes import ARTERY, CHOROID, DURA, PERIVASCULAR, VEIN

_SLAB = 16
_NOISE_SPACING_MM = 1.5
_NOISE = ("sulci", "mixing", "texture", "edge")
_RAGGED_MM, _MASK_DEPTH_MM = 1.1, -0.35  # brain masks wander about the edge and hold a little of what is dark
_PLEXUS_SIGNAL = 0.95  # of grey matter
_HIGHEST_FIELD = 0.4  # ppm outside a vein in the same voxel: beyond it the split of the voxel is rounding


@dataclass(frozen=True)
class Anatomy:
    """One head: template, the way to it, signals, iron (image, ppm) and the field of air and bone."""

    template: Template
    warp: Warp
    values: TissueValues
    iron: sitk.Image
    background: sitk.Image


def head_box(anatomy: Anatomy, grid: Grid) -> tuple[slice, slice, slice]:
    """Return the part of the grid that holds the head: the rest is air."""
    steps = np.maximum(1, np.round(5 / grid.spacing)).astype(int)
    affine = grid.affine.copy()
    affine[:3, :3] = affine[:3, :3] * steps
    shape = [-(-n // s) for n, s in zip(grid.shape, steps, strict=True)]
    near = sample(anatomy.template.image, affine, shape, anatomy.warp.transform())[2] > -20
    box = []
    for axis in range(3):
        found = np.flatnonzero(near.any(axis=tuple(a for a in range(3) if a != axis)))
        first, last = (int(found[0]), int(found[-1])) if len(found) else (0, shape[axis])
        box.append(slice(max(0, (first - 1) * steps[axis]), min(grid.shape[axis], (last + 2) * steps[axis])))
    return tuple(box)


def compose(
    anatomy: Anatomy,
    vessels: VesselMaps,
    grid: Grid,
    box: tuple[slice, slice, slice],
    protocol: Protocol,
    rng: np.random.Generator,
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the complex image (complex64) and the brain mask (bool) on the simulated grid, without inclusions.

    ``vessels`` lies on ``box`` of the grid.
    """
    affine, shape = _part(grid.affine, box)
    transform = anatomy.warp.transform()
    iron = sample(anatomy.iron, affine, shape, transform)[0]
    iron += vessels.chi
    padding = 24 if protocol.crop else 16
    field = dipole_field(iron, grid.spacing, grid.b, padding=padding)
    del iron
    signal = np.zeros(grid.shape, np.complex64)
    mask = np.zeros(grid.shape, bool)
    noise_affine = TEMPLATE_TO_RAS @ np.diag([_NOISE_SPACING_MM] * 3 + [1.0])
    noise_shape = tuple(int(n / _NOISE_SPACING_MM) + 1 for n in anatomy.template.gm.shape)
    noise = to_image(noise_maps(rng, noise_shape, _NOISE_SPACING_MM), noise_affine)
    images = (anatomy.template.image, anatomy.iron, noise)
    for here in progress.track(list(_slabs(shape[2])), "tissue"):
        part_affine, part_shape = _part(affine, (slice(0, shape[0]), slice(0, shape[1]), here))
        maps = dict(
            zip(
                ("gm", "wm", "depth", "iron", *_NOISE),
                [a for image in images for a in sample(image, part_affine, part_shape, transform)],
                strict=True,
            )
        )
        magnitude, _ = brain_signal(maps, anatomy.values, protocol)
        whole = (box[0], box[1], slice(box[2].start + here.start, box[2].start + here.stop))
        signal[whole] = _slab_signal(magnitude, vessels, field, here, anatomy, part_affine, protocol)
        mask[whole] = maps["depth"] + _RAGGED_MM * maps["edge"] > _MASK_DEPTH_MM
    return signal, mask


def add_inclusions(signal: np.ndarray, inclusions: Sequence[Inclusion], grid: Grid, protocol: Protocol) -> None:
    """Multiply the complex image by what each inclusion does to it, in place."""
    for inclusion in inclusions:
        box, change = factor(inclusion, protocol, grid.affine, grid.shape, (0, 0, 1))
        signal[box] *= change


def _slab_signal(
    magnitude: np.ndarray,
    vessels: VesselMaps,
    field: np.ndarray,
    here: slice,
    anatomy: Anatomy,
    affine: np.ndarray,
    protocol: Protocol,
) -> np.ndarray:
    """Return the complex signal of a slab from its magnitude, its vessels and the fields in it."""
    values = anatomy.values
    layers = (
        (PERIVASCULAR, values.fluid),
        (CHOROID, _PLEXUS_SIGNAL * values.grey),
        (ARTERY, values.artery),
        (DURA, values.dura),
    )
    for kind, bright in layers:
        magnitude += vessels.fraction[kind][..., here] * (np.float32(bright) - magnitude)
    background, *slopes = sample(anatomy.background, affine, magnitude.shape)
    per_ppm = np.float32(protocol.radians_per_ppm)
    for axis in range(3):
        across = sum(slopes[a] * np.float32(affine[a, axis]) for a in range(3))
        # The series of the sinc to second order, without its bands beyond: real slices have soft edges.
        magnitude *= np.exp(-((per_ppm * across) ** 2) / np.float32(24))
    vein = vessels.fraction[VEIN][..., here]
    own = vessels.self_field[..., here]
    mean = field[..., here]
    # A voxel holds two compartments, blood and the tissue around it, whose fields average to the field of the grid.
    filled = vein > 0
    outside = mean.copy()
    outside[filled] = (mean[filled] - own[filled]) / np.maximum(1 - vein[filled], 0.02)
    np.clip(outside, -_HIGHEST_FIELD, _HIGHEST_FIELD, out=outside)
    outside += background
    signal = _turned(-per_ppm * outside)
    signal *= (1 - vein) * magnitude
    inside = own[filled] / vein[filled] + background[filled]
    signal[filled] += vein[filled] * np.float32(values.vein) * _turned(-per_ppm * inside)
    return signal


def _turned(phase: np.ndarray) -> np.ndarray:
    """Return exp(i phase) as complex64."""
    result = np.empty(phase.shape, np.complex64)
    np.cos(phase, out=result.real)
    np.sin(phase, out=result.imag)
    return result


def _slabs(count: int) -> Iterator[slice]:
    for start in range(0, count, _SLAB):
        yield slice(start, min(count, start + _SLAB))


def _part(affine: np.ndarray, box: tuple[slice, slice, slice]) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Return affine and shape of a part of a grid."""
    moved = affine.copy()
    moved[:3, 3] = affine[:3, :3] @ np.array([s.start for s in box]) + affine[:3, 3]
    return moved, tuple(int(s.stop - s.start) for s in box)


def part_of(grid: Grid, box: tuple[slice, slice, slice]) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Return affine and shape of a box of the simulated grid."""
    return _part(grid.affine, box)
