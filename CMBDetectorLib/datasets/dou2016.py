"""The release of Dou et al. 2016 (20 SWI scans with microbleed centres) as a BIDS dataset.

Layout: ``nii/NN.nii`` and ``ground_truth/NN.mat`` whose ``cen`` (n, 3) holds voxel centres counted from 1 in the axis
order of the stored array. The scans are stored in three orientations, so positions go through each scan's own affine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from CMBDetectorLib.datasets.bids import POINTS, Point, derivative_path, write_descriptions, write_points
from CMBDetectorLib.datasets.copying import copy_compressed
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.files import output_folder
from CMBDetectorLib.progress import Progress
from CMBDetectorLib.volume import read_volume

# The scans that Rau 2026 used: whole heads, the other five of the release are cropped.
PAPER_SCANS = (*(f"{number:02d}" for number in range(1, 15)), "18")


def convert_dou2016(
    source: Path | str, destination: Path | str, progress: Progress, scans: Literal["paper", "all"] = "paper"
) -> None:
    """Write the release in ``source`` as a BIDS dataset to ``destination``, whole or not at all.

    ``scans`` chooses the 15 whole heads of the paper or every scan that is there.

    Raises:
        BadInputError: scans or centre files are missing or damaged, or a centre lies outside its scan.
        OutputError: the destination holds something or cannot be written.
    """
    source = Path(source)
    found = _find(source)
    wanted = {name: found[name] for name in PAPER_SCANS if name in found} if scans == "paper" else found
    missing = [name for name in PAPER_SCANS if name not in found] if scans == "paper" else []
    if missing or not wanted:
        lacking = f"lacks the scans {', '.join(missing)}" if missing else "holds no scans"
        raise BadInputError(
            f"The Dou 2016 release in {source} {lacking}.",
            "Give the folder that holds nii/01.nii and ground_truth/01.mat, or convert all scans that are there.",
        )
    progress.plan([("converting", len(wanted))])
    # Nothing may lie there: a dataset is worth more than the convenience of overwriting one.
    with output_folder(destination, mine=()) as folder:
        for name, scan in progress.track(wanted.items(), "converting", len(wanted)):
            _convert(name, scan, source / "ground_truth" / f"{name}.mat", folder)
        write_descriptions(folder, "Dou 2016 microbleeds")


def _find(source: Path) -> dict[str, Path]:
    paths = [path for path in sorted((source / "nii").glob("*.nii*")) if path.name.endswith((".nii", ".nii.gz"))]
    return {path.name.split(".")[0]: path for path in paths}


def _convert(name: str, scan: Path, centres: Path, folder: Path) -> None:
    volume = read_volume(scan)
    ijk = _read_centres(centres) - 1.0
    outside = ((ijk < -0.5) | (ijk > np.array(volume.shape) - 0.5)).any(axis=1)
    if outside.any():
        place = ", ".join(f"{v + 1:g}" for v in ijk[outside][0])
        raise BadInputError(
            f"Scan {name}: the microbleed centre ({place}) lies outside its {volume.shape} voxels.",
            "The scan and its centre file do not belong together; download the release again.",
        )
    target = folder / f"sub-{name}" / "swi" / f"sub-{name}_swi.nii.gz"
    copy_compressed(scan, target)
    points = [Point(tuple(position), source="Dou 2016") for position in volume.to_ras(ijk)]
    write_points(derivative_path(folder, target, POINTS), points)


def _read_centres(path: Path) -> np.ndarray:
    """Return ``cen`` (n, 3), voxel indices counted from 1."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    if not path.is_file():
        raise BadInputError(f"There is no centre file {path}.", "Download the release again.")
    try:
        centres = np.asarray(loadmat(path)["cen"], dtype=float)
        # Damaged files fail in many ways inside the reader.
    except (OSError, ValueError, KeyError, TypeError, IndexError, NotImplementedError, MatReadError) as error:
        raise BadInputError(f"The centre file {path} cannot be read.", "Download the release again.") from error
    if centres.size == 0:
        return np.empty((0, 3))
    if centres.ndim != 2 or centres.shape[1] != 3 or not np.isfinite(centres).all():
        raise BadInputError(f"The centre file {path} holds no list of voxel centres.", "Download the release again.")
    return centres
