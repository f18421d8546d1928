"""Training cases: preprocessed scans kept on disk as memory-mapped arrays, so that any number of them fits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from CMBDetectorLib.datasets.bids import Case
from CMBDetectorLib.datasets.places import lies_inside
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.files import output_folder, write_json
from CMBDetectorLib.preprocessing.pipeline import REVISION, preprocess, preprocessing_stages
from CMBDetectorLib.progress import Part, Progress
from CMBDetectorLib.volume import Volume, read_grid, read_mask, read_volume, stored_spacing

_MOST_DARK_SPOTS = 2000
_DARK_SPOT_DISTANCE_MM = 2.0


@dataclass(frozen=True)
class PreparedCase:
    """A preprocessed scan on disk, with its microbleeds.

    ``image`` (float16 on disk, i j k, canonical axes, the recipe's voxel size) and ``mask`` (bool) are memory maps;
    ``microbleeds`` (n, 3) and ``dark_spots`` (m, 3) are voxel positions in them.
    """

    id: str
    folder: Path
    ijk_to_ras: np.ndarray
    microbleeds_ras: np.ndarray
    source: dict[str, Any]

    @cached_property
    def image(self) -> np.ndarray:
        """Normalised intensities, 0 outside the brain."""
        return np.load(self.folder / "image.npy", mmap_mode="r")

    @cached_property
    def mask(self) -> np.ndarray:
        """The brain."""
        return np.load(self.folder / "mask.npy", mmap_mode="r")

    @cached_property
    def dark_spots(self) -> np.ndarray:
        """Voxels darker than their surroundings: where mistakes are likely."""
        return np.load(self.folder / "dark_spots.npy")

    @property
    def stored_mm(self) -> tuple[float, float, float]:
        """Voxels of the scan itself along i, j, k in mm, before it was brought to the recipe's size."""
        return stored_spacing(self.grid)

    @property
    def grid(self) -> Volume:
        """A volume without voxels on the grid of the image: what converts between its voxels and RAS mm."""
        return Volume(np.empty((0, 0, 0)), self.ijk_to_ras, self.source)

    @property
    def volume(self) -> Volume:
        """The image as a float32 volume in memory."""
        return Volume(np.asarray(self.image, np.float32), self.ijk_to_ras, self.source)

    @property
    def mask_volume(self) -> Volume:
        """The brain as a bool volume in memory."""
        return Volume(np.asarray(self.mask), self.ijk_to_ras, self.source)

    @property
    def microbleeds(self) -> np.ndarray:
        """Voxel positions (n, 3), fractional."""
        return self.grid.to_ijk(self.microbleeds_ras.reshape(-1, 3))


def coarsest(voxels_mm: Sequence[Sequence[float]]) -> list[float]:
    """Return the largest of the voxels (one or more, in mm along the same axes), axis by axis."""
    return [round(float(v), 3) for v in np.max(voxels_mm, axis=0)]


def prepare_cases(
    cases: Sequence[Case],
    work: Path,
    spacing_mm: Sequence[float],
    brain_mask: str,
    progress: Progress,
    otherwise: str = "hd-bet",
) -> list[PreparedCase]:
    """Preprocess each annotated case into ``work/<id>``; what an earlier run made from the same input is used again.

    ``brain_mask`` is "dataset" (the dataset's own mask, where there is none ``otherwise``) or what
    :func:`CMBDetectorLib.preprocessing.pipeline.preprocess` takes.

    Raises:
        BadInputError: fewer than two cases are annotated, a microbleed lies outside its scan, or a scan or mask cannot
            be used.
    """
    annotated = [case for case in cases if case.is_annotated]
    if len(annotated) < 2:
        raise BadInputError(
            f"The dataset has {len(annotated)} annotated scans; at least 2 are needed.",
            "Add points files (README, file formats), an empty one for a scan without microbleeds.",
        )
    places = [_microbleeds(case) for case in annotated]
    prepared = []
    for number, case in enumerate(annotated):
        part = Part(progress, "preprocessing", number, len(annotated))
        how = otherwise if brain_mask == "dataset" and case.brain_mask is None and otherwise != "hd-bet" else brain_mask
        prepared.append(_prepare(case, places[number], work / case.id, tuple(spacing_mm), how, part))
        progress.report("preprocessing", number + 1, len(annotated))
    if not any(len(case.microbleeds_ras) for case in prepared):
        raise BadInputError("No scan of the dataset has a microbleed.", "Annotate at least one.")
    return prepared


def _prepare(
    case: Case,
    microbleeds: np.ndarray,
    folder: Path,
    spacing: tuple[float, ...],
    brain_mask: str,
    progress: Progress,
) -> PreparedCase:
    inputs = _fingerprint(case, spacing, brain_mask)
    description = folder / "case.json"
    if description.is_file():
        known = json.loads(description.read_text(encoding="utf-8"))
        if known["inputs"] == inputs and "stored_mm" in known["source"]:
            return PreparedCase(case.id, folder, np.array(known["ijk_to_ras"]), microbleeds, known["source"])
    scan = read_volume(case.scan)
    mask: str | Volume = brain_mask
    if brain_mask == "dataset":
        mask = read_mask(case.brain_mask, scan) if case.brain_mask else "hd-bet"
    progress.plan(preprocessing_stages(mask))
    made = preprocess(scan, mask, spacing, progress)
    with output_folder(folder, ("*.npy", "case.json")) as temporary:
        np.save(temporary / "image.npy", made.image.array.astype(np.float16))
        np.save(temporary / "mask.npy", made.mask.array)
        np.save(temporary / "dark_spots.npy", find_dark_spots(made.image, made.mask.array))
        content = {"inputs": inputs, "ijk_to_ras": made.image.ijk_to_ras.tolist(), "source": made.image.source}
        write_json(temporary / "case.json", content)
    return PreparedCase(case.id, folder, made.image.ijk_to_ras, microbleeds, made.image.source)


def _microbleeds(case: Case) -> np.ndarray:
    """Return the microbleeds (n, 3) in RAS mm; what lies outside the scan would teach that nothing is a microbleed.

    Raises:
        BadInputError: some do, as in lists that were written in LPS.
    """
    microbleeds = np.asarray(case.microbleeds(), float).reshape(-1, 3)
    outside = int((~lies_inside(read_grid(case.scan), microbleeds)).sum())
    if outside:
        raise BadInputError(
            f"{outside} of the {len(microbleeds)} microbleeds of {case.id} lie outside the scan.",
            "Check that its list belongs to this scan and is in RAS millimetres.",
        )
    return microbleeds


def find_dark_spots(image: Volume, mask: np.ndarray) -> np.ndarray:
    """Return the voxels (n, 3) that are darkest against what is 2-3 mm away, most marked first, at least 2 mm apart."""
    spacing = np.array(image.spacing)
    filled = np.where(mask, image.array, np.float32(0.5))
    contrast = ndimage.gaussian_filter(filled, 2.5 / spacing, truncate=2.5)
    contrast -= ndimage.gaussian_filter(filled, 0.6 / spacing, truncate=2.5)
    contrast[~mask] = 0
    reach = 2 * np.maximum(1, np.round(_DARK_SPOT_DISTANCE_MM / spacing)).astype(int) + 1
    peaks = np.argwhere((contrast == ndimage.maximum_filter(contrast, tuple(reach))) & (contrast > 0.02))
    order = np.argsort(-contrast[tuple(peaks.T)], kind="stable")
    return peaks[order[:_MOST_DARK_SPOTS]].astype(np.int16)


def _fingerprint(case: Case, spacing: tuple[float, ...], brain_mask: str) -> str:
    """Return a hash of what preprocessing depends on: files by name, size and time, and the options."""
    parts = [f"preprocessing {REVISION}", brain_mask, str(spacing)]
    for path in (case.scan, case.brain_mask):
        if path is not None:
            stat = path.stat()
            parts.append(f"{path.name} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
