"""Whether a model finds microbleeds in real tissue: simulated ones are put, one at a time, into a real scan.

    python benchmarks/real_tissue.py SCAN [--echo 2] [--microbleeds 60] [--model default] [--crop I J K]

SCAN is a gradient-echo or SWI magnitude image without microbleeds (.nii, axial; of several echoes one is taken). It
may be a crop: tissue is mirrored at its edges, so that the windows of the networks are filled. What a microbleed leaves
of each voxel's signal is that of the simulator (`simulation/inclusions.py`: a dipole field, averaged over the voxel;
its look is drawn as for simulated scans); tissue, vessels and noise are the scan's own. Printed are how many are
proposed and how they score, by contrast, and what is proposed in the scan as it is.

How much of that is the doing of the mirrored edges a simulated scan tells, of which --crop takes a part as large as the
real one.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from CMBDetectorLib.candidate import Candidate
from CMBDetectorLib.detection.detector import Detector
from CMBDetectorLib.evaluation.matching import HIT_RADIUS_MM
from CMBDetectorLib.models.bundle import Bundle
from CMBDetectorLib.models.versions import load_bundle
from CMBDetectorLib.networks import backend
from CMBDetectorLib.preprocessing.pipeline import preprocess
from CMBDetectorLib.simulation.inclusions import factor
from CMBDetectorLib.simulation.looks import bleed_with_look, draw_look
from CMBDetectorLib.simulation.measure import appearance
from CMBDetectorLib.simulation.protocols import Protocol, find_protocol
from CMBDetectorLib.volume import Volume, from_sitk

_MARGIN_MM = 14.0  # half a window of stage 2
_FROM_EDGE_MM = 4.0
_TISSUE = (30, 90)  # percentiles of the signal: neither vessels nor fluid
_CROP = (51, 51, 41)  # as large as the real crop of the tests
_CONTRASTS = (0.0, 0.4, 0.6, 0.8, 1.01)


@dataclass(frozen=True)
class Inserted:
    """One microbleed: its measured ``contrast``, its likelihood (0: not proposed) and its score."""

    contrast: float
    likelihood: float
    score: float


def main() -> None:
    """Insert, search and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path, help="real magnitude image without microbleeds")
    parser.add_argument("--echo", type=int, default=2, help="which of several echoes, from 0 (%(default)s)")
    parser.add_argument("--microbleeds", type=int, default=60, help="how many (%(default)s)")
    parser.add_argument("--model", default="default", help="the model (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the microbleeds (%(default)s)")
    parser.add_argument(
        "--crop", type=int, nargs=3, metavar="N", help=f"take {'x'.join(map(str, _CROP))} voxels from here"
    )
    options = parser.parse_args()
    backend.prefer_torch()
    bundle = load_bundle(options.model)
    detector = Detector.from_bundle(bundle)
    inner, scan = _read(options.scan, options.echo, options.crop)
    known = _search(scan, bundle, detector)
    rng = np.random.default_rng(options.seed)
    inserted = [_insert(rng, inner, scan, bundle, detector) for _ in range(options.microbleeds)]
    print(_table(inserted, known, bundle))


def _read(path: Path, echo: int, crop: list[int] | None) -> tuple[Volume, Volume]:
    """Return the scan, or its part from voxel ``crop`` on, without and with mirrored margins; percentile 99 is 1."""
    image = sitk.ReadImage(str(path))
    image = image[..., echo] if image.GetDimension() == 4 else image
    inner = from_sitk(sitk.RegionOfInterest(image, _CROP, crop) if crop else image)
    inner = inner.with_array((inner.array / np.percentile(inner.array, 99)).astype(np.float32))
    margin = np.minimum(np.ceil(_MARGIN_MM / np.array(inner.spacing)).astype(int), np.array(inner.shape) - 1)
    affine = inner.ijk_to_ras.copy()
    affine[:3, 3] -= affine[:3, :3] @ margin
    return inner, Volume(np.pad(inner.array, [(n, n) for n in margin], "reflect"), affine, inner.source)


def _search(scan: Volume, bundle: Bundle, detector: Detector) -> list[Candidate]:
    prepared = preprocess(scan, "none", bundle.spacing_mm, coarsest_mm=bundle.coarsest_mm)
    mask = prepared.image.with_array(prepared.mask.array)
    return detector.detect(prepared.image, mask, bundle.thresholds["stage1"]).candidates


def _insert(rng: np.random.Generator, inner: Volume, scan: Volume, bundle: Bundle, detector: Detector) -> Inserted:
    """Return what is found of one microbleed somewhere in the tissue of ``inner``, put into ``scan``."""
    centre = _place(rng, inner)
    protocol = _protocol(inner)
    # B0 runs through the slices of an axial scan.
    b = inner.ijk_to_ras[:3, 2] / inner.spacing[2]
    bleed = bleed_with_look(rng, centre, draw_look(rng, protocol), protocol, scan.ijk_to_ras, b)
    box, left = factor(bleed, protocol, scan.ijk_to_ras, scan.shape, b)
    image = scan.array.copy()
    image[box] *= np.abs(left)
    look = appearance(scan.with_array(image), centre, float(np.median(inner.array)))
    candidates = _search(scan.with_array(image), bundle, detector)
    hits = [c for c in candidates if np.linalg.norm(np.array(c.ras_mm) - centre) <= HIT_RADIUS_MM]
    best = max(hits, key=lambda c: c.score, default=None)
    return Inserted(look.contrast, best.stage1_score if best else 0.0, best.score if best else 0.0)


def _place(rng: np.random.Generator, scan: Volume) -> np.ndarray:
    """Return RAS mm (3,) of a place in tissue."""
    edge = np.ceil(_FROM_EDGE_MM / np.array(scan.spacing)).astype(int)
    low, high = np.percentile(scan.array, _TISSUE)
    while True:
        ijk = rng.uniform(edge, np.array(scan.shape) - 1 - edge)
        if low < scan.array[tuple(np.round(ijk).astype(int))] < high:
            return scan.to_ras(ijk)


def _protocol(scan: Volume) -> Protocol:
    """Return the simulator's 3D protocol with the voxels of ``scan``, magnitude alone."""
    spacing: tuple[float, float, float] = tuple(scan.spacing)  # type: ignore[assignment]
    return replace(find_protocol("swi-3t"), spacing_mm=spacing, shape=tuple(scan.shape), mask_power=0.0)  # type: ignore[arg-type]


def _table(inserted: list[Inserted], known: list[Candidate], bundle: Bundle) -> str:
    shown = bundle.thresholds["shown"]
    lines = [
        f"In the scan as it is: {len(known)} candidates, {sum(c.score >= shown for c in known)} of them shown.\n",
        f"| contrast | microbleeds | proposed | scored 0.5 or more | shown ({shown:g} or more) |",
        "|---|---|---|---|---|",
    ]
    bins = [*itertools.pairwise(_CONTRASTS), (_CONTRASTS[0], _CONTRASTS[-1])]
    for low, high in bins:
        these = [i for i in inserted if low <= i.contrast < high]
        words = "all" if (low, high) == bins[-1] else f"{low:.1f} to {min(high, 1):.1f}"
        counts = [sum(i.likelihood > 0 for i in these), *(sum(i.score >= t for i in these) for t in (0.5, shown))]
        lines.append(f"| {words} | {len(these)} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
