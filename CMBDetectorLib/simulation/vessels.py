"""The vessels of one head: walks through fluid and tissue, and the named trunks. Centre lines in MNI mm."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from CMBDetectorLib.simulation.anatomy import TEMPLATE_TO_RAS, Template, load_template
from CMBDetectorLib.simulation.cisterns import draw_choroid, draw_cisterns
from CMBDetectorLib.simulation.tubes import ARTERY, DURA, PERIVASCULAR, VEIN, Sheet, Vessel
from CMBDetectorLib.simulation.walks import directions, pick, slope, walk, while_in

__all__ = ["ARTERY", "DURA", "PERIVASCULAR", "VEIN", "Sheet", "Vessel", "draw_vessels"]

# Trunks in MNI mm: kind, radius (mm), whether there is a mirrored one, way-points.
_TRUNKS = (
    (VEIN, 2.7, False, ((0, 70, 20), (0, 54, 54), (0, 22, 76), (0, -20, 84), (0, -58, 77), (0, -92, 44), (0, -106, 0))),
    (VEIN, 1.4, False, ((0, -42, 4), (0, -56, 4), (0, -76, -4), (0, -97, -8))),
    (VEIN, 3.0, True, ((2, -98, -8), (25, -94, -16), (44, -74, -24), (54, -52, -30), (50, -38, -42))),
    (VEIN, 0.9, True, ((3, 4, 12), (3, -10, 15), (3, -24, 13), (2, -36, 8), (0, -44, 5))),
    (VEIN, 0.7, True, ((17, -8, 19), (15, 2, 15), (9, 6, 11), (4, 3, 11))),
    (VEIN, 0.6, True, ((5, 22, 10), (3, 14, 12), (3, 4, 12))),
    (VEIN, 0.9, True, ((14, 0, -20), (17, -12, -17), (16, -26, -8), (8, -36, 0), (0, -43, 4))),
    (VEIN, 0.6, True, ((22, -38, 12), (18, -32, 16), (10, -30, 14), (3, -32, 10))),
    (ARTERY, 1.7, False, ((0, -27, -50), (1, -16, -42), (0, -12, -34), (0, -9, -26), (0, -11, -18))),
    (ARTERY, 1.5, True, ((0, -11, -18), (10, -15, -17), (17, -24, -12), (16, -36, -6), (14, -52, 0))),
    (ARTERY, 2.0, True, ((15, -14, -42), (14, 0, -34), (11, 3, -24), (11, 3, -16))),
    (ARTERY, 1.5, True, ((11, 3, -16), (20, 4, -16), (30, 5, -15), (38, 4, -10), (41, -4, -2), (42, -16, 6))),
    (ARTERY, 1.0, True, ((38, 4, -10), (40, 10, -2), (40, 0, 8), (40, -14, 14), (44, -28, 18))),
    (ARTERY, 1.2, True, ((11, 3, -16), (4, 8, -15), (2, 16, -12), (2, 32, -4), (2, 40, 8), (2, 34, 22), (2, 14, 32))),
    (ARTERY, 0.8, True, ((2, 40, 8), (2.5, 50, 18), (2.5, 44, 36), (2.5, 26, 48))),
    (ARTERY, 1.2, True, ((1, -27, -50), (4, -31, -58), (10, -34, -66))),
)

# Radius of a vessel that begins and ends by itself over its length: what is short is thin.
_WIDEST_BY_LENGTH = {VEIN: 1 / 35, ARTERY: 1 / 25}
_IN_FLUID = 0.08  # of the smoothed map of fluid: narrow sulci included
# A wide vessel of the surface lies in fluid that shows: in a sulcus that the mean over people has closed it would be
# a black dot in tissue.
_WIDE_MM, _IN_OPEN_FLUID = 0.4, 0.22


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """How many vessels one family of protocols shows, and how."""

    chi: float  # susceptibility of veins, factor
    pial: tuple[int, int]  # how many, range
    veins: float  # share of veins among the pial ones
    sulcal: float  # share of narrow sulci among their places
    others: float  # number of all the others, factor
    radius_mm: tuple[float, float]  # of those in tissue: median, most
    strength: tuple[float, float]  # how much of their blood shows, range
    medullary_mm: tuple[float, float]  # radius of medullary veins, range
    arteries: float  # how much arteries show, mean


# SWI is made to show veins; thick slices without a phase mask show few of them, and those wide and faint.
_SHOWN = {
    "swi": _Shown(
        chi=1.0, pial=(720, 1200), veins=0.75, sulcal=0.6, others=1.6, arteries=0.42,
        radius_mm=(0.26, 0.6), strength=(0.7, 1.0), medullary_mm=(0.12, 0.28),
    ),
    "t2star": _Shown(
        chi=0.6, pial=(500, 950), veins=0.4, sulcal=0.2, others=2.0, arteries=0.3,
        radius_mm=(0.42, 0.95), strength=(0.08, 0.5), medullary_mm=(0.08, 0.24),
    ),
}  # fmt: skip


def draw_vessels(rng: np.random.Generator, template: Template, family: str = "swi") -> list[Vessel | Sheet]:
    """Return the vessels of one head as a protocol's ``family`` shows them, and the falx."""
    shown = _SHOWN[family]
    oxygen = rng.uniform(0.36, 0.62) * shown.chi
    found: list[Vessel | Sheet] = list(_trunks(rng, template, oxygen))
    found += draw_cisterns(rng, found)
    found += _pial(rng, template, oxygen, shown)
    found += _medullary(rng, template, oxygen, shown)
    found += _penetrating(rng, template, oxygen, shown)
    found += _cerebellar(rng, template, oxygen, shown)
    found += _perivascular(rng, template)
    return found + _falx(rng, template) + draw_choroid(rng, template)


