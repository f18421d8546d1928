"""What vessels are made of here: tubes and membranes, and their kinds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

VEIN, ARTERY, PERIVASCULAR, DURA = "vein", "artery", "perivascular", "dura"
CISTERN, CHOROID = "cistern", "choroid"  # fluid around trunks; plexus in the ventricles

_THINNEST = 0.1


@dataclass(frozen=True)
class Vessel:
    """A tube: centre line ``points_mm`` (n, 3), ``radius_mm``, ``kind`` (vein, artery, fluid-filled space, dura).

    ``strength`` (0..1) is how much of its signal shows: fresh blood fills part of what slow flow would leave void.
    ``taper_mm``: over this length from its start, and to its end, it is thinner; 0 where it goes on as another one. A
    wide tube that ends bluntly in tissue would look like a microbleed, and there is none in a brain.
    """

    points_mm: np.ndarray
    radius_mm: float
    kind: str
    chi: float = 0.0
    strength: float = 1.0
    taper_mm: tuple[float, float] = (0.0, 0.0)

    @property
    def length_mm(self) -> float:
        """Length of the centre line."""
        return float(np.linalg.norm(np.diff(self.points_mm, axis=0), axis=1).sum())

    def width(self, along_mm: np.ndarray) -> np.ndarray:
        """Return the radius as a share of ``radius_mm`` at distances (n,) from the start of the centre line."""
        length = self.length_mm
        share = np.ones(len(along_mm))
        for distance, taper in zip((along_mm, length - along_mm), self.taper_mm, strict=True):
            if taper:
                share *= np.clip(distance / min(taper, length / 2), _THINNEST, 1)
        return share


@dataclass(frozen=True)
class Sheet:
    """A thin membrane as evenly spread dots: ``points_mm`` (n, 3), each standing for ``volume_mm3`` of it."""

    points_mm: np.ndarray
    volume_mm3: float
    kind: str
