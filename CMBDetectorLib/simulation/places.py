"""Where the microbleeds of one head lie: lobar or deep by head, some in clusters, some in dark iron or at fluid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage
from scipy.spatial import cKDTree

from CMBDetectorLib.simulation.anatomy import DEEP, INFRATENTORIAL, LOBAR, TEMPLATE_TO_RAS, Template, Warp
from CMBDetectorLib.simulation.fields import at_nearest
from CMBDetectorLib.simulation.protocols import Protocol
from CMBDetectorLib.simulation.tubes import ARTERY, VEIN, Sheet, Vessel
from CMBDetectorLib.simulation.visibility import is_light_around, told_apart

IN_CLUSTER_MM = 5.0
_POOL = 40_000
# Share of the heads of each family, and the shares of lobar, deep and infratentorial microbleeds in them.
_PATTERNS = (
    ({"t2star": 0.20, "swi": 0.36}, (0.97, 0.01, 0.02)),
    ({"t2star": 0.45, "swi": 0.22}, (0.15, 0.76, 0.09)),
    ({"t2star": 0.35, "swi": 0.42}, (0.55, 0.36, 0.09)),
)
_CLUSTER = 0.16
_MOST_IN_CLUSTER = 8
_CLUSTER_GAP_MM = {DEEP: (2.5, 4.2), LOBAR: (2.7, 5.0), INFRATENTORIAL: (2.5, 4.5)}
_APART_MM = 9.0
_IN_IRON = 0.65
_AT_FLUID = 0.12
_DARK_CHI = 0.11  # a tissue of 0.5 shows as 0.35 at 3 T and 23 ms
_OLD_SHARE, _OLD_FACTOR = 0.06, 2.5  # heads with so much iron in the deep brain more often bleed there
_CORTEX_MM = (1.5, 3.0)


@dataclass
class Place:
    """Where a microbleed is put: MNI mm, RAS mm of the head, location class, how far (mm) the next one is."""

    mni_mm: np.ndarray
    head_mm: np.ndarray
    location: str
    gap_mm: float = field(default=np.inf)

    @property
    def in_cluster(self) -> bool:
        """Whether another one lies within 5 mm."""
        return self.gap_mm < IN_CLUSTER_MM


@dataclass(frozen=True)
class _Pool:
    """Candidate positions of one location class; ``dark`` those in or at iron, ``wet`` those at fluid."""

    mni_mm: np.ndarray
    head_mm: np.ndarray
    dark: np.ndarray
    wet: np.ndarray


def draw_places(
    rng: np.random.Generator,
    count: int,
    template: Template,
    warp: Warp,
    vessels: list[Vessel | Sheet],
    iron: sitk.Image,
    protocol: Protocol,
    axes: np.ndarray,
    allowed: Callable[[np.ndarray], np.ndarray],
    near: tuple[np.ndarray, float] | None = None,
) -> list[Place]:
    """Return exactly ``count`` places that ``allowed`` (positions (n, 3) RAS mm -> bool (n,)) lets through.

    A third lie in clusters of 2 to 8, 2.5-5 mm apart; none lies on a vessel. ``iron`` (MNI mm, ppm) draws deep ones.
    ``axes`` (3, 3) are the unit vectors of the scan's i, j and k in RAS, as columns.
    ``near`` (MNI mm (3,), radius in mm) says where in the brain to look, for a small field of view.
    """
    apart = told_apart(protocol, axes)

    def fits(mni_mm: np.ndarray, head_mm: np.ndarray) -> np.ndarray:
        return allowed(head_mm) & is_light_around(iron, mni_mm, protocol)

    voxels = _voxels(template)
    pools = {name: _pool(rng, index, template, warp, iron, fits, near) for name, index in voxels.items()}
    tree, radii = _vessel_tree(vessels)
    weights = _weights(rng, protocol.family, pools)
    places: list[Place] = []
    pending, parent = 0, None
    # The rules are loosened as attempts fail, so that any count fits into any field of view.
    for attempt in range(400 * count):
        if len(places) == count:
            break
        patience = 1.0 - attempt / (400 * count)
        beside = pending > 0
        if beside:
            candidate = _next_to(rng, parent, warp, voxels[parent.location], fits)
            pending -= rng.random() < 0.05  # some clusters have no room left
            if candidate is None:
                continue
        else:
            name = list(pools)[int(rng.choice(len(weights), p=weights))]
            chosen = _anywhere(rng, pools[name])
            candidate = Place(pools[name].mni_mm[chosen], pools[name].head_mm[chosen], name)
        head = candidate.head_mm
        if not _has_room(head, places, apart, beside, patience):
            continue
        away, nearest = tree.query(head)
        if away - radii[nearest] < 1.3 * patience:
            continue
        places.append(candidate)
        if beside:
            pending -= 1
            parent = places[-1] if rng.random() < 0.5 else parent
        elif rng.random() < _CLUSTER:
            pending, parent = int(min(rng.geometric(0.42), _MOST_IN_CLUSTER - 1)), places[-1]
    _note_gaps(places)
    return places


def _note_gaps(places: list[Place]) -> None:
    """Write into each place how far the next one is."""
    if len(places) > 1:
        heads = np.array([place.head_mm for place in places])
        for place, gap in zip(places, cKDTree(heads).query(heads, 2)[0][:, 1], strict=True):
            place.gap_mm = float(gap)


def _has_room(head_mm: np.ndarray, places: list[Place], apart: np.ndarray, beside: bool, patience: float) -> bool:
    """Tell whether the scan shows one at ``head_mm`` apart from ``places``; one not ``beside`` another lies alone."""
    ways = head_mm - np.array([place.head_mm for place in places]).reshape(-1, 3)
    if np.linalg.norm(ways @ apart.T, axis=1).min(initial=np.inf) < min(1.0, 4 * patience):
        return False
    return beside or bool(np.linalg.norm(ways, axis=1).min(initial=np.inf) >= _APART_MM * patience)


def _weights(rng: np.random.Generator, family: str, pools: dict[str, _Pool]) -> np.ndarray:
    """Return the share of each location class in this head: strictly lobar, mostly deep, or mixed."""
    often = np.array([pattern[0][family] for pattern in _PATTERNS])
    if len(pools[DEEP].dark) > _OLD_SHARE * max(1, len(pools[DEEP].head_mm)):
        often[1] *= _OLD_FACTOR
    shares = _PATTERNS[int(rng.choice(len(often), p=often / often.sum()))][1]
    share = dict(zip((LOBAR, DEEP, INFRATENTORIAL), shares, strict=True))
    weights = np.array([share[name] * (len(pool.head_mm) > 0) for name, pool in pools.items()])
    return weights / weights.sum()


def _anywhere(rng: np.random.Generator, pool: _Pool) -> int:
    """Return a position of ``pool``: rather often in or at iron, sometimes at fluid."""
    for few, share in ((pool.dark, _IN_IRON), (pool.wet, _AT_FLUID)):
        if len(few) and rng.random() < share:
            return int(few[rng.integers(len(few))])
    return int(rng.integers(len(pool.head_mm)))


def _next_to(
    rng: np.random.Generator,
    parent: Place,
    warp: Warp,
    voxels: np.ndarray,
    fits: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Place | None:
    """Return a place at a drawn distance from ``parent``, more often beside it than above or below; None if that is
    not within the ``voxels`` (n, 3) of its class."""
    way = rng.standard_normal(3) * (1, 1, 0.2 if rng.random() < 0.5 else 1)
    goal = parent.head_mm + way / np.linalg.norm(way) * rng.uniform(*_CLUSTER_GAP_MM[parent.location])
    mni = warp.to_template(goal[None])
    index = np.round(mni - TEMPLATE_TO_RAS[:3, 3])
    if not fits(mni, goal[None])[0] or not (np.abs(voxels - index[0]).max(1) < 0.5).any():
        return None
    return Place(mni[0], goal, parent.location)


def _voxels(template: Template) -> dict[str, np.ndarray]:
    """Return the voxel indices (n, 3) of each location class, for lobar ones the cortex at the surface too."""
    _, _, z = template.points
    cortex = (template.depth > _CORTEX_MM[0]) & (template.depth <= _CORTEX_MM[1]) & (template.gm > 0.55) & (z > 0)
    found = dict(template.locations)
    found[LOBAR] = np.concatenate([found[LOBAR], np.argwhere(cortex)])
    return found


def _pool(
    rng: np.random.Generator,
    index: np.ndarray,
    template: Template,
    warp: Warp,
    iron: sitk.Image,
    fits: Callable[[np.ndarray, np.ndarray], np.ndarray],
    near: tuple[np.ndarray, float] | None,
) -> _Pool:
    """Return positions within template voxels that ``fits`` (MNI mm, RAS mm) lets through, at most 40000."""
    if near is not None:
        index = index[np.linalg.norm(index + TEMPLATE_TO_RAS[:3, 3] - near[0], axis=1) < near[1]]
    if len(index) > _POOL:
        index = index[rng.choice(len(index), _POOL, replace=False)]
    mni = index + TEMPLATE_TO_RAS[:3, 3] + rng.uniform(-0.5, 0.5, index.shape)
    head = warp.to_head(mni)
    inside = fits(mni, head)
    index, mni, head = index[inside], mni[inside], head[inside]
    return _Pool(mni, head, np.flatnonzero(_in_or_at_iron(mni, iron)), np.flatnonzero(_at_fluid(index, template)))


def _in_or_at_iron(mni_mm: np.ndarray, iron: sitk.Image) -> np.ndarray:
    """Tell for positions (n, 3) whether they lie within about 1.5 mm of iron that darkens."""
    amount = sitk.GetArrayFromImage(iron).reshape(*iron.GetSize()[::-1])
    dark = ndimage.binary_dilation(ndimage.uniform_filter(amount, 3) > _DARK_CHI, iterations=1)
    return at_nearest(dark, iron, mni_mm)


def _at_fluid(index: np.ndarray, template: Template) -> np.ndarray:
    """Tell for voxels (n, 3) of the template whether fluid lies 2 mm away on any axis."""
    wet = np.zeros(len(index), bool)
    for axis in range(3):
        for step in (-2, 2):
            moved = index.copy()
            moved[:, axis] = np.clip(moved[:, axis] + step, 0, template.gm.shape[axis] - 1)
            wet |= template.csf[tuple(moved.T)] > 0.6
    return wet


def _vessel_tree(vessels: list[Vessel | Sheet]) -> tuple[cKDTree, np.ndarray]:
    wide = [v for v in vessels if isinstance(v, Vessel) and v.kind in (VEIN, ARTERY) and v.radius_mm > 0.25]
    points = np.concatenate([v.points_mm for v in wide])
    return cKDTree(points), np.concatenate([np.full(len(v.points_mm), v.radius_mm) for v in wide])
