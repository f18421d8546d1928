"""What is set up to compute with: parts, versions, sizes, and whether they are what is locked. Standard library."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from CMBDetectorLib.doctor.findings import OK, PROBLEM, WARNING, Finding
from CMBDetectorLib.doctor.folders import folder
from CMBDetectorLib.errors import MissingPackageError
from CMBDetectorLib.runtime.installing import known_locks
from CMBDetectorLib.runtime.place import PACKAGES_VARIABLE, Place

_NAME = "Set-up"
_HINT = "Set up again: section Set up of the module, or cmbdetector runtime setup"


def set_up(place: Place | None = None) -> Finding:
    """Return what is set up for this Python in ``place``, by default where this process has its packages from."""
    place = place or _own_place()
    told, wrong, old = [], [], []
    values: dict[str, Any] = {"folder": str(place.folder), "interpreter": place.chosen_python(), "parts": {}}
    for lock in known_locks():
        there = place.set_up(lock.name)
        if there is None:
            continue
        whole = there.is_whole()
        values["parts"][lock.part] = {
            "digest": there.digest, "locked": lock.digest, "bytes": there.bytes, "whole": whole, "when": there.when,
            "versions": there.versions,
        }  # fmt: skip
        told.append(f"{lock.part} ({len(there.versions)} packages, {there.bytes / 1e6:.0f} MB, {there.digest})")
        wrong += [] if whole else [f"{lock.part} has lost files"]
        old += [] if lock.fits(there.digest) else [f"newer versions of {lock.part} are locked ({lock.digest})"]
    if place.chosen_python() is not None:
        told.append("another Python was chosen to compute with")
    writable = folder(_NAME, place.folder)
    if not told:
        if importlib.util.find_spec("tensorflow") is not None:
            return Finding(_NAME, OK, "nothing; this Python brings its packages itself", values=values)
        return Finding(_NAME, WARNING, f"nothing; its folder: {writable.text}", _HINT, values)
    text = "; ".join([*told, *wrong, *old])
    if wrong:
        return Finding(_NAME, PROBLEM, text, _HINT, values, MissingPackageError.exit_code)
    if old:
        return Finding(_NAME, WARNING, text, _HINT, values)
    if writable.state == PROBLEM:
        # Computing goes on; only a change would fail.
        return Finding(_NAME, WARNING, f"{text}; its folder: {writable.text}", writable.hint, values)
    return Finding(_NAME, OK, text, values=values)


def _own_place() -> Place:
    named = os.environ.get(PACKAGES_VARIABLE, "").split(os.pathsep)[0]
    return Place(Path(named).parent if named else None)
