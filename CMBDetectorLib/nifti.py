"""What ITK lets pass in a NIfTI file without a word: checked on the raw bytes before it reads them.

Measured with SimpleITK 2.5: missing voxels become 0, NaN and infinite voxels become 0, a voxel size of 0 or NaN becomes
1 mm, and sheared axes are set straight, which moves every position.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.image_headers import check_size

_HEADER_BYTES = 348
# What may stand between header and voxels, and behind the voxels.
_MOST_EXTENSIONS = 1 << 24
_MOST_SURPLUS = 64 << 20
_BLOCK = 1 << 22
# Offset and type of the fields used here, from the NIfTI-1 header (nifti1.h).
_FIELDS = {
    "dim": (40, "8i2"),
    "datatype": (70, "i2"),
    "bitpix": (72, "i2"),
    "pixdim": (76, "8f4"),
    "vox_offset": (108, "f4"),
    "scale": (112, "2f4"),
    "units": (123, "u1"),
    "qform_code": (252, "i2"),
    "sform_code": (254, "i2"),
    "quatern": (256, "6f4"),
    "srow": (280, "(3,4)f4"),
}
_FLOATS = {16: "f4", 64: "f8"}
_TYPES = {**_FLOATS, 2: "u1", 4: "i2", 8: "i4", 256: "i1", 512: "u2", 768: "u4"}
_UNITS = {1: "metres", 3: "micrometres"}
_NIFTI_2 = (b"n+2", b"ni2")
UNKNOWN_SIDES = "The header does not say how the scan lies in the patient: left and right are a guess."
# Slope and intercept; a slope of 0 means none.
_UNSCALED = ((0.0, 0.0), (1.0, 0.0))


@dataclass(frozen=True)
class NiftiHeader:
    """The geometry that a NIfTI file states: the sform and qform affines (4x4, voxel to RAS mm), where it has them.

    ``unit`` names the unit that they are said to have where it is another than mm.
    """

    sform: np.ndarray | None
    qform: np.ndarray | None
    unit: str | None = None

    def agrees(self, ijk_to_ras: np.ndarray, shape: tuple[int, ...], tolerance_mm: float = 0.5) -> bool:
        """Tell whether ``ijk_to_ras`` puts the corners of the grid where one of the stated affines puts them."""
        stated = [affine for affine in (self.sform, self.qform) if affine is not None]
        return not stated or any(corner_shift(affine, ijk_to_ras, shape) <= tolerance_mm for affine in stated)

    def note(self, ijk_to_ras: np.ndarray, shape: tuple[int, ...], tolerance_mm: float = 0.5) -> str | None:
        """Return a sentence for the user on what is doubtful in the geometry ``ijk_to_ras``, as it was read.

        ``None`` where there is one geometry only: sform and qform agree in the corners of the grid to ``tolerance_mm``.
        """
        if self.sform is None and self.qform is None:
            return UNKNOWN_SIDES
        if self.sform is None or self.qform is None or corner_shift(self.sform, self.qform, shape) <= tolerance_mm:
            return None
        # ITK takes the qform unless the code of the sform is 1; what it did is measured rather than guessed.
        used, other = "sform", "qform"
        if corner_shift(self.qform, ijk_to_ras, shape) < corner_shift(self.sform, ijk_to_ras, shape):
            used, other = other, used
        if np.linalg.det(self.sform[:3, :3]) * np.linalg.det(self.qform[:3, :3]) < 0:
            return (
                "Left and right are uncertain: the qform and the sform in the header are mirror images of each other; "
                f"the {used} was used, and in programs that use the {other} the sides are exchanged."
            )
        return (
            "The qform and the sform in the header put the scan in different places: "
            f"the {used} was used, and positions made with programs that use the {other} lie elsewhere."
        )


def corner_shift(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """Return how many mm (largest along R, A or S) two affines (4x4) put a corner voxel of a grid apart."""
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], [1], indexing="ij"), -1).reshape(-1, 4)
    return float(np.abs(corners @ (one - other).T).max())


def check_nifti(path: Path) -> NiftiHeader | None:
    """Read the whole file once and return its geometry; ``None`` where it is no NIfTI-1 file (ITK shall say so).

    Raises:
        BadInputError: the file is no complete gzip file though it is named so, is NIfTI-2, claims more voxels than any
            scan has, is shorter than its header says, holds voxels that are not finite, or has no voxel size.
    """
    name = path.name
    packed = name.lower().endswith(".gz")
    try:
        with gzip.open(path, "rb") if packed else open(path, "rb") as stream:
            head = stream.read(_HEADER_BYTES)
            if not packed and head[:2] == b"\x1f\x8b":
                raise BadInputError(f"{name} is compressed, but not named so.", f"Rename it to {name}.gz.")
            if head[4:7] in _NIFTI_2:
                raise BadInputError(f"{name} is a NIfTI-2 file, which cannot be read.", "Convert it to NIfTI-1.")
            fields = _parse(head)
            if fields is None:
                if packed:
                    _rest(stream, None, _MOST_SURPLUS)
                return None
            _check_voxels(name, stream, fields)
    except PermissionError as error:
        raise BadInputError(f"{name} cannot be read: permission denied.", "Ask for permission to read it.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise BadInputError(
            f"{name} is damaged: it is not a complete gzip file.", "Copy or export the file again."
        ) from error
    return _geometry(name, fields)


def looks_whole(path: Path) -> bool:
    """Tell in no time whether a NIfTI file has the length its header states; a gzip file notes it in its last bytes.

    ``False`` says little (gzip files may be made of several parts): :func:`check_nifti` then looks at all of it.
    """
    packed = path.name.lower().endswith(".gz")
    try:
        with gzip.open(path, "rb") if packed else open(path, "rb") as stream:
            fields = _parse(stream.read(_HEADER_BYTES))
        with open(path, "rb") as stream:
            length = stream.seek(0, 2)
            if packed:
                stream.seek(-4, 2)
                length = int.from_bytes(stream.read(4), "little")
    except (OSError, EOFError, zlib.error):
        return False
    axes = int(fields["dim"][0]) if fields is not None else 0
    if fields is None or not 0 < axes < 8 or not 0 <= fields["vox_offset"] < _MOST_EXTENSIONS:
        return False
    voxels = int(np.prod(fields["dim"][1 : axes + 1], dtype=object))
    stated = voxels * int(fields["bitpix"]) // 8 + max(int(fields["vox_offset"]), _HEADER_BYTES)
    return length == (stated % (1 << 32) if packed else stated)


def first_voxels(path: Path, count: int) -> np.ndarray | None:
    """Return the first ``count`` voxels of a NIfTI file as float32 (or all it has), in the order they are stored.

    ``None`` where they are scaled, where their type is a rare one, or where the file cannot be read.
    """
    try:
        with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else open(path, "rb") as stream:
            fields = _parse(stream.read(_HEADER_BYTES))
            kind = None if fields is None else _TYPES.get(int(fields["datatype"]))
            is_plain = fields is not None and kind is not None and tuple(fields["scale"]) in _UNSCALED
            if not is_plain or not 0 <= fields["vox_offset"] < _MOST_EXTENSIONS:
                return None
            stream.read(max(int(fields["vox_offset"]) - _HEADER_BYTES, 0))
            data = stream.read(count * np.dtype(kind).itemsize)
    except (OSError, EOFError, zlib.error, ValueError, OverflowError):
        return None
    order = fields["dim"].dtype.byteorder
    return np.frombuffer(data, np.dtype(kind).newbyteorder(order), len(data) // np.dtype(kind).itemsize).astype("<f4")


def _parse(head: bytes) -> dict[str, np.ndarray] | None:
    if len(head) < _HEADER_BYTES:
        return None
    for order in "<>":
        if int(np.frombuffer(head, f"{order}i4", 1)[0]) == _HEADER_BYTES:
            return {
                key: np.frombuffer(head, np.dtype(kind).newbyteorder(order), 1, offset)[0]
                for key, (offset, kind) in _FIELDS.items()
            }
    return None


def _check_voxels(name: str, stream: BinaryIO, fields: dict[str, np.ndarray]) -> None:
    axes = int(fields["dim"][0])
    sizes = [int(n) for n in fields["dim"][1 : axes + 1]] if 0 < axes < 8 else []
    # ITK takes a fourth axis of no length for one volume.
    sizes[3:] = [n or 1 for n in sizes[3:]]
    if not sizes or min(sizes) < 1 or any(n > 1 for n in sizes[3:]):
        # Whoever opens it says that it has several volumes, without reading them.
        return
    needed = int(np.prod(sizes, dtype=object)) * int(fields["bitpix"]) // 8
    # Before anything is unpacked: of a small file that claims much, the claim is all that is read.
    check_size(name, sizes)
    offset = float(fields["vox_offset"])
    if not offset < _MOST_EXTENSIONS:
        raise BadInputError(f"{name} is damaged: its header makes no sense.", "Copy or export the file again.")
    skip = int(max(offset, _HEADER_BYTES)) - _HEADER_BYTES
    skipped = len(stream.read(skip))
    kind = _FLOATS.get(int(fields["datatype"]))
    order = fields["dim"].dtype.byteorder
    there, bad = _rest(stream, np.dtype(kind).newbyteorder(order) if kind else None, needed + _MOST_SURPLUS)
    if skipped < skip or there < needed:
        raise BadInputError(f"{name} is damaged: it is shorter than its header says.", "Copy or export the file again.")
    if there > needed + _MOST_SURPLUS:
        raise BadInputError(f"{name} is damaged: it is longer than its header says.", "Copy or export the file again.")
    if bad:
        raise BadInputError(
            f"{name} holds voxels that are not finite numbers (NaN or infinite; {bad} in all).",
            "Export the scan again, or replace these voxels by 0.",
        )


def _rest(stream: BinaryIO, floats: np.dtype | None, most: int) -> tuple[int, int]:
    """Read to the end, or until more than ``most`` bytes have come.

    Return how many bytes there were and how many of the ``floats`` among them are not finite.
    """
    there = bad = 0
    # A block of a buffered or gzip stream is only short at the end, so that no number is cut in two.
    while there <= most and (block := stream.read(_BLOCK)):
        there += len(block)
        if floats is not None:
            numbers = np.frombuffer(block, floats, len(block) // floats.itemsize)
            bad += numbers.size - int(np.count_nonzero(np.isfinite(numbers)))
    return there, bad


def _geometry(name: str, fields: dict[str, np.ndarray]) -> NiftiHeader:
    pixdim = fields["pixdim"].astype(float)
    sform = qform = None
    if int(fields["sform_code"]) > 0:
        sform = np.vstack([fields["srow"].astype(float), [0, 0, 0, 1]])
    if int(fields["qform_code"]) > 0:
        qform = _quaternion_affine(fields["quatern"].astype(float), pixdim)
    sizes = np.linalg.norm(sform[:3, :3], axis=0) if sform is not None else np.abs(pixdim[1:4])
    if not (np.isfinite(sizes).all() and (sizes > 0).all()) or (sform is not None and not np.isfinite(sform).all()):
        raise BadInputError(f"{name} has no valid voxel size.", "Export the scan again; its header is damaged.")
    return NiftiHeader(sform, qform, _UNITS.get(int(fields["units"]) & 7))


def _quaternion_affine(quatern: np.ndarray, pixdim: np.ndarray) -> np.ndarray:
    """Return the affine of (b, c, d, x, y, z) and the voxel sizes, as in nifti1.h, method 2."""
    b, c, d = quatern[:3]
    a = np.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    affine = np.eye(4)
    affine[:3, :3] = rotation * pixdim[1:4] * [1, 1, -1 if pixdim[0] < 0 else 1]
    affine[:3, 3] = quatern[3:]
    return affine
