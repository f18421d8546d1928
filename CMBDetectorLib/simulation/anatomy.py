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
from scipy.spatial import cKDTree

from CMBDetectorLib.errors import MissingPackageError
from CMBDetectorLib.simulation.fields import random_map, to_image

_BELOW = 30  # slices added under the template, so that skull and neck have room
TEMPLATE_TO_RAS = np.array([[1.0, 0, 0, -98], [0, 1.0, 0, -134], [0, 0, 1.0, -72 - _BELOW], [0, 0, 0, 1.0]])
# The template is larger than people: its brain, cisterns included, measures 2 l where an adult's measures 1.45.
_TEMPLATE_TO_HEAD = 1.11
# Width (mm, SD of the smoothing), least and most strength (mm) of the bends.
_BENDS = ((24.0, 1.8, 3.2), (9.0, 0.4, 0.9))
# The right lateral ventricle from frontal to temporal horn, MNI mm, and the box (mm) that holds both and their walls.
_VENTRICLE_LINE = (
    *((9, 28, 2), (8, 20, 9), (7, 10, 14), (8, 0, 19), (11, -10, 21), (15, -20, 21), (20, -30, 18)),
    *((24, -40, 12), (26, -50, 8), (27, -60, 6), (29, -36, 2), (33, -26, -8), (33, -14, -17)),
)
_VENTRICLE_MIDDLE, _VENTRICLE_REACH = (0.0, -15.0, 3.0), (80.0, 90.0, 65.0)
_WIDEST_VENTRICLES = 0.5
_VENTRICLE_HALF_MM = 10.0
_IN_VENTRICLE_MM = 0.8
_LEAST_VENTRICLE = 60  # voxels of a piece
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

    def in_ventricle(self, mni_mm: np.ndarray) -> np.ndarray:
        """Tell for positions (n, 3; MNI mm) whether they lie in a ventricle."""
        return self.ventricle[voxels_at(mni_mm)] < _IN_VENTRICLE_MM

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


