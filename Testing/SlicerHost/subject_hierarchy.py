"""Puts data nodes into the subject hierarchy, which in Slicer a Qt class does that the wheel lacks."""

from __future__ import annotations

from typing import Any

import slicer
from vtkmodules.util.misc import calldata_type
from vtkmodules.util.vtkConstants import VTK_OBJECT

_LISTED = (
    "vtkMRMLVolumeNode",
    "vtkMRMLMarkupsNode",
    "vtkMRMLSegmentationNode",
    "vtkMRMLModelNode",
    "vtkMRMLTransformNode",
    "vtkMRMLTableNode",
    "vtkMRMLTextNode",
)


class SubjectHierarchyKeeper:
    """Gives every data node of the scene an item, and takes the item away with the node."""

    def __init__(self, scene: slicer.vtkMRMLScene) -> None:
        self._scene = scene
        self._tags = [
            scene.AddObserver(event, slot)
            for event, slot in (
                (scene.NodeAddedEvent, self._on_added),
                (scene.NodeAboutToBeRemovedEvent, self._on_removed),
                (scene.EndImportEvent, self._add_missing),
                (scene.EndCloseEvent, self._add_missing),
            )
        ]

    def _tree(self) -> slicer.vtkMRMLSubjectHierarchyNode:
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self._scene)

    def _add(self, node: slicer.vtkMRMLNode) -> None:
        listed = any(node.IsA(kind) for kind in _LISTED) and not node.GetHideFromEditors()
        tree = self._tree()
        if listed and tree is not None and not tree.GetItemByDataNode(node):
            tree.CreateItem(tree.GetSceneItemID(), node)

    @calldata_type(VTK_OBJECT)
    def _on_added(self, _scene: Any, _event: str, node: slicer.vtkMRMLNode) -> None:
        # A scene that is loaded brings its own tree, which is complete at the end only.
        if not self._scene.IsImporting() and not self._scene.IsClosing():
            self._add(node)

    @calldata_type(VTK_OBJECT)
    def _on_removed(self, _scene: Any, _event: str, node: slicer.vtkMRMLNode) -> None:
        tree = None if self._scene.IsClosing() or node.IsA("vtkMRMLSubjectHierarchyNode") else self._tree()
        item = tree.GetItemByDataNode(node) if tree is not None else 0
        if item:
            tree.RemoveItem(item, False, False)

    def _add_missing(self, *_: Any) -> None:
        for index in range(self._scene.GetNumberOfNodes()):
            self._add(self._scene.GetNthNode(index))
