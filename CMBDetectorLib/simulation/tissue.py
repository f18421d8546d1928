"""What each tissue sends: grey and white matter, fluid, iron in the nuclei, skull and scalp.

Signals are relative to white matter = 0.5, the place of the histogram peak after normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

from CMBDetectorLib.simulation.fields import logistic, random_map, to_image
from CMBDetectorLib.simulation.physics import iron_decay
from CMBDetectorLib.simulation.protocols import Protocol

# Name, MNI centre of the right one, half axes (mm), turn about S (degrees), chi (ppm), how it grows with age.
NUCLEI = (
    ("pallidum", (19.5, -4, -1), (4.5, 9.0, 6.0), 24, 0.085, 1.0),
    ("putamen", (26, 3, 2), (5.5, 14.5, 10.0), 12, 0.045, 2.0),
    ("caudate head", (12.5, 14, 7), (4.5, 8.5, 8.5), 8, 0.044, 1.4),
    ("thalamus", (11, -18, 8), (8.5, 13.5, 8.0), 30, 0.02, 0.6),
    ("substantia nigra", (9.5, -18, -12), (2.6, 7.0, 3.6), 35, 0.13, 1.2),
    ("red nucleus", (4.8, -21, -8), (3.0, 3.4, 3.6), 0, 0.10, 0.8),
    ("dentate", (15, -57, -34), (4.5, 8.0, 5.5), -30, 0.12, 0.8),
)

# Share of grey matter in the template's tissue from which a voxel is grey: the mean over people widens the cortex.
_GREY_SHARE = 0.64

_LENTIFORM = ("pallidum", "putamen")
_OLD = 0.42

# Grid of the iron map: 1 mm, the middle of the brain.
_IRON_SHAPE = (101, 131, 91)
_IRON_TO_RAS = np.array([[1.0, 0, 0, -50], [0, 1.0, 0, -85], [0, 0, 1.0, -55], [0, 0, 0, 1.0]])


@dataclass(frozen=True)
class TissueValues:
    """Signals of one head: white, grey, fluid; veins, arteries, dura; ``fluid_threshold`` lower = wider sulci."""

    white: float
    grey: float
    fluid: float
    vein: float
    artery: float
    dura: float
    scalp: float
    fluid_threshold: float
    texture: float


def draw_values(rng: np.random.Generator, protocol: Protocol) -> TissueValues:
    """Return the signals of one head for the family of ``protocol``."""
    bright_fluid = protocol.family == "t2star"
    # The longer echo of 1.5 T takes more from tissue than from fluid.
    bright = rng.normal(1.22 if protocol.field_tesla < 2 else 1.05, 0.06)
    values = TissueValues(
        white=0.49,
        grey=float(rng.normal(0.61, 0.018) if bright_fluid else rng.normal(0.555, 0.015)),
        fluid=float(bright if bright_fluid else rng.uniform(0.3, 0.5)),
        vein=float(rng.uniform(0.2, 0.48) if bright_fluid else rng.uniform(0.1, 0.28)),
        # Flow empties the slice of a 2D scan; a 3D scan is flow compensated and shows arteries as or above tissue.
        artery=float(rng.uniform(0.12, 0.48) if bright_fluid else rng.uniform(0.45, 0.75)),
        dura=float(rng.uniform(0.2, 0.42)),
        scalp=float(rng.uniform(0.5, 1.1)),
        fluid_threshold=float(rng.uniform(0.2, 0.44)),
        texture=float(rng.uniform(0.015, 0.04)),
    )
    if not protocol.mixed:
        return values
    # Anywhere between the families, since scanners are: fluid and arteries do not tell them apart.
    fluid, grey, artery = (float(v) for v in rng.uniform((0.35, 0.48, 0.03), (1.2, 0.64, 0.75)))
    return replace(values, fluid=fluid, grey=grey, artery=artery)


def iron_map(rng: np.random.Generator) -> tuple[sitk.Image, list[tuple[str, np.ndarray, float]]]:
    """Return iron (image in MNI mm, ppm) and what is dark: name, MNI centre (3,), chi there.

    One level a head (age) and a small one a nucleus and side. In the lentiform it is streaked and patchy; two in five
    heads are old: pallidum and putamen one dark wedge.
    """
    level = float(rng.lognormal(np.log(0.9), 0.4))
    old = float(rng.uniform(1.5, 2.8)) if rng.random() < _OLD else 1.0
    uneven = float(rng.uniform(0.5, 0.95) if old > 1 else rng.uniform(0.4, 0.85))
    iron = np.zeros(_IRON_SHAPE, np.float32)
    found = []
    for name, centre, half, turn, chi, growth in NUCLEI:
        common = float(rng.lognormal(0, 0.2))
        wander = rng.normal(0, 0.8, 3)
        lentiform = name in _LENTIFORM
        for side in (1, -1):
            amount = chi * common * float(rng.lognormal(0, 0.15)) * level**growth * (old if lentiform else 1.0)
            middle = (np.array(centre) + wander + rng.normal(0, 0.4, 3)) * (side, 1, 1)
            box, shape = _oval(middle, np.array(half), side * turn, hollow=name == "dentate")
            strength = uneven if lentiform else 0.3
            texture = np.exp(strength * _streaks(rng, shape.shape)) * np.float32(np.exp(-(strength**2) / 2))
            iron[box] = np.maximum(iron[box], amount * shape * np.clip(texture, 0.05, 4.0))
            found.append((name, middle, amount))
    found += _deposits(rng, iron, old)
    return to_image([iron], _IRON_TO_RAS), found


def _streaks(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return a random map (SD 1): the streaks along perforators, patches, and a slow change from end to end."""
    streaks = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), (0.7, 1.8, 3.0))
    mixed = 0.65 * streaks / streaks.std() + 0.25 * random_map(rng, shape, 1.3) + 0.55 * random_map(rng, shape, 4.0)
    return mixed / mixed.std()


