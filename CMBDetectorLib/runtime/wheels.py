"""Wheels: found in a folder by their checksums, and unpacked into a folder of packages.

They are unpacked here and not by pip, whose ``--target`` needs twice the space and, on Windows, longer paths than are
allowed there; so a disk that is full or a wish to stop is met at the very file, and progress is counted in real bytes.
"""

from __future__ import annotations

import os
import re
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from CMBDetectorLib.errors import SetUpError
from CMBDetectorLib.files import sha256
from CMBDetectorLib.runtime.locks import Lock, Package, normal_name

_BLOCK = 1 << 20
# Headers for compilers: nobody compiles here, and they are a quarter of TensorFlow and hold its longest paths.
_LEFT_OUT = ("tensorflow/include/", "torch/include/")
_INTO_PACKAGES = ("purelib", "platlib")
_UNFIT = re.compile(r"[\\:\x00-\x1f]")

Report = Callable[[int], None]


@dataclass
class Found:
    """Files of a lock: ``files`` by package, ``missing`` packages, and the files of these that are ``wrong``.

    A wrong one has the name of a missing package and another checksum: it is cut, changed, or for another platform.
    """

    files: dict[Package, Path] = field(default_factory=dict)
    missing: list[Package] = field(default_factory=list)
    wrong: list[Path] = field(default_factory=list)

    @property
    def missing_bytes(self) -> int:
        """Size of what is missing, in bytes."""
        return sum(package.bytes for package in self.missing)


def find_files(folder: Path, lock: Lock, report: Report = lambda done: None) -> Found:
    """Look for the files of ``lock`` in ``folder``; ``report`` is told the bytes looked through so far.

    Raises:
        OSError: the folder or a file cannot be read.
    """
    there: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in (".whl", ".gz", ".zip") and path.is_file():
            there.setdefault(_stem(path.name), []).append(path)
    found, done = Found(), 0
    for package in lock.packages:
        candidates = there.get(package.file_stem, [])
        for path in candidates:
            # Another size is another file: one for another platform, or a part of this one.
            if path.stat().st_size == package.bytes and _checksum(path, report, done) == package.sha256:
                found.files[package] = path
                done += package.bytes
                break
        else:
            found.missing.append(package)
            found.wrong += candidates
    return found


def unpack(wheels: Iterable[Path], target: Path, report: Report = lambda done: None) -> tuple[int, int]:
    """Unpack ``wheels`` into the folder ``target``; return how many files and bytes were written.

    Raises:
        SetUpError: one of them is damaged, or is no wheel.
        OSError: the disk is full, or a path too long.
    """
    written: dict[Path, int] = {}
    total = 0
    for wheel in wheels:
        try:
            with zipfile.ZipFile(wheel) as archive:
                for entry in archive.infolist():
                    place = destination(entry.filename)
                    if place is not None and not entry.is_dir():
                        path = target / place
                        written[path] = _write(archive, entry, path, lambda more, done=total: report(done + more))
                        total += written[path]
        # What zipfile and zlib raise for archives that are cut or changed.
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
            raise SetUpError(f"The file {wheel.name} is damaged.", "Remove it and get it again.") from error
    return len(written), sum(written.values())


def destination(name: str) -> PurePosixPath | None:
    """Return where the member ``name`` of a wheel goes below the folder of packages; ``None`` for what is left out.

    Raises:
        ValueError: it would go elsewhere.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or _UNFIT.search(name):
        raise ValueError(f"{name!r} leaves the folder of packages")
    if name.startswith(_LEFT_OUT) or not path.parts:
        return None
    if path.parts[0].endswith(".data"):
        # Programs, manuals and headers are for environments; here packages are only imported.
        if len(path.parts) < 3 or path.parts[1] not in _INTO_PACKAGES:
            return None
        path = PurePosixPath(*path.parts[2:])
    # A package for an older Python (argparse, which nnU-Net asks for) would hide this one's own module, since the
    # folder of packages comes first; in an environment it never gets its turn.
    return None if path.parts[0].partition(".")[0] in sys.stdlib_module_names else path


def unpacked_size(wheels: Iterable[Path]) -> tuple[int, int]:
    """Return the bytes that ``wheels`` become and the length of the longest path in them, in characters.

    Raises:
        SetUpError: one of them is damaged.
    """
    size, longest = 0, 0
    for wheel in wheels:
        try:
            with zipfile.ZipFile(wheel) as archive:
                kept = [(entry.file_size, place) for entry in archive.infolist() if (place := _place(entry))]
        except (zipfile.BadZipFile, EOFError, ValueError) as error:
            raise SetUpError(f"The file {wheel.name} is damaged.", "Remove it and get it again.") from error
        size += sum(bytes_ for bytes_, _ in kept)
        longest = max([longest, *(len(str(place)) for _, place in kept)])
    return size, longest


def names(packages: Sequence[Package], most: int = 5) -> str:
    """Return the names of ``packages`` for a sentence."""
    told = ", ".join(f"{package.name} {package.version}" for package in packages[:most])
    return told + (f" and {len(packages) - most} more" if len(packages) > most else "")


def _place(entry: zipfile.ZipInfo) -> PurePosixPath | None:
    return None if entry.is_dir() else destination(entry.filename)


def _stem(file: str) -> str:
    """Return name and version that a file's name begins with, spelt as in :attr:`Package.file_stem`."""
    if file.endswith(".whl"):
        name, _, rest = file.partition("-")
        return f"{normal_name(name)}-{rest.partition('-')[0].lower()}"
    stem = re.sub(r"\.(tar\.gz|zip)$", "", file)
    name, _, version = stem.rpartition("-")
    return f"{normal_name(name)}-{version.lower()}"


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, report: Report) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    done = 0
    with archive.open(entry) as source, open(path, "wb") as stream:
        while block := source.read(_BLOCK):
            stream.write(block)
            done += len(block)
            report(done)
        if os.name == "nt":
            # Elsewhere os.sync() does it for all files at once.
            stream.flush()
            os.fsync(stream.fileno())
    if entry.external_attr >> 16 & 0o100:
        path.chmod(path.stat().st_mode | 0o111)
    return done


def _checksum(path: Path, report: Report, before: int) -> str:
    return sha256(path, lambda done: report(before + done))
