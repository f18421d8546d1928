"""Small pictures of one place of a scan: axial, sagittal and coronal planes and a minimum projection.

Sampled along R, A and S whatever the axes of the scan are, so that flipped, oblique and anisotropic scans look alike,
and laid out in radiological convention: the patient's right is on the left of the picture, anterior or superior on top.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from CMBDetectorLib.volume import Volume

FIELD_OF_VIEW_MM = 40.0
SLAB_MM = 16.0
_PIXEL_MM = 0.3125

# Name -> directions in RAS of the picture's columns (to the right) and rows (downwards), and the letters at its edges.
_PLANES = {
    "axial": ((-1, 0, 0), (0, -1, 0), "RLAP"),
    "sagittal": ((0, -1, 0), (0, 0, -1), "APSI"),
    "coronal": ((-1, 0, 0), (0, 0, -1), "RLSI"),
}


@dataclass(frozen=True)
class Thumbnail:
    """One picture: ``png`` bytes (grey), its ``name`` and the letters at its left, right, top and bottom edge."""

    name: str
    png: bytes
    edges: str


def grey_window(scan: Volume) -> tuple[float, float]:
    """Return the intensities shown as black and white: the range of ``scan`` without its extremes."""
    # Every third voxel along each axis tells as much about percentiles as all of them.
    sample = scan.array[::3, ::3, ::3]
    low = float(np.percentile(sample, 0.5))
    high = float(np.percentile(sample[sample >= sample.mean()], 99.0))
    return low, max(high, low + 1e-6)


def thumbnails(scan: Volume, ras_mm: Sequence[float], window: tuple[float, float]) -> list[Thumbnail]:
    """Return pictures of 40 x 40 mm around ``ras_mm``: three planes and an axial minimum projection over 16 mm.

    ``window`` is what :func:`grey_window` gave for the scan. Beyond the field of view the pictures are black.
    """
    centre = np.asarray(ras_mm, dtype=float)
    pictures = []
    for name, (columns, rows, edges) in _PLANES.items():
        plane = sample_plane(scan, centre, columns, rows)
        pictures.append(Thumbnail(name, png(plane, window), edges))
    columns, rows, edges = _PLANES["axial"]
    step = max(0.5, min(scan.spacing))
    depths = np.arange(-SLAB_MM / 2, SLAB_MM / 2 + step / 2, step)
    slab = [sample_plane(scan, centre + np.array([0, 0, depth]), columns, rows) for depth in depths]
    pictures.append(Thumbnail("minimum projection", png(np.fmin.reduce(slab), window), edges))
    return pictures


def sample_plane(scan: Volume, centre: np.ndarray, columns: Sequence[float], rows: Sequence[float]) -> np.ndarray:
    """Return the plane (rows, columns) through ``centre`` (RAS mm), linearly interpolated; NaN beyond the scan.

    ``columns`` and ``rows`` are the RAS unit vectors of the picture's directions to the right and downwards.
    """
    half = np.arange(_PIXEL_MM / 2, FIELD_OF_VIEW_MM / 2, _PIXEL_MM)
    offsets = np.concatenate([-half[::-1], half])
    places = centre + offsets[:, None, None] * np.array(rows) + offsets[None, :, None] * np.array(columns)
    ijk = scan.to_ijk(places)
    plane = ndimage.map_coordinates(scan.array, np.moveaxis(ijk, -1, 0), np.float32, order=1, mode="nearest")
    # A voxel reaches half its size beyond its centre; what lies farther out was not scanned.
    outside = ((ijk < -0.5) | (ijk > np.array(scan.shape) - 0.5)).any(axis=-1)
    return np.where(outside, np.nan, plane)


def png(picture: np.ndarray, window: tuple[float, float]) -> bytes:
    """Return ``picture`` (rows, columns) as an 8-bit grey PNG, black to white over ``window``; NaN is black."""
    low, high = window
    grey = np.clip((np.nan_to_num(picture, nan=low) - low) / (high - low), 0, 1)
    pixels = np.round(255 * grey).astype(np.uint8)
    # Each row begins with its filter; 0 leaves the row as it is (PNG specification, section 9).
    rows = np.pad(pixels, ((0, 0), (1, 0))).tobytes()
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
