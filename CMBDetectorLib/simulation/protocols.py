"""The scan protocols that can be simulated."""

from __future__ import annotations

from dataclasses import dataclass

from CMBDetectorLib.errors import BadInputError


@dataclass(frozen=True)
class Protocol:
    """How a scan is taken.

    ``spacing_mm`` and ``shape`` are those of the stored image along i, j (in the slice) and k (through it).
    ``family`` is ``"swi"`` (3D, phase mask times magnitude, CSF about as white matter) or ``"t2star"`` (2D magnitude,
    bright CSF, arteries void of signal). ``zero_filling`` is stored over acquired matrix in the slice,
    ``oversampling`` simulated over stored matrix in the slice, ``sublayers`` the layers averaged to one slice.
    ``noise`` is the SD of the complex noise over white matter. A ``crop`` shows only a part of the brain.
    """

    name: str
    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]
    field_tesla: float
    echo_time_ms: float
    family: str
    zero_filling: int = 1
    oversampling: int = 1
    sublayers: int = 1
    noise: float = 0.04
    crop: bool = False

    @property
    def radians_per_ppm(self) -> float:
        """Phase (rad) that 1 ppm of field builds up until the echo: 2 pi * 42.577 MHz/T * B0 * TE."""
        return 2 * 3.141592653589793 * 42.577 * self.field_tesla * self.echo_time_ms * 1e-3


_ALL = (
    Protocol("swi-3t", (0.45, 0.45, 1.0), (512, 512, 150), 3.0, 24.0, "swi", noise=0.05),
    Protocol("swi-thick", (0.8, 0.8, 3.0), (288, 288, 50), 3.0, 20.0, "swi", sublayers=3, noise=0.035),
    Protocol("gre-thick", (0.45, 0.45, 4.0), (512, 512, 37), 1.5, 40.0, "t2star", zero_filling=2, sublayers=3),
    Protocol("gre-3mm", (1.0, 1.0, 3.0), (224, 224, 50), 3.0, 23.0, "t2star", oversampling=2, sublayers=2, noise=0.035),
    Protocol("crop", (0.45, 0.45, 1.0), (96, 96, 48), 3.0, 24.0, "swi", noise=0.05, crop=True),
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
