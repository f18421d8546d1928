"""What belongs to the person and the computer, not to the scene: kept in the application's settings."""

from __future__ import annotations

import tempfile
from pathlib import Path

import qt

from CMBDetectorLib.runtime.place import Place

_PREFIX = "CMBDetector/"


def text(name: str, default: str = "") -> str:
    """Return the setting ``name`` as text."""
    value = qt.QSettings().value(_PREFIX + name, default)
    return default if value is None else str(value)


def number(name: str, default: float) -> float:
    """Return the setting ``name`` as a number, ``default`` where it is none."""
    try:
        return float(text(name, str(default)))
    except ValueError:
        return default


def store(name: str, value: str | float) -> None:
    """Keep the setting ``name``."""
    qt.QSettings().setValue(_PREFIX + name, str(value))


def data_folder() -> Path:
    """Return the extension's own folder beside the application's settings: reviews, local data."""
    chosen = text("DataFolder")
    return Path(chosen) if chosen else Path(qt.QSettings().fileName()).resolve().parent / "CMBDetector"


def reviews_folder() -> Path:
    """Return where the logs of reviews are kept."""
    return data_folder() / "reviews"


def runtime_folder() -> Path:
    """Return where the packages of the worker are set up: where ``cmbdetector runtime`` looks for them, too."""
    return Place(Path(text("RuntimeFolder")) if text("RuntimeFolder") else None).folder


def temporary_folder(prefix: str) -> Path:
    """Return a new folder that only this user can read, for what is deleted again."""
    return Path(tempfile.mkdtemp(prefix=f"cmbdetector-{prefix}-"))
