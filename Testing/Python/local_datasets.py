"""Local datasets as their tests need them: reviewed here, annotated elsewhere, imported."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from grids import CENTRE_RAS, MARK_RAS, phantom
from reviews import judged

from CMBDetectorLib.datasets.annotations import read_annotations
from CMBDetectorLib.datasets.bids import POINTS, Point, derivative_path, write_points
from CMBDetectorLib.datasets.importing import import_annotations
from CMBDetectorLib.datasets.local import LocalScan, list_scans
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.review.export_dataset import export_dataset
from CMBDetectorLib.review.scan_key import scan_key
from CMBDetectorLib.volume import Volume, write_volume

GRIDS = {
    "plain": {},
    "flipped": {"order": (2, 0, 1), "signs": (-1, 1, -1), "spacing": (0.9, 1.0, 1.4)},
    "oblique": {"signs": (1, -1, 1), "spacing": (0.8, 0.8, 1.5), "turn_deg": (12.0, -20.0, 31.0)},
}


SCANS = {name: phantom(**arguments) for name, arguments in GRIDS.items()}


def scan_of(number: float = 0.0, **grid) -> Volume:
    """A phantom that differs from others in one number."""
    scan = phantom(**grid)
    return scan.with_array(scan.array + np.float32(number))


def key_of(scan: Volume) -> str:
    return scan_key(scan.array, scan.ijk_to_ras)


def exported(folder: Path, number: float = 0.0, reader="Dr A", review=None, **arguments):
    scan = scan_of(number)
    return export_dataset(folder, review or judged(reader), scan, key_of(scan), **arguments)


def points_file(folder: Path, *places, name="points.tsv") -> Path:
    write_points(folder / name, [Point(tuple(map(float, place))) for place in places])
    return folder / name


def elsewhere(folder: Path, name="sub-01", scan=None, places=(MARK_RAS,)) -> Path:
    """A scan of a dataset that another program made: a list and no note."""
    path = folder / name / "swi" / f"{name}_swi.nii.gz"
    write_volume(path, scan or scan_of())
    write_points(derivative_path(folder, path, POINTS), [Point(tuple(place)) for place in places])
    (folder / "dataset_description.json").write_text('{"Name": "Theirs", "BIDSVersion": "1.9.0"}')
    return path


def only(folder: Path) -> LocalScan:
    (scan,) = list_scans(folder)
    return scan


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if "partial" in path.name]


def import_once(root: Path, number: int, count: int) -> None:
    """Import scan ``number`` with ``count`` microbleeds and as many mimics."""
    offsets = [(0, 0, 0), (4, 0, 0)]
    work = root / f"work-{number}-{os.getpid()}"
    work.mkdir(exist_ok=True)
    path = work / "scan.nii.gz"
    if not path.exists():
        write_volume(path, scan_of(number))
    marks = points_file(work, *[CENTRE_RAS + o for o in offsets[:count]], name="cmb.tsv")
    mimics = points_file(work, *[CENTRE_RAS + o + (0, 5, 0) for o in offsets[:count]], name="mimics.tsv")
    import_annotations(root / "d", path, marks, mimics, reader="Dr A", is_complete=True)


def written(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text.encode("utf-8") if isinstance(text, str) else text)
    return path


def refused(path: Path, scan: Volume, **arguments) -> str:
    """The one sentence that the file is refused with."""
    with pytest.raises(BadInputError) as caught:
        read_annotations(path, scan, **arguments)
    error = caught.value
    assert error.hint.endswith(".")
    assert error.message.endswith(".")
    assert "\n" not in error.message + error.hint
    assert len(error.message) < 300
    return error.message
