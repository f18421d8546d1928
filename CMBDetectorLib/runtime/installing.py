"""Setting up one part of the runtime: fetched or found, unpacked beside what is there, tried, and only then used."""

from __future__ import annotations

import datetime
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from CMBDetectorLib import temporary
from CMBDetectorLib.errors import BadInputError, OutputError, SetUpError
from CMBDetectorLib.files import output_error
from CMBDetectorLib.locking import FileLock
from CMBDetectorLib.progress import Progress
from CMBDetectorLib.runtime import wheels
from CMBDetectorLib.runtime.fetching import choose_offered, fetch
from CMBDetectorLib.runtime.interpreter import Interpreter
from CMBDetectorLib.runtime.locks import DETECTOR, PARTS, Lock, modules, read_lock
from CMBDetectorLib.runtime.pip import run_pip
from CMBDetectorLib.runtime.place import LOCK, Place, SetUp
from CMBDetectorLib.runtime.platforms import WINDOWS_PATH, this_platform, this_python, windows_long_paths
from CMBDetectorLib.runtime.probing import probe
from CMBDetectorLib.runtime.removal import remove_unused

# Seconds for which a stage counts, per byte; those of a fast network and a slow disk.
_FETCH_S, _UNPACK_S, _TRY_S = 1 / 10e6, 1 / 30e6, 20.0
_SPARE_BYTES = 100_000_000


def locks_for(parts: Sequence[str]) -> tuple[Lock, ...]:
    """Return the locks of ``parts`` for the running Python, the detector's first.

    Raises:
        BadInputError: there is no list for this version of Python.
        SetUpError: there is none for this platform.
    """
    return tuple(read_lock(part, this_platform(), this_python()) for part in PARTS if part in parts)


def known_locks() -> tuple[Lock, ...]:
    """Return the locks of all parts for the running Python; none where nothing is locked for it."""
    try:
        return locks_for(tuple(PARTS))
    except (BadInputError, SetUpError):
        return ()


def set_up(place: Place, lock: Lock, source: Path | None, progress: Progress, again: bool = False) -> SetUp:
    """Set up the packages of ``lock`` in ``place`` and return what is there now.

    ``source`` is a folder of wheels; ``None``: they are fetched. Whatever fails leaves what was set up before.
    ``again``: also where it is there and whole.

    Raises:
        SetUpError: pip failed, a file is missing or damaged, or the packages cannot be loaded.
        OutputError: the folder cannot be written, is too full, or another set-up is under way.
        BadInputError: the folder of wheels is none, or the detector has to be set up before HD-BET.
    """
    _check_name(place)
    if lock.part != DETECTOR and not place.packages():
        raise BadInputError("HD-BET shares the packages of the detector.", "Set up the detector first.")
    with alone(place):
        there = place.set_up(lock.name)
        if there is not None and lock.fits(there.digest) and not again and there.is_whole():
            progress.log(f"{PARTS[lock.part]}: set up already.")
            # One that was killed right after the switch has left the old packages.
            remove_unused(place)
            return there
        _plan(progress, lock, source)
        lock = _chosen(place, lock, source, progress)
        found = _from_folder(source, lock, progress) if source else _fetched(place, lock, progress)
        folder, files, size = _install(place, lock, found, progress)
        when = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        place.switch(lock, folder, files, size, when)
        # What is used from now on is there: only what could be fetched again is lost from here on.
        remove_unused(place)
        if source is None:
            shutil.rmtree(place.wheels, ignore_errors=True)
        done = place.set_up(lock.name)
        if done is None:
            raise SetUpError(f"{place.folder} does not keep what is written to it.", "Choose another folder.")
        return done


@contextmanager
def alone(place: Place) -> Iterator[None]:
    """Keep others from changing ``place``, and clear away what those left who were killed.

    Raises:
        OutputError: somebody else is changing it, or it cannot be written.
    """
    try:
        place.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place.folder / LOCK)
        if not lock.acquire():
            told = f"The packages are being set up or removed already, by {lock.holder()}."
            raise OutputError(told, "Wait until that is done.")
    except OSError as error:
        raise output_error(error, place.folder) from error
    try:
        for path in place.unfinished():
            temporary.remove(path)
        yield
    finally:
        lock.release()


def _check_name(place: Place) -> None:
    if os.pathsep in str(place.folder):
        raise OutputError(
            f"Python cannot load packages from a folder with a {os.pathsep} in its name: {place.folder}.",
            "Choose another folder.",
        )


