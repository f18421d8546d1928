"""Other things of the scene: brain mask, result table, sample volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk

from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.gui.candidates_node import MASK_ROLE, CandidatesNode, place_beside
from CMBDetectorLib.gui.scan_node import scan_volume
from CMBDetectorLib.volume import Volume, read_mask, write_volume

_MASK_SEGMENT = "Brain"


def show_brain_mask(nodes: CandidatesNode, path: Path) -> None:
    """Keep the brain mask file beside the candidates as a segmentation; it is hidden until somebody looks at it."""
    scan = nodes.scan
    labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "brain mask")
    try:
        volume = scan_volume(scan)
        mask = read_mask(path, volume, may_be_empty=True).array
        slicer.util.updateVolumeFromArray(labels, mask.transpose(2, 1, 0).astype(np.uint8))
        matrix = vtk.vtkMatrix4x4()
        scan.GetIJKToRASMatrix(matrix)
        labels.SetIJKToRASMatrix(matrix)
        node = nodes.node.GetNodeReference(MASK_ROLE)
        if node is None:
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{scan.GetName()} brain mask")
            nodes.node.SetNodeReferenceID(MASK_ROLE, node.GetID())
            node.CreateDefaultDisplayNodes()
            node.GetDisplayNode().SetVisibility(False)
            place_beside(node, scan)
        else:
            node.GetSegmentation().RemoveAllSegments()
        node.SetReferenceImageGeometryParameterFromVolumeNode(scan)
        slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(labels, node)
        segmentation = node.GetSegmentation()
        for index in range(segmentation.GetNumberOfSegments()):
            segmentation.GetNthSegment(index).SetName(_MASK_SEGMENT)
        node.SetAndObserveTransformNodeID(scan.GetTransformNodeID())
    finally:
        slicer.mrmlScene.RemoveNode(labels)


def brain_mask(nodes: CandidatesNode) -> Volume | None:
    """Return the brain mask kept beside the candidates (bool, on the scan's grid), if any."""
    node = nodes.node
    mask = node.GetNodeReference(MASK_ROLE) if node is not None else None
    return mask_volume(mask, nodes.scan) if mask is not None else None


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


def write_mask(node: slicer.vtkMRMLNode, scan: slicer.vtkMRMLScalarVolumeNode, path: Path) -> None:
    """Write a mask of the scene as a file on the grid of ``scan`` for the worker.

    Raises:
        CMBDetectorError: it is empty, on another grid, or cannot be written.
    """
    write_volume(path, mask_volume(node, scan))


def show_table(name: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> slicer.vtkMRMLTableNode:
    """Return a table node of the scene with ``rows``; one of this name is renewed."""
    node = slicer.mrmlScene.GetFirstNodeByName(name)
    if node is None or not node.IsA("vtkMRMLTableNode"):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", name)
    table = vtk.vtkTable()
    for column in columns:
        values = [row.get(column) for row in rows]
        if values and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
            cells = vtk.vtkDoubleArray()
        else:
            cells = vtk.vtkStringArray()
            values = ["" if v is None else str(v) for v in values]
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
