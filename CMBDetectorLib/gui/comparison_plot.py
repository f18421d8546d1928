"""The curves of two models as plot nodes of the scene, for Slicer's own plot view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _

_NAME = "CMBDetector FROC"
_COLOURS = {"old": (0.55, 0.58, 0.62), "new": (0.12, 0.48, 0.88)}
LARGEST_FP = 20.0


def curve_points(curve: Mapping[str, Any], largest_fp: float = LARGEST_FP) -> list[tuple[float, float]]:
    """Return the corners (false positives a scan, sensitivity) of a curve of ``comparison.json``, to ``largest_fp``."""
    points = [(0.0, 0.0)]
    for fp, sensitivity in zip(curve.get("fp", ()), curve.get("sensitivity", ()), strict=False):
        if fp is None or sensitivity is None or fp > largest_fp:
            break
        points.append((float(fp), float(sensitivity)))
    # What is reached stays so with more false positives.
    return [*points, (largest_fp, points[-1][1])]


def show_comparison_plot(comparison: Mapping[str, Any], names: Mapping[str, str]) -> slicer.vtkMRMLPlotChartNode:
    """Put both curves into the scene, in place of those of an earlier comparison, and show them in a plot view."""
    chart = _node("vtkMRMLPlotChartNode", _NAME)
    chart.RemoveAllPlotSeriesNodeIDs()
    for key in ("old", "new"):
        points = curve_points(comparison["curves"][key])
        series = _node("vtkMRMLPlotSeriesNode", f"{_NAME} {key}")
        series.SetAndObserveTableNodeID(_table(f"{_NAME} {key} points", _corners(points)).GetID())
        series.SetXColumnName(_("FP a scan"))
        series.SetYColumnName(_("Sensitivity"))
        series.SetPlotType(series.PlotTypeScatter)
        series.SetLineStyle(series.LineStyleSolid)
        series.SetMarkerStyle(series.MarkerStyleNone)
        series.SetLineWidth(2)
        series.SetColor(*_COLOURS[key])
        # The name is what the legend says.
        series.SetName(names[key])
        series.SetAttribute("CMBDetector.Role", f"{_NAME} {key}")
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
    chart.SetTitle(_("{microbleeds} microbleeds in {scans} scans left out").format(**_counts(comparison)))
    chart.SetXAxisTitle(_("False positives a scan"))
    chart.SetYAxisTitle(_("Sensitivity"))
    chart.SetXAxisRangeAuto(False)
    chart.SetXAxisRange(0.0, LARGEST_FP)
    chart.SetYAxisRangeAuto(False)
    chart.SetYAxisRange(0.0, 1.0)
    chart.SetLegendVisibility(True)
    plots = getattr(slicer.modules, "plots", None)
    if plots is not None:
        plots.logic().ShowChartInLayout(chart)
    return chart


def _counts(comparison: Mapping[str, Any]) -> dict[str, Any]:
    return {key: comparison.get(key, "?") for key in ("microbleeds", "scans")}


def _node(kind: str, name: str) -> slicer.vtkMRMLNode:
    """Return the node of this kind that was made for an earlier comparison, or a new one."""
    for index in range(slicer.mrmlScene.GetNumberOfNodesByClass(kind)):
        node = slicer.mrmlScene.GetNthNodeByClass(index, kind)
        if name in (node.GetAttribute("CMBDetector.Role"), node.GetName()):
            return node
    node = slicer.mrmlScene.AddNewNodeByClass(kind, name)
    node.SetAttribute("CMBDetector.Role", name)
    return node


def _corners(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points of a stepped line as those of a straight one."""
    corners = [points[0]]
    for (_x, y), (next_x, next_y) in pairwise(points):
        corners += [(next_x, y), (next_x, next_y)]
    return corners


def _table(name: str, points: Sequence[tuple[float, float]]) -> slicer.vtkMRMLTableNode:
    node = _node("vtkMRMLTableNode", name)
    table = vtk.vtkTable()
    for column, title in enumerate((_("FP a scan"), _("Sensitivity"))):
        cells = vtk.vtkDoubleArray()
        cells.SetName(title)
        for point in points:
            cells.InsertNextValue(point[column])
        table.AddColumn(cells)
    node.SetAndObserveTable(table)
    node.SetLocked(True)
    return node
