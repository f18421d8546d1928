"""The brain that every simulated head is bent from: the ICBM 152 maps inside nilearn, and what is read off them.

All maps are float32 arrays (i, j, k) on one grid of 1 mm whose axes run R, A, S (MNI space), :data:`TEMPLATE_TO_RAS`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

from CMBDetectorLib.errors import MissingPackageError
from CMBDetectorLib.simulation.fields import random_map, to_image

_BELOW = 30  # slices added under the template, so that skull and neck have room
TEMPLATE_TO_RAS = np.array([[1.0, 0, 0, -98], [0, 1.0, 0, -134], [0, 0, 1.0, -72 - _BELOW], [0, 0, 0, 1.0]])
LOBAR, DEEP, INFRATENTORIAL = "lobar", "deep", "infratentorial"


@dataclass(frozen=True)
class Template:
    """``gm``, ``wm`` (0..1), ``depth`` (mm under the brain surface, negative outside), ``ventricle`` (mm from it)."""

    gm: np.ndarray
    wm: np.ndarray
    depth: np.ndarray
    ventricle: np.ndarray

    @functools.cached_property
    def csf(self) -> np.ndarray:
        """Fluid (0..1) inside the brain surface: what is neither grey nor white."""
        return np.where(self.depth > 0, np.clip(1 - self.gm - self.wm, 0, 1), 0).astype(np.float32)

    @functools.cached_property
    def image(self) -> sitk.Image:
        """gm, wm and depth for :func:`~CMBDetectorLib.simulation.fields.sample`."""
        return to_image([self.gm, self.wm, self.depth], TEMPLATE_TO_RAS)

    @functools.cached_property
    def smooth(self) -> dict[str, np.ndarray]:
        """Smoothed ``csf`` (SD 1 mm), ``depth`` and ``ventricle`` (3 mm): their slopes lead vessels."""
        return {
            "csf": ndimage.gaussian_filter(self.csf, 1.0),
            "depth": ndimage.gaussian_filter(self.depth, 3.0),
            "ventricle": ndimage.gaussian_filter(self.ventricle, 3.0),
        }

    @functools.cached_property
    def points(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """MNI x, y and z (mm) of the voxels, to broadcast."""
        grid = [np.arange(n, dtype=np.float32) + TEMPLATE_TO_RAS[a, 3] for a, n in enumerate(self.gm.shape)]
        return grid[0][:, None, None], grid[1][None, :, None], grid[2][None, None, :]

    @functools.cached_property
    def locations(self) -> dict[str, np.ndarray]:
        """Where microbleeds may lie: for each location class the voxel indices (n, 3)."""
        x, y, z = self.points
        tissue = (self.depth > 3) & (self.gm + self.wm > 0.6) & (z > -66)
        cerebellum = (y < -34) & (z < -8 + (y + 40) * 0.22) & (np.abs(x) < 52 + (y + 40) * 0.1)
        below = cerebellum | ((np.abs(x) < 15) & (y > -46) & (y < -6) & (z < -10))
        centre = (np.abs(x) < 37) & (y > -42) & (y < 28) & (z > -9) & (z < 28) & (self.depth > 26)
        classes = {LOBAR: tissue & ~below & ~centre, DEEP: tissue & centre & ~below, INFRATENTORIAL: tissue & below}
        return {name: np.argwhere(mask) for name, mask in classes.items()}


@functools.lru_cache(maxsize=1)
def load_template() -> Template:
    """Read the maps (once a process).

    Raises:
        MissingPackageError: nilearn, which carries them, is not installed.
    """
    try:
        import nilearn.datasets
        import nilearn.image
    except ImportError as error:
        raise MissingPackageError(
            "Simulating scans needs the package nilearn, which carries the anatomy.",
            'Install it: pip install "cmbdetector[simulation]"',
        ) from error
    folder = Path(nilearn.datasets.__file__).parent / "data"
    gm, wm, t1 = (
        _read(folder / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz") for kind in ("gm", "wm", "t1")
    )
    # The published T1 map is cut to the brain without the cisterns under it; closing puts them back.
    brain = (t1 > 0) | (gm + wm > 0.1)
    near = _depth(np.pad(brain, 12)) > -9
    brain |= _depth(near)[12:-12, 12:-12, 12:-12] > 9
    outside, _ = ndimage.label(~brain)
    depth = _depth(outside != outside[0, 0, -1])
    return Template(gm, wm, depth, _ventricle_distance(gm, wm, depth))


def _read(path: Path) -> np.ndarray:
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).transpose(2, 1, 0).astype(np.float32) / 255
    return np.pad(array, ((0, 0), (0, 0), (_BELOW, 0)))


def _ventricle_distance(gm: np.ndarray, wm: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Return the distance (mm) to the lateral ventricles: the largest fluid space deep in the middle of the brain."""
    fluid = (gm + wm < 0.4) & (depth > 15)
    x, y, z = (np.arange(n) + TEMPLATE_TO_RAS[a, 3] for a, n in enumerate(gm.shape))
    fluid &= (
        (np.abs(x) < 40)[:, None, None] & ((y > -60) & (y < 40))[None, :, None] & ((z > -12) & (z < 36))[None, None]
    )
    labels, _ = ndimage.label(fluid)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.maximum(0.5 - _depth(labels == int(np.argmax(sizes))), 0)


