"""A synthetic head for the tests of the preprocessing: brain, cerebrospinal fluid, skull, scalp, eyes, neck, veins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from CMBDetectorLib.volume import Volume

# Semi-axes of the brain in mm (R, A, S); the head is centred at RAS 0.
BRAIN_MM = np.array([66.0, 84.0, 62.0])


@dataclass(frozen=True)
class Phantom:
    """A scan with what is known about it, all on the stored grid.

    ``brain`` is the true brain and ``cranium`` the brain with the fluid around it (bool), ``bias`` the multiplicative
    field (float32), ``clean`` the scan without field and noise, ``lesions_ras_mm`` the centres (n, 3) of dark balls
    of 4 mm inside the brain.
    """

    scan: Volume
    brain: Volume
    cranium: Volume
    bias: Volume
    clean: Volume
    lesions_ras_mm: np.ndarray


def oblique_affine(spacing: tuple[float, float, float], axes: str = "RAS", degrees: float = 0.0) -> np.ndarray:
    """Return a 4x4 affine without translation: axes named as in ``"LPS"``, turned about two axes by ``degrees``."""
    letters = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    directions = np.zeros((3, 3))
    for column, letter in enumerate(axes):
        row, sign = letters[letter]
        directions[row, column] = sign
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ directions * np.array(spacing)
    return affine


def make_head(
    spacing: tuple[float, float, float] = (1.8, 1.8, 3.0),
    axes: str = "RAS",
    degrees: float = 0.0,
    csf: float = 2.0,
    bias: float = 0.3,
    noise: float = 0.04,
    stripped: bool = False,
    extent_mm: tuple[float, float, float] = (190.0, 226.0, 168.0),
    seed: int = 0,
) -> Phantom:
    """Make a head of ``extent_mm`` (R, A, S); intensities in units of white matter (1) times 400.

    ``csf`` is its brightness (2: T2*-GRE, 0.8: SWI), ``bias`` the amplitude of the shading, ``noise`` its standard
    deviation, ``stripped`` a scan with exact zeros outside the brain.
    """
    rng = np.random.default_rng(seed)
    affine = oblique_affine(spacing, axes, degrees)
    order = [int(np.argmax(np.abs(affine[:3, column]))) for column in range(3)]
    shape = tuple(round(extent_mm[axis] / s) for axis, s in zip(order, spacing, strict=True))
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    grid = Volume(np.zeros(shape, np.float32), affine)
    ijk = np.stack(np.meshgrid(*[np.arange(n, dtype=np.float32) for n in shape], indexing="ij"), -1)
    ras = (ijk @ affine[:3, :3].T.astype(np.float32)) + affine[:3, 3].astype(np.float32)
    brain, cranium, image, lesions = _tissues(ras, spacing, csf, rng)
    field = np.exp(bias * (np.sin(ras[..., 0] / 70) + 0.7 * np.cos(ras[..., 1] / 60) - ras[..., 2] / 120))
    if stripped:
        image = np.where(brain, image, 0)
    signal = image * field + 0.0
    noisy = np.hypot(signal + rng.normal(0, noise, shape), rng.normal(0, noise, shape))
    if stripped:
        noisy = np.where(brain, noisy, 0)
    return Phantom(
        grid.with_array((400 * noisy).astype(np.float32)),
        grid.with_array(brain),
        grid.with_array(cranium),
        grid.with_array(field.astype(np.float32)),
        grid.with_array((400 * image).astype(np.float32)),
        lesions,
    )


def _tissues(
    ras: np.ndarray, spacing: tuple[float, float, float], csf: float, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """Return (brain, cranium, image in units of white matter, lesion centres in RAS mm) at the positions ``ras``."""

    def ball(centre: tuple[float, ...], radius: float) -> np.ndarray:
        return ((ras - np.array(centre, np.float32)) ** 2).sum(-1) < radius**2

    # Distance-like: (|r| in units of the semi-axes - 1) times the mean semi-axis is about mm beyond the surface.
    beyond = (np.sqrt(((ras / BRAIN_MM.astype(np.float32)) ** 2).sum(-1)) - 1) * float(BRAIN_MM.mean())
    texture = rng.normal(0, 1, ras.shape[:3]).astype(np.float32)
    # Patches of grey matter: a few mm wide, whatever the voxels.
    texture = gaussian_filter(texture, [3 / s for s in spacing])
    texture /= texture.std()
    image = np.zeros(ras.shape[:3], np.float32)
    image[beyond < 18] = 0.8  # scalp
    image[beyond < 11.5] = 0.06  # skull, with marrow of some signal
    image[(beyond < 8.5) & (beyond > 6)] = 0.2
    image[beyond < 2.5] = csf
    brain = beyond < 0
    image[brain] = 1.0 + 0.1 * (texture[brain] > 0.3) + 0.02 * texture[brain]
    image[ball((-8, 5, 8), 11) | ball((8, 5, 8), 11)] = csf  # ventricles
    image[ball((-20, 5, 0), 7) | ball((20, 5, 0), 7)] = 0.45  # iron
    neck = (np.hypot(ras[..., 0], ras[..., 1] + 25) < 48) & (ras[..., 2] < -66)
    image[neck & (beyond > 0)] = 0.7
    image[(np.hypot(ras[..., 0], ras[..., 1] + 25) < 9) & (ras[..., 2] < -40) & (beyond > 0)] = 1.0  # medulla
    image[ball((-30, 88, -38), 12) | ball((30, 88, -38), 12)] = csf  # eyes
    image[(np.hypot(np.abs(ras[..., 0]) - 15, ras[..., 2] + 36) < 2) & (ras[..., 1] > 60) & (beyond > 0)] = (
        0.9  # nerves
    )
    image[(np.abs(ras[..., 0]) < 2.5) & (beyond < 3) & (beyond > -6) & (ras[..., 2] > 0)] = 0.1  # sagittal sinus
    lesions = np.array([(40, -20, 30), (-50, 10, 12), (-15, 60, 22), (25, 5, -20), (0, -66, 28)], float)
    for centre in lesions:
        image[ball(tuple(centre), 2.0)] = 0.1
    return brain, beyond < 2.5, image, lesions
