"""Task 2 of the VALDO challenge 2021 (T2*-GRE scans with microbleed masks) as a BIDS dataset.

Layout: ``sub-XXX/sub-XXX_space-T2S_desc-masked_T2S.nii.gz``, already without the skull, and
``sub-XXX/sub-XXX_space-T2S_CMB.nii.gz``, the mask of its microbleeds.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from scipy import ndimage

from CMBDetectorLib import temporary
from CMBDetectorLib.datasets.bids import BRAIN_MASK, POINTS, Point, derivative_path, write_descriptions, write_points
from CMBDetectorLib.datasets.copying import copy_compressed
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.files import output_folder
from CMBDetectorLib.image_headers import check_size
from CMBDetectorLib.progress import Progress
from CMBDetectorLib.volume import Volume, read_mask, read_volume, write_volume

_SCAN = "_space-T2S_desc-masked_T2S.nii.gz"
_LESIONS = "_space-T2S_CMB.nii.gz"
# Of a NIfTI-1 header (nifti1.h): its length, and the codes of the types that can hold NaN.
_HEADER_BYTES = 348
_FLOATS = {16: "f4", 64: "f8"}
_MOST_EXTENSIONS = 1 << 24


def convert_valdo(source: Path | str, destination: Path | str, progress: Progress) -> None:
    """Write the challenge data in ``source`` as a BIDS dataset to ``destination``, whole or not at all.

    Each connected lesion becomes a point: its centre of mass and the diameter of a sphere of its volume. What is
    above zero in a scan, holes filled, is its brain mask. NaN, which some scans have around the head, counts as 0.

    Raises:
        BadInputError: there are no scans, a mask is missing or lies on another grid, or a file is damaged; the sentence
            names the file.
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
            _convert(scan, folder, progress)
        write_descriptions(folder, "VALDO 2021 task 2")


def _convert(scan: Path, folder: Path, progress: Progress) -> None:
    name = scan.name.removesuffix(_SCAN)
    target = folder / name / "anat" / f"{name}_T2starw.nii.gz"
    with temporary.folder(folder) as repaired:
        source = _without_nan(scan, repaired, progress)
        volume = read_volume(source)
        mask = _without_nan(scan.with_name(f"{name}{_LESIONS}"), repaired, progress)
        lesions = read_mask(mask, volume, may_be_empty=True)
        copy_compressed(source, target)
    write_points(derivative_path(folder, target, POINTS), lesion_points(lesions))
    brain = ndimage.binary_fill_holes(volume.array > 0)
    write_volume(derivative_path(folder, target, BRAIN_MASK), volume.with_array(brain))


def _without_nan(path: Path, folder: Path, progress: Progress) -> Path:
    """Return ``path``, or where it holds NaN a copy of it in ``folder`` with 0 instead and the header as it was.

    Only the voxels are changed, byte by byte: ITK would take NaN for 0, too, but straighten sheared axes and pass over
    what the reading of a scan refuses. What else is wrong with the file is left for that to say.

    Raises:
        BadInputError: the header claims more voxels than any scan has.
        OSError: the copy cannot be written.
    """
    try:
        with gzip.open(path, "rb") as stream:
            head = stream.read(_HEADER_BYTES)
            order = next((o for o in "<>" if head[:4] == struct.pack(f"{o}i", _HEADER_BYTES)), None)
            if order is None or len(head) < _HEADER_BYTES:
                return path
            axes, *sizes = struct.unpack_from(f"{order}8h", head, 40)
            sizes = sizes[: max(axes, 0)]
            kind = _FLOATS.get(struct.unpack_from(f"{order}h", head, 70)[0])
            offset, slope, intercept = struct.unpack_from(f"{order}3f", head, 108)
            # With an intercept a stored 0 would not be 0; a slope of 0 or NaN means that there is none.
            is_shifted = math.isfinite(slope) and slope != 0 and intercept != 0
            if kind is None or is_shifted or min(sizes, default=0) < 1:
                return path
            if not _HEADER_BYTES <= offset < _MOST_EXTENSIONS:
                return path
            check_size(path.name, sizes)
            head += stream.read(int(offset) - _HEADER_BYTES)
            kind = np.dtype(kind).newbyteorder(order)
            needed = math.prod(sizes) * kind.itemsize
            data = stream.read(needed)
    except (OSError, EOFError, zlib.error):
        return path
    if len(data) < needed:
        return path
    voxels = np.frombuffer(data, kind)
    bad = np.isnan(voxels)
    if not bad.any():
        return path
    progress.log(f"{path.name}: {int(bad.sum())} voxels that are not numbers (NaN) were taken as 0.")
    copy = folder / path.name
    # No name and time in the header: the same scan gives the same file.
    with open(copy, "wb") as target, gzip.GzipFile("", "wb", 6, target, mtime=0) as packed:
        packed.write(head)
        packed.write(np.where(bad, kind.type(0), voxels).astype(kind).tobytes())
    return copy


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
