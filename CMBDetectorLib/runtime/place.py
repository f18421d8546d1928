"""The runtime folder: what is set up in it, where, and which Python the user has chosen instead.

``current.json`` says which folder each part is in; it is written anew, whole, at the end of a set-up. Beside it lie
the folders of packages, ``wheels`` (what an unfinished set-up has fetched) and, while one runs, ``setup.lock``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from CMBDetectorLib.errors import SetUpError
from CMBDetectorLib.files import write_json
from CMBDetectorLib.runtime.locks import PARTS, Lock, lock_file
from CMBDetectorLib.runtime.platforms import this_platform, this_python
from CMBDetectorLib.temporary import PREFIX
from CMBDetectorLib.user_data import data_folder

CURRENT, WHEELS, LOCK = "current.json", "wheels", "setup.lock"
PACKAGES_VARIABLE = "CMBDETECTOR_PACKAGES"
"""Names, for the worker, the folders of packages that it computes with."""
IN_USE = ".used-"
_OWN_FOLDER = re.compile(rf"({'|'.join(PARTS)})-[0-9a-f]{{8}}(-\d+)?", re.ASCII)


@dataclass(frozen=True)
class SetUp:
    """One part as it was set up: ``digest`` of its lock, ``files`` and ``bytes`` as they were unpacked."""

    folder: Path
    digest: str
    versions: dict[str, str]
    files: int
    bytes: int
    when: str

    def is_whole(self) -> bool:
        """Tell whether at least as many files and bytes are there as were unpacked; takes a second for a large part.

        There may be more: where connections are looked into, a firewall's certificate is added to those of certifi.
        """
        return self.measure()[1]

    def measure(self) -> tuple[int, bool]:
        """Return the bytes that are there, and :meth:`is_whole`, by one look at all files."""
        files, size = census(self.folder)
        return size, files >= self.files and size >= self.bytes


class Place:
    """A runtime folder, which need not exist. What is damaged in its ``current.json`` counts as not set up."""

    def __init__(self, folder: Path | None = None) -> None:
        """``folder``: another one than ``runtime`` in the user's data folder."""
        self.folder = Path(os.path.abspath(folder or data_folder() / "runtime"))

    @property
    def wheels(self) -> Path:
        """Where fetched files are kept until they are installed."""
        return self.folder / WHEELS

    def set_up(self, lock_name: str) -> SetUp | None:
        """Return what is set up for the lock of that name, ``None`` where nothing is."""
        try:
            told = self._read()["parts"][lock_name]
            name = str(told["folder"])
            versions = {str(key): str(value) for key, value in told["versions"].items()}
            found = SetUp(
                self.folder / name, str(told["digest"]), versions, int(told["files"]), int(told["bytes"]),
                str(told["when"]),
            )  # fmt: skip
        except (LookupError, TypeError, ValueError, AttributeError):
            return None
        return found if _OWN_FOLDER.fullmatch(name) and found.folder.is_dir() else None

    def packages(self) -> tuple[Path, ...]:
        """Return the folders of packages for the running version of Python: the detector's, then HD-BET's.

        Empty where the detector is not set up, since HD-BET shares its packages.
        """
        try:
            names = [lock_file(part, this_platform(), this_python()).stem for part in PARTS]
        except SetUpError:
            # A computer that nothing is locked for.
            return ()
        found = [self.set_up(name) for name in names]
        return tuple(part.folder for part in found if part is not None) if found[0] is not None else ()

    def chosen_python(self) -> str | None:
        """Return the interpreter that the user has chosen to compute with instead."""
        chosen = self._read().get("interpreter")
        return chosen if isinstance(chosen, str) and chosen.strip() else None

    def choose_python(self, python: str | None) -> None:
        """Compute with ``python`` from now on, or with what is set up here (``None``).

        Raises:
            OutputError: the choice cannot be written.
        """
        self._write({**self._read(), "interpreter": python})

    def switch(self, lock: Lock, folder: Path, files: int, size: int, when: str) -> None:
        """Say that ``folder`` holds the packages of ``lock`` from now on.

        Raises:
            OutputError: it cannot be written.
        """
        data = self._read()
        parts = _parts(data)
        parts[lock.name] = {
            "folder": folder.name,
            "digest": lock.digest,
            "versions": {package.name: package.version for package in lock.packages},
            "files": files,
            "bytes": size,
            "when": when,
        }
        self._write({**data, "parts": parts})

    def forget(self, parts: Sequence[str]) -> None:
        """Say that nothing of ``parts`` is set up, for no version of Python.

        Raises:
            OutputError: it cannot be written.
        """
        data = self._read()
        kept = {name: told for name, told in _parts(data).items() if not name.startswith(tuple(f"{p}-" for p in parts))}
        if kept or data.get("interpreter"):
            self._write({**data, "parts": kept})
        elif (self.folder / CURRENT).exists():
            (self.folder / CURRENT).unlink()

    def new_name(self, lock: Lock) -> Path:
        """Return a path that is free for the packages of ``lock``."""
        name, number = f"{lock.part}-{lock.digest}", 2
        path = self.folder / name
        while path.exists() or path.is_symlink():
            path, number = self.folder / f"{name}-{number}", number + 1
        return path

    def own_folders(self, parts: Sequence[str] = tuple(PARTS)) -> Iterator[Path]:
        """Iterate over the folders of packages of ``parts``, used or not; links are not the program's."""
        for path in self._entries():
            found = _OWN_FOLDER.fullmatch(path.name)
            if found and found[1] in parts and path.is_dir() and not path.is_symlink():
                yield path

    def unfinished(self) -> Iterator[Path]:
        """Iterate over what set-ups that were killed have left."""
        return (path for path in self._entries() if path.name.startswith(PREFIX))

    def listed(self) -> set[Path]:
        """Return the folders that ``current.json`` names."""
        found = [self.set_up(name) for name in _parts(self._read())]
        return {part.folder for part in found if part is not None}

    def _entries(self) -> list[Path]:
        try:
            return sorted(self.folder.iterdir())
        except OSError:
            return []

    def _read(self) -> dict[str, Any]:
        try:
            data = json.loads((self.folder / CURRENT).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return data if isinstance(data, dict) else {}

    def _write(self, data: dict[str, Any]) -> None:
        write_json(self.folder / CURRENT, {**data, "schema": 1})


def _parts(data: dict[str, Any]) -> dict[str, Any]:
    """Return what is told of each lock in the content of ``current.json``, which may be damaged."""
    parts = data.get("parts")
    return parts if isinstance(parts, dict) else {}


def census(folder: Path) -> tuple[int, int]:
    """Return how many files ``folder`` holds and their size in bytes, without what Python compiles from them."""
    files = size = 0
    for path, stat in _files(folder):
        if "__pycache__" not in path and not os.path.basename(path).startswith(IN_USE):
            files, size = files + 1, size + stat.st_size
    return files, size


def size_on_disk(folder: Path) -> int:
    """Return the bytes of everything in ``folder``, or of the file ``folder``."""
    if folder.is_file() and not folder.is_symlink():
        return folder.stat().st_size
    return sum(stat.st_size for _, stat in _files(folder))


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Iterate over the files below ``folder``; one that goes away meanwhile is passed over."""
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        yield entry.path, entry.stat(follow_symlinks=False)
        except OSError:
            continue
