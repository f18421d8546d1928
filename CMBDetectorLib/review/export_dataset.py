"""A reviewed scan as part of a local BIDS dataset, without the patient's name, to learn from.

The voxels are kept as they are: a head scan shows a face, and a dataset is for this machine and not for the net.
"""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np

from CMBDetectorLib import __version__
from CMBDetectorLib.datasets import bids
from CMBDetectorLib.errors import BadInputError, OutputError
from CMBDetectorLib.files import output_error, write_json
from CMBDetectorLib.locking import FileLock
from CMBDetectorLib.review.finding import Finding, State
from CMBDetectorLib.review.review import Review, utc_now
from CMBDetectorLib.review.scan_key import scan_key
from CMBDetectorLib.review.summary import summarise
from CMBDetectorLib.volume import Volume, read_volume, write_volume

SCHEMA = 1
REVIEW = "desc-review.json"
_FOLDERS = {"swi": "swi", "SWI": "swi", "T2starw": "anat"}
_ENDINGS = (".nii.gz", ".nii")
# Writing a scan of 512x512x150 takes seconds.
_WAIT_S = 60.0
_FILE_MANAGER = {".DS_Store", "Thumbs.db", "desktop.ini"}


class OtherReaderError(OutputError):
    """The dataset holds another reader's verdicts on this scan."""

    code = "other-reader"


@dataclass(frozen=True)
class Exported:
    """Where the parts of an exported review lie; ``brain_mask`` is ``None`` where the dataset has none."""

    scan: Path
    points: Path
    mimics: Path
    review: Path
    brain_mask: Path | None


def export_dataset(
    folder: Path | str,
    review: Review,
    scan: Volume | None,
    key: str,
    *,
    scan_file: Path | str | None = None,
    include: Literal["copy", "reference"] = "copy",
    brain_mask: Volume | None = None,
    suffix: Literal["swi", "SWI", "T2starw"] = "swi",
    replace: bool = False,
    log: Path | str | None = None,
    threshold: float | None = None,
) -> Exported:
    """Add the reviewed scan with the scan key ``key`` to the BIDS dataset ``folder``, or bring it up to date there.

    ``include`` "copy" writes ``scan`` (read from ``scan_file`` where it is ``None``) as a new NIfTI file without
    any text of the old header; "reference" makes a link to the NIfTI ``scan_file``, whose path can be read from the
    link. Accepted places become microbleeds and rejected ones mimics (RAS mm); unsure and unreviewed ones neither.
    ``brain_mask`` (above 0 inside) lies on the grid of the scan; without it one exported earlier stays. ``log`` is the
    file of the review log, whose checksum is noted. Whether the review is complete is told at ``threshold`` of the
    score, by default that of the detection. Comments are not exported.

    Raises:
        BadInputError: the scan or mask is not that of the review, or cannot be referenced.
        OutputError: the folder is no dataset, another reader has exported this scan (and not ``replace``), another
            export goes on for too long, or the folder cannot be written.
    """
    folder = Path(folder)
    source = None if scan_file is None else Path(scan_file)
    ending = _checked_ending(source) if include == "reference" else _ENDINGS[0]
    scan = _checked_scan(scan, source, include, key)
    if brain_mask is not None and not brain_mask.same_grid(scan):
        raise BadInputError("The brain mask lies on another grid than the scan.", "Make the mask on the scan itself.")
    subject = "sub-" + sha256(f"subject {key}".encode()).hexdigest()[:8]
    place = folder / subject / _FOLDERS[suffix] / f"{subject}_{suffix}{ending}"
    described = _provenance(review, key, None if log is None else Path(log), threshold)
    try:
        _check_folder(folder, subject, source)
    except OSError as error:
        raise output_error(error, folder) from error
    lock = _locked(folder)
    try:
        _check_owner(bids.derivative_path(folder, place, REVIEW), review.reader, key, replace)
        _describe_dataset(folder)
        if include == "reference" and source is not None:
            _link(source, place, _variants(folder, subject))
        else:
            write_volume(place, scan)
        for other in _variants(folder, subject):
            if other != place:
                _remove(other)
        return _write_derivatives(folder, place, review, described, scan, brain_mask)
    finally:
        lock.release()


