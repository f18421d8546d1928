"""A tiny scripted module to test the host with, and to start a new module from."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Optional

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Choice, Default, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)


class Mode(enum.Enum):
    """Something to choose."""

    FAST = 1
    EXACT = 2

    def label(self) -> str:
        """What the combo box shows."""
        return self.name.capitalize()


class HostExample(ScriptedLoadableModule):
    """Says what the module is called."""

    def __init__(self, parent: object) -> None:
        super().__init__(parent)
        self.parent.title = _("Host example")
        self.parent.categories = ["Testing"]
        self.started = 0
        slicer.app.connect("startupCompleted()", self._on_started)

    def _on_started(self) -> None:
        self.started += 1


@parameterNodeWrapper
class Parameters:
    """One parameter of every type that the host stores."""

    volume: slicer.vtkMRMLScalarVolumeNode
    threshold: Annotated[float, WithinRange(0, 1), Default(0.5)]
    mode: Mode = Mode.EXACT
    size: Annotated[str, Choice(["small", "large"])] = "large"
    exact: bool = True
    count: int = 3
    remark: str = ""
    folder: Path
    names: list[str]
    points: Optional[slicer.vtkMRMLMarkupsFiducialNode]  # noqa: UP045  (Slicer refuses "X | None")


class HostExampleWidget(ScriptedLoadableModuleWidget, slicer.util.VTKObservationMixin):
    """A panel with one widget for every parameter that can have one."""

    def __init__(self, parent: object = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        slicer.util.VTKObservationMixin.__init__(self)
        self.calls: list[str] = []

    def setup(self) -> None:
        """Load the ``.ui`` file and bind it."""
        super().setup()
        self.calls.append("setup")
        panel = slicer.util.loadUI(self.resourcePath("UI/HostExample.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = HostExampleLogic()
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self._on_closing)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self._on_closed)
        self._bind()

    def _bind(self) -> None:
        self.parameters = self.logic.getParameterNode()
        self._gui = self.parameters.connectGui(self.ui)

    def enter(self) -> None:
        """The user came."""
        self.calls.append("enter")

    def exit(self) -> None:
        """The user went."""
        self.calls.append("exit")

    def cleanup(self) -> None:
        """The module goes."""
        self.calls.append("cleanup")
        self.parameters.disconnectGui(self._gui)
        self.removeObservers()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_closing(self, *_given: object) -> None:
        self.calls.append("closing")
        self.parameters.disconnectGui(self._gui)

    def _on_closed(self, *_given: object) -> None:
        self._bind()

    def onApply(self) -> None:
        """Only note the click."""
        self.calls.append("apply")


class HostExampleLogic(ScriptedLoadableModuleLogic):
    """Wraps the parameter node."""

    def getParameterNode(self) -> Parameters:
        """The typed parameters."""
        return Parameters(super().getParameterNode())


class HostExampleTest(ScriptedLoadableModuleTest):
    """Counts how often it ran."""

    runs = 0

    def runTest(self) -> None:
        """Count."""
        HostExampleTest.runs += 1
