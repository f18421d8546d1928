"""A slice view: Slicer's slice logic and displayable managers drawing into a plain Qt widget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import qt
import shiboken6
import slicer
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonCore import vtkCommand, vtkUnsignedCharArray
from vtkmodules.vtkCommonMath import vtkMatrix4x4
from vtkmodules.vtkInteractionStyle import vtkInteractorStyleUser
from vtkmodules.vtkRenderingCore import (
    vtkActor2D,
    vtkImageMapper,
    vtkRenderer,
    vtkRenderWindow,
)
from vtkmodules.vtkRenderingUI import vtkGenericRenderWindowInteractor

_BUTTONS = {qt.Qt.LeftButton: "Left", qt.Qt.RightButton: "Right", qt.Qt.MiddleButton: "Middle"}


class SliceView(qt.QWidget):
    """Draws one slice and passes mouse, wheel and keys on to the displayable managers."""

    _stand_in = True

    def __init__(self, logic: slicer.vtkMRMLSliceLogic) -> None:
        super().__init__()
        self._logic = logic
        self._image: qt.QImage | None = None
        self._stale, self._asked = True, False
        self.setMinimumSize(120, 120)
        self.setMouseTracking(True)
        self.setFocusPolicy(qt.Qt.StrongFocus)
        self.setAttribute(qt.Qt.WA_OpaquePaintEvent)
        self._build_pipeline()
        self._group = slicer.vtkMRMLDisplayableManagerGroup()
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        self._group.Initialize(factory, self._overlay)
        self._group.SetMRMLDisplayableNode(logic.GetSliceNode())
        logic.SetDisplayableManagerGroup(self._group)
        self._style = slicer.vtkMRMLSliceViewInteractorStyle()
        self._style.SetSliceLogic(logic)
        self._style.SetDisplayableManagers(self._group)
        self._style.SetInteractor(self._interactor)
        self._observed = [
            (source, source.AddObserver(event, self._on_changed))
            for source, event in (
                (self._group, vtkCommand.UpdateEvent),
                (logic, vtkCommand.ModifiedEvent),
                (logic.GetSliceNode(), vtkCommand.ModifiedEvent),
            )
        ]

    def _build_pipeline(self) -> None:
        self._window = vtkRenderWindow()
        self._window.SetOffScreenRendering(1)
        self._window.SetMultiSamples(0)
        self._window.SetNumberOfLayers(2)
        self._background, self._overlay = vtkRenderer(), vtkRenderer()
        self._overlay.SetLayer(1)
        self._window.AddRenderer(self._background)
        self._window.AddRenderer(self._overlay)
        self._interactor = vtkGenericRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        # One that does nothing; without any the observer of the displayable managers crashes.
        self._interactor.SetInteractorStyle(vtkInteractorStyleUser())
        self._interactor.EnableRenderOff()
        self._mapper = vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        self._actor = vtkActor2D()
        self._actor.SetMapper(self._mapper)

    def _on_changed(self, *_: Any) -> None:
        if shiboken6.isValid(self):
            self.scheduleRender()

    def scheduleRender(self) -> None:
        """Draw anew as soon as the event loop is idle."""
        self._stale = True
        self.update()

    def forceRender(self) -> None:
        """Draw anew now."""
        connection = self._logic.GetImageDataConnection()
        shown = bool(self._background.HasViewProp(self._actor))
        if connection is not None and not shown:
            self._background.AddViewProp(self._actor)
        elif connection is None and shown:
            self._background.RemoveViewProp(self._actor)
        self._mapper.SetInputConnection(connection)
        self._window.Render()
        self._stale = False
        self._image = self._pixels()

    def _pixels(self) -> qt.QImage:
        width, height = self._window.GetSize()
        pixels = vtkUnsignedCharArray()
        self._window.GetPixelData(0, 0, width - 1, height - 1, 0, pixels, 0)
        rows = np.ascontiguousarray(vtk_to_numpy(pixels).reshape(height, width, 3)[::-1])
        return qt.QImage(rows.data, width, height, 3 * width, qt.QImage.Format_RGB888).copy()

    def renderWindow(self) -> vtkRenderWindow:
        """The VTK window behind the widget."""
        return self._window

    def interactor(self) -> vtkGenericRenderWindowInteractor:
        """The VTK interactor."""
        return self._interactor

    def mrmlSliceNode(self) -> slicer.vtkMRMLSliceNode:
        """The node of this view."""
        return self._logic.GetSliceNode()

    def displayableManagerByClassName(self, name: str) -> slicer.vtkMRMLAbstractDisplayableManager | None:
        """The displayable manager of that class."""
        return self._group.GetDisplayableManagerByClassName(name)

    def position_of(self, ras: Sequence[float]) -> qt.QPoint:
        """Where in the widget a position in RAS mm is drawn."""
        to_xy = vtkMatrix4x4()
        vtkMatrix4x4.Invert(self.mrmlSliceNode().GetXYToRAS(), to_xy)
        x, y = to_xy.MultiplyPoint((*ras, 1.0))[:2]
        return qt.QPoint(round(x), self.height - 1 - round(y))

    def close_view(self) -> None:
        """Let go of VTK; the scene must not reach a deleted widget."""
        for source, tag in self._observed:
            source.RemoveObserver(tag)
        self._observed = []
        self._style.SetInteractor(None)
        self._group.SetMRMLDisplayableNode(None)
        self._logic.SetDisplayableManagerGroup(None)
        self._window.Finalize()

    def paintEvent(self, _: qt.QPaintEvent) -> None:
        """Show the slice."""
        if self._stale or self._image is None:
            self.forceRender()
        qt.QPainter(self).drawImage(self.rect, self._image)

    def resizeEvent(self, _: qt.QResizeEvent) -> None:
        """Give the slice the widget's size."""
        width, height = max(self.width, 1), max(self.height, 1)
        self._window.SetSize(width, height)
        self._interactor.UpdateSize(width, height)
        self._logic.ResizeSliceNode(width, height)
        self.scheduleRender()

    def _inform(self, event: Any, repeat: int = 0) -> None:
        position = event.position()
        keys = event.modifiers()
        control, shift = bool(keys & qt.Qt.ControlModifier), bool(keys & qt.Qt.ShiftModifier)
        self._interactor.SetEventInformationFlipY(
            round(position.x()), round(position.y()), control, shift, "\0", repeat, None
        )
        self._interactor.SetAltKey(bool(keys & qt.Qt.AltModifier))

    def mousePressEvent(self, event: qt.QMouseEvent) -> None:
        """Pass a press on."""
        self._inform(event)
        self._interactor.InvokeEvent(f"{_BUTTONS.get(event.button(), 'Left')}ButtonPressEvent")

    def mouseReleaseEvent(self, event: qt.QMouseEvent) -> None:
        """Pass a release on."""
        self._inform(event)
        self._interactor.InvokeEvent(f"{_BUTTONS.get(event.button(), 'Left')}ButtonReleaseEvent")

    def mouseDoubleClickEvent(self, event: qt.QMouseEvent) -> None:
        """Pass a double click on, in the order VTK expects."""
        self._inform(event, 1)
        button = _BUTTONS.get(event.button(), "Left")
        self._interactor.InvokeEvent(f"{button}ButtonPressEvent")
        self._interactor.InvokeEvent(f"{button}ButtonDoubleClickEvent")

    def mouseMoveEvent(self, event: qt.QMouseEvent) -> None:
        """Pass a move on."""
        self._inform(event)
        self._interactor.InvokeEvent(vtkCommand.MouseMoveEvent)

    def wheelEvent(self, event: qt.QWheelEvent) -> None:
        """Scroll through the slices."""
        self._inform(event)
        turned = event.angleDelta().y()
        if turned:
            up = turned > 0
            self._interactor.InvokeEvent(
                vtkCommand.MouseWheelForwardEvent if up else vtkCommand.MouseWheelBackwardEvent
            )
        event.accept()

    def enterEvent(self, _: qt.QEnterEvent) -> None:
        """The mouse came in."""
        self._interactor.InvokeEvent(vtkCommand.EnterEvent)

    def leaveEvent(self, _: qt.QEvent) -> None:
        """The mouse went out."""
        self._interactor.InvokeEvent(vtkCommand.LeaveEvent)


