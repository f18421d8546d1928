"""``cmbdetector runtime``: the packages that the worker computes with, in a folder of their own. Standard library only,
since this is what brings the packages; so it lies beside the other commands, not among them."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from CMBDetectorLib.doctor.packages import REQUIRED
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.progress import Part
from CMBDetectorLib.runtime.fetching import choose_offered, fetch
from CMBDetectorLib.runtime.installing import alone, known_locks, locks_for, set_up
from CMBDetectorLib.runtime.interpreter import Interpreter, resolved
from CMBDetectorLib.runtime.locks import DETECTOR, HD_BET, PARTS, Lock, platform_named, read_lock
from CMBDetectorLib.runtime.place import Place
from CMBDetectorLib.runtime.platforms import PLATFORMS, PYTHON, this_platform, this_python
from CMBDetectorLib.runtime.probing import probe
from CMBDetectorLib.runtime.removal import remove, tidy
from CMBDetectorLib.worker.listeners import Listener

ALL = "all"


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "runtime", parents=[common], help="set up the packages to compute with, or remove them"
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=type(parser))

    def add(name: str, run: Any, text: str, part: str | None = None) -> argparse.ArgumentParser:
        action = actions.add_parser(name, parents=[common], help=text)
        action.set_defaults(run=run)
        if name != "download":
            action.add_argument("--folder", type=Path, metavar="DIR", help="runtime folder (in the user's data folder)")
        if part:
            action.add_argument("--part", choices=(*PARTS, ALL), default=part, help="%(default)s unless given")
        return action

    setup = add("setup", run_setup, "install what is locked into a folder of its own, all or nothing", DETECTOR)
    setup.add_argument("--from", dest="source", type=Path, metavar="FOLDER", help="take the files from there")
    setup.add_argument("--again", action="store_true", help="also what is set up and whole")
    download = add("download", run_download, "fill a folder for setup --from on a computer without a network", DETECTOR)
    download.add_argument("--platform", choices=PLATFORMS, help="that of the other computer (this one's)")
    download.add_argument("--python", default=PYTHON, help="version of its Python (%(default)s: that of Slicer)")
    download.add_argument("to", type=Path, metavar="FOLDER")
    add("status", run_status, "what is set up, how large, and what could be")
    add("remove", run_remove, "remove what was downloaded; with the detector goes HD-BET", ALL)
    use = add("use", run_use, "compute with another Python, or with what is set up again (--own)")
    use.add_argument("python", nargs="?", metavar="PYTHON", help="its program, or the folder of its environment")
    use.add_argument("--own", action="store_true", help="use what is set up here again")


def run_setup(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """Set up the detector, HD-BET or both.

    Raises:
        CMBDetectorError: it failed; what was set up before still is.
    """
    place, locks = Place(options.folder), locks_for(_parts(options.part))
    if len(locks) > 1:
        listener.plan([(lock.part, float(lock.installed_bytes)) for lock in locks])
    for lock in locks:
        part = Part(listener, lock.part) if len(locks) > 1 else listener
        set_up(place, lock, options.source, part, options.again)
    return _status(place)


def run_download(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """Fill a folder with the files for a platform.

    Raises:
        CMBDetectorError: nothing is locked for it, or pip failed; what was fetched is kept.
    """
    platform = platform_named(options.platform) if options.platform else this_platform()
    locks = [read_lock(part, platform, options.python) for part in _parts(options.part)]
    listener.plan([(_fetching(lock), float(lock.bytes)) for lock in locks])
    for number, lock in enumerate(locks):

        def report(done: int, total: int, stage: str = _fetching(lock)) -> None:
            listener.report(stage, done, total)

        locks[number] = choose_offered(lock, options.to, report)
        fetch(locks[number], options.to, report)
    size, count = sum(lock.bytes for lock in locks), sum(len(lock.packages) for lock in locks)
    folder = str(options.to.absolute())
    data = {"folder": folder, "platform": platform.name, "files": count, "bytes": size}
    text = f"{count} files, {size / 1e6:.0f} MB for {platform.words}, Python {options.python}: {folder}"
    return data, f"{text}\nOn the other computer: cmbdetector runtime setup --from FOLDER"


def run_status(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """Tell what is set up and what could be."""
    return _status(Place(options.folder))


def run_remove(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """Remove parts.

    Raises:
        OutputError: a computation uses them, or they cannot be removed.
    """
    place = Place(options.folder)
    if not place.folder.is_dir():
        return {"freed_bytes": 0, "folder": str(place.folder)}, "Nothing is set up."
    with alone(place):
        freed = remove(place, _parts(options.part))
    tidy(place)
    return {"freed_bytes": freed, "folder": str(place.folder)}, f"{freed / 1e6:.0f} MB were removed."


def run_use(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """Choose which Python computes, once it has been tried.

    Raises:
        BadInputError: it is not clear which.
        MissingPackageError: there is no such Python, or it lacks what is needed.
    """
    if bool(options.python) == options.own:
        raise BadInputError("It is not clear what to compute with.", "Give one Python, or --own.")
    place = Place(options.folder)
    chosen: str | None = None
    if options.python:
        program = resolved(options.python, "Check the path.")
        modules = [module for _, module, _ in REQUIRED]
        listener.report("trying")
        with tempfile.TemporaryDirectory(prefix="cmbdetector-") as work:
            probe(Interpreter(program), modules, Path(work), lambda: listener.report("trying"))
        chosen = str(program)
    with alone(place):
        place.choose_python(chosen)
    return _status(place)


def _parts(part: str) -> Sequence[str]:
    return (DETECTOR, HD_BET) if part == ALL else (part,)


def _fetching(lock: Lock) -> str:
    return f"fetching {lock.part}"


def _status(place: Place) -> tuple[dict[str, Any], str]:
    parts, lines = {}, [f"Folder: {place.folder}"]
    chosen = place.chosen_python()
    lines.append(f"Computes with: {chosen or f'Python {this_python()} ({sys.executable})'}")
    locks = known_locks()
    if not locks:
        lines.append(f"Nothing is locked for Python {this_python()} on this computer.")
    for lock in locks:
        there = place.set_up(lock.name)
        told: dict[str, Any] = {
            "download_bytes": lock.bytes,
            "installed_bytes": lock.installed_bytes,
            "packages": len(lock.packages),
            "lean_download_bytes": lock.lean.bytes if lock.lean is not None else None,
            "digest": lock.digest,
            "set_up": None,
        }
        words = f"not set up; {lock.bytes / 1e6:.0f} MB to fetch, up to {lock.installed_bytes / 1e9:.1f} GB on disk"
        if lock.lean is not None:
            words += f" ({lock.lean.bytes / 1e6:.0f} MB where pip knows an index with PyTorch for processors)"
        if there is not None:
            (size, whole), same = there.measure(), lock.fits(there.digest)
            told["set_up"] = {
                "folder": str(there.folder), "digest": there.digest, "bytes": size, "when": there.when,
                "whole": whole, "up_to_date": same, "versions": there.versions,
            }  # fmt: skip
            words = f"{len(there.versions)} packages, {size / 1e6:.0f} MB, set up {there.when}"
            words += "" if whole else "; damaged: set up again"
            words += "" if same else "; newer versions are locked: set up again"
        parts[lock.part] = told
        lines.append(f"{lock.part}: {words}")
    data = {"folder": str(place.folder), "interpreter": chosen, "python": this_python(), "parts": parts}
    return data, "\n".join(lines)
