"""An image with its geometry, and its reading and writing: the only room that knows LPS, RAS and IJK.

Everywhere else an array has the axes ``(i, j, k)`` of its :class:`Volume`, and a position is RAS millimetres of the
scan as stored or a (fractional) ``ijk`` voxel index of a named volume. SimpleITK's arrays are ``(k, j, i)`` and its
positions LPS; both are turned here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813

from CMBDetectorLib.dicom import itk_reason, read_series
from CMBDetectorLib.errors import BadInputError, CMBDetectorError, OutOfMemoryError, is_out_of_memory
from CMBDetectorLib.files import atomic_path
from CMBDetectorLib.image_headers import TEXT_HEADERS, check_data_files, check_stored, states_orientation
from CMBDetectorLib.nifti import UNKNOWN_SIDES, check_nifti, corner_shift, looks_whole

# Some writers round the direction cosines of oblique scans; ITK would refuse them.
os.environ.setdefault("ITK_NIFTI_SFORM_PERMISSIVE", "1")

_LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_NO_COSINE = 1e-12
_FILE_ENDINGS = (".nii", ".nii.gz", *TEXT_HEADERS)
_FEWEST_VOXELS = 4
_SHORTEST_EXTENT_MM = 8.0
_LONGEST_EXTENT_MM = 600.0
_MOST_SHEAR_MM = 0.5


@dataclass(frozen=True)
class Volume:
    """A 3D image: ``array`` with axes (i, j, k) and the affine ``ijk_to_ras`` (4x4, mm, voxel centres at integers).

    ``source`` describes where it came from: ``kind``, file ``name``, perhaps a ``note`` for the user, of a resampled
    scan its own voxels (:func:`stored_spacing`); no patient data.
    """

    array: np.ndarray
    ijk_to_ras: np.ndarray
    source: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along i, j, k."""
        return tuple(int(n) for n in self.array.shape)  # type: ignore[return-value]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along i, j, k in mm."""
        return tuple(float(s) for s in np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0))  # type: ignore[return-value]

    @property
    def orientation(self) -> str:
        """The anatomical directions nearest to i, j, k, for instance ``"LPS"``."""
        axes, signs = _nearest_axes(self.ijk_to_ras)
        return "".join(("RAS" if sign > 0 else "LPI")[axis] for axis, sign in zip(axes, signs, strict=True))

    def to_ras(self, ijk: np.ndarray) -> np.ndarray:
        """Turn voxel indices (..., 3) of this volume into RAS mm (..., 3)."""
        ijk = np.asarray(ijk, dtype=float)
        return ijk @ self.ijk_to_ras[:3, :3].T + self.ijk_to_ras[:3, 3]

    def to_ijk(self, ras_mm: np.ndarray) -> np.ndarray:
        """Turn RAS mm (..., 3) into fractional voxel indices (..., 3) of this volume."""
        ras_mm = np.asarray(ras_mm, dtype=float)
        return (ras_mm - self.ijk_to_ras[:3, 3]) @ np.linalg.inv(self.ijk_to_ras[:3, :3]).T

    def with_array(self, array: np.ndarray) -> Volume:
        """Return another image on the same grid; ``array`` must have this volume's shape."""
        if array.shape != self.array.shape:
            raise ValueError(f"array of shape {array.shape} on a grid of shape {self.array.shape}")
        return Volume(array, self.ijk_to_ras, self.source)

    def same_grid(self, other: Volume, tolerance_mm: float = 0.01) -> bool:
        """Tell whether both have the same shape and their corners lie within ``tolerance_mm`` of each other."""
        if self.shape != other.shape:
            return False
        corners = np.stack(np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij"), -1).reshape(-1, 3)
        return float(np.abs(self.to_ras(corners) - other.to_ras(corners)).max()) <= tolerance_mm

    def cropped(self, lower: Sequence[int], upper: Sequence[int]) -> Volume:
        """Return the voxels from index ``lower`` up to, not including, ``upper`` (clipped to the grid)."""
        lower = np.clip(lower, 0, self.shape)
        upper = np.clip(upper, lower, self.shape)
        box = tuple(slice(int(a), int(b)) for a, b in zip(lower, upper, strict=True))
        affine = self.ijk_to_ras.copy()
        affine[:3, 3] = self.to_ras(lower)
        return Volume(self.array[box], affine, self.source)

    def canonical(self) -> Volume:
        """Return the same image with axes permuted and flipped so that i, j, k run nearest to R, A, S."""
        axes, signs = _nearest_axes(self.ijk_to_ras)
        order = [axes.index(target) for target in range(3)]
        array = self.array.transpose(order)
        affine = self.ijk_to_ras[:, [*order, 3]].copy()
        for axis, source in enumerate(order):
            if signs[source] < 0:
                array = np.flip(array, axis)
                affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
                affine[:3, axis] *= -1
        return Volume(array, affine, self.source)

    def resampled(self, spacing_mm: Sequence[float], nearest: bool = False) -> Volume:
        """Return the image on a grid of ``spacing_mm`` (i, j, k) covering the same field of view, same directions.

        Linear interpolation (``nearest`` for masks); where an axis becomes more than 1.5 times coarser the image is
        first smoothed along it, so that small lesions do not fall between the samples.
        """
        old, new = np.array(self.spacing), np.array(spacing_mm, dtype=float)
        shape = np.maximum(1, np.round(np.array(self.shape) * old / new)).astype(int)
        directions = self.ijk_to_ras[:3, :3] / old
        affine = np.eye(4)
        affine[:3, :3] = directions * new
        # The outer faces of the first voxels coincide, not their centres.
        affine[:3, 3] = self.ijk_to_ras[:3, 3] + directions @ ((new - old) / 2)
        image = to_sitk(self)
        if not nearest:
            for axis, ratio in enumerate(new / old):
                if ratio > 1.5:
                    smooth = sitk.RecursiveGaussianImageFilter()
                    smooth.SetDirection(axis)
                    smooth.SetSigma(float(0.4 * new[axis]))
                    image = smooth.Execute(image)
        return resample_onto(Volume(np.broadcast_to(np.float32(0), tuple(shape)), affine, self.source), image, nearest)


def resample_onto(grid: Volume, image: Volume | sitk.Image, nearest: bool = False) -> Volume:
    """Return ``image`` interpolated at the voxels of ``grid``; beyond its field of view the nearest voxel counts."""
    image = to_sitk(image) if isinstance(image, Volume) else image
    resample = sitk.ResampleImageFilter()
    resample.SetSize([int(n) for n in grid.shape])
    _set_geometry(resample.SetOutputOrigin, resample.SetOutputSpacing, resample.SetOutputDirection, grid)
    resample.SetInterpolator(sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear)
    resample.UseNearestNeighborExtrapolatorOn()
    return from_sitk(resample.Execute(image), grid.source)


def to_sitk(volume: Volume) -> sitk.Image:
    """Return ``volume`` as a SimpleITK image (a copy)."""
    array = volume.array.astype(np.uint8) if volume.array.dtype == bool else volume.array
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    _set_geometry(image.SetOrigin, image.SetSpacing, image.SetDirection, volume)
    return image


def with_stored_spacing(image: Volume, scan: Volume) -> Volume:
    """Return ``image`` (canonical axes), which was resampled from ``scan``, with the voxel size of the latter noted."""
    return Volume(image.array, image.ijk_to_ras, {**image.source, "stored_mm": list(scan.canonical().spacing)})


def stored_spacing(image: Volume) -> tuple[float, float, float]:
    """Return the voxel size in mm along i, j, k of ``image`` that its scan was stored with; its own where unknown."""
    i, j, k = image.source.get("stored_mm", image.spacing)
    return float(i), float(j), float(k)


def from_sitk(image: sitk.Image, source: dict[str, Any] | None = None) -> Volume:
    """Return a 3D SimpleITK image as a :class:`Volume` (a copy)."""
    lps = np.eye(4)
    lps[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    lps[:3, 3] = image.GetOrigin()
    return Volume(sitk.GetArrayFromImage(image).transpose(2, 1, 0), _LPS_RAS @ lps, source or {})


def ras_to_lps(positions_mm: np.ndarray) -> np.ndarray:
    """Turn RAS positions (..., 3) in mm into LPS, or LPS into RAS."""
    return np.asarray(positions_mm, dtype=float) * np.array([-1.0, -1.0, 1.0])


def read_volume(path: Path | str) -> Volume:
    """Read a 3D scan from a NIfTI, NRRD or MetaImage file or from the folder of one DICOM series.

    Returns a volume of dtype float32 with the geometry as stored.

    Raises:
        BadInputError: there is no such file, it cannot be read, it is not one 3D image of finite numbers, it is
            empty (all voxels alike), or its geometry makes no sense for a head.
    """
    path = Path(path)
    if not path.exists():
        raise BadInputError(f"There is no file or folder {path}.", "Check the path.")
    volume = from_sitk(*read_series(path)) if path.is_dir() else _read_file(path)
    # Folders are often called after the patient.
    name = "The DICOM series" if path.is_dir() else path.name
    _check_geometry(volume, name)
    array = np.asarray(volume.array, dtype=np.float32)
    bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if bad:
        raise BadInputError(
            f"{name} holds voxels that are not finite numbers (NaN or infinite; {bad} in all).",
            "Export the scan again, or replace these voxels by 0.",
        )
    if array.min() == array.max():
        raise BadInputError(f"{name} is empty: all its voxels have the same value.", "Choose another scan.")
    return Volume(array, volume.ijk_to_ras, volume.source)


def read_grid(path: Path | str) -> Volume:
    """Return the grid of a scan file from its header alone: a volume of zeros that takes no memory.

    Raises:
        BadInputError: there is no such file, its header cannot be read or makes no sense for a head.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInputError(f"There is no file {path}.", "Check the path.")
    reader, size = _opened(path)
    lps = np.eye(4)
    axes = len(size)
    lps[:3, :3] = (np.array(reader.GetDirection()).reshape(axes, axes) * np.array(reader.GetSpacing()))[:3, :3]
    lps[:3, 3] = reader.GetOrigin()[:3]
    grid = Volume(np.broadcast_to(np.float32(0), tuple(size[:3])), _LPS_RAS @ lps, {"kind": "file", "name": path.name})
    _check_geometry(grid, path.name)
    return grid


def read_mask(path: Path | str, grid: Volume, may_be_empty: bool = False) -> Volume:
    """Read a mask file lying on the grid of ``grid``; returns a bool volume, True where the file is above 0.

    Raises:
        BadInputError: it cannot be read, lies on another grid (it is not resampled), or is empty though it must not be.
    """
    mask = _read_on_grid(Path(path), grid)
    inside = mask.array > 0
    if not inside.any() and not may_be_empty:
        raise BadInputError(f"The mask {Path(path).name} is empty.", "Choose a mask that covers the brain.")
    return grid.with_array(inside)


def read_labels(path: Path | str, grid: Volume) -> Volume:
    """Read a label map lying on the grid of ``grid``; returns whole numbers >= 0 (int32), 0 being the background.

    Raises:
        BadInputError: it cannot be read, lies on another grid (it is not resampled), or holds other numbers.
    """
    labels = _read_on_grid(Path(path), grid).array
    if labels.min() < 0 or labels.max() >= 1 << 31 or (labels.dtype.kind == "f" and (labels != np.floor(labels)).any()):
        raise BadInputError(
            f"{Path(path).name} is no label map: it holds fractions or numbers below 0.", "Choose the label map."
        )
    return grid.with_array(labels.astype(np.int32))


def write_volume(path: Path | str, volume: Volume) -> None:
    """Write ``volume`` to ``path`` (NIfTI or NRRD by its ending), whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_path(path) as temporary:
        try:
            sitk.WriteImage(to_sitk(volume), str(temporary), useCompression=str(path).endswith((".gz", ".nrrd")))
        except RuntimeError as error:
            raise OSError(None, itk_reason(error)) from error
        # ITK's writer of NIfTI only prints that a disk was full.
        if temporary.name.endswith((".nii", ".nii.gz")) and not looks_whole(temporary):
            raise OSError(None, "it was not written to its end; the disk may be full")


def nrrd_header(shape: Sequence[int], dtype: Any, ijk_to_ras: np.ndarray) -> bytes:
    """Return the header of an uncompressed NRRD file (teem.sourceforge.net/nrrd/format.html).

    The voxels follow as raw bytes, i fastest: whoever has them can write a large file piece by piece. ``shape`` is
    along (i, j, k), ``dtype`` any of numpy's integer or float types.

    Raises:
        ValueError: NRRD has no such type.
    """
    dtype = np.dtype(dtype)
    kinds = {"i": f"int{8 * dtype.itemsize}", "u": f"uint{8 * dtype.itemsize}", "f": {4: "float", 8: "double"}}
    kind = kinds.get(dtype.kind)
    kind = kind.get(dtype.itemsize) if isinstance(kind, dict) else kind
    if kind is None:
        raise ValueError(f"no NRRD type for {dtype}")
    little = dtype.byteorder == "<" or (dtype.byteorder in "=|" and sys.byteorder == "little")

    def vector(values: np.ndarray) -> str:
        return "(" + ",".join(repr(float(v)) for v in values) + ")"

    directions = " ".join(vector(ijk_to_ras[:3, axis]) for axis in range(3))
    lines = [
        "NRRD0004",
        f"type: {kind}",
        "dimension: 3",
        "space: right-anterior-superior",
        f"sizes: {' '.join(str(int(n)) for n in shape)}",
        f"space directions: {directions}",
        "kinds: domain domain domain",
        f"endian: {'little' if little else 'big'}",
        "encoding: raw",
        f"space origin: {vector(ijk_to_ras[:3, 3])}",
    ]
    return ("\n".join(lines) + "\n\n").encode("ascii")


def _read_on_grid(path: Path, grid: Volume) -> Volume:
    if not path.is_file():
        raise BadInputError(f"There is no mask file {path}.", "Check the path.")
    mask = _read_file(path)
    if not mask.same_grid(grid):
        raise BadInputError(
            f"The mask {path.name} lies on another grid than the scan "
            f"({_size(mask)} against {_size(grid)}, or another position).",
            "Make the mask on the scan itself; masks are not resampled.",
        )
    return mask


def _opened(path: Path) -> tuple[sitk.ImageFileReader, list[int]]:
    """Return a reader that has read the header, and the size of the image along its axes."""
    name = path.name
    if not name.lower().endswith(_FILE_ENDINGS):
        hint = "Give the folder of the series." if name.lower().endswith((".dcm", ".ima")) else ""
        raise BadInputError(
            f"{name} is not a NIfTI (.nii, .nii.gz) or NRRD (.nrrd) file.",
            hint or "Convert the scan, or give a folder.",
        )
    check_data_files(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        size = list(reader.GetSize())
    except RuntimeError as error:
        raise _unreadable(name, error) from error
    _check_dimension(name, size, reader.GetNumberOfComponents())
    check_stored(path, size)
    return reader, size


def _unreadable(name: str, error: RuntimeError) -> CMBDetectorError:
    if is_out_of_memory(error):
        return OutOfMemoryError(
            f"There is not enough memory to read {name}.", "Close other programs, or crop the scan."
        )
    return BadInputError(
        f"{name} cannot be read: {itk_reason(error)}.", "The file is damaged or misnamed; export it again."
    )


def _read_file(path: Path) -> Volume:
    name = path.name
    header = check_nifti(path) if name.lower().endswith((".nii", ".nii.gz")) else None
    reader, size = _opened(path)
    try:
        if len(size) > 3:
            reader.SetExtractSize(size[:3] + [0] * (len(size) - 3))
        image = reader.Execute()
    except RuntimeError as error:
        raise _unreadable(name, error) from error
    volume = from_sitk(image)
    if header is not None and not header.agrees(volume.ijk_to_ras, volume.shape):
        if header.unit is not None:
            raise BadInputError(
                f"The header of {name} gives its voxel size in {header.unit}.", "Save the scan with its size in mm."
            )
        raise BadInputError(
            f"The header of {name} contradicts itself: its voxel size and axes do not fit, or the axes are sheared.",
            "Export or convert the scan again; positions in it would be wrong.",
        )
    source = {"kind": "file", "name": name}
    if header is not None:
        note = header.note(volume.ijk_to_ras, volume.shape)
    else:
        note = None if states_orientation(path) else UNKNOWN_SIDES
    if note is not None:
        source["note"] = note
    return Volume(volume.array, volume.ijk_to_ras, source)


def _check_dimension(name: str, size: Sequence[int], components: int) -> None:
    if components != 1:
        raise BadInputError(f"{name} is a colour or vector image.", "Choose the grey-scale SWI magnitude image.")
    if len(size) < 3:
        raise BadInputError(f"{name} is a 2D image; a 3D scan is needed.", "Choose the whole scan.")
    if any(n > 1 for n in size[3:]):
        raise BadInputError(
            f"{name} is 4-D: it holds {int(np.prod(size[3:]))} volumes.",
            "Choose one volume (one echo, magnitude or SWI) and save it as a file of its own.",
        )


def _check_geometry(volume: Volume, name: str) -> None:
    spacing, shape = np.array(volume.spacing), np.array(volume.shape)
    if not np.isfinite(volume.ijk_to_ras).all() or (spacing < 0.01).any():
        raise BadInputError(f"{name} has no valid voxel size.", "Export the scan again; its header is damaged.")
    # Written as NIfTI, which knows no shear, such a scan and all that was found in it would get another geometry.
    left, _, right = np.linalg.svd(volume.ijk_to_ras[:3, :3] / spacing)
    upright = volume.ijk_to_ras.copy()
    upright[:3, :3] = left @ right * spacing
    if corner_shift(upright, volume.ijk_to_ras, volume.shape) > _MOST_SHEAR_MM:
        raise BadInputError(f"{name} has axes that are not at right angles.", "Export the scan again without shear.")
    extent = spacing * shape
    if (shape < _FEWEST_VOXELS).any() or (extent < _SHORTEST_EXTENT_MM).any():
        raise BadInputError(f"{name} is too thin ({_size(volume)}) to search for microbleeds.", "Choose the 3D scan.")
    if (extent > _LONGEST_EXTENT_MM).any():
        raise BadInputError(
            f"{name} measures {' x '.join(f'{e:.0f}' for e in extent)} mm, more than any head.",
            "Check the voxel size in its header, or crop the scan to the head.",
        )


def _size(volume: Volume) -> str:
    voxels = " x ".join(str(n) for n in volume.shape)
    return f"{voxels} voxels of {' x '.join(f'{s:.3g}' for s in volume.spacing)} mm"


def _nearest_axes(affine: np.ndarray) -> tuple[list[int], list[int]]:
    """Return for i, j, k the nearest RAS axis (each used once) and the sign along it."""
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    axes, signs = [-1, -1, -1], [1, 1, 1]
    left = np.abs(cosines)
    for _ in range(3):
        ras, ijk = np.unravel_index(int(np.argmax(left)), (3, 3))
        axes[ijk], signs[ijk] = int(ras), 1 if cosines[ras, ijk] >= 0 else -1
        left[ras, :] = -1
        left[:, ijk] = -1
    return axes, signs


def _set_geometry(set_origin: Any, set_spacing: Any, set_direction: Any, volume: Volume) -> None:
    lps = _LPS_RAS @ volume.ijk_to_ras
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    set_origin([float(v) for v in lps[:3, 3]])
    set_spacing([float(v) for v in spacing])
    directions = lps[:3, :3] / spacing
    # ITK inverts these by a decomposition that fails, and then misplaces every voxel, on cosines of 1e-300.
    directions[np.abs(directions) < _NO_COSINE] = 0
    set_direction([float(v) for v in directions.ravel()])