def _trunks(rng: np.random.Generator, template: Template, chi: float) -> list[Vessel]:
    vessels = []
    for kind, radius, paired, way in _TRUNKS:
        for side in (1, -1) if paired else (1,):
            nodes = np.array(way, float) * (side, 1, 1)
            nodes[1:-1] += rng.normal(0, 1.0, (len(nodes) - 2, 3)) * (0.5, 1, 1)
            calibre = radius * float(np.clip(rng.normal(1, 0.25), 0.4, 1.6))
            line = _smooth_line(nodes, rng)
            if kind == ARTERY:
                line = _into_fluid(line, template)
            strength = float(rng.uniform(0.4, 1.0)) if kind == ARTERY else 1.0
            # Way-points follow the flow: veins begin thin, arteries end so.
            taper = (_taper_mm(calibre), 0.0) if kind == VEIN else (0.0, _taper_mm(calibre))
            vessels.append(Vessel(line, calibre, kind, _own_chi(rng, chi, kind), strength, taper))
    return vessels


def _taper_mm(radius_mm: float) -> float:
    """Return over what length a vessel of this radius gets thin: no wide one ends bluntly."""
    return 6 + 8 * radius_mm


def _free(line: np.ndarray, radius_mm: float, kind: str, chi: float, strength: float = 1.0) -> Vessel:
    """Return a vessel that begins and ends by itself: thin at both ends, and the thinner the shorter it is."""
    radius_mm = min(radius_mm, len(line) * _WIDEST_BY_LENGTH[kind])
    return Vessel(line, radius_mm, kind, chi, strength, (_taper_mm(radius_mm),) * 2)


def _own_chi(rng: np.random.Generator, chi: float, kind: str) -> float:
    """Return the susceptibility of one vessel: veins of one head differ in oxygen and in what they lie between."""
    return chi * float(np.clip(rng.normal(0.85, 0.28), 0.2, 1.25)) if kind == VEIN else 0.0


