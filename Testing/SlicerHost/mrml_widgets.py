"""Stand-ins for Slicer's widgets that know the scene: ``qMRMLWidget`` and ``qMRMLNodeComboBox``."""

from __future__ import annotations

from typing import Any

import qt
import shiboken6
import slicer
from PySide6.QtCore import Property, Signal
from vtkmodules.vtkCommonCore import vtkCommand


def _release(observed: list[tuple[Any, int]]) -> None:
    """Remove the observers and empty the list."""
    for source, tag in observed:
        source.RemoveObserver(tag)
    observed.clear()


class qMRMLWidget(qt.QWidget):
    """A widget that hands the scene on to its children."""

    _stand_in = True
    mrmlSceneChanged = Signal(object)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._scene: slicer.vtkMRMLScene | None = None

    def mrmlScene(self) -> slicer.vtkMRMLScene | None:
        """The scene, if one was set."""
        return self._scene

    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        """Set the scene and tell the children."""
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


class qMRMLNodeComboBox(qMRMLWidget):
    """Chooses one of the scene's nodes of given classes."""

    _stand_in = True
    currentNodeChanged = Signal((object,), (bool,))
    currentNodeIDChanged = Signal(str)
    nodeAddedByUser = Signal(object)
    nodeActivated = Signal(object)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._types: list[str] = []
        self._flags = {"none": False, "add": True, "remove": True, "rename": False, "edit": False, "hidden": False}
        self._attributes: list[tuple[str, str, str | None]] = []
        self._base_name, self._none_display, self._select_created = "", "None", True
        self._ids: list[str | None] = []
        self._current: str | None = None
        self._watching: list[tuple[Any, int]] = []
        self._named: list[tuple[Any, int]] = []
        # Observers keep this object alive, and this object the nodes: nothing else would end that.
        watching, named = self._watching, self._named
        self.connect("destroyed()", lambda: (_release(watching), _release(named)))
        self._combo = qt.QComboBox()
        row = qt.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._combo)
        self._combo.connect("currentIndexChanged(int)", self._on_index)
        self._combo.connect("activated(int)", lambda _: self.nodeActivated.emit(self.currentNode()))

    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        """Offer the nodes of ``scene``."""
        if scene is self._scene:
            return
        _release(self._watching)
        if scene is not None:
            kind = slicer.vtkMRMLScene
            events = (kind.NodeAddedEvent, kind.NodeRemovedEvent, kind.EndBatchProcessEvent, kind.EndCloseEvent)
            self._watching += [(scene, scene.AddObserver(event, self._on_scene)) for event in events]
        super().setMRMLScene(scene)
        self._refresh()

    def _on_scene(self, *_: Any) -> None:
        if shiboken6.isValid(self) and not self._scene.IsBatchProcessing():
            self._refresh()

    def _on_renamed(self, node: slicer.vtkMRMLNode, _: str) -> None:
        if shiboken6.isValid(self) and node.GetID() in self._ids:
            self._combo.setItemText(self._ids.index(node.GetID()), node.GetName() or "")

    def _offered(self, node: slicer.vtkMRMLNode) -> bool:
        if node.GetHideFromEditors() and not self._flags["hidden"]:
            return False
        for kind, key, value in self._attributes:
            if node.IsA(kind) and (node.GetAttribute(key) is None or value not in (None, node.GetAttribute(key))):
                return False
        return True

    def _nodes(self) -> list[slicer.vtkMRMLNode]:
        scene = self._scene
        if scene is None:
            return []
        found = (scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes()))
        return [node for node in found if any(node.IsA(kind) for kind in self._types) and self._offered(node)]

    def _refresh(self) -> None:
        """Fill the list anew and keep the selection while its node exists."""
        nodes = self._nodes()
        _release(self._named)
        self._named += [(node, node.AddObserver(vtkCommand.ModifiedEvent, self._on_renamed)) for node in nodes]
        none = [None] if self._flags["none"] else []
        self._ids = [*none, *(node.GetID() for node in nodes)]
        blocked = self._combo.blockSignals(True)
        self._combo.clear()
        self._combo.addItems([*(self._none_display for _ in none), *(node.GetName() or "" for node in nodes)])
        index = self._ids.index(self._current) if self._current in self._ids else -1
        self._combo.setCurrentIndex(index)
        self._combo.blockSignals(blocked)
        if index < 0:
            self._select(None)

    def _on_index(self, index: int) -> None:
        self._select(self._ids[index] if 0 <= index < len(self._ids) else None)

    def _select(self, node_id: str | None) -> None:
        if node_id != self._current:
            self._current = node_id
            node = self.currentNode()
            self.currentNodeIDChanged.emit(node_id or "")
            self._emit_changed(node)

    def _emit_changed(self, node: slicer.vtkMRMLNode | None) -> None:
        signal = self.currentNodeChanged._signal
        signal[object].emit(node)
        signal[bool].emit(node is not None)

    def currentNode(self) -> slicer.vtkMRMLNode | None:
        """The chosen node."""
        return self._scene.GetNodeByID(self._current) if self._scene is not None and self._current else None

    def setCurrentNode(self, node: slicer.vtkMRMLNode | None) -> None:
        """Choose ``node``; one that is not offered chooses nothing."""
        self.setCurrentNodeID(node.GetID() if node is not None else "")

    def setCurrentNodeID(self, node_id: str) -> None:
        """Choose the node of that ID."""
        wanted = node_id or None
        self._combo.setCurrentIndex(self._ids.index(wanted) if wanted in self._ids else -1)

    def setCurrentNodeIndex(self, index: int) -> None:
        """Choose the node at ``index``, not counting "None"."""
        self._combo.setCurrentIndex(index + self._flags["none"])

    def nodeCount(self) -> int:
        """The number of nodes that are offered."""
        return len(self._ids) - self._flags["none"]

    def nodeFromIndex(self, index: int) -> slicer.vtkMRMLNode | None:
        """The node at ``index``, not counting "None"."""
        ids = self._ids[self._flags["none"] :]
        return self._scene.GetNodeByID(ids[index]) if 0 <= index < len(ids) else None

    def addNode(self, node_type: str = "") -> slicer.vtkMRMLNode:
        """Do what "Create new" does."""
        node = self._scene.AddNewNodeByClass(node_type or self._types[0], self._base_name)
        if self._select_created:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self) -> None:
        """Do what "Delete current" does."""
        if self.currentNode() is not None:
            self._scene.RemoveNode(self.currentNode())

    def addAttribute(self, node_type: str, name: str, value: str | None = None) -> None:
        """Offer nodes of that type only when they have the attribute."""
        self._attributes.append((node_type, name, value))
        self._refresh()

    def removeAttribute(self, node_type: str, name: str) -> None:
        """Undo :meth:`addAttribute`."""
        self._attributes = [kept for kept in self._attributes if kept[:2] != (node_type, name)]
        self._refresh()

    def setNodeTypes(self, types: list[str]) -> None:
        """Offer nodes of these classes."""
        self._types = list(types)
        self._refresh()

    def _set_flag(self, name: str, on: bool) -> None:
        self._flags[name] = bool(on)
        self._refresh()

    def setNoneEnabled(self, on: bool) -> None:
        """Offer to choose no node."""
        self._set_flag("none", on)

    def setNoneDisplay(self, text: str) -> None:
        """Set the text of the entry for no node."""
        self._none_display = text
        self._refresh()

    def setBaseName(self, name: str) -> None:
        """Set the name of nodes that are created."""
        self._base_name = name

    def setSelectNodeUponCreation(self, on: bool) -> None:
        """Choose a node that the user creates."""
        self._select_created = on

    nodeTypes = Property("QStringList", lambda self: list(self._types), setNodeTypes)
    noneEnabled = Property(bool, lambda self: self._flags["none"], setNoneEnabled)
    addEnabled = Property(bool, lambda self: self._flags["add"], lambda self, on: self._set_flag("add", on))
    removeEnabled = Property(bool, lambda self: self._flags["remove"], lambda self, on: self._set_flag("remove", on))
    renameEnabled = Property(bool, lambda self: self._flags["rename"], lambda self, on: self._set_flag("rename", on))
    editEnabled = Property(bool, lambda self: self._flags["edit"], lambda self, on: self._set_flag("edit", on))
    showHidden = Property(bool, lambda self: self._flags["hidden"], lambda self, on: self._set_flag("hidden", on))
    noneDisplay = Property(str, lambda self: self._none_display, setNoneDisplay)
    baseName = Property(str, lambda self: self._base_name, setBaseName)
    selectNodeUponCreation = Property(bool, lambda self: self._select_created, setSelectNodeUponCreation)
    currentNodeID = Property(str, lambda self: self._current or "", setCurrentNodeID)
