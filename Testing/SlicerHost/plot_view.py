"""A plot view: the chart that a view node names, drawn by VTK's own charts into a plain Qt widget."""

from __future__ import annotations

from typing import Any

import numpy as np
import qt
import shiboken6
import slicer
import vtkmodules.vtkRenderingContextOpenGL2  # noqa: F401 - charts are drawn by it
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkChartsCore import vtkAxis, vtkChart, vtkChartXY
from vtkmodules.vtkCommonCore import vtkCommand, vtkUnsignedCharArray
from vtkmodules.vtkRenderingContext2D import vtkContextActor
from vtkmodules.vtkRenderingCore import vtkRenderer, vtkRenderWindow


class PlotView(qt.QWidget):
    """Draws the lines of a ``vtkMRMLPlotChartNode`` with its title, axes and legend; nothing in it can be clicked."""

    _stand_in = True

    def __init__(self, node: slicer.vtkMRMLPlotViewNode) -> None:
        super().__init__()
        self._node = node
        self._image: qt.QImage | None = None
        self.setMinimumSize(120, 120)
        self._window = vtkRenderWindow()
        self._window.SetOffScreenRendering(1)
        self._window.SetMultiSamples(4)
        self._renderer = vtkRenderer()
        self._renderer.SetBackground(1, 1, 1)
        self._window.AddRenderer(self._renderer)
        self._actor = vtkContextActor()
        self._renderer.AddActor(self._actor)
        self._tag = node.AddObserver(vtkCommand.ModifiedEvent, self._on_changed)

    def mrmlPlotViewNode(self) -> slicer.vtkMRMLPlotViewNode:
        """The node of this view."""
        return self._node

    def close_view(self) -> None:
        """Let go of VTK."""
        self._node.RemoveObserver(self._tag)
        self._window.Finalize()

    def paintEvent(self, _: qt.QPaintEvent) -> None:
        """Show the chart."""
        if self._image is None:
            self._draw()
        qt.QPainter(self).drawImage(self.rect, self._image)

    def resizeEvent(self, _: qt.QResizeEvent) -> None:
        """Draw anew in the new size."""
        self._image = None

    def _on_changed(self, *_: Any) -> None:
        if shiboken6.isValid(self):
            self._image = None
            self.update()

    def _draw(self) -> None:
        width, height = max(self.width, 1), max(self.height, 1)
        self._window.SetSize(width, height)
        scene = self._actor.GetScene()
        scene.SetRenderer(self._renderer)
        scene.ClearItems()
        chart = self._node.GetPlotChartNode()
        if chart is not None:
            scene.AddItem(_chart(chart))
        self._window.Render()
        pixels = vtkUnsignedCharArray()
        self._window.GetPixelData(0, 0, width - 1, height - 1, 0, pixels, 0)
        rows = np.ascontiguousarray(vtk_to_numpy(pixels).reshape(height, width, 3)[::-1])
        self._image = qt.QImage(rows.data, width, height, 3 * width, qt.QImage.Format_RGB888).copy()


def _chart(node: slicer.vtkMRMLPlotChartNode) -> vtkChartXY:
    chart = vtkChartXY()
    chart.SetTitle(node.GetTitle() or "")
    chart.SetShowLegend(node.GetLegendVisibility())
    axes = (
        (vtkAxis.BOTTOM, node.GetXAxisTitle(), node.GetXAxisRangeAuto(), node.GetXAxisRange()),
        (vtkAxis.LEFT, node.GetYAxisTitle(), node.GetYAxisRangeAuto(), node.GetYAxisRange()),
    )
    for place, title, is_free, limits in axes:
        axis = chart.GetAxis(place)
        axis.SetTitle(title or "")
        if not is_free:
            axis.SetBehavior(vtkAxis.FIXED)
            axis.SetRange(*limits)
    for index in range(node.GetNumberOfPlotSeriesNodes()):
        series = node.GetNthPlotSeriesNode(index)
        table = series.GetTableNode().GetTable()
        line = chart.AddPlot(vtkChart.LINE)
        line.SetInputData(table, series.GetXColumnName(), series.GetYColumnName())
        line.SetLabel(series.GetName())
        line.SetColorF(*series.GetColor())
        line.SetWidth(series.GetLineWidth())
    return chart