def _smooth_line(nodes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return points about 1 mm apart along a rounded, slightly winding line through ``nodes`` (n, 3)."""
    length = np.r_[0, np.cumsum(np.linalg.norm(np.diff(nodes, axis=0), axis=1))]
    at = np.linspace(0, length[-1], max(3, int(length[-1])))
    line = np.stack([np.interp(at, length, nodes[:, a]) for a in range(3)], -1)
    line += 1.0 * ndimage.gaussian_filter1d(rng.standard_normal(line.shape), 4, axis=0) * 3
    return ndimage.gaussian_filter1d(line, 3, axis=0, mode="nearest")


def _into_fluid(line: np.ndarray, template: Template) -> np.ndarray:
    """Return a line (n, 3; MNI mm) moved up to 6 mm towards the nearest fluid, and smoothed again."""
    position = line - TEMPLATE_TO_RAS[:3, 3]
    start = position.copy()
    for _ in range(14):
        uphill = slope(template.smooth["csf"], position)
        position = position + 0.6 * uphill / np.maximum(np.linalg.norm(uphill, axis=1, keepdims=True), 0.02)
        away = position - start
        position = start + away * np.minimum(1, 6 / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-6))
        position = ndimage.gaussian_filter1d(position, 1.5, axis=0, mode="nearest")
    return position + TEMPLATE_TO_RAS[:3, 3]


def _pial(rng: np.random.Generator, template: Template, chi: float, shown: _Shown) -> list[Vessel]:
    """Arteries and veins in sulci and cisterns, each kept in the fluid by the gradient of its map."""
    count = int(rng.integers(*shown.pial))
    narrow = int(shown.sulcal * count)
    start = np.concatenate([pick(rng, _seeds()["sulci"], narrow), pick(rng, _seeds()["fluid"], count - narrow)])
    guide = (template.smooth["csf"], 2.5)
    lines = walk(rng, start, directions(rng, count), rng.integers(8, 55, count), 0.24, guide, template)
    radii = np.clip(rng.lognormal(np.log(0.5), 0.5, len(lines)), 0.12, 1.6)
    vessels = []
    for line, radius in zip(lines, radii, strict=True):
        kept = while_in(template.smooth["csf"], _IN_OPEN_FLUID if radius > _WIDE_MM else _IN_FLUID, line)
        if kept is None:
            continue
        kind = VEIN if rng.random() < shown.veins else ARTERY
        strength = float(rng.beta(1.3, 1.3 / shown.arteries - 1.3)) if kind == ARTERY else 1.0
        vessels.append(_free(kept, float(radius), kind, _own_chi(rng, chi, kind), strength))
    return vessels


def _medullary(rng: np.random.Generator, template: Template, chi: float, shown: _Shown) -> list[Vessel]:
    """Deep medullary veins: from the wall of the lateral ventricles straight out into the white matter."""
    count = int(shown.others * rng.integers(40, 90))
    start = pick(rng, _seeds()["periventricular"], count)
    outward = template.smooth["ventricle"]
    lines = walk(rng, start, slope(outward, start), rng.integers(10, 34, count), 0.12, (outward, 0.25), template)
    vessels = []
    for line in lines:
        radius = float(rng.uniform(*shown.medullary_mm))
        vessels.append(Vessel(line, radius, VEIN, _own_chi(rng, chi, VEIN), taper_mm=(0, _taper_mm(radius))))
    return vessels


def _penetrating(rng: np.random.Generator, template: Template, chi: float, shown: _Shown) -> list[Vessel]:
    """Vessels in tissue: from the cortex inwards, in any direction in the white matter, and up into the nuclei."""
    start = pick(rng, _seeds()["cortex"], int(shown.others * rng.integers(80, 200)))
    lines = walk(
        rng, start, slope(template.smooth["depth"], start), rng.integers(10, 32, len(start)), 0.15, None, template
    )
    start = pick(rng, _seeds()["deep tissue"], int(shown.others * rng.integers(60, 160)))
    lines += walk(rng, start, directions(rng, len(start)), rng.integers(14, 42, len(start)), 0.15, None, template)
    start = pick(rng, _seeds()["under the lentiform"], int(rng.integers(12, 40)))
    up = np.tile([0.0, 0.0, 1.0], (len(start), 1)) + rng.normal(0, 0.25, (len(start), 3))
    lines += walk(rng, start, up, rng.integers(8, 25, len(start)), 0.15, None, template)
    typical, widest = shown.radius_mm
    radii = np.clip(rng.lognormal(np.log(typical), 0.4, len(lines)), 0.08, widest)
    shows = rng.uniform(*shown.strength, len(lines))
    return [
        _free(line, float(r), VEIN, _own_chi(rng, chi, VEIN), float(strength))
        for line, r, strength in zip(lines, radii, shows, strict=True)
    ]


def _cerebellar(rng: np.random.Generator, template: Template, chi: float, shown: _Shown) -> list[Vessel]:
    """Y-shaped veins of the cerebellum and under the tentorium: a stem that forks twice."""
    count = int(rng.integers(14, 36))
    start = pick(rng, _seeds()["cerebellum"], count)
    stems = walk(rng, start, directions(rng, count), rng.integers(8, 20, count), 0.2, None, template)
    vessels = []
    for stem in stems:
        radius, strength = float(rng.uniform(0.3, 0.7)), float(rng.uniform(*shown.strength))
        taper = _taper_mm(radius)
        vessels.append(Vessel(stem, radius, VEIN, chi, strength, (taper, 0)))
        heading = (stem[-1] - stem[0]) / max(1e-6, float(np.linalg.norm(stem[-1] - stem[0])))
        fork = np.tile(stem[-1] - TEMPLATE_TO_RAS[:3, 3], (2, 1))
        side = np.cross(heading, rng.standard_normal(3))
        side /= np.linalg.norm(side)
        ways = np.stack([heading + 0.6 * side, heading - 0.6 * side])
        for branch in walk(rng, fork, ways, rng.integers(6, 16, 2), 0.2, None, template):
            vessels.append(Vessel(branch, 0.7 * radius, VEIN, chi, strength, (0, taper)))
    return vessels


def _perivascular(rng: np.random.Generator, template: Template) -> list[Vessel]:
    """Fluid-filled spaces in the white matter and under the nuclei: short, thin, bright where fluid is."""
    count = int(rng.integers(40, 220))
    start = pick(rng, _seeds()["white matter"], count)
    way = slope(template.smooth["depth"], start) + 0.5 * directions(rng, count)
    lines = walk(rng, start, way, rng.integers(3, 12, count), 0.15, None, template)
    radii = np.clip(rng.lognormal(np.log(0.26), 0.4, len(lines)), 0.1, 0.7)
    return [Vessel(line, float(r), PERIVASCULAR) for line, r in zip(lines, radii, strict=True)]


def _falx(rng: np.random.Generator, template: Template) -> list[Vessel | Sheet]:
    """The falx as a slightly bent membrane in the fluid of the midline, with a few beads of calcium or fat on it."""
    index = _seeds()["midline"]
    dots = np.repeat(index, 24, axis=0) + rng.uniform(-0.5, 0.5, (24 * len(index), 3)) + TEMPLATE_TO_RAS[:3, 3]
    dots[:, 0] = 0.8 * np.sin(dots[:, 1] / 25 + rng.uniform(0, 6)) + rng.uniform(-0.4, 0.4, len(dots))
    falx: list[Vessel | Sheet] = [Sheet(dots, float(rng.uniform(0.12, 0.45)) / 24, DURA)]
    for centre in dots[rng.integers(0, len(dots), int(rng.integers(2, 22)))]:
        ends = centre + np.outer((-0.5, 0.0, 0.5), rng.normal(0, 1.5, 3))
        falx.append(Vessel(ends, float(rng.uniform(0.35, 1.1)), DURA))
    return falx


@functools.lru_cache(maxsize=1)
def _seeds() -> dict[str, np.ndarray]:
    """Return the voxels (n, 3) of the template where each kind of vessel may begin."""
    t = load_template()
    x, y, z = t.points
    tissue = t.gm + t.wm > 0.7
    fluid = t.smooth["csf"]
    masks = {
        "fluid": (fluid > 0.3) & (t.depth > 1.5) & (t.ventricle > 6),
        "sulci": (fluid > 0.1) & (fluid < 0.35) & (t.depth > 2) & (t.depth < 18) & (t.ventricle > 12),
        "periventricular": (t.ventricle > 2) & (t.ventricle < 6) & (t.wm > 0.6),
        "cortex": tissue & (t.depth > 2) & (t.depth < 7),
        "deep tissue": tissue & (t.depth > 7),
        "under the lentiform": tissue & (np.abs(np.abs(x) - 22) < 7) & (np.abs(y - 3) < 10) & (np.abs(z + 6) < 3),
        "cerebellum": (y < -40) & (z < -12) & (np.abs(x) < 45) & (t.depth > 2) & (t.depth < 12),
        "white matter": (t.wm > 0.7) & (t.depth > 5),
        "midline": (np.abs(x) < 0.5) & (fluid > 0.25) & (t.ventricle > 14) & (z > -6) & (t.depth > 0),
    }
    return {name: np.argwhere(mask) for name, mask in masks.items()}
