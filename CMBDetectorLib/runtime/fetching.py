"""Fetching the files of a lock with pip, in batches, so that what is there stays there whatever happens next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from CMBDetectorLib import temporary
from CMBDetectorLib.errors import NotOfferedError, OutputError, SetUpError
from CMBDetectorLib.files import output_error
from CMBDetectorLib.locking import FileLock
from CMBDetectorLib.runtime import wheels
from CMBDetectorLib.runtime.locks import PARTS, Lock, Package, read_lock
from CMBDetectorLib.runtime.pip import run_pip
from CMBDetectorLib.runtime.place import size_on_disk

# Each call of pip costs a second; what a kill costs is at most one batch.
_BATCH_BYTES = 20_000_000
_LOCK = ".fetching.lock"

Report = Callable[[int, int], None]


def choose_offered(lock: Lock, folder: Path, report: Report) -> Lock:
    """Return the lean lock of ``lock`` where pip can get what it has more, else ``lock``; ``folder`` has what was got.

    Raises:
        SetUpError: pip failed otherwise.
        OutputError: as for :func:`fetch`.
    """
    if lock.lean is None:
        return lock
    total = lock.lean.bytes
    try:
        fetch(replace(lock.lean, packages=lock.only_lean), folder, lambda done, part: report(done, total))
    except NotOfferedError:
        return lock
    return lock.lean


def fetch(lock: Lock, folder: Path, report: Report) -> wheels.Found:
    """Fill ``folder`` with the files of ``lock`` that it lacks; ``report(done, total)`` is told bytes.

    pip replaces those with a wrong checksum; others in the folder are left alone.

    Raises:
        SetUpError: pip failed.
        OutputError: the folder cannot be written, is being filled by another process, or the disk is full.
    """
    holder = FileLock(folder / _LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not holder.acquire():
            raise OutputError(f"{folder} is being filled already, by {holder.holder()}.", "Wait until that is done.")
        for path in folder.glob(f"{temporary.PREFIX}*"):
            temporary.remove(path)
        found = wheels.find_files(folder, lock)
        with temporary.folder(folder) as work:
            _fetch_missing(found, lock, folder, work, report)
        found = wheels.find_files(folder, lock)
    except OSError as error:
        raise output_error(error, folder) from error
    finally:
        holder.release()
    if found.missing:
        raise SetUpError(f"These packages were not fetched: {wheels.names(found.missing)}.", "Try again.")
    report(lock.bytes, lock.bytes)
    return found


def _fetch_missing(found: wheels.Found, lock: Lock, folder: Path, work: Path, report: Report) -> None:
    done = told = lock.bytes - found.missing_bytes

    def tell(more: int) -> None:
        # pip copies a file and removes its own, so that for a moment there is less.
        nonlocal told
        told = max(told, done + more)
        report(told, lock.bytes)

    tell(0)
    for batch in _batches([package for package in found.missing if not package.is_source]):
        _fetch_batch(batch, lock, folder, work, (), tell)
        done += sum(package.bytes for package in batch)
    sources = [package for package in found.missing if package.is_source]
    if sources:
        _fetch_batch(sources, lock, folder, work, (_build_tools(lock, folder, work),), tell)


def _build_tools(lock: Lock, folder: Path, work: Path) -> Path:
    """Return a folder of packages with setuptools, as it is locked: pip asks a source for its metadata with it."""
    locks = [lock, *(read_lock(part, lock.platform, lock.python) for part in PARTS if part != lock.part)]
    tool = next((package for each in locks for package in each.packages if package.name == "setuptools"), None)
    if tool is None:
        raise SetUpError("The list of packages lacks setuptools.", "Install CMBDetector again.")
    alone = replace(lock, packages=(tool,))
    place = folder
    if not wheels.find_files(folder, alone).files:
        place = work / "tool"
        place.mkdir()
        _fetch_batch([tool], alone, place, work, (), lambda more: None)
    unpacked = work / "tools"
    wheels.unpack(wheels.find_files(place, alone).files.values(), unpacked)
    return unpacked


def _batches(packages: Sequence[Package]) -> Iterator[list[Package]]:
    """Iterate over groups of ``packages``, small ones together."""
    batch: list[Package] = []
    for package in sorted(packages, key=lambda package: package.bytes):
        batch.append(package)
        if sum(package.bytes for package in batch) >= _BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _fetch_batch(
    batch: Sequence[Package],
    lock: Lock,
    folder: Path,
    work: Path,
    paths: Sequence[Path],
    report: Callable[[int], None],
) -> None:
    lines = work / "lines.txt"
    lines.write_text("".join(f"{package.requirement}\n" for package in batch), encoding="ascii")
    inside, size = work / "pip", sum(package.bytes for package in batch)
    inside.mkdir(exist_ok=True)
    options = ["--no-deps", "--no-cache-dir", "--require-hashes", "--dest", str(folder), "--requirement", str(lines)]
    if batch[0].is_source:
        options += ["--no-build-isolation", "--no-binary", ",".join(package.name for package in batch)]
    else:
        options += ["--only-binary=:all:", *lock.platform.pip_options(lock.python)]
    run_pip(["download", *options], inside, paths, watch=lambda: report(min(size, size_on_disk(inside))))
    temporary.remove(inside)
