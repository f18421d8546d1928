"""What a reader of the scan can tell: two neighbours as two, and a microbleed from iron and dark fluid beside it.

Labels of real scans hold only what somebody saw. A simulated microbleed that nobody can see teaches that dark iron, or
the end of a sulcus on SWI, is a microbleed, and counts as missed by a detector that knows better.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813

from CMBDetectorLib.simulation.fields import at_nearest, sample
from CMBDetectorLib.simulation.grid import centred_affine
from CMBDetectorLib.simulation.looks import point_spread
from CMBDetectorLib.simulation.physics import iron_decay
from CMBDetectorLib.simulation.protocols import Protocol
from CMBDetectorLib.simulation.tissue import TissueValues, fluid_share

_LEAST_GAP_MM = 2.5
_POINT_SPREADS_APART = 1.6
_SLICES_APART = 2.0  # from one to the next but one: between them is a slice that shows neither
_DARKER = 0.75  # of the darkest iron or fluid in reach
_REACH_MM, _STEP_MM = 3.0, 0.75
_MOST_CONTRAST = 0.9
# What iron leaves of the signal around: the background of a real microbleed is 0.35 at the least, white matter 0.49.
_LEAST_BACKGROUND = 0.7
_BACKGROUND_MM = (4.0, 6.0)
_LOOKS = 40


def told_apart(protocol: Protocol, axes: np.ndarray) -> np.ndarray:
    """Return the matrix (3, 3) that takes the way between two microbleeds (RAS mm) to one of length 1 or more if the
    scan shows them as two.

    ``axes`` (3, 3) are the unit vectors of the stored image's i, j and k in RAS, as columns.
    """
    in_slice = np.maximum(_LEAST_GAP_MM, _POINT_SPREADS_APART * point_spread(protocol))
    through = max(_LEAST_GAP_MM, _SLICES_APART * protocol.spacing_mm[2])
    return axes.T / np.array([*in_slice, through])[:, None]


def is_light_around(iron: sitk.Image, mni_mm: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Tell for positions (n, 3; MNI mm) whether ``iron`` (MNI mm, ppm) leaves more than 0.7 of the signal 4 to 6 mm
    away: in a black nucleus nobody sees a black spot."""
    ways = np.random.default_rng(0).standard_normal((_LOOKS, 3))
    ways *= (np.linspace(*_BACKGROUND_MM, _LOOKS) / np.linalg.norm(ways, axis=1))[:, None]
    amount = sitk.GetArrayViewFromImage(iron).reshape(iron.GetSize()[::-1])
    light = np.zeros(len(mni_mm), int)
    for way in ways:
        light += iron_decay(at_nearest(amount, iron, mni_mm + way), protocol) > _LEAST_BACKGROUND
    return np.asarray(light > _LOOKS / 2)


def least_contrast(
    anatomy: sitk.Image,
    iron: sitk.Image,
    values: TissueValues,
    to_template: sitk.Transform,
    head_mm: np.ndarray,
    protocol: Protocol,
    axes: np.ndarray,
) -> float:
    """Return the contrast (1 - signal with / without it) from which a microbleed at ``head_mm`` (3,), RAS mm, is a
    quarter darker than the darkest iron or fluid within 3 mm of it in its slice; at most 0.9.

    ``anatomy`` (gm, wm, depth) and ``iron`` (ppm) are in MNI mm, ``to_template`` takes RAS mm of the head there,
    ``axes`` as in :func:`told_apart`. Fluid counts where it is darker than white matter, as on most SWI.
    """
    half = round(_REACH_MM / _STEP_MM)
    thickness = protocol.spacing_mm[2] * protocol.thickness
    layers = max(1, round(thickness))
    shape = (2 * half + 1, 2 * half + 1, layers)
    steps = np.array([_STEP_MM, _STEP_MM, thickness / layers])
    affine = centred_affine(axes, steps, np.array(shape), head_mm)
    gm, wm, _ = sample(anatomy, affine, shape, to_template)
    fluid = fluid_share(gm, wm, values)
    tissue = iron_decay(sample(iron, affine, shape, to_template)[0], protocol)
    left = ((1 - fluid) * tissue + fluid * min(1.0, values.fluid / values.white)).mean(-1)
    away = _STEP_MM * np.hypot(*np.ogrid[-half : half + 1, -half : half + 1])
    darkest = float(left[away <= _REACH_MM].min())
    return min(_MOST_CONTRAST, 1 - _DARKER * darkest / float(left[half, half]))
