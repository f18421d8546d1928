"""Taking away what was downloaded, and what no current set-up needs; never what a running process computes with."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from CMBDetectorLib import temporary
from CMBDetectorLib.errors import OutputError
from CMBDetectorLib.files import output_error
from CMBDetectorLib.runtime.locks import DETECTOR, PARTS
from CMBDetectorLib.runtime.place import LOCK, Place, size_on_disk
from CMBDetectorLib.runtime.using import in_use


def remove(place: Place, parts: Sequence[str]) -> int:
    """Remove ``parts`` (with the detector goes HD-BET, which rests on it) and return the bytes that are free again.

    The caller holds the lock of ``place``. The user's choice of an interpreter stays.

    Raises:
        OutputError: a detection computes with them, or they cannot be removed.
    """
    gone = list(PARTS) if DETECTOR in parts else [part for part in PARTS if part in parts]
    folders = list(place.own_folders(gone))
    for folder in folders:
        if in_use(folder):
            raise OutputError("A computation uses these packages.", "Wait until it is done, or cancel it.")
    freed = sum(size_on_disk(folder) for folder in folders)
    try:
        place.forget(gone)
        for folder in folders:
            _remove_folder(place, folder)
        if place.wheels.is_dir() and not place.wheels.is_symlink():
            freed += size_on_disk(place.wheels)
            shutil.rmtree(place.wheels)
    except OSError as error:
        raise output_error(error, place.folder) from error
    return freed


def remove_unused(place: Place) -> None:
    """Remove the folders of packages that nothing names and nobody uses; what cannot be removed stays."""
    listed = place.listed()
    for folder in place.own_folders():
        if folder not in listed and not in_use(folder):
            with suppress(OSError):
                _remove_folder(place, folder)


def tidy(place: Place) -> None:
    """Remove the folder itself where nothing is left in it."""
    with suppress(OSError):
        if [path.name for path in place.folder.iterdir()] in ([], [LOCK]):
            (place.folder / LOCK).unlink(missing_ok=True)
            place.folder.rmdir()


def _remove_folder(place: Place, folder: Path) -> None:
    # Renamed first: Windows refuses that as long as somebody has a file of it open, before the first one is gone.
    aside = Path(tempfile.mkdtemp(prefix=temporary.PREFIX, dir=place.folder))
    os.rename(folder, aside / folder.name)
    shutil.rmtree(aside)
