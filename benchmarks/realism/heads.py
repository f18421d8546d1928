"""A simulated scan made ready for measuring: normalised as for the networks, with a map of its tissues.

The tissues come from the template that the simulator bends. The way from head to template is the first thing a head
draws from its seed (participants.tsv has the seed, the sidecar the protocol), so it can be drawn again in a second. If
that no longer gives the scan's brain mask (Dice below 0.9: the simulator has changed since), the template is shifted
and stretched to the mask instead, which is good enough for all regions but the sulci (the others change by .02 or less,
the pallidum by .05). Only voxels deep in a class of the template are taken, since its maps are means over
many people: a region's median then holds even where a sulcus or a vessel passes through it.
"""

from __future__ import annotations

import csv
import functools
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from CMBDetectorLib.datasets.bids import Case, Point, read_points
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.preprocessing.pipeline import preprocess
from CMBDetectorLib.simulation.anatomy import TEMPLATE_TO_RAS, Warp, load_template
from CMBDetectorLib.simulation.fields import sample, to_image
from CMBDetectorLib.volume import Volume, read_mask, read_volume

_LEAST_DICE = 0.9
# MNI mm: centre and half axes of the inner part of the right one.
_THALAMUS = ((11, -18, 8), (6.0, 9.0, 5.0))
_PALLIDUM = ((19.5, -4, -1), (3.0, 6.0, 4.0))
_BASAL_GANGLIA = ((-38, 38), (-34, 25), (-12, 24))


@dataclass(frozen=True)
class Head:
    """One scan: ``image`` (float32, axes R, A, S, tissue's peak at 0.5, NaN outside the brain) and what is known of it.

    ``regions`` are bool arrays on its grid, ``rim_mm`` how deep under the brain's edge each voxel lies. ``microbleeds``
    are fractional voxel indices (n, 3), ``mimics`` pairs of such an index and a class. ``anatomy`` is "seed"/"fitted".
    """

    name: str
    protocol: str
    family: str
    image: Volume
    regions: dict[str, np.ndarray]
    rim_mm: np.ndarray
    microbleeds: np.ndarray
    mimics: list[tuple[np.ndarray, str]]
    anatomy: str


def read_head(dataset: Path, case: Case) -> Head:
    """Read, correct and normalise one scan of a simulated data set, at the spacing of the scan.

    Raises:
        BadInputError: it has no brain mask, or is not of a simulated data set.
    """
    if case.brain_mask is None:
        raise BadInputError(f"{case.id} has no brain mask.", "Give a data set made by cmbdetector simulate.")
    scan = read_volume(case.scan)
    sidecar = json.loads(case.scan.with_name(case.scan.name.split(".")[0] + ".json").read_text(encoding="utf-8"))
    family = "swi" if case.scan.parent.name == "swi" else "t2star"
    made = preprocess(scan, read_mask(case.brain_mask, scan), scan.canonical().spacing)
    image = made.image.with_array(np.where(made.mask.array, made.image.array, np.nan).astype(np.float32))
    rim = _depth(made.mask)
    regions, anatomy = _regions(made.mask, dataset, case.id, sidecar["ProtocolName"])
    points = read_points(case.points) if case.points.is_file() else []
    mimics = read_points(case.mimics) if case.mimics.is_file() else []
    return Head(
        case.id,
        sidecar["ProtocolName"],
        family,
        image,
        regions,
        rim,
        image.to_ijk(_positions(points)),
        [(image.to_ijk(np.array(p.ras_mm)), p.mimic_class or "other") for p in mimics],
        anatomy,
    )


def _positions(points: list[Point]) -> np.ndarray:
    return np.array([p.ras_mm for p in points], float).reshape(-1, 3)


def _depth(mask: Volume) -> np.ndarray:
    """Return how far (mm) each voxel lies inside the edge of ``mask``; 0 or less outside."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(mask.array.transpose(2, 1, 0)).astype(np.uint8))
    image.SetSpacing(mask.spacing)
    distance = sitk.SignedMaurerDistanceMap(image, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    return sitk.GetArrayFromImage(distance).transpose(2, 1, 0)


def _regions(mask: Volume, dataset: Path, name: str, protocol: str) -> tuple[dict[str, np.ndarray], str]:
    """Return the regions on the grid of ``mask`` and where they come from."""
    inside = mask.array
    for anatomy, transform in (("seed", _drawn_again(dataset, name, protocol)), ("fitted", _fitted(mask))):
        if transform is None:
            continue
        gm, wm, depth, ventricle, thalamus, pallidum, basal = sample(
            _template_image(), mask.ijk_to_ras, mask.shape, transform
        )
        brain = depth > 0
        if anatomy == "fitted" or 2 * (brain & inside).sum() / (brain.sum() + inside.sum()) >= _LEAST_DICE:
            break
    fluid = 1 - gm - wm
    far = (ventricle > 12) & (thalamus < 0.01) & (basal < 0.5)
    found = {
        "white": (wm > 0.95) & (depth > 12) & (ventricle > 5) & (basal < 0.5),
        "all white": (wm > 0.7) & (depth > 5),
        "grey": (gm > 0.8) & (depth > 2) & far,
        "fluid": (fluid > 0.97) & (ventricle < 0.5) & (depth > 15),
        "sulci": (fluid > 0.6) & (depth > 2) & far,
        "thalamus": thalamus > 0.9,
        "pallidum": pallidum > 0.9,
        "basal ganglia": basal > 0.5,
    }
    if anatomy == "fitted":
        found["sulci"][:] = False  # a fit by shift and stretch misses them
    return {key: region & inside for key, region in found.items()}, anatomy


def _drawn_again(dataset: Path, name: str, protocol: str) -> sitk.Transform | None:
    """Return the way from head to template as the simulator drew it; None if the seed is not recorded."""
    try:
        with (dataset / "participants.tsv").open(encoding="utf-8", newline="") as file:
            seeds = {row["participant_id"]: row["simulation_seed"] for row in csv.DictReader(file, delimiter="\t")}
        seed = int(seeds[name])
    except (OSError, KeyError, ValueError):
        return None
    return Warp(np.random.default_rng([seed, zlib.crc32(protocol.encode())])).transform()


def _fitted(mask: Volume) -> sitk.Transform:
    """Return the shift and stretch along R, A, S that take the brain ``mask`` to that of the template."""
    template = TEMPLATE_TO_RAS[:3, 3] + np.argwhere(load_template().depth > 0)
    here = mask.to_ras(np.argwhere(mask.array)[::7])
    scale = template.std(0) / here.std(0)
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(np.diag(scale).ravel().tolist())
    transform.SetTranslation((template.mean(0) - scale * here.mean(0)).tolist())
    return transform


@functools.lru_cache(maxsize=1)
def _template_image() -> sitk.Image:
    """Return gm, wm, depth, ventricle, thalamus, pallidum and basal ganglia (0..1) in MNI mm."""
    t = load_template()
    x, y, z = t.points
    ovals = []
    for centre, half in (_THALAMUS, _PALLIDUM):
        square = ((np.abs(x) - centre[0]) / half[0]) ** 2
        ovals.append(square + ((y - centre[1]) / half[1]) ** 2 + ((z - centre[2]) / half[2]) ** 2 < 1)
    box = np.ones(t.gm.shape, bool)
    for axis, (low, high) in zip((x, y, z), _BASAL_GANGLIA, strict=True):
        box &= (axis >= low) & (axis <= high)
    return to_image([t.gm, t.wm, t.depth, t.ventricle, *ovals, box], TEMPLATE_TO_RAS)