def _chosen(place: Place, lock: Lock, source: Path | None, progress: Progress) -> Lock:
    """Return the lean lock of ``lock`` where its files can be had, else ``lock``."""
    if lock.lean is None:
        return lock
    if source is not None:
        with suppress(OSError):
            found = wheels.find_files(source, replace(lock.lean, packages=lock.only_lean))
            return lock.lean if not found.missing else lock
        return lock
    _check_space(place.folder, lock.lean.bytes)
    chosen = choose_offered(lock, place.wheels, lambda done, total: progress.report("fetching", done, total))
    if chosen is lock:
        progress.log("The package index has no PyTorch for processors alone: NVIDIA's libraries come along.")
    return chosen


def _plan(progress: Progress, lock: Lock, source: Path | None) -> None:
    stages = [("checking" if source else "fetching", lock.bytes * (_UNPACK_S / 3 if source else _FETCH_S))]
    progress.plan([*stages, ("unpacking", lock.installed_bytes * _UNPACK_S), ("trying", _TRY_S)])


def _from_folder(source: Path, lock: Lock, progress: Progress) -> wheels.Found:
    try:
        found = wheels.find_files(source, lock, lambda done: progress.report("checking", done, lock.bytes))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BadInputError(f"The folder {source} cannot be read: {reason}.", "Check the path.") from error
    fill = f"Fill it where there is a network: cmbdetector runtime download --platform {lock.platform.name} FOLDER"
    if found.wrong:
        told = ", ".join(path.name for path in found.wrong[:3])
        raise SetUpError(
            f"In {source} these files have a wrong checksum: {told}.", f"They were cut or changed on the way. {fill}"
        )
    if found.missing:
        told = f"{len(found.missing)} of {len(lock.packages)} packages are missing in {source}"
        raise SetUpError(f"{told}: {wheels.names(found.missing)}.", fill)
    return found


def _fetched(place: Place, lock: Lock, progress: Progress) -> wheels.Found:
    _check_space(place.folder, lock.bytes + lock.installed_bytes)
    return fetch(lock, place.wheels, lambda done, total: progress.report("fetching", done, total))


def _install(place: Place, lock: Lock, found: wheels.Found, progress: Progress) -> tuple[Path, int, int]:
    """Unpack, build and try; return the new folder of packages, its files and bytes."""
    ready = [found.files[package] for package in lock.packages if not package.is_source]
    sources = [found.files[package] for package in lock.packages if package.is_source]
    size, longest = wheels.unpacked_size(ready)
    _check_paths(place, longest)
    _check_space(place.folder, size)
    try:
        with temporary.folder(place.folder) as work:
            target, scratch = work / "p", work / "t"
            target.mkdir()
            scratch.mkdir()
            files, written = wheels.unpack(ready, target, lambda done: progress.report("unpacking", done, size))
            if sources:
                built = _build(sources, (target, *place.packages()[:1]), scratch, progress)
                more, bytes_ = wheels.unpack(built, target)
                files, written = files + more, written + bytes_
            _try(place, lock, target, scratch, progress)
            if hasattr(os, "sync"):
                os.sync()
            folder = place.new_name(lock)
            with temporary.undisturbed():
                os.rename(target, folder)
            return folder, files, written
    except OSError as error:
        raise output_error(error, place.folder) from error


def _build(sources: Sequence[Path], packages: Sequence[Path], scratch: Path, progress: Progress) -> list[Path]:
    """Return wheels made of ``sources`` with the setuptools in one of ``packages``; nothing is fetched."""
    made = scratch / "wheels"
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--no-cache-dir", "--wheel-dir", str(made)]
    run_pip(
        ["wheel", *options, *map(str, sources)], scratch, packages, alone=True,
        watch=lambda: progress.report("trying"),
    )  # fmt: skip
    return sorted(made.glob("*.whl"))


def _try(place: Place, lock: Lock, target: Path, scratch: Path, progress: Progress) -> None:
    progress.report("trying")
    # HD-BET's packages rest on those of the detector.
    folders = (target,) if lock.part == DETECTOR else (*place.packages()[:1], target)
    interpreter = Interpreter(Path(sys.executable), folders)
    probe(interpreter, modules(lock.part), scratch, lambda: progress.report("trying"))
    progress.report("trying", 1, 1)


def _check_space(folder: Path, wanted: int) -> None:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise output_error(error, folder) from error
    if free < wanted + _SPARE_BYTES:
        raise OutputError(
            f"{wanted / 1e9:.1f} GB are needed in {folder}, {free / 1e9:.1f} GB are free.",
            "Free some space, or choose another folder.",
        )


def _check_paths(place: Place, longest: int) -> None:
    """Windows refuses longer paths, in the middle of unpacking and with words that nobody understands."""
    whole = len(str(place.folder)) + len(f"/{temporary.PREFIX}12345678/p/") + longest
    if os.name == "nt" and whole >= WINDOWS_PATH and not windows_long_paths():
        raise OutputError(
            f"The paths would have {whole} characters; Windows allows {WINDOWS_PATH}.",
            "Choose a folder with a shorter name, or let an administrator enable long paths (LongPathsEnabled).",
        )
