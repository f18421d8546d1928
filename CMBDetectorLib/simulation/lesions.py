"""Microbleeds and calcifications of one head: how many, where, how big, how magnetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial import cKDTree

from CMBDetectorLib.simulation.anatomy import DEEP, INFRATENTORIAL, LOBAR, TEMPLATE_TO_RAS, Template, Warp
from CMBDetectorLib.simulation.vessels import ARTERY, VEIN, Sheet, Vessel

MOST_MICROBLEEDS = 83
_POOL = 40_000
CALCIUM_CHI = -3.3
BONE_CHI = -2.1
_LOCATIONS = {LOBAR: 0.70, DEEP: 0.22, INFRATENTORIAL: 0.08}


@dataclass(frozen=True)
class Lesion:
    """A microbleed, or a mimic if ``mimic_class`` is set.

    ``ras_mm`` is its centre, ``diameter_mm`` the apparent diameter in the slice (full width at half contrast) and
    ``contrast`` 1 - centre / surroundings, both measured on the scan. ``location`` is lobar, deep or infratentorial.
    """

    ras_mm: tuple[float, float, float]
    diameter_mm: float
    contrast: float
    location: str = ""
    in_cluster: bool = False
    near_dark: bool = False
    mimic_class: str = ""


@dataclass
class Place:
    """Where a microbleed is put: MNI mm, RAS mm of the head, location class, whether beside another one."""

    mni_mm: np.ndarray
    head_mm: np.ndarray
    location: str
    in_cluster: bool = field(default=False)


def draw_count(rng: np.random.Generator) -> int:
    """Return a number of microbleeds, 1 to 83, heavy-tailed: half the scans have one, the mean is about 3.7."""
    if rng.random() < 0.5:
        return 1
    return int(np.clip(np.round(rng.lognormal(np.log(4.6), 0.85)), 2, MOST_MICROBLEEDS))


def draw_places(
    rng: np.random.Generator,
    count: int,
    template: Template,
    warp: Warp,
    vessels: list[Vessel | Sheet],
    allowed: Callable[[np.ndarray], np.ndarray],
    near: tuple[np.ndarray, float] | None = None,
) -> list[Place]:
    """Return exactly ``count`` places that ``allowed`` (positions (n, 3) RAS mm -> bool (n,)) lets through.

    A third lie 3-6 mm from another microbleed; none lies on a vessel. ``near`` (MNI mm (3,), radius in mm) says where
    in the brain to look, for a small field of view.
    """
    pools = {name: _pool(rng, index, warp, allowed, near) for name, index in template.locations.items()}
    tree, radii = _vessel_tree(vessels)
    everywhere = np.concatenate([head for _, head in pools.values()])
    forest = cKDTree(everywhere)
    names = np.repeat(list(pools), [len(head) for _, head in pools.values()])
    mni_all = np.concatenate([mni for mni, _ in pools.values()])
    weights = np.array([_LOCATIONS[name] * (len(pools[name][1]) > 0) for name in pools])
    places: list[Place] = []
    # The rules are loosened as attempts fail, so that any count fits into any field of view.
    for attempt in range(400 * count):
        if len(places) == count:
            break
        patience = 1.0 - attempt / (400 * count)
        cluster = bool(places) and rng.random() < 0.36
        if cluster:
            beside = places[int(rng.integers(len(places)))]
            way = rng.standard_normal(3)
            goal = beside.head_mm + way / np.linalg.norm(way) * rng.uniform(3.2, 6.0)
            distance, chosen = forest.query(goal)
            if distance > 1.5:
                continue
        else:
            name = list(pools)[int(rng.choice(len(weights), p=weights / weights.sum()))]
            chosen = int(rng.choice(np.flatnonzero(names == name)))
        head = everywhere[chosen]
        gaps = [float(np.linalg.norm(head - place.head_mm)) for place in places]
        if min(gaps, default=99.0) < (3.0 if cluster else 9.0 * patience):
            continue
        away, nearest = tree.query(head)
        if away - radii[nearest] < 1.6 * patience:
            continue
        places.append(Place(mni_all[chosen], head, str(names[chosen]), cluster))
    for place in places:
        gaps = [float(np.linalg.norm(place.head_mm - other.head_mm)) for other in places if other is not place]
        place.in_cluster = min(gaps, default=99.0) < 8.0
    return places


def draw_size(rng: np.random.Generator, family: str) -> tuple[float, float]:
    """Return the true diameter (mm) and the contrast (0..1) that a microbleed shall show; they are unrelated."""
    # Thick slices blur what is in them, so that a smaller spot gives the width that readers report.
    if family == "swi":
        return float(np.clip(rng.lognormal(np.log(2.1), 0.38), 1.3, 4.5)), float(0.42 + 0.57 * rng.beta(2.0, 0.9))
    return float(np.clip(rng.lognormal(np.log(1.25), 0.42), 0.6, 4.5)), float(0.35 + 0.6 * rng.beta(1.7, 1.2))


def draw_calcifications(
    rng: np.random.Generator, template: Template, warp: Warp
) -> list[tuple[np.ndarray, float, float, str]]:
    """Return calcified or bony spots: RAS mm of the head (3,), diameter (mm), chi (ppm) and mimic class."""
    spots: list[tuple[np.ndarray, float, str]] = []
    calcium = "calcification"
    if rng.random() < 0.7:
        spots.append((np.array([0, -30, 3.0]) + rng.normal(0, 1, 3), rng.uniform(0.8, 2.5), calcium))
    for side in (-1, 1):
        if rng.random() < 0.6:
            for _ in range(int(rng.integers(1, 5))):
                spots.append((np.array([side * 24, -42, 12.0]) + rng.normal(0, 2, 3), rng.uniform(0.6, 1.6), calcium))
        if rng.random() < 0.3:
            spots.append((np.array([side * 20, -3, 0.0]) + rng.normal(0, 2, 3), rng.uniform(0.6, 1.8), calcium))
    tissue = np.concatenate(list(template.locations.values()))
    for voxel in tissue[rng.integers(0, len(tissue), int(rng.poisson(2.5)))]:
        spots.append((voxel + TEMPLATE_TO_RAS[:3, 3], rng.uniform(0.6, 2.0), calcium))
    _, _, z = template.points
    base = np.argwhere((np.abs(template.depth) < 1.0) & (z < -18) & (z > -60))
    spikes = base[rng.integers(0, len(base), int(rng.integers(3, 12)))] + TEMPLATE_TO_RAS[:3, 3]
    spots += [(spike, rng.uniform(1.5, 4.5), "partial volume") for spike in spikes]
    heads = warp.to_head(np.stack([spot[0] for spot in spots]))
    return [
        (head, float(diameter), CALCIUM_CHI * float(rng.uniform(0.15, 1.0)) if kind == calcium else BONE_CHI, kind)
        for head, (_, diameter, kind) in zip(heads, spots, strict=True)
    ]


def _pool(
    rng: np.random.Generator,
    index: np.ndarray,
    warp: Warp,
    allowed: Callable[[np.ndarray], np.ndarray],
    near: tuple[np.ndarray, float] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return positions in MNI mm and in the head of template voxels that ``allowed`` lets through, at most 40000."""
    if near is not None:
        index = index[np.linalg.norm(index + TEMPLATE_TO_RAS[:3, 3] - near[0], axis=1) < near[1]]
    if len(index) > _POOL:
        index = index[rng.choice(len(index), _POOL, replace=False)]
    mni = index + TEMPLATE_TO_RAS[:3, 3] + rng.uniform(-0.5, 0.5, index.shape)
    head = warp.to_head(mni)
    inside = allowed(head)
    return mni[inside], head[inside]


def _vessel_tree(vessels: list[Vessel | Sheet]) -> tuple[cKDTree, np.ndarray]:
    wide = [v for v in vessels if isinstance(v, Vessel) and v.kind in (VEIN, ARTERY) and v.radius_mm > 0.25]
    points = np.concatenate([v.points_mm for v in wide])
    return cKDTree(points), np.concatenate([np.full(len(v.points_mm), v.radius_mm) for v in wide])
