"""The scan protocols that can be simulated, and how scanners vary around them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from CMBDetectorLib.errors import BadInputError

_FIELD_OF_VIEW_MM = (220.0, 232.0)
_MATRIX_STEP = 8  # matrices are multiples of it: the transforms are quick and halves are whole
_ZERO_FILLINGS = (1.0, 1.3, 1.5, 2.0)
# No wider voxel is acquired (mm, in the slice): real microbleeds on coarse scans are 1.4 mm wide at the least.
_COARSEST_MM = 1.3
_THICK_SLICES_MM = (3.0, 4.0, 5.0)
_SUBLAYER_MM = 1.5
# Of the protocol's own. More than that no department reads: the faint microbleeds would be there for nobody.
_NOISES = (0.6, 1.4)
# Share of the scans whose contrast lies between the families, of those that are magnitude with (swi) or without mask.
_MIXED = 0.3
_UNUSUAL_MASK = 0.4


@dataclass(frozen=True)
class Protocol:
    """How a scan is taken.

    ``spacing_mm`` and ``shape`` are those of the stored image along i, j (in the slice) and k (through it).
    ``family`` is ``"swi"`` (3D, phase mask times magnitude, CSF about as white matter) or ``"t2star"`` (2D magnitude,
    bright CSF, arteries void of signal); ``mixed`` draws a contrast anywhere between the two. ``mask_power`` is that of
    the phase mask, None the usual one of the family. ``zero_filling`` is stored over acquired matrix in the slice,
    ``oversampling`` simulated over stored matrix in the slice, ``sublayers`` the layers averaged to one slice,
    ``thickness`` the slice over the distance of slices (below 1: gaps). ``noise`` is the SD of the complex noise over
    white matter. A ``crop`` shows only a part of the brain.
    """

    name: str
    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]
    field_tesla: float
    echo_time_ms: float
    family: str
    zero_filling: float = 1
    oversampling: int = 1
    sublayers: int = 1
    noise: float = 0.04
    crop: bool = False
    thickness: float = 1.0
    mixed: bool = False
    mask_power: float | None = None

    @property
    def phase_power(self) -> float:
        """Power of the phase mask: 0 leaves the magnitude as it is."""
        if self.mask_power is not None:
            return self.mask_power
        return 4.0 if self.family == "swi" else 0.0

    @property
    def radians_per_ppm(self) -> float:
        """Phase (rad) that 1 ppm of field builds up until the echo: 2 pi * 42.577 MHz/T * B0 * TE."""
        return 2 * 3.141592653589793 * 42.577 * self.field_tesla * self.echo_time_ms * 1e-3


_ALL = (
    Protocol("swi-3t", (0.45, 0.45, 1.0), (512, 512, 150), 3.0, 24.0, "swi", 1.3, noise=0.036),
    Protocol("swi-thick", (0.8, 0.8, 3.0), (288, 288, 50), 3.0, 20.0, "swi", 1.3, sublayers=3, noise=0.035),
    Protocol("gre-thick", (0.45, 0.45, 4.0), (512, 512, 37), 1.5, 40.0, "t2star", 2, sublayers=3, noise=0.034),
    Protocol(
        "gre-3mm", (1.0, 1.0, 3.0), (224, 224, 50), 3.0, 23.0, "t2star", 1.0, oversampling=2, sublayers=2, noise=0.034
    ),
    Protocol("crop", (0.45, 0.45, 1.0), (96, 96, 48), 3.0, 24.0, "swi", 1.3, noise=0.036, crop=True),
)
PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in _ALL}


def find_protocol(name: str) -> Protocol:
    """Return the protocol called ``name``.

    Raises:
        BadInputError: there is none of that name.
    """
    if name not in PROTOCOLS:
        raise BadInputError(f"There is no protocol called {name}.", f"Choose one of: {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def varied(protocol: Protocol, rng: np.random.Generator) -> Protocol:
    """Return a protocol around the given one, as another scanner may have it; the name stays.

    Echo time, field, voxels, matrix, zero filling, slice profile, noise and mask vary; about a third have a contrast
    between the families. A crop keeps its number of voxels.
    """
    field = float(rng.choice([1.5, 3.0], p=[0.35, 0.65]))
    # At half the field scanners wait longer, so that veins turn as far.
    echo = protocol.echo_time_ms * (protocol.field_tesla / field) ** 0.75 * float(rng.uniform(0.75, 1.25))
    in_plane = protocol.spacing_mm[0] * float(rng.uniform(0.85, 1.2))
    through = protocol.spacing_mm[2] * float(rng.uniform(0.85, 1.3))
    two_dimensional = protocol.family == "t2star"
    if two_dimensional and rng.random() < 0.5:
        through = float(rng.choice(_THICK_SLICES_MM))
    in_plane, through = round(in_plane, 3), round(through, 3)
    matrix = round(float(rng.uniform(*_FIELD_OF_VIEW_MM)) / in_plane / _MATRIX_STEP) * _MATRIX_STEP
    slices = int(np.ceil(protocol.shape[2] * protocol.spacing_mm[2] / through))
    mixed = bool(rng.random() < _MIXED)
    fillings = [filling for filling in _ZERO_FILLINGS if filling == 1 or filling * in_plane <= _COARSEST_MM]
    power = None
    if protocol.family == "swi":
        power = round(float(rng.uniform(2.0, 4.5)), 2)
    if mixed and rng.random() < _UNUSUAL_MASK:
        power = round(float(rng.uniform(1.5, 4.0)), 2) if two_dimensional else 0.0
    return replace(
        protocol,
        spacing_mm=(in_plane, in_plane, through),
        shape=protocol.shape if protocol.crop else (matrix, matrix, slices),
        field_tesla=field,
        echo_time_ms=round(echo, 1),
        zero_filling=float(rng.choice(fillings)),
        sublayers=max(1, round(through / _SUBLAYER_MM)) if protocol.sublayers > 1 else 1,
        noise=round(protocol.noise * float(np.exp(rng.uniform(*np.log(_NOISES)))), 4),
        thickness=round(float(rng.uniform(0.75, 1.1)), 2) if two_dimensional else 1.0,
        mixed=mixed,
        mask_power=power,
    )
