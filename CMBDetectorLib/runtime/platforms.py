"""The platforms that packages are locked for, and how pip is told to fetch for another one than its own."""

from __future__ import annotations

import platform as system
import sys
import sysconfig
from contextlib import suppress
from dataclasses import dataclass

from CMBDetectorLib.errors import SetUpError

PYTHON = "3.12"
"""The Python of every Slicer that is supported."""
WINDOWS_PATH = 260
"""Paths of so many characters Windows refuses, unless an administrator has allowed them."""


@dataclass(frozen=True)
class Platform:
    """One platform: ``name`` on the command line, ``tags`` of the wheels that it can load, best first.

    ``markers`` are the values of PEP 508 that pip would else take from the computer it runs on.
    """

    name: str
    words: str
    tags: tuple[str, ...]
    markers: dict[str, str]

    def pip_options(self, python: str) -> list[str]:
        """Return the options that let pip fetch wheels for this platform and the Python version ``python``."""
        options = ["--implementation", "cp", "--python-version", python]
        for tag in self.tags:
            options += ["--platform", tag]
        return options


def _unix(system: str, name: str, machine: str) -> dict[str, str]:
    return {"sys_platform": system, "platform_system": name, "platform_machine": machine, "os_name": "posix"}


PLATFORMS = {
    platform.name: platform
    for platform in (
        Platform(
            "linux",
            "Linux on x86_64",
            (*(f"manylinux_2_{n}_x86_64" for n in range(28, 4, -1)), "manylinux2014_x86_64", "linux_x86_64"),
            _unix("linux", "Linux", "x86_64"),
        ),
        Platform(
            "windows",
            "Windows on x86_64",
            ("win_amd64",),
            {"sys_platform": "win32", "platform_system": "Windows", "platform_machine": "AMD64", "os_name": "nt"},
        ),
        Platform("macos-arm64", "macOS on Apple silicon", ("macosx_14_0_arm64",), _unix("darwin", "Darwin", "arm64")),
        Platform("macos-x86_64", "macOS on Intel", ("macosx_13_0_x86_64",), _unix("darwin", "Darwin", "x86_64")),
    )
}


def this_platform() -> Platform:
    """Return the platform of the running interpreter.

    Raises:
        SetUpError: nothing is locked for it.
    """
    tag = sysconfig.get_platform()
    if tag.endswith("universal2"):
        tag = tag.replace("universal2", system.machine())
    found = platform_of(tag)
    if found is None:
        raise SetUpError(
            f"There is no list of packages for this computer ({tag}).",
            "Make a Python environment with pip install cmbdetector, and choose it: cmbdetector runtime use FOLDER",
        )
    return found


def this_python() -> str:
    """Return the version of the running interpreter as lock files are named after it, "3.12"."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def windows_long_paths() -> bool:
    """Tell whether this Windows allows paths of ``WINDOWS_PATH`` characters and more."""
    with suppress(ImportError, OSError):
        import winreg

        key = r"SYSTEM\CurrentControlSet\Control\FileSystem"
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key) as opened:
            return bool(winreg.QueryValueEx(opened, "LongPathsEnabled")[0])
    return False


def platform_of(tag: str) -> Platform | None:
    """Return the platform that ``sysconfig.get_platform()`` of an interpreter tells, e.g. ``macosx-11.0-arm64``."""
    tag = tag.lower().replace("_", "-")
    if tag.startswith("macosx-"):
        return PLATFORMS["macos-arm64"] if tag.endswith("arm64") else _intel_mac(tag)
    known = {"linux-x86-64": "linux", "win-amd64": "windows"}
    return PLATFORMS[known[tag]] if tag in known else None


def _intel_mac(tag: str) -> Platform | None:
    # "universal2" does not say which of both it runs as; the caller asks platform.machine() then.
    return PLATFORMS["macos-x86_64"] if tag.endswith(("x86-64", "intel")) else None