def _write_derivatives(
    folder: Path,
    place: Path,
    review: Review,
    provenance: dict[str, Any],
    scan: Volume,
    brain_mask: Volume | None,
) -> Exported:
    paths = {desc: bids.derivative_path(folder, place, desc) for desc in (bids.POINTS, bids.MIMICS, bids.BRAIN_MASK)}
    described = bids.derivative_path(folder, place, REVIEW)
    mask = paths[bids.BRAIN_MASK]
    if brain_mask is not None:
        write_volume(mask, scan.with_array(np.asarray(brain_mask.array) > 0))
    bids.write_points(paths[bids.MIMICS], _points(review, State.REJECTED), mimics=True)
    write_json(described, provenance)
    # Last, since a scan counts as annotated from here on.
    bids.write_points(paths[bids.POINTS], _points(review, State.ACCEPTED))
    return Exported(place, paths[bids.POINTS], paths[bids.MIMICS], described, mask if mask.is_file() else None)


def _points(review: Review, state: State) -> list[bids.Point]:
    return [_point(finding) for finding in review.findings if finding.state is state]


def _point(finding: Finding) -> bids.Point:
    return bids.Point(
        finding.ras_mm,
        finding.diameter_mm,
        finding.certainty.value if finding.certainty else None,
        "reader" if finding.is_added else "detector",
        finding.mimic_class,
    )


def _provenance(review: Review, key: str, log: Path | None, threshold: float | None) -> dict[str, Any]:
    summary = summarise(review, threshold)
    times = sorted(finding.judged_at for finding in review.findings if finding.judged_at)
    return {
        "schema": SCHEMA,
        "program": f"cmbdetector {__version__}",
        "scan_key": key,
        "reader": review.reader.encode("utf-8", "replace").decode("utf-8"),
        "complete": summary.is_complete,
        "counts": summary.counts(),
        "model": review.detection.model,
        "first_verdict": times[0] if times else None,
        "last_verdict": times[-1] if times else None,
        "exported": utc_now(),
        "log": None if log is None else _checksum(log),
    }


def _checksum(log: Path) -> dict[str, Any]:
    """Return the SHA-256 of the log's first ``bytes``: it may go on growing, and can still be verified then."""
    try:
        data = log.read_bytes()
    except OSError as error:
        raise BadInputError(f"The review log {log} cannot be read: {error.strerror}.", "Check it is there.") from error
    return {"sha256": sha256(data).hexdigest(), "bytes": len(data)}


def _checked_ending(source: Path | None) -> str:
    endings = [ending for ending in _ENDINGS if source is not None and source.name.lower().endswith(ending)]
    if source is None or not source.is_file() or not endings:
        name = "this scan" if source is None else source.name
        raise BadInputError(
            f"Only a NIfTI file can be part of a dataset by reference, and {name} is none.", "Export a copy instead."
        )
    return endings[0]


def _checked_scan(scan: Volume | None, source: Path | None, include: str, key: str) -> Volume:
    """Return the scan, having made sure that what will lie in the dataset is what was reviewed."""
    if include == "reference" or scan is None:
        if source is None:
            raise BadInputError("There is no scan to export.", "Load the scan again.")
        scan = read_volume(source)
    if scan_key(scan.array, scan.ijk_to_ras) != key:
        raise BadInputError(
            "The scan to export is not the one that was reviewed: its voxels or its position differ.",
            "Load the scan again from its file, or export the copy that was reviewed.",
        )
    return scan