def voxels_at(mni_mm: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the voxels nearest to positions (n, 3; MNI mm) as an index into the template's maps: i, j, k (n,)."""
    return tuple(np.round(mni_mm - TEMPLATE_TO_RAS[:3, 3]).astype(int).T)


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
    """Return the distance (mm) to the lateral ventricles: the fluid along their known course."""
    fluid = (gm + wm < 0.4) & (depth > 15)
    x, y, z = (np.arange(n) + TEMPLATE_TO_RAS[a, 3] for a, n in enumerate(gm.shape))
    # The cistern behind the midbrain touches them in a mean over people, and is larger.
    cistern = (np.abs(x) < 14)[:, None, None] & (y < -28)[None, :, None] & (z < 20)[None, None]
    third = (np.abs(x) < 4)[:, None, None] & (z < 8)[None, None]
    fluid &= ~(cistern | third)
    index = np.argwhere(fluid)
    course = np.array(_VENTRICLE_LINE, float)
    course = np.concatenate([course, (course[1:] + course[:-1]) / 2])
    places = index + TEMPLATE_TO_RAS[:3, 3]
    places[:, 0] = np.abs(places[:, 0])
    away = cKDTree(course).query(places, distance_upper_bound=_VENTRICLE_HALF_MM)[0]
    kept = index[np.isfinite(away)]
    ventricles = np.zeros_like(fluid)
    ventricles[tuple(kept.T)] = True
    labels, _ = ndimage.label(ventricles)
    sizes = np.bincount(labels.ravel())
    return np.maximum(0.5 - _depth((sizes >= _LEAST_VENTRICLE)[labels] & ventricles), 0)


def _depth(mask: np.ndarray) -> np.ndarray:
    """Return how far (mm, float32) each voxel lies inside the surface of ``mask``, negative outside."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(mask.transpose(2, 1, 0)).astype(np.uint8))
    distance = sitk.SignedMaurerDistanceMap(image, insideIsPositive=True, squaredDistance=False)
    # The filter measures from the outermost voxels of the mask; the surface is half a voxel further out.
    return np.ascontiguousarray(sitk.GetArrayFromImage(distance).transpose(2, 1, 0)) + np.float32(0.5)


class Warp:
    """The way from a head (RAS mm of its scan) to the template (MNI mm): stretch, turn, shift and smooth bends.

    Half of the heads are mirrored; the ventricles of most are wider than the template's. Kept as one displacement
    field on a coarse grid, so that volumes and points take the same way.
    """

    _STEP = 6.0
    _LOWER = -190.0
    _NODES = 64

    def __init__(self, rng: np.random.Generator) -> None:
        angles = np.deg2rad(rng.normal(0, 3, 3))
        turn = rotation(0, angles[0]) @ rotation(1, angles[1]) @ rotation(2, angles[2])
        stretch = np.diag(_TEMPLATE_TO_HEAD + rng.normal(0, 0.04, 3) + rng.normal(0, 0.025))
        matrix, shift = turn @ stretch, rng.normal(0, 5, 3)
        nodes = self._LOWER + self._STEP * np.arange(self._NODES)
        head = np.stack(np.meshgrid(nodes, nodes, nodes, indexing="ij"), -1)
        moved = (head + shift) @ matrix.T
        for width, low, high in _BENDS:
            strength = rng.uniform(low, high)
            for axis in range(3):
                moved[..., axis] += strength * random_map(rng, head.shape[:3], width / self._STEP)
        moved += _towards_ventricles(moved, _WIDEST_VENTRICLES * float(rng.beta(1.2, 1.8)) - 0.06)
        self._displacement = np.moveaxis(moved - head, -1, 0).astype(np.float32)
        self._side = np.array([rng.choice([1.0, -1.0]), 1.0, 1.0])

    def transform(self) -> sitk.Transform:
        """Return the way from head to template for :func:`~CMBDetectorLib.simulation.fields.sample`."""
        displacement = self._displacement.transpose(3, 2, 1, 0).astype(np.float64)
        if self._side[0] < 0:
            # A mirrored place is linear in the place, so interpolated displacements stay right.
            nodes = self._LOWER + self._STEP * np.arange(self._NODES)
            displacement[..., 0] = -(nodes + displacement[..., 0]) - nodes
        field = sitk.GetImageFromArray(displacement, isVector=True)
        field.SetSpacing([self._STEP] * 3)
        field.SetOrigin([self._LOWER] * 3)
        return sitk.DisplacementFieldTransform(field)

    def to_template(self, head_mm: np.ndarray) -> np.ndarray:
        """Turn positions (n, 3) of the head (RAS mm) into MNI mm."""
        return self._moved(np.asarray(head_mm, float)) * self._side

    def _moved(self, head_mm: np.ndarray) -> np.ndarray:
        """Return positions (n, 3) moved, but not mirrored."""
        index = ((head_mm - self._LOWER) / self._STEP).T
        return head_mm + np.stack(
            [ndimage.map_coordinates(d, index, order=1, mode="nearest") for d in self._displacement], -1
        )

    def to_head(self, mni_mm: np.ndarray) -> np.ndarray:
        """Turn positions (n, 3) in MNI mm into RAS mm of the head, to about 0.01 mm."""
        goal = np.asarray(mni_mm, float) * self._side
        head = goal.copy()
        # The displacement changes by less than 1 mm a mm, so the fixed point is reached in a few rounds.
        for _ in range(24):
            step = self._moved(head) - goal
            head -= step
            if np.abs(step).max(initial=0) < 0.005:
                break
        return head


def _towards_ventricles(mni_mm: np.ndarray, strength: float) -> np.ndarray:
    """Return the shift (..., 3) in mm that widens the lateral ventricles by about 1 / (1 - ``strength``).

    Places around them are taken from further inside; it fades over 16 mm. Negative strengths narrow them.
    """
    shift = np.zeros_like(mni_mm)
    box = tuple(
        slice(max(0, int(found.min())), int(found.max()) + 1)
        for found in np.nonzero((np.abs(mni_mm - _VENTRICLE_MIDDLE) < _VENTRICLE_REACH).all(-1))
    )
    near = mni_mm[box]
    for side in (1, -1):
        line = np.array(_VENTRICLE_LINE) * (side, 1, 1)
        away = near[..., None, :] - line
        weight = np.exp(-(away**2).sum(-1) / 60.0) + 1e-12
        offset = (away * weight[..., None]).sum(-2) / weight.sum(-1)[..., None]
        nearest = (away**2).sum(-1).min(-1)
        shift[box] -= strength * offset * np.exp(-nearest / 16.0**2)[..., None]
    return shift


def rotation(axis: int, angle: float) -> np.ndarray:
    """Return the 3x3 matrix that turns by ``angle`` (rad, right-handed) about an axis."""
    matrix = np.eye(3)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix[a, a] = matrix[b, b] = np.cos(angle)
    matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
    return matrix
