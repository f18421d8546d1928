"""Annotations made elsewhere into a local dataset, as if the scan had been reviewed here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from CMBDetectorLib import __version__
from CMBDetectorLib.datasets import bids
from CMBDetectorLib.datasets.adding import Annotations, Exported, add_scan
from CMBDetectorLib.datasets.annotations import Space, read_annotations
from CMBDetectorLib.datasets.places import check_apart
from CMBDetectorLib.datasets.reviewed import SCHEMA, one_line
from CMBDetectorLib.files import sha256
from CMBDetectorLib.review.review import utc_now
from CMBDetectorLib.review.scan_key import scan_key
from CMBDetectorLib.volume import read_volume


def import_annotations(
    folder: Path | str,
    scan_file: Path | str,
    annotations: Path | str,
    mimics: Path | str | None = None,
    *,
    space: Space | None = None,
    reader: str = "",
    is_complete: bool = False,
    replace: bool = False,
) -> Exported:
    """Add the scan ``scan_file`` (a file or a DICOM folder) with its annotations to the BIDS dataset ``folder``.

    A scan of the dataset itself is annotated where it is, any other one copied into it. Without ``mimics`` those
    known of the scan stay. ``is_complete`` is the reader's word that every microbleed of the scan is in the list.

    Raises:
        BadInputError: scan or annotations cannot be used, or another scan of the dataset has the same id and thereby
            the same annotations.
        OutputError: the folder is no dataset or cannot be written, or another reader has annotated the scan (and not
            ``replace``).
    """
    folder, scan_file = Path(folder), Path(scan_file)
    scan = read_volume(scan_file)
    points = read_annotations(annotations, scan, space)
    others = None if mimics is None else read_annotations(mimics, scan, space, "mimics")
    check_apart([p.ras_mm for p in points], [p.ras_mm for p in others or ()])
    counts = {"complete": is_complete, "accepted": len(points)} | ({} if others is None else {"rejected": len(others)})
    note = {
        "schema": SCHEMA,
        "program": f"cmbdetector {__version__}",
        "scan_key": scan_key(scan.array, scan.ijk_to_ras),
        "reader": one_line(reader.encode("utf-8", "replace").decode("utf-8")),
        "complete": is_complete,
        "counts": counts,
        "exported": utc_now(),
        "log": None,
        # File names may be those of patients.
        "imported": {"microbleeds": _origin(annotations), "mimics": None if mimics is None else _origin(mimics)},
    }
    owned = _of_the_dataset(folder, scan_file)
    return add_scan(
        folder,
        scan,
        Annotations(points, others, note),
        source=owned or (scan_file if scan_file.is_file() else None),
        include="in place" if owned else "copy",
        replace=replace,
    )


def _of_the_dataset(folder: Path, scan_file: Path) -> Path | None:
    """Return the path that this file has as a scan of the dataset, ``None`` where it is none."""
    if not folder.is_dir() or not scan_file.is_file():
        return None
    scans = [case.scan for case in bids.find_cases(folder) if case.scan.exists()]
    return next((scan for scan in scans if os.path.samefile(scan, scan_file)), None)


def _origin(path: Path | str) -> dict[str, Any]:
    return {"sha256": sha256(path), "bytes": Path(path).stat().st_size}
