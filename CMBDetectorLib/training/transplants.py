"""Transplanted microbleeds: a dozen scans hold few microbleeds, but much tissue in which each of them might have been.

What a microbleed leaves of the signal - its shadow - is measured where a reader marked it, and then takes as much from
other tissue of the dataset. So the microbleed stays a real one, and what is around it becomes anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from CMBDetectorLib.detection.patches import cut_windows
from CMBDetectorLib.detection.size import BACKGROUND_MM, REACH_MM, dark_spot
from CMBDetectorLib.training.augmentation import flip_and_rotate
from CMBDetectorLib.training.cases import PreparedCase

_CENTRE_MM = 1.5  # a reader's mark is so far off at most
_LEVELS = (0.5, 0.35, 0.2)  # of its depth: the first at which it does not run into something else that is dark
_FADE_MM = (0.5, 1.5)  # beyond that level
_LEAST_CONTRAST = 0.2
_TISSUE = (0.4, 0.65)
"""Normalised intensities of tissue: neither a dark spot nor the fluid of T2*-GRE."""
_TISSUE_VOXELS = (3, 3, 1)  # to both sides of the middle
_BESIDE_SHARE = 0.5  # of the transplants lies beside a dark spot: there stage 2 is wrong most often
_BESIDE_MM = (2.5, 6.0)
_DEPTHS = (0.6, 1.1)
_LEAST_DEPTH, _MOST_DEPTH = 0.25, 0.98
_TRIES = 50


@dataclass(frozen=True)
class Transplant:
    """A ``shadow`` (i, j, k; what is left of the signal, 0 to 1, and 1 at the border) around voxel ``ijk`` (3,) of case
    number ``case``."""

    case: int
    ijk: np.ndarray
    shadow: np.ndarray

    def darken(self, window: np.ndarray, start: np.ndarray) -> None:
        """Let the shadow fall on ``window`` (i, j, k; intensities); its first voxel is voxel ``start`` of the case."""
        size = np.array(self.shadow.shape)
        first = self.ijk - size // 2 - start
        low, high = np.maximum(first, 0), np.minimum(first + size, window.shape)
        if (low < high).all():
            there = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
            here = tuple(slice(int(a), int(b)) for a, b in zip(low - first, high - first, strict=True))
            window[there] *= self.shadow[here]


class Transplants:
    """Draws transplants: the microbleeds of ``cases``, each in the tissue of any of them."""

    def __init__(self, cases: Sequence[PreparedCase], spacing_mm: Sequence[float], as_many: int) -> None:
        """They are drawn as often, beside the microbleeds of ``cases``, as ``as_many`` more of these would be."""
        self._cases, self._spacing = list(cases), np.array(spacing_mm, float)
        marked = [(case, ijk) for case in cases for ijk in case.microbleeds]
        self._share = as_many / max(1, as_many + len(marked))
        shadows = [shadow_of(case, ijk, self._spacing) for case, ijk in marked] if as_many else []
        self._shadows = [shadow for shadow in shadows if shadow is not None]

    def draw(self, rng: np.random.Generator) -> Transplant | None:
        """Return a transplant; None where it is the turn of a microbleed in its own place.

        So it always is where none of them stands out enough, and now and then because no tissue was found.
        """
        if not self._shadows or rng.random() >= self._share:
            return None
        shadow = _varied(rng, self._shadows[rng.integers(len(self._shadows))])
        for _ in range(_TRIES):
            number = int(rng.integers(len(self._cases)))
            ijk = self._place(rng, self._cases[number])
            if _is_tissue(self._cases[number], ijk):
                return Transplant(number, ijk, shadow)
        return None

    def _place(self, rng: np.random.Generator, case: PreparedCase) -> np.ndarray:
        if len(case.dark_spots) and rng.random() < _BESIDE_SHARE:
            way = rng.standard_normal(3)
            way *= rng.uniform(*_BESIDE_MM) / np.linalg.norm(way)
            return np.round(case.dark_spots[rng.integers(len(case.dark_spots))] + way / self._spacing).astype(int)
        return rng.integers(0, case.mask.shape)


def shadow_of(case: PreparedCase, ijk: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray | None:
    """Return what the microbleed at voxel ``ijk`` (3,) of ``case`` leaves of the signal around it: (i, j, k), float32,
    0 to 1, its centre in the middle.

    The signal is the median of the brain 4 to 6 mm away. The microbleed is what is connected to its darkest voxel and
    nearer to that one's intensity than to the signal; beyond, the shadow fades away. None where it does not stand out,
    or runs into a vessel or other tissue that is as dark. Through slices of more than 3 mm all distances are as much
    longer: what lies within one slice shows on its neighbours, too, once they are interpolated.
    """
    spacing = np.array(spacing_mm, float)
    reach = np.maximum(REACH_MM, 2 * np.array(case.stored_mm))
    half = np.ceil(reach / spacing).astype(int)
    part = cut_windows(case.image, np.array([ijk]), 2 * half + 1)[0]
    step = spacing * REACH_MM / reach
    ways = np.stack(np.meshgrid(*[np.arange(-h, h + 1) for h in half], indexing="ij"), -1)
    distance = np.linalg.norm(ways * step, axis=-1)
    brain = part > 0
    spot = dark_spot(part, brain, distance, _CENTRE_MM)
    if spot is None or spot.background - spot.darkest < _LEAST_CONTRAST * spot.background:
        return None
    for level in _LEVELS:
        core = spot.region(level)
        if not (core & (distance > BACKGROUND_MM)).any():
            beyond = ndimage.distance_transform_edt(~core, sampling=tuple(step))
            fade = np.clip((_FADE_MM[1] - beyond) / (_FADE_MM[1] - _FADE_MM[0]), 0, 1)
            return np.asarray(1 - fade * (1 - np.clip(part / spot.background, 0, 1)), np.float32)
    return None


def _varied(rng: np.random.Generator, shadow: np.ndarray) -> np.ndarray:
    """Return ``shadow`` fainter or a little deeper, mirrored and turned as windows are."""
    depth = 1 - float(shadow.min())
    varied = np.clip(depth * rng.uniform(*_DEPTHS), _LEAST_DEPTH, _MOST_DEPTH)
    (turned,) = flip_and_rotate(rng, 1 - (1 - shadow) * np.float32(varied / depth))
    return turned


def _is_tissue(case: PreparedCase, ijk: np.ndarray) -> bool:
    """Tell whether around voxel ``ijk`` of ``case`` there is brain, as bright as tissue."""
    low, high = ijk - _TISSUE_VOXELS, ijk + _TISSUE_VOXELS + np.array(1)
    if (low < 0).any() or (high > case.mask.shape).any():
        return False
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    level = float(np.mean(case.image[box], dtype=np.float32))
    return bool(case.mask[box].all()) and _TISSUE[0] <= level <= _TISSUE[1]
