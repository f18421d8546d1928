"""From the look of a microbleed - width and contrast on the scan - to the blood that gives it.

Readers see width and contrast, and on real scans the two are unrelated; the physics knows radius and susceptibility,
which move both. So the look is drawn and the cause is solved for, on a small patch acquired as the scan will be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from CMBDetectorLib.simulation.inclusions import Inclusion, Unit, row, unit
from CMBDetectorLib.simulation.physics import phase_mask
from CMBDetectorLib.simulation.protocols import Protocol

# Percentiles to draw from. Those seen on a scan come out as on real T2*-GRE: noise and what lies around make spots a
# little wider and, with the phase mask, blacker than they are alone. On SWI only the diameters of labels are known
# (Dou 2016: 3.06 mm, 1.96 to 4.02); of labels on T2*-GRE the width at half contrast is 0.7.
_PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
_WIDTHS = {
    "t2star": (1.3, 1.4, 1.65, 1.85, 2.35, 4.3, 6.7),
    "swi": (1.3, 1.4, 1.8, 2.1, 2.5, 3.6, 6.0),
}
_ELONGATIONS = (1.0, 1.05, 1.13, 1.2, 1.27, 1.7, 2.3)
_CONTRASTS = {
    "t2star": (0.28, 0.30, 0.33, 0.50, 0.66, 0.87, 0.95),
    "swi": (0.25, 0.29, 0.41, 0.58, 0.77, 0.95, 1.0),
}
_RADII_MM = (0.3, 4.5)
_CHIS = np.geomspace(0.008, 5.0, 11)
_ROUNDS = 7
_NARROWEST = (1.05, 1.25)  # point spreads: nothing is narrower on the scan
_NEAR_ENOUGH = 0.04
_PATCH_STEP_MM = 0.3
_THROUGH_STEP_MM = 0.4
_POINT_SPREAD = 1.35  # full width of the k-space taper over the acquired voxel
_INTERPOLATED = 0.6  # stored voxels by which looking between voxels blurs
_FWHM_PER_SD = 2.355
_TALLER = 0.25  # share of bleeds that a thick slice shows longer through the slice than wide
# Heights in slices. What is narrow and goes on through four slices is a vessel: to call it a microbleed would teach
# that nothing tells the two apart. Dipole lobes add most of a slice above and below what is black.
_TALL_SLICES = (0.7, 1.6)
_FILLS_SLICE = 1.2


@dataclass(frozen=True)
class Look:
    """``width_mm`` in the slice (full width at half contrast), ``contrast`` 1 - centre / surroundings, ``elongation``
    in the slice, ``height_mm`` through it."""

    width_mm: float
    contrast: float
    elongation: float
    height_mm: float


def draw_look(rng: np.random.Generator, protocol: Protocol, widest_mm: float = np.inf) -> Look:
    """Return the look of one microbleed; width and contrast are unrelated."""
    narrowest = float(rng.uniform(*_NARROWEST)) * point_spread(protocol)[0]
    kind = "swi" if protocol.phase_power else "t2star"
    width = max(min(_drawn(rng, _WIDTHS[kind]), widest_mm), narrowest)
    contrast = _drawn(rng, _CONTRASTS[kind])
    thickness = protocol.spacing_mm[2]
    height = width * float(rng.uniform(0.4, 0.9 if thickness > 2 else 1.3))
    if thickness > 2 and rng.random() < _TALLER:
        height = max(height, thickness * float(rng.uniform(*_TALL_SLICES)))
    return Look(width, contrast, _drawn(rng, _ELONGATIONS), height)


def point_spread(protocol: Protocol) -> np.ndarray:
    """Return the full width (mm) along i and j that a point gets on the scan."""
    return np.array(protocol.spacing_mm[:2]) * np.hypot(_POINT_SPREAD * protocol.zero_filling, _INTERPOLATED)


def _drawn(rng: np.random.Generator, values: Sequence[float]) -> float:
    return float(np.interp(rng.uniform(0, 100), _PERCENTILES, values))


def bleed_with_look(
    rng: np.random.Generator,
    centre_mm: np.ndarray,
    look: Look,
    protocol: Protocol,
    stored_affine: np.ndarray,
    b: Sequence[float],
) -> Inclusion:
    """Return blood around ``centre_mm`` (RAS mm of the head) that looks like ``look`` on the stored grid.

    Radius by bisection of the width, susceptibility by the contrast at each radius; what the slices cannot show comes
    as near as it can.
    """
    seed = int(rng.integers(2**31))
    angle = rng.uniform(0, np.pi)
    thickness = protocol.spacing_mm[2]
    filled = _FILLS_SLICE * thickness
    while True:
        bleed, contrast = _solved(centre_mm, look, protocol, stored_affine, b, angle, seed)
        if contrast > look.contrast - _NEAR_ENOUGH or look.height_mm >= filled:
            return bleed
        # Narrow and black in a thick slice: it has to fill the slice, and needs no more.
        look = replace(look, height_mm=min(max(1.5 * look.height_mm, 0.7 * thickness), filled))


def _solved(
    centre_mm: np.ndarray,
    look: Look,
    protocol: Protocol,
    stored_affine: np.ndarray,
    b: Sequence[float],
    angle: float,
    seed: int,
) -> tuple[Inclusion, float]:
    """Return the bleed of the width of ``look`` and the nearest contrast, and that contrast."""
    axes = stored_affine[:3, :3] / np.linalg.norm(stored_affine[:3, :3], axis=0)
    lean = axes[:, 0] * np.cos(angle) + axes[:, 1] * np.sin(angle)
    narrowest = point_spread(protocol)[0]
    ratio = np.sqrt(np.clip(look.elongation, 1.0, max(1.1, (look.width_mm / narrowest) ** 2)))
    patch = _Patch(centre_mm, look, protocol, stored_affine, b)

    def shape(radius: float) -> Inclusion:
        wide = look.width_mm * (ratio - 1 / ratio)
        length = lean * wide + axes[:, 2] * max(0.0, look.height_mm - 2 * radius)
        return row(np.random.default_rng(seed), centre_mm, radius, length)

    low, high = np.log(_RADII_MM[0]), np.log(min(_RADII_MM[1], 0.75 * look.width_mm))
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        chi, contrast, width = patch.solve(shape(float(np.exp(middle))), look.contrast)
        low, high = (low, middle) if width > look.width_mm else (middle, high)
    return shape(float(np.exp(middle))).changed(chi), contrast


class _Patch:
    """The part of the stored grid around a bleed: the voxels of its slice, and points between and within them."""

    def __init__(
        self, centre_mm: np.ndarray, look: Look, protocol: Protocol, affine: np.ndarray, b: Sequence[float]
    ) -> None:
        self._protocol, self._b = protocol, b
        spacing = np.array(protocol.spacing_mm)
        index = np.linalg.inv(affine[:3, :3]) @ (np.asarray(centre_mm) - affine[:3, 3])
        away = np.round(index) - index
        self._per_voxel = [1 if look.width_mm > 4 else max(1, round(s / _PATCH_STEP_MM)) for s in spacing[:2]]
        self._step = spacing[:2] / self._per_voxel
        half = [int(np.ceil((0.5 * look.width_mm * look.elongation + 2.0) / s)) for s in spacing[:2]]
        self._half = [h * p for h, p in zip(half, self._per_voxel, strict=True)]
        lines = [(np.arange(-h, h + 1)) / p for h, p in zip(self._half, self._per_voxel, strict=True)]
        # Thin slices: the darkest may be one off the middle, where the poles of the dipole are.
        self._slices = (-1, 0, 1) if spacing[2] <= 1.1 else (0,)
        count = max(2, round(spacing[2] / _THROUGH_STEP_MM))
        within = protocol.thickness * ((np.arange(count) + 0.5) / count - 0.5)
        levels = np.concatenate([k + within for k in self._slices])
        grid = np.stack(np.meshgrid(*lines, levels, indexing="ij"), -1) + away
        self._offsets = (grid @ affine[:3, :3].T).astype(np.float32)
        self._blur = point_spread(protocol) / _FWHM_PER_SD / self._step
        self._within = count

    def solve(self, inclusion: Inclusion, contrast: float) -> tuple[float, float, float]:
        """Return the chi (ppm) that gives ``inclusion`` this contrast, or the nearest, contrast and width (mm) then."""
        alone = unit(self._offsets, inclusion, self._protocol, self._b)
        low, high = 0, len(_CHIS) - 1
        known: dict[int, float] = {}
        while high - low > 1:
            middle = (low + high) // 2
            known[middle] = self._seen(alone, _CHIS[middle])[0]
            low, high = (low, middle) if known[middle] > contrast else (middle, high)
        for end in (low, high):
            known.setdefault(end, self._seen(alone, _CHIS[end])[0])
        part = np.clip((contrast - known[low]) / max(known[high] - known[low], 1e-3), 0, 1)
        chi = float(np.exp((1 - part) * np.log(_CHIS[low]) + part * np.log(_CHIS[high])))
        return chi, *self._seen(alone, chi)

    def _seen(self, alone: Unit, chi: float) -> tuple[float, float]:
        """Return contrast and width (mm) at ``chi`` ppm."""
        signal = alone.signal(chi, self._protocol)
        signal = signal.reshape(*signal.shape[:2], len(self._slices), self._within).mean(-1)
        sigma = (*self._blur, 0)
        signal = ndimage.gaussian_filter(signal, sigma, mode="nearest")
        left = np.abs(signal)
        if self._protocol.phase_power:
            left *= phase_mask(np.angle(signal), self._protocol.phase_power)
        i, j = self._half
        reach = [max(p, 1) for p in self._per_voxel]
        core = left[i - reach[0] : i + reach[0] + 1 : reach[0], j - reach[1] : j + reach[1] + 1 : reach[1]]
        slice_ = int(np.argmin(core.min((0, 1))))
        value = float(core[..., slice_].min())
        labels, _ = ndimage.label(left[..., slice_] < (1 + value) / 2)
        region = labels == labels[i, j] if labels[i, j] else labels > 0
        return 1 - value, float(2 * np.sqrt(region.sum() * self._step.prod() / np.pi))
