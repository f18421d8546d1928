"""What is known of a microbleed or mimic, how many microbleeds a head has, and its calcified spots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from CMBDetectorLib.simulation.anatomy import LOBAR, TEMPLATE_TO_RAS, Template, Warp

MOST_MICROBLEEDS = 83
CALCIUM_CHI = -3.3
BONE_CHI = -2.1
_MALFORMED = 0.02  # share of heads with a cavernous malformation; of people about 0.5 %
_MALFORMATION_APART_MM = 14.0
# Anywhere in the brain, a head: calcium in pineal gland, plexus and pallidum is frequent, alone in tissue it is rare;
# nothing in a magnitude image tells such a one from a microbleed.
_LONE_CALCIFICATIONS = 0.1
_CALCIFIED_PALLIDUM = 0.15  # share of heads, both sides in each


@dataclass(frozen=True)
class Lesion:
    """A microbleed, or a mimic if ``mimic_class`` is set.

    ``ras_mm`` is its centre, ``diameter_mm`` the apparent diameter in the slice (full width at half contrast) and
    ``contrast`` 1 - centre / surroundings, both measured on the scan. ``location`` is lobar, deep or infratentorial.
    ``in_cluster``: another microbleed lies within 5 mm. ``near_dark``: it lies in or beside something dark.
    """

    ras_mm: tuple[float, float, float]
    diameter_mm: float
    contrast: float
    location: str = ""
    in_cluster: bool = False
    near_dark: bool = False
    mimic_class: str = ""


def draw_count(rng: np.random.Generator) -> int:
    """Return a number of microbleeds, 1 to 83, heavy-tailed: half the scans have one, the mean is about 3.7."""
    if rng.random() < 0.5:
        return 1
    return int(np.clip(np.round(rng.lognormal(np.log(4.6), 0.85)), 2, MOST_MICROBLEEDS))


def draw_calcifications(
    rng: np.random.Generator, template: Template, warp: Warp
) -> list[tuple[np.ndarray, float, float, str]]:
    """Return calcified or bony spots: RAS mm of the head (3,), diameter (mm), chi (ppm) and mimic class."""
    spots: list[tuple[np.ndarray, float, str]] = []
    calcium = "calcification"
    if rng.random() < 0.7:
        spots.append((np.array([0, -30, 3.0]) + rng.normal(0, 1, 3), rng.uniform(0.8, 2.5), calcium))
    pallidum = rng.random() < _CALCIFIED_PALLIDUM
    for side in (-1, 1):
        if rng.random() < 0.6:
            near = np.array([side * 24, -42, 12.0]) + rng.normal(0, 2.5, (60, 3))
            for at in near[template.in_ventricle(near)][: int(rng.integers(1, 5))]:
                spots.append((at, rng.uniform(0.6, 1.6), calcium))
        if pallidum:
            spots.append((np.array([side * 20, -3, 0.0]) + rng.normal(0, 2, 3), rng.uniform(0.6, 1.8), calcium))
    tissue = np.concatenate(list(template.locations.values()))
    for voxel in tissue[rng.integers(0, len(tissue), int(rng.poisson(_LONE_CALCIFICATIONS)))]:
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


def draw_malformation(
    rng: np.random.Generator, template: Template, warp: Warp, bleeds_mm: np.ndarray
) -> tuple[np.ndarray, float, float] | None:
    """Return RAS mm of the head (3,), diameter (mm) and chi (ppm) of a cavernous malformation; most heads have none.

    It keeps away from the microbleeds at ``bleeds_mm`` (n, 3).
    """
    if rng.random() > _MALFORMED:
        return None
    index = template.locations[LOBAR]
    heads = warp.to_head(index[rng.integers(0, len(index), 20)] + TEMPLATE_TO_RAS[:3, 3])
    diameter, chi = float(rng.uniform(5, 14)), float(rng.uniform(0.15, 0.8))
    for head in heads:
        if not len(bleeds_mm) or np.linalg.norm(bleeds_mm - head, axis=1).min() > _MALFORMATION_APART_MM:
            return head, diameter, chi
    return None
