"""The scans of a local dataset: what is known of each, whether it is one to learn from, and if not why not."""

from __future__ import annotations

import hashlib
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from CMBDetectorLib.datasets import bids
from CMBDetectorLib.datasets.places import lies_inside
from CMBDetectorLib.datasets.reviewed import ReviewNote, one_line, read_review_note
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.files import sha256
from CMBDetectorLib.nifti import check_nifti, first_voxels, looks_whole
from CMBDetectorLib.progress import Progress
from CMBDetectorLib.review.scan_key import grid_steps, scan_key
from CMBDetectorLib.volume import Volume, read_grid, read_volume

# A slice of 512x512: enough to tell two scans apart by their noise.
_FIRST_VOXELS = 1 << 18
# File names in it may hold anything.
_LONGEST_REASON = 1000
_LOOKS, _PAUSE_S = 10, 0.05


@dataclass(frozen=True)
class LocalScan:
    """One scan of a dataset: ``reason`` says in a sentence why it is not to be learnt from, and is "" where it is.

    ``microbleeds`` and ``mimics`` are counts (0 where a list is missing or damaged). ``reader`` is "" and ``key`` (see
    :func:`CMBDetectorLib.review.scan_key.scan_key`) "" where nobody has noted them. ``is_complete`` is what the
    reader said; a scan annotated elsewhere, with a points file and no review, counts as complete. ``checksum`` is the
    SHA-256 of what the annotations come from: the review log, the imported file, or else the points file.
    """

    case: bids.Case
    microbleeds: int = 0
    mimics: int = 0
    reader: str = ""
    is_reviewed: bool = False
    is_complete: bool = False
    reason: str = ""
    checksum: str = ""
    key: str = ""
    exported: str = ""

    @property
    def id(self) -> str:
        """The scan's file name without its suffix ("sub-01")."""
        return self.case.id

    @property
    def scan(self) -> Path:
        """The file of the scan."""
        return self.case.scan

    @property
    def trains(self) -> bool:
        """Whether it is one to learn from."""
        return not self.reason

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "id": self.id,
            "scan": str(self.scan),
            "microbleeds": self.microbleeds,
            "mimics": self.mimics,
            "reader": self.reader,
            "reviewed": self.is_reviewed,
            "complete": self.is_complete,
            "trains": self.trains,
            "reason": self.reason,
            "exported": self.exported,
            "checksum": self.checksum,
        }


def list_scans(folder: Path | str, progress: Progress | None = None) -> list[LocalScan]:
    """Return every scan of the BIDS dataset ``folder``, sorted by id; a damaged one is listed with its ``reason``.

    Of scans that are the same by their voxels and position only one trains. Headers are read, and whole images only
    where two cannot be told apart otherwise. An empty folder gives an empty list. Nothing is written.

    Raises:
        BadInputError: there is no such folder.
    """
    progress = progress or Progress()
    folder = Path(folder)
    cases = bids.find_cases(folder)
    names = [case.id for case in cases]
    progress.report("scans", 0, len(cases))
    looked = []
    for number, case in enumerate(cases, 1):
        looked.append(_look(case, names.count(case.id) > 1))
        progress.report("scans", number, len(cases))
    for _ in range(_LOOKS):
        # An export that goes on may have been met between two files.
        doubtful = [n for n, (scan, _) in enumerate(looked) if scan.is_reviewed and not scan.trains]
        if not doubtful or not (folder / bids.LOCK).exists():
            break
        time.sleep(_PAUSE_S)
        for n in doubtful:
            looked[n] = _look(cases[n], names.count(cases[n].id) > 1)
    listed = [scan for scan, _ in looked]
    grids = {scan.scan: grid for scan, grid in looked if grid is not None}
    return _without_doubles(listed, grids)


def summary(scans: Sequence[LocalScan]) -> dict[str, int]:
    """Return the counts of those that train: scans, with_microbleeds, microbleeds, mimics; and ``listed``, of all."""
    train = [scan for scan in scans if scan.trains]
    return {
        "listed": len(scans),
        "scans": len(train),
        "with_microbleeds": sum(scan.microbleeds > 0 for scan in train),
        "microbleeds": sum(scan.microbleeds for scan in train),
        "mimics": sum(scan.mimics for scan in train),
    }


