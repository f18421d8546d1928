"""Task 2 of the VALDO challenge 2021 (T2*-GRE scans with microbleed masks) as a BIDS dataset.

Layout: ``sub-XXX/sub-XXX_space-T2S_desc-masked_T2S.nii.gz``, already without the skull, and
``sub-XXX/sub-XXX_space-T2S_CMB.nii.gz``, the mask of its microbleeds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from CMBDetectorLib.datasets.bids import BRAIN_MASK, POINTS, Point, derivative_path, write_descriptions, write_points
from CMBDetectorLib.datasets.copying import copy_compressed
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.files import output_folder
from CMBDetectorLib.progress import Progress
from CMBDetectorLib.volume import Volume, read_mask, read_volume, write_volume

_SCAN = "_space-T2S_desc-masked_T2S.nii.gz"
_LESIONS = "_space-T2S_CMB.nii.gz"


def convert_valdo(source: Path | str, destination: Path | str, progress: Progress) -> None:
    """Write the challenge data in ``source`` as a BIDS dataset to ``destination``, whole or not at all.

    Each connected lesion becomes a point: its centre of mass and the diameter of a sphere of its volume. What is
    above zero in a scan, holes filled, is its brain mask.

    Raises:
        BadInputError: there are no scans, a mask is missing or lies on another grid, or a file is damaged.
        OutputError: the destination holds something or cannot be written.
    """
    source = Path(source)
    scans = sorted(source.glob(f"sub-*/sub-*{_SCAN}"))
    if not scans:
        raise BadInputError(
            f"The folder {source} holds no scans of VALDO task 2.",
            f"Give the folder that holds sub-101/sub-101{_SCAN}.",
        )
    progress.plan([("converting", len(scans))])
    with output_folder(destination, mine=()) as folder:
        for scan in progress.track(scans, "converting"):
            _convert(scan, folder)
        write_descriptions(folder, "VALDO 2021 task 2")


def _convert(scan: Path, folder: Path) -> None:
    name = scan.name.removesuffix(_SCAN)
    volume = read_volume(scan)
    lesions = read_mask(scan.with_name(f"{name}{_LESIONS}"), volume, may_be_empty=True)
    target = folder / name / "anat" / f"{name}_T2starw.nii.gz"
    copy_compressed(scan, target)
    write_points(derivative_path(folder, target, POINTS), lesion_points(lesions))
    brain = ndimage.binary_fill_holes(volume.array > 0)
    write_volume(derivative_path(folder, target, BRAIN_MASK), volume.with_array(brain))


def lesion_points(lesions: Volume, source: str = "VALDO 2021") -> list[Point]:
    """Return a point for each connected region (26 neighbours) of the bool volume ``lesions``."""
    labels, count = ndimage.label(lesions.array, structure=np.ones((3, 3, 3)))
    if not count:
        return []
    regions = np.arange(1, count + 1)
    centres = np.array(ndimage.center_of_mass(lesions.array, labels, regions))
    volumes = ndimage.sum_labels(lesions.array, labels, regions) * abs(np.linalg.det(lesions.ijk_to_ras[:3, :3]))
    diameters = np.cbrt(6 * volumes / np.pi)
    return [Point(tuple(p), float(d), source=source) for p, d in zip(lesions.to_ras(centres), diameters, strict=True)]
