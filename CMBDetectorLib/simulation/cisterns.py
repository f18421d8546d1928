"""The fluid that trunks run in, and the plexus in the lateral ventricles. Positions in MNI mm."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from CMBDetectorLib.simulation.anatomy import Template
from CMBDetectorLib.simulation.tubes import ARTERY, CHOROID, CISTERN, DURA, Sheet, Vessel

# Spaces that the mean over people has closed: radius (mm), whether there is a mirrored one, way-points.
_SPACES = (
    (7.0, False, ((-6, 6, -17), (6, 6, -17))),
    (5.0, False, ((0, -4, -19), (0, -12, -19))),
    (3.5, False, ((0, -36, 2), (0, -44, 4))),
    (3.0, True, ((10, -18, -15), (17, -25, -10), (14, -36, -3), (5, -40, 1))),
    (2.6, True, ((30, 6, -15), (38, 5, -10), (42, -2, -3), (44, -14, 5), (46, -28, 15))),
    (2.2, True, ((40, 12, -6), (44, 6, 4), (44, -8, 10))),
    (2.2, False, ((0, 30, -12), (0, 48, 2), (0, 50, 28))),
    (3.0, False, ((0, -25, -48), (0, -13, -38), (0, -9, -28))),
)
_CUFF_MM = (0.7, 1.9)
# The right plexus: centre, spread (SD, mm) and number of its tufts; the glomus first.
_PLEXUS = (
    ((26, -44, 10), (2.6, 4.0, 3.6), 260),
    ((19, -34, 17), (2.0, 5.0, 2.0), 130),
    ((9, -12, 20), (2.5, 8.0, 1.5), 110),
)


def draw_cisterns(rng: np.random.Generator, trunks: Iterable[Vessel | Sheet]) -> list[Vessel]:
    """Return the fluid around the arteries among ``trunks``, and the cisterns and fissures; wider in some heads."""
    width = float(rng.uniform(0.6, 1.25))
    found = []
    for trunk in trunks:
        if isinstance(trunk, Vessel) and trunk.kind == ARTERY:
            cuff = trunk.radius_mm + width * float(rng.uniform(*_CUFF_MM))
            found.append(Vessel(trunk.points_mm, cuff, CISTERN))
    for radius, paired, way in _SPACES:
        for side in (1, -1) if paired else (1,):
            nodes = np.array(way, float) * (side, 1, 1) + rng.normal(0, 0.8, (len(way), 3))
            at = np.linspace(0, len(nodes) - 1, 8 * len(nodes))
            line = np.stack([np.interp(at, np.arange(len(nodes)), nodes[:, a]) for a in range(3)], -1)
            found.append(Vessel(line, radius * width * float(rng.uniform(0.6, 1.15)), CISTERN))
    return found


def draw_choroid(rng: np.random.Generator, template: Template) -> list[Vessel | Sheet]:
    """Return the plexus of both lateral ventricles: speckled tissue with a dark core in the glomus of most."""
    found: list[Vessel | Sheet] = []
    calcified = rng.random() < 0.7
    for side in (1, -1):
        amount = float(rng.uniform(0.5, 1.4))
        for centre, spread, count in _PLEXUS:
            dots = (
                np.array(centre) * (side, 1, 1)
                + rng.normal(0, 0.6, 3)
                + rng.normal(0, 1, (int(count * amount), 3)) * spread
            )
            dots = dots[template.in_ventricle(dots)]
            if len(dots):
                found.append(Sheet(dots, float(rng.uniform(0.4, 0.9)), CHOROID))
        if calcified:
            core = np.array(_PLEXUS[0][0]) * (side, 1, 1) + rng.normal(0, 0.8, 3)
            dots = core + rng.normal(0, rng.uniform(0.4, 1.1), (int(rng.integers(8, 50)), 3))
            found.append(Sheet(dots, float(rng.uniform(0.15, 0.6)), DURA))
    return found
