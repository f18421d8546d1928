"""One annotated scan into a local BIDS dataset, or up to date there: one writer at a time, each file whole.

The scan comes first, then its lists and the note that holds their checksums: whoever is killed in between leaves a
scan that :mod:`CMBDetectorLib.datasets.local` lists as broken off, and adding it again makes it whole.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np

from CMBDetectorLib import __version__, temporary
from CMBDetectorLib.datasets import bids
from CMBDetectorLib.datasets.places import check_apart
from CMBDetectorLib.datasets.reviewed import read_review_note
from CMBDetectorLib.errors import BadInputError, OutputError
from CMBDetectorLib.files import output_error, write_json
from CMBDetectorLib.locking import FileLock
from CMBDetectorLib.volume import Volume, write_volume

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
    """Where the parts of an added scan lie; ``brain_mask`` is ``None`` where the dataset has none."""

    scan: Path
    points: Path
    mimics: Path
    review: Path
    brain_mask: Path | None


@dataclass(frozen=True)
class Annotations:
    """What somebody says of a scan: places (RAS mm), and the ``note`` to keep beside them.

    The note has at least ``schema``, ``scan_key``, ``reader`` and ``complete``; ``brain_mask`` (above 0 inside) lies on
    the grid of the scan. Where mimics or mask are ``None``, those added earlier stay.
    """

    microbleeds: Sequence[bids.Point]
    mimics: Sequence[bids.Point] | None
    note: dict[str, Any]
    brain_mask: Volume | None = None


def add_scan(
    folder: Path,
    scan: Volume,
    annotations: Annotations,
    *,
    source: Path | None = None,
    include: Literal["copy", "reference", "in place"] = "copy",
    suffix: Literal["swi", "SWI", "T2starw"] = "swi",
    replace: bool = False,
) -> Exported:
    """Add ``scan``, read from the file ``source`` where it is one, to the BIDS dataset ``folder``.

    "copy" writes it as a new NIfTI file, "reference" links to ``source``, "in place" annotates ``source``, which is
    part of the dataset. A scan that is there under another name keeps it. ``replace`` overrules another reader.

    Raises:
        BadInputError: the brain mask lies on another grid, a place is called both microbleed and mimic, or the scan
            shares its annotations with another scan of the dataset.
        OutputError: the folder is no dataset, another reader has added this scan (and not ``replace``), another writer
            is at work for too long, or the folder cannot be written.
    """
    key, mask = annotations.note["scan_key"], annotations.brain_mask
    if mask is not None and not mask.same_grid(scan):
        raise BadInputError("The brain mask lies on another grid than the scan.", "Make the mask on the scan itself.")
    subject = "sub-" + sha256(f"subject {key}".encode()).hexdigest()[:8]
    ending = source_ending(source) if include == "reference" else _ENDINGS[0]
    try:
        _check_folder(folder)
        if include != "in place":
            _check_source(folder, subject, source)
        elif source is not None:
            _check_alone(folder, source)
    except OSError as error:
        raise output_error(error, folder) from error
    lock = _locked(folder)
    try:
        place = source if include == "in place" else _place_of(folder, key, subject)
        known = place is not None
        if place is not None:
            _check_alone(folder, place)
        place = place or folder / subject / _FOLDERS[suffix] / f"{subject}_{suffix}{ending}"
        _check_owner(folder, place, annotations, source, replace)
        _describe_dataset(folder)
        _sweep(folder, place.parent, bids.derivative_path(folder, place, bids.REVIEW).parent)
        if not known:
            _write_scan(folder, place, scan, source if include == "reference" else None)
        return _write_derivatives(folder, place, scan, annotations)
    finally:
        lock.release()


def source_ending(source: Path | None) -> str:
    """Return how the name of a NIfTI file ends that can be linked to.

    Raises:
        BadInputError: it is none.
    """
    endings = [ending for ending in _ENDINGS if source is not None and source.name.lower().endswith(ending)]
    if source is None or not source.is_file() or not endings:
        name = "this scan" if source is None else source.name
        raise BadInputError(
            f"Only a NIfTI file can be part of a dataset by reference, and {name} is none.", "Export a copy instead."
        )
    return endings[0]


def _write_scan(folder: Path, place: Path, scan: Volume, link_to: Path | None) -> None:
    subject = place.parts[-3]
    if link_to is not None:
        _link(link_to, place, _variants(folder, subject))
    else:
        write_volume(place, scan)
    for other in _variants(folder, subject):
        if other != place:
            _remove(other)


def _write_derivatives(folder: Path, place: Path, scan: Volume, annotations: Annotations) -> Exported:
    paths = {desc: bids.derivative_path(folder, place, desc) for desc in (bids.POINTS, bids.MIMICS, bids.BRAIN_MASK)}
    described = bids.derivative_path(folder, place, bids.REVIEW)
    mask = paths[bids.BRAIN_MASK]
    if annotations.brain_mask is not None:
        write_volume(mask, scan.with_array(np.asarray(annotations.brain_mask.array) > 0))
    mimics = annotations.mimics
    if mimics is None:
        mimics = bids.read_points(paths[bids.MIMICS]) if paths[bids.MIMICS].is_file() else []
        check_apart([point.ras_mm for point in annotations.microbleeds], [point.ras_mm for point in mimics])
    bids.write_points(paths[bids.MIMICS], mimics, mimics=True)
    lists = {"microbleeds": bids.checksum(annotations.microbleeds), "mimics": bids.checksum(mimics)}
    write_json(described, {**annotations.note, "points": lists})
    # Last, since a scan counts as annotated from here on.
    bids.write_points(paths[bids.POINTS], annotations.microbleeds)
    return Exported(place, paths[bids.POINTS], paths[bids.MIMICS], described, mask if mask.is_file() else None)


def _place_of(folder: Path, key: str, subject: str) -> Path | None:
    """Return the scan of the dataset that has this key under another name than ``subject``, or ``None``."""
    for case in bids.find_cases(folder):
        try:
            note = read_review_note(case.review)
        except BadInputError:
            continue
        if note is not None and note.key == key and case.scan.exists() and not case.id.startswith(subject):
            return case.scan
    return None


def _check_folder(folder: Path) -> None:
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


def _check_source(folder: Path, subject: str, source: Path | None) -> None:
    """Refuse to add a scan from the dataset itself a second time."""
    if source is None:
        return
    real, top = Path(os.path.realpath(source)), Path(os.path.realpath(folder))
    inside = real.relative_to(top).parts[:1] if real.is_relative_to(top) else ()
    if any(part.startswith("sub-") and part != subject for part in inside):
        raise OutputError(
            f"This scan is in the dataset {folder} already, as {real.name}; it would be in it twice.",
            "Export to another dataset.",
        )


def _check_alone(folder: Path, place: Path) -> None:
    """Refuse the scan at ``place`` where another one has its id: what is written of one would be that of the other."""
    cases = bids.find_cases(folder)
    ids = {case.id for case in cases if case.scan == place}
    alike = [case for case in cases if case.id in ids]
    if len(alike) > 1:
        raise bids.shared_annotation(*alike[:2])


def _locked(folder: Path) -> FileLock:
    lock = FileLock(folder / bids.LOCK)
    try:
        lock.path.parent.mkdir(parents=True, exist_ok=True)
        free = lock.acquire(_WAIT_S)
    except OSError as error:
        raise output_error(error, folder) from error
    if not free:
        raise OutputError(f"Another export to {folder} is going on ({lock.holder()}).", "Try again when it has ended.")
    return lock


def _check_owner(folder: Path, place: Path, annotations: Annotations, source: Path | None, replace: bool) -> None:
    """Refuse to overwrite what another reader, or somebody unknown, says of the scan at ``place``."""
    reader, key = annotations.note["reader"], annotations.note["scan_key"]
    described = bids.derivative_path(folder, place, bids.REVIEW)
    try:
        known = json.loads(described.read_text(encoding="utf-8"))
        owner, known_key = str(known["reader"]), str(known["scan_key"])
    except FileNotFoundError:
        if not bids.derivative_path(folder, place, bids.POINTS).exists():
            return
        owner, known_key = "somebody unknown", key
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        owner, known_key = "somebody unknown", key
    if known_key != key and place != source:
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
    """Return every file that adding this subject may have made its scan."""
    names = [f"{place}/{subject}_{suffix}{ending}" for suffix, place in _FOLDERS.items() for ending in _ENDINGS]
    return [path for path in (folder / subject / name for name in names) if os.path.lexists(path)]


def _sweep(dataset: Path, *folders: Path) -> None:
    """Remove what killed writers left in the folders of one scan; the lock says that nobody is writing it now."""
    remains = [path for folder in folders for path in folder.glob(f"{temporary.PREFIX}*")]
    for folder in (dataset, (dataset / bids.LOCK).parent):
        remains += folder.glob(f"{temporary.PREFIX}*.json")
    for path in remains:
        temporary.remove(path)


def _link(source: Path, place: Path, variants: list[Path]) -> None:
    """Make ``place`` a link to ``source``; a hard link where the system refuses symbolic ones (Windows)."""
    target = os.path.realpath(source)
    partial = place.with_name(f"{temporary.PREFIX}{os.getpid()}-{place.name}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        for path in variants:
            # The scan was opened from this very dataset: a link to itself in its place would destroy it.
            if not path.is_symlink() and os.path.samefile(path, target):
                os.replace(path, place)
                return
        try:
            os.symlink(target, partial)
        except (OSError, NotImplementedError):
            os.link(target, partial)
        os.replace(partial, place)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise OutputError(f"No link to {source.name} can be made here.", "Export a copy instead.") from error
        raise output_error(error, place) from error
    finally:
        partial.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise output_error(error, path) from error
