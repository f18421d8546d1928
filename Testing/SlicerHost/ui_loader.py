"""Loads ``.ui`` files with the stand-in widgets, and refuses what it does not know."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import qt
from PySide6.QtUiTools import QUiLoader as PlainLoader

from . import ctk_widgets, mrml_widgets, slots

CUSTOM = {cls.__name__: cls for cls in (*ctk_widgets.WIDGETS, mrml_widgets.qMRMLWidget, mrml_widgets.qMRMLNodeComboBox)}


class QUiLoader(PlainLoader):
    """``qt.QUiLoader``: an unknown class, sender, signal, receiver or slot raises."""

    def createWidget(self, class_name: str, parent: qt.QWidget | None = None, name: str = "") -> qt.QWidget:
        """Called by Qt for each widget of the file."""
        if class_name not in CUSTOM:
            return super().createWidget(class_name, parent, name)
        widget = CUSTOM[class_name](parent) if parent is not None else CUSTOM[class_name]()
        widget.setObjectName(name)
        return widget

    def load(self, device: qt.QIODevice, parent: qt.QWidget | None = None) -> qt.QWidget:
        """Load the file that ``device`` has open."""
        tree = ET.fromstring(bytes(device.readAll().data()))
        used = {element.get("class") for element in tree.iter("widget")}
        unknown = used - set(CUSTOM) - set(self.availableWidgets()) - {"Line"}
        if unknown:
            raise RuntimeError(f"the stand-in host has no widget class {', '.join(sorted(unknown))}")
        wires = [
            {part: wire.findtext(part, "") for part in ("sender", "signal", "receiver", "slot")}
            for wire in tree.iter("connection")
        ]
        for connections in tree.findall("connections"):
            tree.remove(connections)
        buffer = qt.QBuffer()
        buffer.setData(ET.tostring(tree))
        buffer.open(qt.QIODevice.ReadOnly)
        widget = super().load(buffer, parent) if parent is not None else super().load(buffer)
        for wire in wires:
            _connect(widget, **wire)
        return widget


def _connect(root: qt.QWidget, sender: str, signal: str, receiver: str, slot: str) -> None:
    def find(name: str) -> Any:
        found = root if root.objectName == name else root.findChild(qt.QObject, name)
        if found is None:
            raise RuntimeError(f"a connection of the .ui file names {name!r}, which it does not contain")
        return found

    slots.connect(find(sender), signal, find(receiver), slot)
