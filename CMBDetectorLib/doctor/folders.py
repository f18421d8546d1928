"""The folders that the program writes to: permission, space, the drive's clock. Standard library only."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from CMBDetectorLib import temporary
from CMBDetectorLib.doctor.findings import OK, PROBLEM, WARNING, Finding
from CMBDetectorLib.errors import OutputError
from CMBDetectorLib.user_data import data_folder

_LEAST_GB, _ENOUGH_GB = 1.0, 5.0
_CLOCKS_APART_S = 60.0


def own_folders() -> dict[str, Path]:
    """Return the folders that every command uses, by what they are for."""
    return {"Temporary folder": Path(tempfile.gettempdir()), "Data folder": data_folder()}


def folder(name: str, path: Path) -> Finding:
    """Return whether files can be written to the folder ``path``, called ``name``; the path itself is not told.

    Of a folder that is not there yet its nearest parent is looked at. Nothing is left behind.
    """
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        hint = "Choose another folder, or remove that file."
        return Finding(name, PROBLEM, "it is a file, not a folder", hint, exit_code=OutputError.exit_code)
    try:
        apart = _write_into(there)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        hint = "Ask for the permission to write there, or choose another folder."
        return Finding(name, PROBLEM, f"it cannot be written: {reason}", hint, exit_code=OutputError.exit_code)
    free = shutil.disk_usage(there).free
    values = {"free_bytes": free, "exists": there == path, "clock_apart_s": round(apart, 1)}
    text = f"can be written, {free / 1e9:.1f} GB free" + ("" if there == path else "; not made yet")
    if free < _LEAST_GB * 1e9:
        return Finding(name, PROBLEM, text, "Free some space.", values, OutputError.exit_code)
    if free < _ENOUGH_GB * 1e9:
        return Finding(name, WARNING, text, "Free some space: large scans and set-up need some GB.", values)
    if abs(apart) > _CLOCKS_APART_S:
        hint = "Set the clocks of both: the newest version of a file is known by its date."
        return Finding(name, WARNING, f"{text}; the clock of its drive is {apart:+.0f} s from this one", hint, values)
    return Finding(name, OK, text, values=values)


def _write_into(there: Path) -> float:
    """Write, rename and remove a file in ``there``; return how far the drive's clock is ahead of this one, in s.

    Raises:
        OSError: it cannot be done.
    """
    made = Path(tempfile.mkdtemp(prefix=temporary.PREFIX, dir=there))
    try:
        with open(made / "a", "wb") as stream:
            stream.write(bytes(4096))
            stream.flush()
            os.fsync(stream.fileno())
        apart = (made / "a").stat().st_mtime - time.time()
        os.replace(made / "a", made / "b")
        if (made / "b").stat().st_size != 4096:
            raise OSError(None, "what was written is not there")
        return apart
    finally:
        with suppress(OSError):
            shutil.rmtree(made)
