"""Lock files: which packages, in which versions, with which checksums, make a part of the runtime."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.runtime.platforms import PLATFORMS, Platform

FOLDER = Path(__file__).resolve().parents[2] / "Resources" / "Runtime"
VARIABLE = "CMBDETECTOR_LOCKS"
"""The environment variable that names another folder of lock files: a department's own."""
DETECTOR, HD_BET = "detector", "hd-bet"
LEAN = "-lean"
"""What the name of a lock ends with that has PyTorch for processors alone, without NVIDIA's libraries. That build is in
an index of its own, which whoever runs a computer has to name to pip; the other lock is for all the rest."""
PARTS = {DETECTOR: "TensorFlow and what the detector computes with", HD_BET: "HD-BET and PyTorch"}

_LINE = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;]+) --hash=sha256:(?P<sha256>[0-9a-f]{64})"
    r"  # (?P<bytes>\d+) (?P<installed>\d+) (?P<kind>wheel|source)"
)


@dataclass(frozen=True)
class Package:
    """One pinned file: its size as fetched and installed in bytes; ``is_source`` where no wheel is published."""

    name: str
    version: str
    sha256: str
    bytes: int
    installed_bytes: int
    is_source: bool = False

    @property
    def requirement(self) -> str:
        """The line for pip."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"

    @property
    def file_stem(self) -> str:
        """What the name of its file begins with, in the spelling of :func:`normal_name`."""
        return f"{normal_name(self.name)}-{self.version.lower()}"

    @property
    def line(self) -> str:
        """The line of the lock file: sizes stand in the comment, which pip does not read."""
        kind = "source" if self.is_source else "wheel"
        return f"{self.requirement}  # {self.bytes} {self.installed_bytes} {kind}"


@dataclass(frozen=True)
class Lock:
    """The packages of ``part`` for one platform and Python version.

    ``lean`` is a smaller lock of the same part, where there is one: better, but not every package index has its files.
    """

    part: str
    platform: Platform
    python: str
    packages: tuple[Package, ...]
    lean: Lock | None = None

    @property
    def name(self) -> str:
        """What tells it from locks of other parts, platforms and versions of Python."""
        return lock_file(self.part, self.platform, self.python).stem

    @property
    def bytes(self) -> int:
        """Size of all files to fetch, in bytes."""
        return sum(package.bytes for package in self.packages)

    @property
    def installed_bytes(self) -> int:
        """Size of all packages once they are installed, in bytes."""
        return sum(package.installed_bytes for package in self.packages)

    @property
    def only_lean(self) -> tuple[Package, ...]:
        """The packages of the lean lock that this one has not: they tell whether it can be had."""
        return tuple(package for package in self.lean.packages if package not in self.packages) if self.lean else ()

    def fits(self, digest: str) -> bool:
        """Tell whether what was set up by the lock of that ``digest`` is what is locked now, in either build."""
        return digest in (self.digest, self.lean.digest if self.lean is not None else None)

    @property
    def digest(self) -> str:
        """Eight digits that tell one lock from another."""
        text = "\n".join(package.requirement for package in self.packages)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def lock_file(part: str, platform: Platform, python: str, folder: Path | None = None, is_lean: bool = False) -> Path:
    """Return where the lock lies, whether or not it is there; ``folder`` is another one than the program's own."""
    return (folder or locks_folder()) / f"{part}-{platform.name}-py{python}{LEAN if is_lean else ''}.txt"


def read_lock(part: str, platform: Platform, python: str, folder: Path | None = None) -> Lock:
    """Read the lock of ``part`` for ``platform`` and the Python version ``python`` ("3.12").

    Raises:
        BadInputError: there is none, or it is damaged.
    """
    path = lock_file(part, platform, python, folder)
    lean = lock_file(part, platform, python, folder, is_lean=True)
    if not path.is_file():
        raise BadInputError(
            f"{PARTS[part]} cannot be set up for Python {python} ({platform.words}).",
            "Use the Python of Slicer, or one of these versions: "
            f"{', '.join(versions(part, platform, folder)) or 'none'}.",
        )
    smaller = Lock(part, platform, python, _packages(lean)) if lean.is_file() else None
    return Lock(part, platform, python, _packages(path), smaller)


def locks_folder() -> Path:
    """Return where the lock files lie: in the folder that the environment names, else with the program."""
    named = os.environ.get(VARIABLE, "").strip()
    return Path(named) if named else FOLDER


def modules(part: str) -> list[str]:
    """Return the modules that must be loadable once ``part`` is set up.

    Raises:
        BadInputError: the list is damaged.
    """
    path = locks_folder() / "needs.json"
    try:
        return [str(name) for name in json.loads(path.read_text(encoding="utf-8"))["modules"][part]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise _damaged(path) from error


def normal_name(name: str) -> str:
    """Return the name of a package in the one spelling that all of its spellings stand for (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def versions(part: str, platform: Platform, folder: Path | None = None) -> list[str]:
    """Return the Python versions that ``part`` is locked for on ``platform``."""
    files = (folder or locks_folder()).glob(f"{part}-{platform.name}-py*.txt")
    return sorted(file.stem.rpartition("-py")[2] for file in files if not file.stem.endswith(LEAN))


def platform_named(name: str) -> Platform:
    """Return the platform of that name.

    Raises:
        BadInputError: there is none.
    """
    if name not in PLATFORMS:
        raise BadInputError(f"There is no platform {name}.", f"Choose one of: {', '.join(PLATFORMS)}.")
    return PLATFORMS[name]


def _packages(path: Path) -> tuple[Package, ...]:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError) as error:
        raise _damaged(path) from error
    packages = []
    for line in lines:
        if line and not line.startswith("#"):
            found = _LINE.fullmatch(line)
            if found is None:
                raise _damaged(path)
            sizes = int(found["bytes"]), int(found["installed"])
            packages.append(
                Package(found["name"], found["version"], found["sha256"], *sizes, found["kind"] == "source")
            )
    if not packages:
        raise _damaged(path)
    return tuple(packages)


def _damaged(path: Path) -> BadInputError:
    return BadInputError(f"The list of packages {path.name} is damaged.", "Install CMBDetector again.")