class SliceWidget(qt.QFrame):
    """The view with its coloured title and slider, as ``layoutManager().sliceWidget(name)`` gives it."""

    _stand_in = True

    def __init__(self, node: slicer.vtkMRMLSliceNode, scene: Any, application: Any, logics: Any) -> None:
        super().__init__()
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(application)
        self._logic.SetMRMLScene(scene)
        self._logic.SetSliceNode(node)
        logics.AddItem(self._logic)
        self._logics = logics
        self._view = SliceView(self._logic)
        self._title, self._slider = qt.QLabel(node.GetLayoutLabel() or node.GetLayoutName()), qt.QSlider()
        self._slider.orientation = qt.Qt.Horizontal
        colour = [round(255 * part) for part in node.GetLayoutColor()]
        self._title.styleSheet = f"background: rgb({colour[0]}, {colour[1]}, {colour[2]}); padding: 1px 6px"
        bar = qt.QHBoxLayout()
        bar.addWidget(self._title)
        bar.addWidget(self._slider, 1)
        column = qt.QVBoxLayout(self)
        column.setContentsMargins(1, 1, 1, 1)
        column.setSpacing(1)
        column.addLayout(bar)
        column.addWidget(self._view, 1)
        self._slider.connect("valueChanged(int)", self._on_slider)
        self._tag = self._logic.AddObserver(vtkCommand.ModifiedEvent, self._on_logic)

    def _on_slider(self, step: int) -> None:
        low, high, resolution = self._range()
        self._logic.SetSliceOffset(min(low + step * resolution, high))

    def _range(self) -> tuple[float, float, float]:
        bounds = [0.0] * 6
        self._logic.GetLowestVolumeSliceBounds(bounds)
        ends = bounds[4:6]
        spacing = self._logic.GetLowestVolumeSliceSpacing()
        resolution = spacing[2] if spacing else 1.0
        return ends[0] + resolution / 2, ends[1] - resolution / 2, resolution or 1.0

    def _on_logic(self, *_: Any) -> None:
        if not shiboken6.isValid(self) or not self._logic.GetSliceNode():
            return
        low, high, resolution = self._range()
        if not low <= high < 1e6:
            return
        blocked = self._slider.blockSignals(True)
        self._slider.setRange(0, max(round((high - low) / resolution), 0))
        self._slider.setValue(round((self._logic.GetSliceOffset() - low) / resolution))
        self._slider.blockSignals(blocked)

    def sliceLogic(self) -> slicer.vtkMRMLSliceLogic:
        """The logic of this view."""
        return self._logic

    def mrmlSliceNode(self) -> slicer.vtkMRMLSliceNode:
        """The slice node of this view."""
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self) -> slicer.vtkMRMLSliceCompositeNode:
        """What is shown in this view."""
        return self._logic.GetSliceCompositeNode()

    def sliceView(self) -> SliceView:
        """The part that shows the slice."""
        return self._view

    def fitSliceToBackground(self) -> None:
        """Show the whole background volume."""
        self._logic.FitSliceToBackground()

    def close_view(self) -> None:
        """Let go of VTK and of the scene."""
        self._logic.RemoveObserver(self._tag)
        self._view.close_view()
        self._logics.RemoveItem(self._logic)
        self._logic.SetMRMLScene(None)
