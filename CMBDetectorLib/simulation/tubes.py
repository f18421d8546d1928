"""What vessels are made of here: tubes and membranes, and their kinds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

VEIN, ARTERY, PERIVASCULAR, DURA = "vein", "artery", "perivascular", "dura"
CISTERN, CHOROID = "cistern", "choroid"  # fluid around trunks; plexus in the ventricles


@dataclass(frozen=True)
class Vessel:
    """A tube: centre line ``points_mm`` (n, 3), ``radius_mm``, ``kind`` (vein, artery, fluid-filled space, dura).

    ``strength`` (0..1) is how much of its signal shows: fresh blood fills part of what slow flow would leave void.
    """

    points_mm: np.ndarray
    radius_mm: float
    kind: str
    chi: float = 0.0
    strength: float = 1.0


@dataclass(frozen=True)
class Sheet:
    """A thin membrane as evenly spread dots: ``points_mm`` (n, 3), each standing for ``volume_mm3`` of it."""

    points_mm: np.ndarray
    volume_mm3: float
    kind: str
