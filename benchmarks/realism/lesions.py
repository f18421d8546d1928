"""The microbleeds of a head as recorded, and what resembles them, found on the image itself.

The mimics are looked for in the image and not taken from the simulator's list, since nobody lists those of a real scan.
How the real ones were counted is known in outline only, so the counts are good for comparing versions of the simulator,
and for an order of magnitude against real scans.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

from realism.heads import Head
from realism.intensities import noise
from realism.spots import Looks, chains, darkest_near, find_spots, look_at, slices_seen
from realism.tubes import dark_lines

_NEIGHBOUR_MM = 5.0
_DARK, _DARK_SHARE = 0.35, 0.08
_FAINT = 0.2
_LEAST_DEPTH = 0.06
_LEAST_CONTRAST = 0.1
_FLUID_SHARE = 1 / 3
_PERSISTS_MM = 6.5
_ROUND = 1.6
_MARGIN_MM = 2.0
_TISSUE_MM = 6.0
_WIDTHS_MM = (0.8, 7.0)
_NOISE = 0.02
_SWI_SLICE_MM = 1.6


def microbleeds(head: Head) -> dict[str, np.ndarray]:
    """Return the figures of the recorded microbleeds: one value, or one row, each."""
    image, spacing = head.image.array, head.image.spacing
    at = darkest_near(image, head.microbleeds, spacing)
    at = at[np.isfinite(image[tuple(at.T)])]
    looks = look_at(image, at, spacing)
    known = np.isfinite(looks.background)
    looks, at = looks.chosen(known), at[known]
    level = fluid_level(head)
    place = head.microbleeds * np.array(spacing)
    apart = cKDTree(place).query(place, 2)[0][:, 1] if len(place) > 1 else np.full(len(place), np.inf)
    found = {
        "bleed_count": np.array([len(head.microbleeds)]),
        "bleed_centre": looks.centre,
        "bleed_background": looks.background,
        "bleed_contrast": looks.contrast,
        "bleed_width": looks.width_mm,
        "bleed_elongation": looks.elongation,
        "bleed_correlation": np.stack([looks.width_mm, looks.contrast], -1),
        "bleed_basal": head.regions["basal ganglia"][tuple(at.T)],
        "bleed_cluster": apart < _NEIGHBOUR_MM,
        "bleed_dark": _dark_around(image, looks, spacing),
        "bleed_faint": looks.background - looks.centre < _FAINT,
    }
    if level is not None:
        found["bleed_fluid"] = (looks.rim > level).mean(1) > 0.15
    if spacing[2] >= 2.5:
        counts = np.clip(slices_seen(image, at, spacing), 1, 4)
        found["bleed_slices"] = np.eye(4)[counts - 1]
    return found


def _dark_around(image: np.ndarray, looks: Looks, spacing: Sequence[float]) -> np.ndarray:
    """Tell for each spot whether over 8 % of the brain's voxels 1.5 to 5 mm outside its edge are below 0.35."""
    result = np.zeros(len(looks.ijk), bool)
    reach = [int(9 / s) for s in spacing[:2]]
    for number, (at, width) in enumerate(zip(looks.ijk, looks.width_mm, strict=True)):
        window = tuple(slice(max(0, a - r), a + r + 1) for a, r in zip(at, reach, strict=False))
        patch = image[(*window, at[2])]
        i, j = np.ogrid[window]
        distance = np.hypot((i[: patch.shape[0]] - at[0]) * spacing[0], (j[:, : patch.shape[1]] - at[1]) * spacing[1])
        ring = patch[(distance >= width / 2 + 1.5) & (distance <= width / 2 + 5) & np.isfinite(patch)]
        result[number] = ring.size > 0 and float((ring < _DARK).mean()) > _DARK_SHARE
    return result


def fluid_level(head: Head) -> float | None:
    """Return the intensity halfway between grey matter and fluid; None where fluid is not bright."""
    grey, fluid = (float(np.median(head.image.array[head.regions[name]])) for name in ("grey", "fluid"))
    return (grey + fluid) / 2 if fluid > grey + 0.15 else None


def mimics(head: Head) -> dict[str, np.ndarray]:
    """Return the figures of voids, vessels through the slice, dark tubes and bright dots."""
    image, spacing = head.image.array, head.image.spacing
    level = fluid_level(head)
    away = _away_from_microbleeds(head)
    limit = float(np.median(image[head.regions["white"]])) - 2 * _NOISE
    inner = head.rim_mm > _MARGIN_MM
    looks = _spots(image, spacing, inner & away)
    found = {}
    bordered = (looks.rim > level).mean(1) >= _FLUID_SHARE if level is not None else np.zeros(len(looks.ijk), bool)
    if level is not None:
        voids = looks.chosen(bordered & (looks.elongation < 3))
        found |= _objects("void", "voids", voids, spacing, 1)
    inside = (looks.elongation < _ROUND) & (looks.centre < limit) & _in_tissue(looks, level)
    inside &= head.rim_mm[tuple(looks.ijk.T)] > _TISSUE_MM
    slices = 1 + int(np.ceil(_PERSISTS_MM / spacing[2]))
    found |= _objects("through", "through", looks.chosen(inside), spacing, slices)
    brightest = level if level is not None else np.inf
    strength = _noise_in_band(image, head.regions["white"], spacing)
    lines = dark_lines(
        image, spacing, inner & away, noise=strength, below=limit, darkest_side=_DARK, brightest_side=brightest
    )
    found |= {
        "tubes": np.array([lines.length_mm / 1000]),
        "tube_contrast": lines.contrast,
        "tube_width": lines.width_mm,
    }
    if level is not None:
        found |= _dots(head, spacing)
    if spacing[0] < 0.7 and spacing[2] < _SWI_SLICE_MM:
        found |= {"vein_width": lines.width_mm, "vein_in": lines.contrast, "vein_through": found["through_contrast"]}
    return found


