"""Where this program keeps what belongs to the user: installed models, the salt of pseudonyms."""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "CMBDETECTOR_DATA"
"""The environment variable that names another folder."""


def data_folder() -> Path:
    """Return this program's folder among the user's data: that of the environment, else as the platform wants it."""
    named = os.environ.get(VARIABLE, "").strip()
    if named:
        return Path(named)
    try:
        home = Path.home()
    except RuntimeError:
        # A user without a home: an account of a cluster or container.
        return Path(sys.prefix) / "share" / "cmbdetector"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "CMBDetector"
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "CMBDetector"
    data = os.environ.get("XDG_DATA_HOME", "")
    # The convention says to ignore a relative one.
    return (Path(data) if os.path.isabs(data) else home / ".local" / "share") / "cmbdetector"
