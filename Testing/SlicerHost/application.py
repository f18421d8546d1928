"""``slicer.app``: a QApplication with the methods of qSlicerApplication that modules use."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import qt
import slicer
from PySide6.QtCore import Signal

from .io_manager import IOManager
from .layout import LayoutManager
from .modules import ModuleManager
from .scene import SceneWorld


class Application(qt.QApplication):
    """The application; made before the scene, which :meth:`adopt` adds."""

    _stand_in = True

    startupCompleted = Signal()

    def __init__(self, folder: Path, testing: bool) -> None:
        # Under the organisation and the name that Slicer's settings have.
        super().__init__([sys.argv[0] or "SlicerHost"])
        self.setOrganizationName("NA-MIC")
        self.setOrganizationDomain("www.na-mic.org")
        self.setApplicationName("Slicer")
        self.setApplicationVersion("5.13.0-stand-in")
        self._folder, self._testing = folder, testing
        self._layout: LayoutManager | None = None
        for name in ("settings", "temporary", "cache", "home", "extensions"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        qt.QSettings.setDefaultFormat(qt.QSettings.IniFormat)
        for scope in (qt.QSettings.UserScope, qt.QSettings.SystemScope):
            qt.QSettings.setPath(qt.QSettings.IniFormat, scope, str(folder / "settings"))
        self._settings = qt.QSettings()
        self._revision = qt.QSettings(str(folder / "settings" / "Slicer-revision.ini"), qt.QSettings.IniFormat)

    def adopt(self, world: SceneWorld, modules: ModuleManager) -> None:
        """Take over the scene and the modules."""
        self._world, self._modules = world, modules
        self._io = IOManager(world)

    def setLayoutManager(self, manager: LayoutManager | None) -> None:
        """Set what :meth:`layoutManager` returns."""
        self._layout = manager

    def layoutManager(self) -> LayoutManager | None:
        """The manager of the views."""
        return self._layout

    def moduleManager(self) -> ModuleManager:
        """The manager of the modules."""
        return self._modules

    def applicationLogic(self) -> slicer.vtkSlicerApplicationLogic:
        """The real application logic."""
        return self._world.application_logic

    def mrmlScene(self) -> slicer.vtkMRMLScene:
        """The scene."""
        return self._world.scene

    def coreIOManager(self) -> IOManager:
        """What ``slicer.util.loadVolume`` and ``saveScene`` go through."""
        return self._io

    ioManager = coreIOManager

    def settings(self) -> qt.QSettings:
        """The settings of this revision."""
        return self._revision

    revisionUserSettings = settings

    def userSettings(self) -> qt.QSettings:
        """The settings of the user; what ``qt.QSettings()`` opens, too."""
        return self._settings

    def testingEnabled(self) -> bool:
        """Whether message boxes are only logged."""
        return self._testing

    def setTesting(self, on: bool) -> None:
        """Let message boxes appear or not."""
        self._testing = on

    def commandOptions(self) -> Application:
        """An object whose ``testingEnabled`` answers."""
        return self

    def openUrl(self, url: str) -> bool:
        """Open nothing."""
        return False

    def installExtension(self, *_: Any) -> bool:
        """Install nothing."""
        return False

    def launchDesigner(self, *_: Any) -> None:
        """Start nothing."""

    def pauseRender(self) -> None:
        """Hold back drawing."""
        self._layout.setRenderPaused(True)

    def resumeRender(self) -> None:
        """Draw again."""
        self._layout.setRenderPaused(False)

    def pythonConsole(self) -> None:
        """There is no Python console."""

    def documentationLanguage(self) -> str:
        """The stand-in is English."""
        return "en"

    temporaryPath = property(lambda self: str(self._folder / "temporary"))
    defaultTemporaryPath = temporaryPath
    cachePath = property(lambda self: str(self._folder / "cache"))
    slicerHome = property(lambda self: str(self._folder / "home"))
    extensionsInstallPath = property(lambda self: str(self._folder / "extensions"))
    slicerUserSettingsFilePath = property(lambda self: self._settings.fileName())
    revision = property(lambda self: "0")
    repositoryRevision = property(lambda self: "stand-in")
    majorVersion = property(lambda self: 5)
    minorVersion = property(lambda self: 13)
    platform = property(lambda self: f"{sys.platform}-{os.name}")
    os = property(lambda self: {"linux": "linux", "darwin": "macosx"}.get(sys.platform, "win"))
    documentationBaseUrl = property(lambda self: "")