def _check_folder(folder: Path, subject: str, source: Path | None) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file, not a folder.", "Choose the folder of a dataset, or a new one.")
    if folder.is_dir():
        names = {path.name for path in folder.iterdir()} - _FILE_MANAGER
        if names and "dataset_description.json" not in names and "derivatives" not in names:
            raise OutputError(f"{folder} holds other files and is no dataset.", "Choose a dataset or a new folder.")
    if bids.is_simulated(folder):
        raise OutputError(
            f"The dataset {folder} says that all its scans are simulated.", "Choose another dataset for real scans."
        )
    if source is not None:
        real, top = Path(os.path.realpath(source)), Path(os.path.realpath(folder))
        inside = real.relative_to(top).parts[:1] if real.is_relative_to(top) else ()
        if any(part.startswith("sub-") and part != subject for part in inside):
            raise OutputError(
                f"This scan is in the dataset {folder} already, as {real.name}; it would be in it twice.",
                "Export to another dataset.",
            )


def _locked(folder: Path) -> FileLock:
    derivatives = folder / "derivatives" / "cmbdetector"
    lock = FileLock(derivatives / ".export.lock")
    try:
        derivatives.mkdir(parents=True, exist_ok=True)
        free = lock.acquire(_WAIT_S)
    except OSError as error:
        raise output_error(error, folder) from error
    if not free:
        raise OutputError(f"Another export to {folder} is going on ({lock.holder()}).", "Try again when it has ended.")
    return lock


def _check_owner(described: Path, reader: str, key: str, replace: bool) -> None:
    try:
        known = json.loads(described.read_text(encoding="utf-8"))
        owner, known_key = str(known["reader"]), str(known["scan_key"])
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError):
        owner, known_key = "somebody unknown", key
    if known_key != key:
        raise OutputError("By chance another scan of this dataset has the same short name.", "Use another dataset.")
    if not replace and _plain(owner) != _plain(reader):
        raise OtherReaderError(
            f"This scan was exported to the dataset by another reader ({owner or 'not named'}).",
            "Choose to replace that reader's verdicts, or export to a dataset of your own.",
        )


def _plain(name: str) -> str:
    return " ".join(name.encode("utf-8", "replace").decode("utf-8").split()).casefold()


def _describe_dataset(folder: Path) -> None:
    """Write the descriptions that are missing; what somebody wrote in those that are there stays."""
    if not (folder / "dataset_description.json").is_file():
        bids.write_descriptions(folder, folder.resolve().name)
    derived = folder / "derivatives" / "cmbdetector" / "dataset_description.json"
    if not derived.is_file():
        program = {"Name": "CMBDetector", "Version": __version__}
        described = {"Name": f"{folder.resolve().name}: annotations", "BIDSVersion": "1.9.0"}
        write_json(derived, {**described, "GeneratedBy": [program], "DatasetType": "derivative"})


def _variants(folder: Path, subject: str) -> list[Path]:
    """Return every file that an export of this subject may have made its scan."""
    names = [f"{place}/{subject}_{suffix}{ending}" for suffix, place in _FOLDERS.items() for ending in _ENDINGS]
    return [path for path in (folder / subject / name for name in names) if os.path.lexists(path)]


def _link(source: Path, place: Path, variants: list[Path]) -> None:
    """Make ``place`` a link to ``source``; a hard link where the system refuses symbolic ones (Windows)."""
    target = os.path.realpath(source)
    temporary = place.with_name(f".partial-{os.getpid()}-{place.name}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        for path in variants:
            # The scan was opened from this very dataset: a link to itself in its place would destroy it.
            if not path.is_symlink() and os.path.samefile(path, target):
                os.replace(path, place)
                return
        try:
            os.symlink(target, temporary)
        except (OSError, NotImplementedError):
            os.link(target, temporary)
        os.replace(temporary, place)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise OutputError(f"No link to {source.name} can be made here.", "Export a copy instead.") from error
        raise output_error(error, place) from error
    finally:
        temporary.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise output_error(error, path) from error
