"""The packages that the program computes with: there, new enough, loadable. Standard library only."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
from contextlib import suppress

from CMBDetectorLib.doctor.findings import OK, PROBLEM, WARNING, Finding
from CMBDetectorLib.errors import MissingPackageError

# Distributions that bring the module, the module, the oldest version (as in pyproject.toml).
REQUIRED = (
    (("numpy",), "numpy", "1.26"),
    (("scipy",), "scipy", "1.11"),
    (("SimpleITK",), "SimpleITK", "2.4"),
    (("tensorflow-cpu", "tensorflow"), "tensorflow", "2.16"),
    (("keras",), "keras", "3.5"),
    (("matplotlib",), "matplotlib", "3.8"),
    (("psutil",), "psutil", "5.9"),
    (("rich",), "rich", "13"),
)
OPTIONAL = ((("torch",), "torch"), (("hd-bet",), "HD_BET"), (("nilearn",), "nilearn"))
# These load in a moment; the networks' packages are loaded by the self-test, in a process of its own.
_LOADED = ("numpy", "scipy.ndimage", "SimpleITK")
HINT = "Set up the packages: section Set up of the module, or cmbdetector runtime setup"


def packages() -> Finding:
    """Return versions of all packages, and which are missing, too old or damaged."""
    versions: dict[str, str | None] = {}
    wrong = []
    for names, module, oldest in REQUIRED:
        version = _version(names, module)
        versions[module] = version
        if version is None:
            wrong.append(f"{module} is missing")
        elif _numbers(version) < _numbers(oldest):
            wrong.append(f"{module} {version} is older than {oldest}")
    for module in _LOADED:
        if versions[module.split(".")[0]] is not None and (why := _damage(module)):
            wrong.append(f"{module} cannot be loaded ({why})")
    versions |= {module: _version(names, module) for names, module in OPTIONAL}
    text = ", ".join(f"{module} {version}" for module, version in versions.items() if version)
    if wrong:
        return Finding(
            "Packages", PROBLEM, f"{'; '.join(wrong)}. There: {text}", HINT, versions, MissingPackageError.exit_code
        )
    if versions["torch"] is None:
        hint = "Without PyTorch training takes four times as long; HD-BET needs it, too."
        return Finding("Packages", WARNING, f"{text}; no torch", hint, versions)
    return Finding("Packages", OK, text, values=versions)


def _version(distributions: tuple[str, ...], module: str) -> str | None:
    """Return the version of the package that Python would import, "unknown" where it is there without one."""
    try:
        there = importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        there = False
    if not there:
        return None
    for name in distributions:
        with suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return "unknown"


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with; an unknown one counts as new enough."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else (9999,)


def _damage(module: str) -> str | None:
    try:
        importlib.import_module(module)
    # What a damaged extension module raises is anybody's guess.
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"
    return None
