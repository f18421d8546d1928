"""One simulated scan of one head, with everything in it that is known to be a microbleed or a mimic."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk  # noqa: N813

from CMBDetectorLib.progress import Progress
from CMBDetectorLib.simulation import acquisition, lesions, mimics
from CMBDetectorLib.simulation.anatomy import TEMPLATE_TO_RAS, Warp, load_template
from CMBDetectorLib.simulation.background import background_field, is_calm
from CMBDetectorLib.simulation.compose import Anatomy, add_inclusions, compose, head_box, part_of
from CMBDetectorLib.simulation.grid import Grid, draw_grid
from CMBDetectorLib.simulation.inclusions import Inclusion, blob, popcorn
from CMBDetectorLib.simulation.lesions import Lesion
from CMBDetectorLib.simulation.looks import bleed_with_look, draw_look
from CMBDetectorLib.simulation.measure import appearance
from CMBDetectorLib.simulation.places import Place, draw_places
from CMBDetectorLib.simulation.protocols import Protocol
from CMBDetectorLib.simulation.raster import rasterise
from CMBDetectorLib.simulation.tissue import draw_values, iron_map
from CMBDetectorLib.simulation.vessels import Sheet, Vessel, draw_vessels
from CMBDetectorLib.simulation.visibility import least_contrast
from CMBDetectorLib.volume import Volume

_B0 = (0.0, 0.0, 1.0)  # in RAS
_MOST_IN_CROP = 6
_WIDTH_BY_GAP = 0.65  # neighbours in a cluster stay apart
_STAGES = (("anatomy", 4), ("vessels", 6), ("tissue", 18), ("acquisition", 10), ("measurement", 1))


@dataclass(frozen=True)
class SimulatedScan:
    """``scan`` (float32, integers as a scanner stores them), ``brain_mask`` (bool, same grid) and what is in it.

    Both lists give RAS mm of the scan; ``mimics`` holds only what shows (contrast of 0.15 or more).
    """

    scan: Volume
    brain_mask: Volume
    microbleeds: list[Lesion]
    mimics: list[Lesion]


def simulate_head(
    seed: int, protocol: Protocol, microbleeds: int | None = None, progress: Progress | None = None
) -> SimulatedScan:
    """Simulate one scan; the same seed and protocol give the same scan.

    ``microbleeds`` says how many there are; None draws the number (1 to 83, mean about 3.7; a crop has at most 6).

    Raises:
        MissingPackageError: nilearn is not installed.
    """
    progress = progress or Progress()
    progress.plan(_STAGES)
    progress.report("anatomy")
    rng = np.random.default_rng([seed, zlib.crc32(protocol.name.encode())])
    template = load_template()
    warp = Warp(rng)
    iron, nuclei = iron_map(rng)
    anatomy = Anatomy(template, warp, draw_values(rng, protocol), iron, background_field(rng, template, warp))
    centre_mni = _centre(rng, anatomy, protocol)
    grid = draw_grid(rng, protocol, warp.to_head(centre_mni[None])[0])
    progress.report("vessels")
    vessels = _bent(draw_vessels(rng, template, protocol.family), warp)
    if microbleeds is None:
        microbleeds = min(lesions.draw_count(rng), _MOST_IN_CROP if protocol.crop else lesions.MOST_MICROBLEEDS)

    def allowed(ras_mm: np.ndarray) -> np.ndarray:
        return grid.inside(ras_mm) & is_calm(anatomy.background, ras_mm, protocol)

    near = (centre_mni, 0.6 * float(np.linalg.norm(np.multiply(protocol.spacing_mm, protocol.shape))))
    near = near if protocol.crop else None
    axes = grid.stored_axes
    places = draw_places(rng, microbleeds, template, warp, vessels, iron, protocol, axes, allowed, near)
    to_template = warp.transform()
    bleeds = [_bleed(rng, place, anatomy, to_template, protocol, grid) for place in places]
    others = _others(rng, anatomy, places)
    box = head_box(anatomy, grid)
    maps = rasterise(vessels, *part_of(grid, box), _B0, rng)
    progress.report("vessels", 1, 1)
    signal, mask = compose(anatomy, maps, grid, box, protocol, rng, progress)
    del maps
    add_inclusions(signal, bleeds + [inclusion for inclusion, _ in others], grid, protocol)
    progress.report("acquisition")
    scan = _acquired(signal, grid, protocol, rng)
    brain = scan.with_array(_stored_mask(mask, grid, protocol))
    progress.report("measurement")
    white = float(np.median(scan.array[brain.array][::5])) if brain.array.any() else 1.0
    found = [_seen_bleed(place, bleed, scan, brain, white) for place, bleed in zip(places, bleeds, strict=True)]
    deceiving = [(inclusion.centre_mm, kind) for inclusion, kind in others]
    deceiving += mimics.iron_spots(nuclei, warp, protocol)
    deceiving += mimics.vessel_spots(rng, vessels, grid.stored_axes[:, 2], protocol)
    shown = mimics.seen(deceiving, scan, brain, found, white)
    progress.report("measurement", 1, 1)
    return SimulatedScan(scan, brain, found, shown)


def _centre(rng: np.random.Generator, anatomy: Anatomy, protocol: Protocol) -> np.ndarray:
    """Return where the field of view is centred, MNI mm: the middle of the brain, or anywhere in it for a crop."""
    if not protocol.crop:
        return np.array([0, -17, 8.0]) + rng.normal(0, 3, 3)
    index = np.concatenate(list(anatomy.template.locations.values()))
    # A little inwards, so that a crop is not mostly skull; and where air has left a signal.
    points = 0.9 * (index[rng.integers(0, len(index), 50)] + TEMPLATE_TO_RAS[:3, 3]) + (0, -1.5, 0.5)
    return points[int(np.argmax(is_calm(anatomy.background, anatomy.warp.to_head(points), protocol)))]


def _bent(vessels: list[Vessel | Sheet], warp: Warp) -> list[Vessel | Sheet]:
    """Return the vessels with their centre lines in RAS mm of the head."""
    lengths = np.cumsum([len(v.points_mm) for v in vessels])[:-1]
    lines = np.split(warp.to_head(np.concatenate([v.points_mm for v in vessels])), lengths)
    return [replace(vessel, points_mm=line) for vessel, line in zip(vessels, lines, strict=True)]


def _bleed(
    rng: np.random.Generator,
    place: Place,
    anatomy: Anatomy,
    to_template: sitk.Transform,
    protocol: Protocol,
    grid: Grid,
) -> Inclusion:
    look = draw_look(rng, protocol, _WIDTH_BY_GAP * place.gap_mm)
    images = anatomy.template.image, anatomy.iron
    least = least_contrast(*images, anatomy.values, to_template, place.head_mm, protocol, grid.stored_axes)
    look = replace(look, contrast=max(look.contrast, least))
    return bleed_with_look(rng, place.head_mm, look, protocol, grid.stored_affine, _B0)


def _others(rng: np.random.Generator, anatomy: Anatomy, places: list[Place]) -> list[tuple[Inclusion, str]]:
    """Return calcified and bony spots and malformations, each with its mimic class."""
    spots = lesions.draw_calcifications(rng, anatomy.template, anatomy.warp)
    others = [(blob(rng, at, diameter, chi), kind) for at, diameter, chi, kind in spots]
    bleeds_mm = np.array([place.head_mm for place in places]).reshape(-1, 3)
    malformation = lesions.draw_malformation(rng, anatomy.template, anatomy.warp, bleeds_mm)
    if malformation is not None:
        others.append((popcorn(rng, *malformation), "cavernous malformation"))
    return others


def _acquired(signal: np.ndarray, grid: Grid, protocol: Protocol, rng: np.random.Generator) -> Volume:
    noise = 0.5 * protocol.noise * float(np.clip(rng.lognormal(0, 0.2), 0.7, 1.35))
    layers = acquisition.average_layers(signal, protocol.sublayers, protocol.thickness)
    image = acquisition.acquire(layers, protocol, rng, noise)
    magnitude = grid.trimmed(acquisition.combine(image, protocol))
    source = {"kind": "simulated", "name": protocol.name}
    return Volume(acquisition.finish(magnitude, protocol, rng), grid.stored_affine, source)


def _stored_mask(mask: np.ndarray, grid: Grid, protocol: Protocol) -> np.ndarray:
    """Return the mask of the simulated grid at the stored resolution."""
    step = protocol.oversampling
    return grid.trimmed(np.ascontiguousarray(mask[::step, ::step, protocol.sublayers // 2 :: protocol.sublayers]))


def _seen_bleed(place: Place, bleed: Inclusion, scan: Volume, brain: Volume, white: float) -> Lesion:
    look = appearance(scan, bleed.centre_mm, white, brain=brain)
    return Lesion(
        tuple(float(v) for v in bleed.centre_mm),
        look.diameter_mm,
        look.contrast,
        place.location,
        place.in_cluster,
        look.near_dark,
    )
