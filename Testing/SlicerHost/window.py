"""The main window: the module's panel at the left, the slice views at the right."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import qt

TITLE = "CMBDetector in the stand-in host - not 3D Slicer"


class MainWindow(qt.QMainWindow):
    """``slicer.util.mainWindow()``."""

    _stand_in = True

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self.windowTitle = TITLE
        self._panel = qt.QScrollArea()
        self._panel.setObjectName("ModulePanel")
        self._panel.widgetResizable = True
        self._panel.horizontalScrollBarPolicy = qt.Qt.ScrollBarAlwaysOff
        self._panel.setMinimumWidth(300)
        self._views = qt.QFrame()
        self._views.setObjectName("CentralWidgetLayoutFrame")
        split = qt.QSplitter(qt.Qt.Horizontal)
        split.addWidget(self._panel)
        split.addWidget(self._views)
        split.setStretchFactor(1, 1)
        split.setSizes([460, 940])
        self.setCentralWidget(split)
        self.statusBar().showMessage("Stand-in host: real scene, markups and slices; everything else is a substitute")
        self.resize(1400, 900)

    def views(self) -> qt.QFrame:
        """The frame for the layout manager."""
        return self._views

    def panel(self) -> qt.QScrollArea:
        """The scroll area with the module's panel."""
        return self._panel

    def show_module(self, widget: qt.QWidget) -> None:
        """Put a module's panel into the window."""
        kept = self._panel.takeWidget()
        if kept is not None:
            kept.removeEventFilter(self)
        if kept is not None and kept is not widget:
            kept.setParent(None)
        self._panel.setWidget(widget)
        widget.installEventFilter(self)
        widget.show()
        self._fit_panel(widget)

    def eventFilter(self, watched: qt.QObject, event: qt.QEvent) -> bool:
        """Slicer's module panel is never narrower than what it holds; it scrolls up and down only."""
        if event.type() == qt.QEvent.LayoutRequest:
            self._fit_panel(watched)
        return False

    def _fit_panel(self, widget: qt.QWidget) -> None:
        bar = self._panel.verticalScrollBar().sizeHint().width()
        self._panel.setMinimumWidth(max(300, widget.minimumSizeHint().width() + bar + 4))

    def moduleSelector(self) -> Any:
        """What ``slicer.util.selectModule`` asks for."""
        import slicer

        return SimpleNamespace(
            selectModule=lambda name: slicer.app._host.enter(name), selectedModule=slicer.app._host.module_name or ""
        )