def _deposits(rng: np.random.Generator, iron: np.ndarray, old: float) -> list[tuple[str, np.ndarray, float]]:
    """Add patches of iron 2-4 mm wide to the lentiform, in place, and return them as (name, MNI centre, chi)."""
    found = []
    lentiform = [nucleus for nucleus in NUCLEI if nucleus[0] in _LENTIFORM]
    for _ in range(int(rng.poisson(1.5 if old > 1 else 0.5))):
        _, centre, half, _, _, _ = lentiform[int(rng.integers(len(lentiform)))]
        side = int(rng.choice((1, -1)))
        middle = (np.array(centre) + rng.uniform(-0.7, 0.7, 3) * half) * (side, 1, 1)
        size = rng.uniform(0.9, 1.9) * rng.uniform((0.8, 0.8, 0.9), (1.2, 1.6, 2.5))
        box, shape = _oval(middle, size, float(rng.uniform(-30, 30)), hollow=False)
        amount = float(rng.uniform(0.12, 0.4))
        iron[box] = np.maximum(iron[box], amount * shape)
        found.append(("deposit", middle, amount))
    return found


def _oval(centre: np.ndarray, half: np.ndarray, turn: float, hollow: bool) -> tuple[tuple[slice, ...], np.ndarray]:
    """Return a box of the iron grid and a soft-edged ellipsoid (0..1) in it."""
    middle = centre - _IRON_TO_RAS[:3, 3]
    reach = float(half.max()) + 4
    box = tuple(slice(int(m - reach), int(m + reach) + 1) for m in middle)
    i, j, k = np.ogrid[box]
    x, y, z = i - middle[0], j - middle[1], k - middle[2]
    angle = np.deg2rad(turn)
    along, across = np.cos(angle) * y - np.sin(angle) * x, np.cos(angle) * x + np.sin(angle) * y
    radius = np.sqrt((across / half[0]) ** 2 + (along / half[1]) ** 2 + (z / half[2]) ** 2)
    edge = (1 - radius) * float(half.min())
    shape = logistic(edge / 0.6)
    if hollow:
        # The dentate is a crumpled sheet: dark rim, lighter hilum.
        shape = shape * (1 - 0.7 * logistic((edge - 2.2) / 0.5))
    return box, shape.astype(np.float32)


def noise_maps(rng: np.random.Generator, shape: tuple[int, ...], spacing: float) -> list[np.ndarray]:
    """Return random maps (template grid of ``spacing`` mm): for sulci, for grey/white, texture, mask edge."""
    return [random_map(rng, shape, width / spacing) for width in (1.3, 1.8, 4.0, 5.0)]


def fluid_share(gm: np.ndarray, wm: np.ndarray, values: TissueValues, sulci: np.ndarray | float = 0.0) -> np.ndarray:
    """Return the fluid fraction (0..1, like ``gm``) where the template has so much grey and white matter.

    The template is a mean over people and blurred; a steep threshold, roughened by the random map ``sulci``, gives one
    person's sulci back.
    """
    return logistic((1 - gm - wm - values.fluid_threshold + 0.11 * sulci) / np.float32(0.05))


def brain_signal(
    maps: dict[str, np.ndarray], values: TissueValues, protocol: Protocol
) -> tuple[np.ndarray, np.ndarray]:
    """Return the magnitude (0.5 = white matter) and the fluid fraction of a slab.

    ``maps`` holds gm, wm, depth, iron and the four random maps (sulci, mixing, texture, edge) on one grid.
    """
    fluid = fluid_share(maps["gm"], maps["wm"], values, maps["sulci"])
    share = maps["gm"] / np.maximum(maps["gm"] + maps["wm"], 0.05)
    grey = logistic((share - _GREY_SHARE + 0.06 * maps["mixing"]) / np.float32(0.09))
    tissue = (values.white + (values.grey - values.white) * grey) * (1 + values.texture * maps["texture"])
    tissue *= iron_decay(maps["iron"], protocol)
    brain = (1 - fluid) * tissue + fluid * values.fluid
    return _head_around(brain, maps, values), fluid


def _head_around(brain: np.ndarray, maps: dict[str, np.ndarray], values: TissueValues) -> np.ndarray:
    """Return the signal with dura, skull, marrow and scalp as shells around the brain, and nothing beyond."""
    depth = maps["depth"] + 0.5 * maps["edge"]
    signal = np.where(depth > -0.3, brain, values.dura)
    signal = np.where(depth < -2.2, 0.05 + 0.3 * np.exp(-(((depth + 5) / 1.0) ** 2)), signal)
    scalp = values.scalp * (1 + 0.15 * maps["texture"])
    signal = np.where(depth < -7.5, scalp, signal)
    return np.where(depth < -13, 0, signal).astype(np.float32)
