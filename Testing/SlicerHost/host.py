"""The stand-in application as tests and the command line use it."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import ctk
import qt
import slicer
import vtk

from . import i18n, sample_data, scene, scripted, slots
from .application import Application
from .gaps import Gaps
from .interpreter_lock import HeldLoop
from .layout import LayoutManager
from .modules import ModuleManager, qSlicerScriptedLoadableModule, qSlicerScriptedLoadableModuleWidget
from .mrml_widgets import qMRMLNodeComboBox, qMRMLWidget
from .slice_view import SliceView
from .ui_loader import QUiLoader
from .window import MainWindow

CHECKOUT = Path(__file__).resolve().parents[2]


class Host:
    """One application with one scene, one window and, once loaded, a module."""

    def __init__(self, folder: Path | None = None, testing: bool = True) -> None:
        self._temporary = None if folder else Path(tempfile.mkdtemp(prefix="SlicerHost-"))
        self.folder = folder or self._temporary
        self.module_name: str | None = None
        qt.QUiLoader = QUiLoader
        _complete_slicer()
        self.app = slicer.app = Application(self.folder, testing)
        self.app._host = self
        self._world = scene.build(self.folder / "home", self.folder / "temporary")
        self.scene = self._world.scene
        self.app.adopt(self._world, ModuleManager(self._world.logics))
        _complete_parameter_nodes()
        self.window = MainWindow()
        self.layout = LayoutManager(self._world, self.window.views())
        self.app.setLayoutManager(self.layout)
        self._running = True
        self._held: HeldLoop | None = None
        self.window.show()
        self.window.activateWindow()
        self.process_events()

    @property
    def slot_errors(self) -> list[BaseException]:
        """What slots, events and observers raised since it was last cleared."""
        return slots.errors.errors

    @contextmanager
    def no_slot_errors(self) -> Iterator[None]:
        """Assert that nothing is raised in a slot, an event or an observer meanwhile; for a fixture."""
        self.slot_errors.clear()
        yield
        raised, self.slot_errors[:] = list(self.slot_errors), []
        if raised:
            raise AssertionError(f"raised in slots: {raised}") from raised[0]

    def process_events(self) -> None:
        """Let Qt deliver what is waiting, deletions included."""
        self.app.processEvents()
        self.app.sendPostedEvents(None, qt.QEvent.DeferredDelete)

    def wait_until(self, condition: Callable[[], Any], timeout_s: float = 5.0) -> Any:
        """Run the event loop until ``condition()`` holds and return it; raise ``TimeoutError`` otherwise."""
        end = time.monotonic() + timeout_s
        while True:
            met = condition()
            if met:
                return met
            if time.monotonic() > end:
                raise TimeoutError(f"not met within {timeout_s} s")
            if self._held is not None:
                # Every look at the condition lets other threads run for a moment: look rarely.
                self._held.run(100)
            else:
                self.app.processEvents(qt.QEventLoop.AllEvents, 20)
                time.sleep(0.002)

    def wait(self, seconds: float) -> None:
        """Run the event loop for a while."""
        end = time.monotonic() + seconds
        self.wait_until(lambda: time.monotonic() >= end, seconds + 1)

    @contextmanager
    def interpreter_held(self) -> Iterator[None]:
        """Wait as Slicer does meanwhile: other threads run only while the main thread executes Python."""
        self._held = HeldLoop()
        try:
            yield
        finally:
            self._held = None

    @contextmanager
    def main_thread_gaps(self) -> Iterator[Gaps]:
        """Measure how long the event loop is kept from running; see :class:`Gaps`."""
        gaps = Gaps()
        gaps.start()
        try:
            yield gaps
        finally:
            gaps.stop()

    def load_module(self, module: str | Path = "CMBDetector", enter: bool = True) -> Any:
        """Load a module by name (in the checkout) or by file, show its panel, and return the Python widget."""
        path = Path(module)
        if path.suffix != ".py":
            path = CHECKOUT / str(module) / f"{module}.py"
        # In a checkout the library lies beside the module's folder, once installed beside the module.
        if str(CHECKOUT) not in sys.path:
            sys.path.insert(0, str(CHECKOUT))
        if path.stem in self.app.moduleManager().scripted():
            self.unload_module(path.stem)
        loaded = self.app.moduleManager().load(path.resolve())
        # Slicer says so when all modules are there and none is open yet.
        self.app.startupCompleted.emit()
        widget = loaded.widgetRepresentation()
        self.window.show_module(widget)
        self.module_name = path.stem
        if enter:
            widget.enter()
        self.process_events()
        return widget.self()

    def _panel(self, name: str | None = None) -> qSlicerScriptedLoadableModuleWidget:
        return slicer.util.getModule(name or self.module_name).widgetRepresentation()

    @property
    def widget(self) -> Any:
        """The Python widget of the module that was loaded last."""
        return self._panel().self()

    def enter(self, name: str | None = None) -> None:
        """Go to the module, as when the user selects it."""
        if name and self.module_name and name != self.module_name:
            self._panel().exit()
        self.module_name = name or self.module_name
        self.window.show_module(self._panel())
        self._panel().enter()

    def exit(self) -> None:
        """Go to another module."""
        self._panel().exit()

    def reload_module(self) -> Any:
        """Do what the button *Reload* does and return the new Python widget."""
        self.widget.onReload()
        self.process_events()
        return self.widget

    def unload_module(self, name: str | None = None) -> None:
        """Take the module away, as when Slicer quits."""
        name = name or self.module_name
        self.app.moduleManager().unload(name)
        if name == self.module_name:
            self.module_name = None
        self.process_events()

    def close_scene(self) -> None:
        """Do what *File > Close Scene* does."""
        self.scene.Clear(0)
        self.process_events()

    def load_volume(self, path: str | Path, show: bool = True) -> slicer.vtkMRMLScalarVolumeNode:
        """Load a volume and show it in all slice views."""
        node = slicer.util.loadVolume(str(path), properties={"show": False})
        if show:
            slicer.util.setSliceViewerLayers(background=node, fit=True)
            self.process_events()
        return node

    def click(self, button: qt.QAbstractButton) -> None:
        """Click a button that the user could click."""
        assert button.isVisible(), f"{button.objectName or button.text!r} cannot be seen"
        assert button.enabled, f"{button.objectName or button.text!r} is disabled: {button.toolTip}"
        button.click()
        self.process_events()

    def view(self, name: str = "Red") -> SliceView:
        """The slice view of that name."""
        return self.layout.sliceWidget(name).sliceView()

    def click_slice(self, view: SliceView | str, ras: Sequence[float], button: Any = None) -> None:
        """Click on a position in RAS mm; the view moves to the slice that holds it."""
        view = self.view(view) if isinstance(view, str) else view
        view.mrmlSliceNode().JumpSliceByOffsetting(*ras)
        self.process_events()
        place = view.position_of(ras)
        button = button or qt.Qt.LeftButton
        steps = (
            (qt.QEvent.MouseMove, qt.Qt.NoButton, qt.Qt.NoButton),
            (qt.QEvent.MouseButtonPress, button, button),
            (qt.QEvent.MouseButtonRelease, button, qt.Qt.NoButton),
        )
        for kind, changed, held in steps:
            point = qt.QPointF(place)
            event = qt.QMouseEvent(kind, point, qt.QPointF(view.mapToGlobal(place)), changed, held, qt.Qt.NoModifier)
            self.app.sendEvent(view, event)
            self.process_events()

    def scroll(self, view: SliceView | str, steps: int) -> None:
        """Turn the wheel by ``steps`` notches, away from the user where it is positive."""
        view = self.view(view) if isinstance(view, str) else view
        middle = qt.QPoint(view.width // 2, view.height // 2)
        for _ in range(abs(steps)):
            turned = qt.QPoint(0, 120 if steps > 0 else -120)
            event = qt.QWheelEvent(
                qt.QPointF(middle),
                qt.QPointF(view.mapToGlobal(middle)),
                qt.QPoint(),
                turned,
                qt.Qt.NoButton,
                qt.Qt.NoModifier,
                qt.Qt.NoScrollPhase,
                False,
            )
            self.app.sendEvent(view, event)
            self.process_events()

    def press(self, target: qt.QWidget | None, keys: str) -> None:
        """Press keys, written as in ``"Ctrl+Z"``, in ``target`` (default: whatever has the focus)."""
        if target is not None:
            target.window().activateWindow()
            target.setFocus(qt.Qt.OtherFocusReason)
        self.process_events()
        combination = qt.QKeySequence(keys)[0]
        receiver = target or self.app.focusWidget() or self.window
        text = keys.lower() if len(keys) == 1 else ""
        for kind in (qt.QEvent.KeyPress, qt.QEvent.KeyRelease):
            event = qt.QKeyEvent(kind, combination.key(), combination.keyboardModifiers(), text)
            self.app.postEvent(receiver, event)
            self.process_events()

    def reset(self) -> None:
        """Make it as new for the next test: no module, an empty scene, no settings, the usual layout."""
        for name in self.app.moduleManager().scripted():
            self.unload_module(name)
        self.close_scene()
        for settings in (self.app.userSettings(), self.app.settings()):
            settings.clear()
        self.layout.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        interaction = self.app.applicationLogic().GetInteractionNode()
        interaction.SetCurrentInteractionMode(interaction.ViewTransform)
        focused = self.app.focusWidget()
        if focused is not None:
            focused.clearFocus()
        self.window.activateWindow()
        self.process_events()

    def shutdown(self) -> None:
        """Quit as Slicer does: tell those who wait for it, unload the modules, let go of scene and views."""
        if not self._running:
            return
        self._running = False
        qt.QTimer.singleShot(0, self.app.quit)
        self.app.exec_()
        for name in self.app.moduleManager().scripted():
            self.unload_module(name)
        self.layout.close_views()
        self.window.close()
        self.scene.Clear(1)
        self.process_events()
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)


def _module(name: str, source: Any, names: list[str]) -> ModuleType:
    module = ModuleType(name, source.__doc__)
    for one in names:
        setattr(module, one, getattr(source, one))
    module.__all__ = names
    sys.modules[name] = module
    return module


def _complete_slicer() -> None:
    """Add to the wheel's ``slicer`` what only the application has."""
    for cls in (
        qMRMLWidget,
        qMRMLNodeComboBox,
        qSlicerScriptedLoadableModule,
        qSlicerScriptedLoadableModuleWidget,
    ):
        setattr(slicer, cls.__name__, cls)
    slicer.i18n = _module("slicer.i18n", i18n, ["tr", "translate", "getContext"])
    slicer.ScriptedLoadableModule = _module("slicer.ScriptedLoadableModule", scripted, scripted.__all__)
    _module("SampleData", sample_data, ["SampleDataLogic", "sources"])
    for name, module in (("vtk", vtk), ("ctk", ctk), ("qt", qt)):
        setattr(slicer, name, module)


def _complete_parameter_nodes() -> None:
    from . import parameter_node

    slicer.parameterNodeWrapper = _module("slicer.parameterNodeWrapper", parameter_node, parameter_node.__all__)
