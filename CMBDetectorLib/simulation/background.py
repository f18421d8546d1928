"""The field that air and bone make inside the brain: what darkens it over the frontal sinus and the petrous bone."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

from CMBDetectorLib.simulation.anatomy import Template, Warp
from CMBDetectorLib.simulation.fields import sample, to_image
from CMBDetectorLib.simulation.physics import dipole_field
from CMBDetectorLib.simulation.protocols import Protocol

_SPACING_MM = 2.5
_AIR_CHI = 9.2
_BONE_CHI = -2.1
_CALM_RAD = 2.5
_BANDS_RAD_PER_MM = 0.8  # 8 mm a turn: what the homodyne filter leaves in the phase, the mask shows as zebra bands
# Air spaces: MNI centre of the right one and half axes in mm.
_AIR = (
    ((5, 66, -14), (11, 7, 13)),
    ((6, 22, -36), (9, 13, 9)),
    ((7, 48, -32), (8, 20, 12)),
    ((52, -26, -42), (10, 12, 9)),
    ((62, -16, -38), (9, 4, 4)),
    ((32, 46, -52), (13, 16, 14)),
)


def background_field(rng: np.random.Generator, template: Template, warp: Warp) -> sitk.Image:
    """Return the field (ppm) and its three slopes (ppm/mm along R, A, S) as an image over the head in RAS mm.

    First and second order terms over the brain are taken out, as the shim does.
    """
    affine = np.diag([_SPACING_MM] * 3 + [1.0])
    affine[:3, 3] = (-105, -140, -100)
    shape = (84, 100, 90)
    transform = warp.transform()
    depth = sample(template.image, affine, shape, transform)[2]
    air = sample(_air_map(rng), affine, shape, transform)[0]
    z = affine[2, 3] + _SPACING_MM * np.arange(shape[2])
    # Under the skull base there is a face and a neck, not air.
    below = (z < -25)[None, None, :] & (depth > -55)
    chi = _below(depth, -13) * np.where(below, 0, _AIR_CHI) + (_below(depth, -2.2) - _below(depth, -7.5)) * _BONE_CHI
    chi += air * _below(depth, -2.5) * (_AIR_CHI - chi)
    # The far border of the grid must not be a jump: susceptibility is taken relative to air outside.
    field = dipole_field(chi - _AIR_CHI, [_SPACING_MM] * 3, (0, 0, 1))
    field = _shimmed(field, depth > 1)
    slopes = np.gradient(field, _SPACING_MM)
    return to_image([field, *slopes], affine)


def is_calm(background: sitk.Image, ras_mm: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Tell for positions (n, 3) whether air and bone leave a signal there: below 2.5 rad of phase across a voxel, and
    with a phase mask no bands."""
    slopes = sitk.GetArrayViewFromImage(background)[..., 1:]
    index = np.round((ras_mm - np.array(background.GetOrigin())) / _SPACING_MM).astype(int)
    i, j, k = np.clip(index, 0, np.array(background.GetSize()) - 1).T
    per_mm = protocol.radians_per_ppm * np.linalg.norm(slopes[k, j, i], axis=-1)
    calm = per_mm * max(protocol.spacing_mm) < _CALM_RAD
    return calm & (per_mm < _BANDS_RAD_PER_MM) if protocol.phase_power else calm


def _air_map(rng: np.random.Generator) -> sitk.Image:
    """Return 1 in the air spaces of the skull and 0 elsewhere, as an image in MNI mm."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-90, -60, -80)
    air = np.zeros((91, 91, 51), np.float32)
    x, y, z = (2.0 * np.ogrid[tuple(slice(n) for n in air.shape)][a] + affine[a, 3] for a in range(3))
    for centre, half in _AIR:
        for side in (1, -1):
            size = np.array(half) * rng.uniform(0.65, 1.3)
            at = np.array(centre) * (side, 1, 1) + rng.normal(0, 1.5, 3)
            inside = ((x - at[0]) / size[0]) ** 2 + ((y - at[1]) / size[1]) ** 2 + ((z - at[2]) / size[2]) ** 2 < 1
            air[inside] = 1
    # Bone between the cells and thin walls blur the edge of the air.
    air = ndimage.gaussian_filter(air, rng.uniform(1.0, 2.0))
    return to_image([air], affine)


def _below(depth: np.ndarray, limit: float) -> np.ndarray:
    """Return the share (0..1) of a voxel that lies further out than ``limit`` mm: a ramp, since a step would ring."""
    return np.clip((limit - depth) / _SPACING_MM + 0.5, 0, 1)


def _shimmed(field: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Return ``field`` less its best quadratic fit over ``brain``."""
    grid = np.meshgrid(*[np.linspace(-1, 1, n) for n in field.shape], indexing="ij")
    terms = [np.ones_like(field), *grid, *[grid[a] * grid[b] for a in range(3) for b in range(a, 3)]]
    design = np.stack([term[brain] for term in terms], -1)
    weights, *_ = np.linalg.lstsq(design[::7], field[brain][::7], rcond=None)
    return (field - sum(w * term for w, term in zip(weights, terms, strict=True))).astype(np.float32)
