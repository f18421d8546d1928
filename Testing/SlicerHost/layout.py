"""Stand-in for the layout manager: makes slice widgets for Slicer's layout descriptions."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import qt
import shiboken6
import slicer
from PySide6.QtCore import Signal
from vtkmodules.vtkCommonCore import vtkCollection, vtkCommand

from .plot_view import PlotView
from .scene import SceneWorld
from .slice_view import SliceWidget


class LayoutManager(qt.QObject):
    """``slicer.app.layoutManager()``: slices and plots are real, 3D views and tables an empty frame."""

    _stand_in = True
    layoutChanged = Signal(int)

    def __init__(self, world: SceneWorld, viewport: qt.QWidget) -> None:
        super().__init__()
        self._world, self._viewport = world, viewport
        self._slices: dict[str, SliceWidget] = {}
        self._plots: dict[str, PlotView] = {}
        self._root: qt.QWidget | None = None
        self._shown = ""
        column = qt.QVBoxLayout(viewport)
        column.setContentsMargins(0, 0, 0, 0)
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLScene(world.scene)
        self._node = self._logic.GetLayoutNode()
        self._tag = self._node.AddObserver(vtkCommand.ModifiedEvent, self._on_layout)
        self._node.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        self._arrange()

    def _on_layout(self, *_: Any) -> None:
        if not shiboken6.isValid(self) or self._node.GetCurrentLayoutDescription() == self._shown:
            return
        if self._world.scene.IsBatchProcessing():
            # While a scene is loaded the view nodes may not be there yet.
            qt.QTimer.singleShot(0, self._on_layout)
        else:
            self._arrange()

    def _arrange(self) -> None:
        """Put the widgets where the current description wants them."""
        self._shown = self._node.GetCurrentLayoutDescription() or ""
        if not self._shown.strip():
            return
        for widget in (*self._slices.values(), *self._plots.values()):
            widget.setParent(None)
        old = self._root
        self._root = self._place(ET.fromstring(self._shown))
        self._viewport.layout().addWidget(self._root)
        if old is not None:
            self._viewport.layout().removeWidget(old)
            old.deleteLater()
        for name, widget in self._slices.items():
            mapped = widget.parent() is not None
            self._node_of(name).SetMappedInLayout(int(mapped))
            widget.setVisible(mapped)
        self.layoutChanged.emit(self._node.GetViewArrangement())

    def _place(self, element: ET.Element) -> qt.QWidget:
        if element.tag == "view":
            return self._view(element)
        kind = element.get("type", "horizontal")
        items = [(item, self._place(item[0])) for item in element.findall("item") if len(item)]
        if kind in ("horizontal", "vertical"):
            split = qt.QSplitter(qt.Qt.Vertical if kind == "vertical" else qt.Qt.Horizontal)
            for _, widget in items:
                split.addWidget(widget)
            split.setSizes([1000] * len(items))
            return split
        if kind == "tab":
            tabs = qt.QTabWidget()
            for item, widget in items:
                tabs.addTab(widget, item.get("name", ""))
            return tabs
        frame = qt.QWidget()
        grid = qt.QGridLayout(frame)
        for item, widget in items:
            place = [int(item.get(key, default)) for key, default in _GRID]
            grid.addWidget(widget, *place)
        return frame

    def _view(self, element: ET.Element) -> qt.QWidget:
        if element.get("class") == "vtkMRMLPlotViewNode":
            return self._plot_view(element.get("singletontag", ""))
        if element.get("class") != "vtkMRMLSliceNode":
            label = qt.QLabel("The stand-in host draws slices and plots only")
            label.alignment = qt.Qt.AlignCenter
            label.setMinimumSize(60, 60)
            return label
        name = element.get("singletontag", "")
        if name not in self._slices:
            world = self._world
            self._slices[name] = SliceWidget(
                self._node_of(name), world.scene, world.application_logic, world.slice_logics
            )
        return self._slices[name]

    def _plot_view(self, name: str) -> PlotView:
        node = self._world.scene.GetSingletonNode(name, "vtkMRMLPlotViewNode")
        known = self._plots.get(name)
        if known is None or known.mrmlPlotViewNode() is not node:
            self._plots[name] = PlotView(node)
        self._plots[name].show()
        return self._plots[name]

    def plotView(self, name: str) -> PlotView | None:
        """The plot view of that name."""
        return self._plots.get(name)

    def _node_of(self, name: str) -> slicer.vtkMRMLSliceNode:
        return self._world.scene.GetSingletonNode(name, "vtkMRMLSliceNode")

    def sliceViewNames(self) -> tuple[str, ...]:
        """The names of all slice views that were ever made."""
        return tuple(self._slices)

    def sliceWidget(self, name: str) -> SliceWidget | None:
        """The slice widget of that name."""
        return self._slices.get(name)

    def mrmlSliceLogics(self) -> vtkCollection:
        """The logics of all slice views."""
        return self._world.slice_logics

    def layoutLogic(self) -> slicer.vtkMRMLLayoutLogic:
        """The logic that makes the view nodes."""
        return self._logic

    def mrmlScene(self) -> slicer.vtkMRMLScene:
        """The scene."""
        return self._world.scene

    def viewport(self) -> qt.QWidget:
        """The widget that holds all views."""
        return self._viewport

    def setLayout(self, layout: int) -> None:
        """Change to the layout of that number."""
        self._node.SetViewArrangement(layout)

    def _get_layout(self) -> int:
        return self._node.GetViewArrangement()

    layout = property(_get_layout, setLayout)

    @property
    def threeDViewCount(self) -> int:
        """There are no 3D views."""
        return 0

    def threeDWidget(self, _: Any) -> None:
        """There are no 3D views."""
        return None

    def resetSliceViews(self) -> None:
        """Show the whole background volume in each view."""
        for widget in self._slices.values():
            widget.fitSliceToBackground()

    def resetThreeDViews(self) -> None:
        """There are no 3D views."""

    def setRenderPaused(self, paused: bool) -> None:
        """Let the views be drawn or not while much changes."""
        for widget in self._slices.values():
            widget.sliceView().setUpdatesEnabled(not paused)

    def close_views(self) -> None:
        """Let go of VTK."""
        self._node.RemoveObserver(self._tag)
        for widget in self._slices.values():
            widget.close_view()
        for plot in self._plots.values():
            plot.close_view()
        self._slices, self._plots = {}, {}


_GRID = (("row", "0"), ("column", "0"), ("rowspan", "1"), ("colspan", "1"))
