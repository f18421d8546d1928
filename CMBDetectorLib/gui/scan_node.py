"""A volume node of the scene as the library sees it: a Volume, its key, and a file for the worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import slicer
import vtk

from CMBDetectorLib.review.scan_key import scan_key
from CMBDetectorLib.volume import Volume, nrrd_header

_PIECE_BYTES = 8 << 20


def scan_volume(node: slicer.vtkMRMLScalarVolumeNode) -> Volume | None:
    """Return a view of the node's voxels (not a copy) with its geometry, ``None`` where it has no 3D image.

    Positions are RAS mm of the volume itself, before any transform that the node lies under.
    """
    image = node.GetImageData() if node is not None else None
    if image is None or image.GetNumberOfScalarComponents() != 1 or 0 in image.GetDimensions():
        return None
    # Slicer's arrays are (k, j, i).
    array = slicer.util.arrayFromVolume(node).transpose(2, 1, 0)
    return Volume(array, ijk_to_ras(node), {"kind": "scene"})


def ijk_to_ras(node: slicer.vtkMRMLScalarVolumeNode) -> np.ndarray:
    """Return the affine of the node itself (4x4, voxel indices to RAS mm)."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def key_of(node: slicer.vtkMRMLScalarVolumeNode) -> str | None:
    """Return the key that recognises the scan when it is opened again, ``None`` without an image."""
    volume = scan_volume(node)
    return scan_key(volume.array, volume.ijk_to_ras) if volume is not None else None


def file_of(node: slicer.vtkMRMLScalarVolumeNode) -> Path | None:
    """Return the file that the scan was loaded from, ``None`` where it has none."""
    storage = node.GetStorageNode()
    name = storage.GetFullNameFromFileName() if storage is not None else None
    return Path(name) if name else None


def to_world(node: slicer.vtkMRMLTransformableNode, ras_mm: tuple[float, float, float]) -> tuple[float, float, float]:
    """Turn RAS mm of the node itself into the world's RAS mm, which differ where it lies under a transform."""
    return _transformed(node, ras_mm, to_world=True)


def from_world(
    node: slicer.vtkMRMLTransformableNode, world_mm: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Turn the world's RAS mm into RAS mm of the node itself."""
    return _transformed(node, world_mm, to_world=False)


def write_pieces(volume: Volume, path: Path) -> Iterator[float]:
    """Write ``volume`` to ``path`` (NRRD), a piece at each step; yields the fraction done.

    A scan of 150 MB would hold up the application for a quarter of a second in one go; a piece takes some 10 ms.

    Raises:
        OSError: it cannot be written.
    """
    array = volume.array
    if array.dtype == bool:
        array = array.view(np.uint8)
    elif array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        array = array.astype(np.int32)
    # i fastest, as VTK has it: then nothing is copied.
    voxels = array.transpose(2, 1, 0)
    voxels = voxels if voxels.flags.c_contiguous else np.ascontiguousarray(voxels)
    raw = memoryview(voxels.reshape(-1)).cast("B")
    with open(path, "wb", buffering=0) as stream:
        stream.write(nrrd_header(array.shape, array.dtype, volume.ijk_to_ras))
        for start in range(0, len(raw), _PIECE_BYTES):
            piece = raw[start : start + _PIECE_BYTES]
            while piece:
                piece = piece[stream.write(piece) :]
            yield min(1.0, (start + _PIECE_BYTES) / len(raw))


def _transformed(
    node: slicer.vtkMRMLTransformableNode, position: tuple[float, float, float], to_world: bool
) -> tuple[float, float, float]:
    transform = node.GetParentTransformNode()
    if transform is None:
        x, y, z = (float(v) for v in position)
        return x, y, z
    general = vtk.vtkGeneralTransform()
    if to_world:
        transform.GetTransformToWorld(general)
    else:
        transform.GetTransformFromWorld(general)
    x, y, z = general.TransformPoint(*(float(v) for v in position))
    return x, y, z
