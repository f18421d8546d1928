"""Stand-in for ``slicer.ScriptedLoadableModule``: the four classes that a scripted module derives from."""

from __future__ import annotations

import importlib
import logging
import unittest
from pathlib import Path
from typing import Any

import qt
import slicer

__all__ = [
    "ScriptedLoadableModule",
    "ScriptedLoadableModuleLogic",
    "ScriptedLoadableModuleTest",
    "ScriptedLoadableModuleWidget",
]


def _stem(cls: type, ending: str) -> str:
    return cls.__name__.removesuffix(ending)


class ScriptedLoadableModule:
    """Says what the module is called and who made it; ``parent`` is the application's module."""

    def __init__(self, parent: Any) -> None:
        super().__init__()
        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title = ""
        parent.categories = []
        parent.dependencies = []
        parent.contributors = []
        parent.helpText = ""
        parent.acknowledgementText = ""
        for ending in (".svg", ".png"):
            icon = Path(self.resourcePath(f"Icons/{self.moduleName}{ending}"))
            if icon.is_file():
                parent.icon = qt.QIcon(str(icon))
                break
        if not hasattr(slicer, "selfTests"):
            slicer.selfTests = {}
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, filename: str) -> str:
        """The path of a file in the folder ``Resources`` beside the module."""
        return str(Path(self.parent.path).parent / "Resources" / filename)

    def getDefaultModuleDocumentationLink(self, docPage: str | None = None) -> str:
        """A paragraph that links to the documentation."""
        return f"<p>See the documentation of {docPage or self.moduleName}.</p>"

    def runTest(self, msec: int = 100, **options: Any) -> None:
        """Run the class ``<module>Test`` of the module's file."""
        cls = getattr(importlib.import_module(type(self).__module__), f"{self.moduleName}Test", None)
        if cls is None:
            raise AssertionError(f"the module {self.moduleName} has no class {self.moduleName}Test")
        case = cls()
        case.messageDelay = msec
        case.runTest(**options)


class ScriptedLoadableModuleWidget:
    """The module's panel, laid out in ``parent``."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__()
        self.moduleName = _stem(type(self), "Widget")
        self.developerMode = slicer.util.settingsValue("Developer/DeveloperMode", False, converter=slicer.util.toBool)
        self.parent = parent
        if parent is None:
            self.parent = slicer.qMRMLWidget()
            self.parent.setLayout(qt.QVBoxLayout())
            self.parent.setMRMLScene(slicer.mrmlScene)
        self.layout = self.parent.layout()
        if parent is None:
            self.setup()
            self.parent.show()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def resourcePath(self, filename: str) -> str:
        """The path of a file in the folder ``Resources`` beside the module."""
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / filename)

    def setup(self) -> None:
        """Build the panel; derived classes call this first."""
        self.setupDeveloperSection()

    def setupDeveloperSection(self) -> None:
        """Slicer adds buttons to reload and test in developer mode; the stand-in has none."""

    def cleanup(self) -> None:
        """Called before the module goes; to be overridden."""

    def _onModuleAboutToBeUnloaded(self, module_name: str) -> None:
        if module_name == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def onReload(self) -> None:
        """Load the module's file anew and build a new panel."""
        slicer.util.reloadScriptedModule(self.moduleName)

    def onReloadAndTest(self, **options: Any) -> None:
        """Reload, then run the module's test."""
        self.onReload()
        slicer.selfTests[self.moduleName](**options)


class ScriptedLoadableModuleLogic:
    """The module's computations; keeps one parameter node in the scene."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__()
        self.moduleName = _stem(type(self), "Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> slicer.vtkMRMLScriptedModuleNode:
        """The module's parameter node; made where the scene has none."""
        if self.isSingletonParameterNode:
            node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
            if node is not None:
                # Closing the scene resets the node but does not remove it.
                node.SetAttribute("ModuleName", self.moduleName)
                return node
        else:
            existing = self.getAllParameterNodes()
            if existing:
                return existing[0]
        return slicer.mrmlScene.AddNode(self.createParameterNode())

    def getAllParameterNodes(self) -> list[slicer.vtkMRMLScriptedModuleNode]:
        """All parameter nodes of this module."""
        nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        return [node for node in nodes if node.GetAttribute("ModuleName") == self.moduleName]

    def createParameterNode(self) -> slicer.vtkMRMLScriptedModuleNode:
        """A new parameter node, not yet in the scene."""
        node = slicer.vtkMRMLScriptedModuleNode()
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """The module's self-test."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.enableScreenshots = False
        self.messageDelay = 0

    def delayDisplay(self, message: str, requestedDelay: int | None = None, msec: int | None = None) -> None:
        """Show a message for a moment."""
        slicer.util.delayDisplay(message, min(self.messageDelay, 300))

    def takeScreenshot(self, name: str, description: str, type: int = -1) -> None:
        """Only show the description."""
        self.delayDisplay(description)

    def runTest(self) -> None:
        """Run the test; to be overridden."""
        logging.warning("%s defines no test", type(self).__name__)
