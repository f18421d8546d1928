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

from CMBDetectorLib.volume import Volume, resample_onto

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
class Picture:
    """One picture: grey ``pixels`` (rows, columns; uint8), its ``name`` and the letters at its left, right, top and
    bottom edge."""

    name: str
    pixels: np.ndarray
    edges: str


@dataclass(frozen=True)
class Thumbnail:
    """One picture: ``png`` bytes (grey), its ``name`` and the letters at its left, right, top and bottom edge."""

    name: str
    png: bytes
    edges: str


def grey_window(scan: Volume) -> tuple[float, float]:
    """Return the intensities shown as black and white: the range of ``scan`` without its extremes."""
    # A quarter of a million voxels tell as much about percentiles as all of them.
    step = max(1, round((scan.array.size / 250_000) ** (1 / 3)))
    sample = scan.array[::step, ::step, ::step]
    low = float(np.percentile(sample, 0.5))
    high = float(np.percentile(sample[sample >= sample.mean()], 99.0))
    return low, max(high, low + 1e-6)


def thumbnails(scan: Volume, ras_mm: Sequence[float], window: tuple[float, float]) -> list[Thumbnail]:
    """Return the :func:`pictures` of a place as PNG files."""
    return [Thumbnail(p.name, encode_png(p.pixels), p.edges) for p in pictures(scan, ras_mm, window)]


def pictures(scan: Volume, ras_mm: Sequence[float], window: tuple[float, float]) -> list[Picture]:
    """Return pictures of 40 x 40 mm around ``ras_mm``: three planes and an axial minimum projection over 16 mm.

    ``window`` is what :func:`grey_window` gave for the scan. Beyond the field of view the pictures are black.
    """
    centre = np.asarray(ras_mm, dtype=float)
    shown = []
    for name, (columns, rows, edges) in _PLANES.items():
        shown.append(Picture(name, grey(sample_plane(scan, centre, columns, rows), window), edges))
    columns, rows, edges = _PLANES["axial"]
    step = max(0.5, min(scan.spacing))
    slab = sample_block(scan, centre, columns, rows, np.arange(-SLAB_MM / 2, SLAB_MM / 2 + step / 2, step))
    shown.append(Picture("minimum projection", grey(np.fmin.reduce(slab), window), edges))
    return shown


def sample_plane(scan: Volume, centre: np.ndarray, columns: Sequence[float], rows: Sequence[float]) -> np.ndarray:
    """Return the plane (rows, columns) through ``centre`` (RAS mm), linearly interpolated; NaN beyond the scan.

    ``columns`` and ``rows`` are the RAS unit vectors of the picture's directions to the right and downwards.
    """
    return sample_block(scan, centre, columns, rows, np.zeros(1))[0]


def sample_block(
    scan: Volume, centre: np.ndarray, columns: Sequence[float], rows: Sequence[float], depths_mm: np.ndarray
) -> np.ndarray:
    """Return parallel planes (depths, rows, columns) at evenly spaced ``depths_mm`` from the one through ``centre``.

    Depths count along columns x rows; everything else is as in :func:`sample_plane`.
    """
    size = round(FIELD_OF_VIEW_MM / _PIXEL_MM)
    step = float(depths_mm[1] - depths_mm[0]) if len(depths_mm) > 1 else 1.0
    shape = (size, size, len(depths_mm))
    affine = np.eye(4)
    affine[:3, :3] = np.stack(
        [np.array(columns) * _PIXEL_MM, np.array(rows) * _PIXEL_MM, np.cross(columns, rows) * step], 1
    )
    half = (size - 1) / 2
    affine[:3, 3] = np.asarray(centre) + affine[:3, :3] @ np.array([-half, -half, depths_mm[0] / step])
    grid = Volume(np.broadcast_to(np.float32(0), shape), affine)
    corners = scan.to_ijk(grid.to_ras(_corners(shape)))
    last = np.array(scan.shape) - 1
    lower = np.clip(np.floor(corners.min(axis=0)).astype(int) - 1, 0, last)
    upper = np.maximum(np.ceil(corners.max(axis=0)).astype(int) + 2, lower + 1)
    around = scan.cropped(lower, upper)
    # SimpleITK takes 13 ms for 16 mm in steps of 0.5 mm, ndimage.map_coordinates 60 and affine_transform 29.
    block = resample_onto(grid, Volume(around.array.astype(np.float32), around.ijk_to_ras)).array
    # A voxel reaches half its size beyond its centre; what lies farther out was not scanned.
    if (corners < -0.5).any() or (corners > last + 0.5).any():
        ijk = scan.to_ijk(grid.to_ras(np.moveaxis(np.indices(shape), 0, -1)))
        block = np.where(((ijk < -0.5) | (ijk > last + 0.5)).any(axis=-1), np.nan, block)
    return block.transpose(2, 1, 0)


def _corners(shape: Sequence[int]) -> np.ndarray:
    return np.stack(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij"), -1).reshape(-1, 3)


def grey(picture: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Return ``picture`` as uint8, black to white over ``window``; NaN is black."""
    low, high = window
    shades = np.clip((np.nan_to_num(picture, nan=low) - low) / (high - low), 0, 1)
    return np.round(255 * shades).astype(np.uint8)


def png(picture: np.ndarray, window: tuple[float, float]) -> bytes:
    """Return ``picture`` (rows, columns) as an 8-bit grey PNG, black to white over ``window``; NaN is black."""
    return encode_png(grey(picture, window))


def encode_png(pixels: np.ndarray) -> bytes:
    """Return ``pixels`` (rows, columns; uint8) as a grey PNG."""
    # Each row begins with its filter; 0 leaves the row as it is (PNG specification, section 9).
    rows = np.pad(pixels, ((0, 0), (1, 0))).tobytes()
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
