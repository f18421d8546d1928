"""Stand-ins for the module manager and for the C++ side of a scripted module."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import qt
import slicer
from PySide6.QtCore import Signal

from .mrml_widgets import qMRMLWidget


class CoreModule:
    """``slicer.modules.markups`` and the like: a name and a real logic."""

    def __init__(self, name: str, logic: Any) -> None:
        self.name, self.title, self._logic = name.lower(), name, logic

    def logic(self) -> Any:
        """The module's logic."""
        return self._logic

    def widgetRepresentation(self) -> None:
        """The panels of Slicer's own modules are not in the wheel."""
        return None


class qSlicerScriptedLoadableModule:
    """The application's side of a scripted module; ``parent`` of the Python class."""

    # What else is assigned, a misspelt "catgories" for one, is refused.
    __slots__ = (
        "_self",
        "_widget",
        "acknowledgementText",
        "associatedNodeTypes",
        "categories",
        "contributors",
        "dependencies",
        "helpText",
        "hidden",
        "icon",
        "index",
        "name",
        "path",
        "title",
        "widgetRepresentationCreationEnabled",
    )

    def __init__(self, path: Path) -> None:
        self.path, self.name = str(path), path.stem
        self.hidden, self.index, self.icon = False, -1, qt.QIcon()
        self.associatedNodeTypes: list[str] = []
        self.widgetRepresentationCreationEnabled = True
        self._self: Any = None
        self._widget: qSlicerScriptedLoadableModuleWidget | None = None

    def self(self) -> Any:
        """The instance of the Python class."""
        return self._self

    def logic(self) -> Any:
        """The widget's logic, as ``slicer.util.getModuleLogic`` finds it."""
        return getattr(self.widgetRepresentation().self(), "logic", None)

    def widgetRepresentation(self) -> qSlicerScriptedLoadableModuleWidget:
        """The panel; it is built when it is first asked for."""
        if self._widget is None:
            self._widget = qSlicerScriptedLoadableModuleWidget(self)
            self._widget.setMRMLScene(slicer.mrmlScene)
            self._widget.build()
        return self._widget


class qSlicerScriptedLoadableModuleWidget(qMRMLWidget):
    """The application's side of a panel; ``parent`` of the Python widget class."""

    _stand_in = True

    def __init__(self, module: qSlicerScriptedLoadableModule) -> None:
        super().__init__()
        self._module, self._self, self._entered = module, None, False
        self.setObjectName(f"{module.name}ModuleWidget")
        self.setLayout(qt.QVBoxLayout())

    def build(self) -> None:
        """Make the Python widget and let it set up the panel."""
        name = self._module.name
        cls = getattr(sys.modules[name], f"{name}Widget")
        self._self = cls(self)
        setattr(slicer.modules, f"{name}Widget", self._self)
        self._self.setup()

    def self(self) -> Any:
        """The instance of the Python widget class."""
        return self._self

    def module(self) -> qSlicerScriptedLoadableModule:
        """The module of the panel."""
        return self._module

    def _call(self, name: str) -> None:
        method = getattr(self._self, name, None)
        if method is not None:
            method()

    def enter(self) -> None:
        """The user has come to the module."""
        if not self._entered:
            self._entered = True
            self._call("enter")

    def exit(self) -> None:
        """The user goes to another module."""
        if self._entered:
            self._entered = False
            self._call("exit")

    def isEntered(self) -> bool:
        """Whether the panel is the one that the user sees."""
        return self._entered

    def reload(self) -> None:
        """Build the panel anew, after ``slicer.util.reloadScriptedModule`` has cleared it.

        Slicer calls ``setup`` and not ``enter``, although the user is still there.
        """
        self.build()


class ModuleManager(qt.QObject):
    """``slicer.app.moduleManager()``."""

    _stand_in = True
    moduleLoaded = Signal(str)
    moduleAboutToBeUnloaded = Signal(str)
    moduleUnloaded = Signal(str)

    def __init__(self, logics: dict[str, Any]) -> None:
        super().__init__()
        self._modules: dict[str, Any] = {}
        slicer.modules = SimpleNamespace()
        for name, logic in logics.items():
            self._add(CoreModule(name, logic))

    def _add(self, module: Any) -> None:
        self._modules[module.name] = module
        setattr(slicer.modules, module.name.lower(), module)
        names = getattr(slicer, "moduleNames", None) or SimpleNamespace()
        setattr(names, module.name, module.name)
        slicer.moduleNames = names

    def load(self, path: Path) -> qSlicerScriptedLoadableModule:
        """Import a module's file and make the module, without its panel."""
        folder = str(path.parent)
        if folder not in sys.path:
            sys.path.insert(0, folder)
        source = _execute(path)
        module = qSlicerScriptedLoadableModule(path)
        module._self = getattr(source, path.stem)(module)
        self._add(module)
        setattr(slicer.modules, f"{path.stem}Instance", module._self)
        self.moduleLoaded.emit(path.stem)
        return module

    def unload(self, name: str) -> None:
        """Take a scripted module away, as Slicer does when it quits."""
        module = self._modules.pop(name)
        if module._widget is not None:
            module._widget.exit()
        self.moduleAboutToBeUnloaded.emit(name)
        if module._widget is not None:
            module._widget.setParent(None)
            module._widget.deleteLater()
        for attribute in (name.lower(), f"{name}Widget", f"{name}Instance"):
            if hasattr(slicer.modules, attribute):
                delattr(slicer.modules, attribute)
        self.moduleUnloaded.emit(name)

    def module(self, name: str) -> Any:
        """The module of that name, or None."""
        return next((found for key, found in self._modules.items() if key.lower() == name.lower()), None)

    def modulesNames(self) -> list[str]:
        """The names of all modules."""
        return list(self._modules)

    def scripted(self) -> list[str]:
        """The names of the modules that were loaded from files."""
        return [name for name, found in self._modules.items() if isinstance(found, qSlicerScriptedLoadableModule)]

    def factoryManager(self) -> SimpleNamespace:
        """Only to list and find the modules."""
        return SimpleNamespace(loadedModuleNames=self.modulesNames, isLoaded=lambda name: self.module(name) is not None)


def _execute(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"there is no module file {path}")
    source = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = source
    spec.loader.exec_module(source)
    return source