def _look(case: bids.Case, is_ambiguous: bool) -> tuple[LocalScan, Volume | None]:
    """Return what the files of one scan say, and its grid where it has one."""
    reasons: list[str] = []
    if is_ambiguous:
        reasons.append(f"Two scans are called {case.id}, and it is not clear which one was annotated.")
    # Noted before the lists are read: an export goes on to write them.
    note = _tried(lambda: read_review_note(case.review), reasons)
    grid = _tried(lambda: _grid(case.scan), reasons)
    points = _tried(lambda: _points(case.points, grid, "microbleed"), reasons)
    mimics = _tried(lambda: _points(case.mimics, grid, "mimic"), reasons)
    is_annotated = os.path.lexists(case.points)
    if note is not None and not is_annotated:
        reasons.append("Adding it was broken off; export or import it again.")
    elif not is_annotated:
        reasons.append("Nobody has annotated it yet; review it, or import its annotations.")
    elif note is not None and points is not None and mimics is not None:
        reasons += note.doubts(points, mimics)
    scan = LocalScan(
        case,
        len(points or ()),
        len(mimics or ()),
        is_reviewed=os.path.lexists(case.review),
        is_complete=is_annotated and not os.path.lexists(case.review),
        reason=one_line(reasons[0], _LONGEST_REASON) if reasons else "",
        checksum=sha256(case.points) if points is not None and case.points.is_file() else "",
    )
    return (scan if note is None else _with_note(scan, note)), grid


def _with_note(scan: LocalScan, note: ReviewNote) -> LocalScan:
    return replace(
        scan,
        reader=note.reader,
        is_complete=note.is_complete,
        checksum=note.checksum or scan.checksum,
        key=note.key,
        exported=note.exported,
    )


def _tried(read: Callable[[], Any], reasons: list[str]) -> Any:
    """Return what ``read`` returns, or ``None`` and its sentence among ``reasons``."""
    try:
        return read()
    except BadInputError as error:
        reasons.append(" ".join(part for part in (error.message, error.hint) if part))
    except OSError as error:
        reasons.append(f"Its files cannot be read: {error.strerror or type(error).__name__}.")
    return None


def _grid(scan: Path) -> Volume:
    if scan.is_symlink() and not scan.exists():
        raise BadInputError(
            f"{scan.name} is a link to a file that is gone ({os.readlink(scan)}).", "Bring it back, or export a copy."
        )
    grid = read_grid(scan)
    if not looks_whole(scan):
        check_nifti(scan)
    return grid


def _points(path: Path, grid: Volume | None, what: str) -> list[bids.Point]:
    if not os.path.lexists(path):
        return []
    points = bids.read_points(path)
    if grid is not None and points:
        outside = ~lies_inside(grid, [point.ras_mm for point in points])
        if outside.any():
            raise BadInputError(
                f"{int(outside.sum())} of its {len(points)} {what}{'s' * (len(points) > 1)} lie outside the scan.",
                "Import them again.",
            )
    return points


def _without_doubles(scans: Sequence[LocalScan], grids: dict[Path, Volume]) -> list[LocalScan]:
    """Return the scans with a reason for each that would be learnt from a second time."""
    reasons: dict[Path, str] = {}
    train = [scan for scan in scans if scan.trains]
    for alike in _groups(train, lambda scan: _geometry(grids[scan.scan])):
        starts = [_start(scan.scan) for scan in alike]
        told = alike if None in starts else [scan for scan, s in zip(alike, starts, strict=True) if starts.count(s) > 1]
        keys: dict[Path, str] = {}
        for scan in told:
            try:
                keys[scan.scan] = scan.key or _key_of(scan.scan)
            except BadInputError as error:
                reasons[scan.scan] = f"{error.message} {error.hint}".strip()
        for same in _groups([scan for scan in told if scan.scan in keys], lambda scan: keys[scan.scan]):  # noqa: B023
            # A review tells more than a list; otherwise the first name counts.
            first, *doubles = sorted(same, key=lambda scan: (not scan.is_reviewed, scan.id))
            for double in doubles:
                reasons[double.scan] = f"It is the same scan as {first.id}, which trains already; remove one of them."
    return [replace(scan, reason=reasons.get(scan.scan, scan.reason)) for scan in scans]


def _groups(scans: Iterable[LocalScan], by: Callable[[LocalScan], Any]) -> list[list[LocalScan]]:
    """Return the scans that have ``by`` in common with another one."""
    groups: dict[Any, list[LocalScan]] = defaultdict(list)
    for scan in scans:
        groups[by(scan)].append(scan)
    return [group for group in groups.values() if len(group) > 1]


def _geometry(grid: Volume) -> tuple[Any, ...]:
    return (*grid.shape, grid_steps(grid.ijk_to_ras).tobytes())


def _start(scan: Path) -> bytes | None:
    """Return a hash of the first voxels, ``None`` where they cannot be compared with those of another type."""
    voxels = first_voxels(scan, _FIRST_VOXELS)
    return None if voxels is None else hashlib.sha256((voxels + np.float32(0)).tobytes()).digest()


def _key_of(scan: Path) -> str:
    volume = read_volume(scan)
    return scan_key(volume.array, volume.ijk_to_ras)