def _depth(mask: np.ndarray) -> np.ndarray:
    """Return how far (mm, float32) each voxel lies inside the surface of ``mask``, negative outside."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(mask.transpose(2, 1, 0)).astype(np.uint8))
    distance = sitk.SignedMaurerDistanceMap(image, insideIsPositive=True, squaredDistance=False)
    # The filter measures from the outermost voxels of the mask; the surface is half a voxel further out.
    return np.ascontiguousarray(sitk.GetArrayFromImage(distance).transpose(2, 1, 0)) + np.float32(0.5)


class Warp:
    """The way from a head (RAS mm of its scan) to the template (MNI mm): stretch, turn, shift and smooth bends.

    Kept as one displacement field on a coarse grid, so that volumes and points take the same way.
    """

    _STEP = 6.0
    _LOWER = -190.0
    _NODES = 64

    def __init__(self, rng: np.random.Generator) -> None:
        angles = np.deg2rad(rng.normal(0, 3, 3))
        turn = rotation(0, angles[0]) @ rotation(1, angles[1]) @ rotation(2, angles[2])
        stretch = np.diag(1 + rng.normal(0, 0.035, 3) + rng.normal(0, 0.02))
        matrix, shift = turn @ stretch, rng.normal(0, 5, 3)
        nodes = self._LOWER + self._STEP * np.arange(self._NODES)
        head = np.stack(np.meshgrid(nodes, nodes, nodes, indexing="ij"), -1)
        moved = (head + shift) @ matrix.T
        for axis in range(3):
            moved[..., axis] += 2.2 * random_map(rng, head.shape[:3], 24 / self._STEP)
            moved[..., axis] += 0.6 * random_map(rng, head.shape[:3], 9 / self._STEP)
        self._displacement = np.moveaxis(moved - head, -1, 0).astype(np.float32)

    def transform(self) -> sitk.Transform:
        """Return the way from head to template for :func:`~CMBDetectorLib.simulation.fields.sample`."""
        field = sitk.GetImageFromArray(self._displacement.transpose(3, 2, 1, 0).astype(np.float64), isVector=True)
        field.SetSpacing([self._STEP] * 3)
        field.SetOrigin([self._LOWER] * 3)
        return sitk.DisplacementFieldTransform(field)

    def to_template(self, head_mm: np.ndarray) -> np.ndarray:
        """Turn positions (n, 3) of the head (RAS mm) into MNI mm."""
        index = ((head_mm - self._LOWER) / self._STEP).T
        return head_mm + np.stack(
            [ndimage.map_coordinates(d, index, order=1, mode="nearest") for d in self._displacement], -1
        )

    def to_head(self, mni_mm: np.ndarray) -> np.ndarray:
        """Turn positions (n, 3) in MNI mm into RAS mm of the head, to about 0.01 mm."""
        mni_mm = np.asarray(mni_mm, float)
        head = mni_mm.copy()
        # The displacement changes slowly (by far less than 1 mm a mm), so the fixed point is reached in a few rounds.
        for _ in range(12):
            head -= self.to_template(head) - mni_mm
        return head


def rotation(axis: int, angle: float) -> np.ndarray:
    """Return the 3x3 matrix that turns by ``angle`` (rad, right-handed) about an axis."""
    matrix = np.eye(3)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix[a, a] = matrix[b, b] = np.cos(angle)
    matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
    return matrix