def veins(image: np.ndarray, spacing: Sequence[float]) -> dict[str, np.ndarray]:
    """Return the vein lines of an image alone (the real crop), measured as in :func:`mimics`."""
    limit = 0.5 - 2 * _NOISE
    everywhere = np.isfinite(image)
    strength = _noise_in_band(image, everywhere, spacing)
    lines = dark_lines(image, spacing, everywhere, noise=strength, below=limit, darkest_side=_DARK)
    looks = _spots(image, spacing, everywhere)
    looks = looks.chosen((looks.elongation < _ROUND) & (looks.centre < limit) & _in_tissue(looks, None))
    through = _objects("through", "through", looks, spacing, 1 + int(np.ceil(_PERSISTS_MM / spacing[2])))
    return {"vein_width": lines.width_mm, "vein_in": lines.contrast, "vein_through": through["through_contrast"]}


def _noise_in_band(image: np.ndarray, white: np.ndarray, spacing: Sequence[float]) -> float:
    """Return the SD of white noise as strong as that of ``image`` where ridges are looked for.

    Zero filling by 2 (autocorrelation .8) puts all noise into the lower half of the frequencies: twice as much there.
    """
    sd, first, _ = noise(image, white, spacing)
    return sd * (1 + 1.25 * max(0.0, first)) if np.isfinite(sd) else 0.0


def _away_from_microbleeds(head: Head) -> np.ndarray:
    """Return False within 3 mm (and one slice) of a recorded microbleed."""
    away = np.ones(head.image.shape, bool)
    reach = np.maximum(np.round(3 / np.array(head.image.spacing)), 1).astype(int)
    for at in np.round(head.microbleeds).astype(int):
        away[tuple(slice(max(0, a - r), a + r + 1) for a, r in zip(at, reach, strict=True))] = False
    return away


def _spots(image: np.ndarray, spacing: Sequence[float], where: np.ndarray) -> Looks:
    looks = look_at(image, find_spots(image, spacing, _LEAST_DEPTH, where), spacing)
    seen = (looks.width_mm >= _WIDTHS_MM[0]) & (looks.width_mm <= _WIDTHS_MM[1])
    return looks.chosen(seen & (looks.contrast >= _LEAST_CONTRAST))


def _in_tissue(looks: Looks, level: float | None) -> np.ndarray:
    """Tell for each spot whether at least 85 % of what lies around it is neither dark nor fluid (above ``level``)."""
    tissue = (looks.rim > _DARK) & (looks.rim < (level or np.inf))
    return tissue.mean(1) >= 0.85


def _objects(name: str, total: str, looks: Looks, spacing: Sequence[float], slices: int) -> dict[str, np.ndarray]:
    """Return count, contrasts and widths of what goes on through ``slices`` or more, each measured in the slice where
    it stands out most."""
    groups = chains(looks.ijk, spacing)
    contrast, width = [], []
    for members in np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1]):
        if len(members) and np.ptp(looks.ijk[members, 2]) + 1 >= slices:
            darkest = members[int(np.argmax(np.abs(looks.contrast[members])))]
            contrast.append(looks.contrast[darkest])
            width.append(looks.width_mm[darkest])
    return {
        total: np.array([len(contrast)]),
        f"{name}_contrast": np.array(contrast),
        f"{name}_width": np.array(width),
    }


def _dots(head: Head, spacing: Sequence[float]) -> dict[str, np.ndarray]:
    """Return the bright dots in white matter that are 2 % brighter than what is 4-6 mm away."""
    image = head.image.array
    at = find_spots(-image, spacing, 1.5 * _NOISE, head.regions["all white"] & (head.rim_mm > _TISSUE_MM))
    looks = look_at(image, at, spacing)
    level = fluid_level(head)
    keep = (looks.contrast < -0.02) & (looks.elongation < 2.5) & _in_tissue(looks, level)
    keep &= (looks.width_mm >= _WIDTHS_MM[0]) & (looks.width_mm <= _WIDTHS_MM[1])
    found = _objects("dot", "dots", looks.chosen(keep), spacing, 1)
    found["dot_contrast"] = -found["dot_contrast"]
    return found
