"""Other things of the scene: brain mask, result table, sample volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.files import harmless_cell
from CMBDetectorLib.gui.candidates_node import MASK_ROLE, SCAN_ROLE, CandidatesNode, place_beside
from CMBDetectorLib.gui.scan_node import scan_volume
from CMBDetectorLib.volume import Volume, from_sitk

_MASK_SEGMENT = "Brain"


def read_own_mask(path: Path) -> Volume | None:
    """Return the brain mask that the worker has just written (bool), ``None`` where it wrote none.

    Without the checks that a file of unknown origin needs, which take as long as the reading itself.
    """
    if not path.is_file():
        return None
    mask = from_sitk(sitk.ReadImage(str(path)))
    return mask.with_array(mask.array > 0)


def show_brain_mask(nodes: CandidatesNode, mask: Volume) -> None:
    """Keep ``mask`` (bool, on the scan's grid) beside the candidates as a segmentation, hidden until it is looked at.

    Slicer's own import of a label map looks at every voxel for every label: half a second for a full-size scan.
    """
    scan = nodes.scan
    node = nodes.node.GetNodeReference(MASK_ROLE)
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{scan.GetName()} brain mask")
        nodes.node.SetNodeReferenceID(MASK_ROLE, node.GetID())
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().SetVisibility(False)
        place_beside(node, scan)
    node.SetAndObserveTransformNodeID(scan.GetTransformNodeID())
    node.SetReferenceImageGeometryParameterFromVolumeNode(scan)
    segmentation = node.GetSegmentation()
    segmentation.RemoveAllSegments()
    image = _oriented_image(mask)
    if image is not None:
        segment = slicer.vtkSegment()
        segment.SetName(_MASK_SEGMENT)
        segment.SetColor(0.3, 0.7, 0.9)
        name = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
        segment.AddRepresentation(name, image)
        segmentation.AddSegment(segment)


def _oriented_image(mask: Volume) -> slicer.vtkOrientedImageData | None:
    """Return the part of ``mask`` that is not empty, at its place in the grid; ``None`` where all is empty."""
    lower, upper = [], []
    for axis in range(3):
        inside = np.flatnonzero(mask.array.any(axis=tuple(other for other in range(3) if other != axis)))
        if inside.size == 0:
            return None
        lower.append(int(inside[0]))
        upper.append(int(inside[-1]))
    box = tuple(slice(a, b + 1) for a, b in zip(lower, upper, strict=True))
    voxels = np.ascontiguousarray(mask.array[box].transpose(2, 1, 0)).astype(np.uint8)
    image = slicer.vtkOrientedImageData()
    image.SetExtent(lower[0], upper[0], lower[1], upper[1], lower[2], upper[2])
    image.SetGeometryFromImageToWorldMatrix(slicer.util.vtkMatrixFromArray(mask.ijk_to_ras))
    image.GetPointData().SetScalars(numpy_to_vtk(voxels.ravel(), deep=True))
    return image


def brain_mask_id(nodes: CandidatesNode) -> str | None:
    """Return the node id of the brain mask kept beside the candidates, if it is still there."""
    node = nodes.node
    mask = node.GetNodeReference(MASK_ROLE) if node is not None else None
    return mask.GetID() if mask is not None and mask.GetSegmentation().GetNumberOfSegments() else None


def mask_volume(node: slicer.vtkMRMLNode, scan: slicer.vtkMRMLScalarVolumeNode) -> Volume:
    """Return the union of all segments of a segmentation, or a label map, on the grid of ``scan`` (bool).

    Raises:
        BadInputError: it is empty, or a label map on another grid.
    """
    grid = scan_volume(scan)
    if node.IsA("vtkMRMLSegmentationNode"):
        inside = np.zeros(grid.shape, bool)
        segmentation = node.GetSegmentation()
        for index in range(segmentation.GetNumberOfSegments()):
            part = slicer.util.arrayFromSegmentBinaryLabelmap(node, segmentation.GetNthSegmentID(index), scan)
            if part is not None:
                inside |= part.transpose(2, 1, 0) > 0
    else:
        labels = scan_volume(node)
        if labels is None or not labels.same_grid(grid):
            raise BadInputError(
                f"The mask {node.GetName()} lies on another grid than the scan.", "Make the mask on the scan itself."
            )
        inside = labels.array > 0
    if not inside.any():
        raise BadInputError(f"The mask {node.GetName()} is empty.", "Choose a mask that covers the brain.")
    return grid.with_array(inside)


def show_table(
    name: str,
    columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    scan: slicer.vtkMRMLScalarVolumeNode,
) -> slicer.vtkMRMLTableNode:
    """Return a table node of the scene with ``rows`` about ``scan``; one of this name and scan is renewed."""
    nodes = slicer.util.getNodesByClass("vtkMRMLTableNode")
    about = [node for node in nodes if node.GetName() == name and node.GetNodeReferenceID(SCAN_ROLE) == scan.GetID()]
    if about:
        node = about[0]
    else:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", name)
        node.SetNodeReferenceID(SCAN_ROLE, scan.GetID())
    table = vtk.vtkTable()
    for column in columns:
        values = [row.get(column) for row in rows]
        if values and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
            cells = vtk.vtkDoubleArray()
        else:
            cells = vtk.vtkStringArray()
            # The application saves tables as files for spreadsheets.
            values = ["" if v is None else harmless_cell(str(v)) for v in values]
        cells.SetName(column)
        for value in values:
            cells.InsertNextValue(value)
        table.AddColumn(cells)
    node.SetAndObserveTable(table)
    node.SetLocked(True)
    return node


def load_scan(path: Path, name: str) -> slicer.vtkMRMLScalarVolumeNode:
    """Load a scan and show it.

    Raises:
        BadInputError: the application cannot read it.
    """
    try:
        return slicer.util.loadVolume(str(path), {"name": name, "show": True})
    except RuntimeError as error:
        raise BadInputError(f"{path.name} cannot be loaded.", "See the application's log.") from error
