"""Stand-in for the manager of files: what ``slicer.util.loadVolume``, ``saveNode`` and ``saveScene`` call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

from .scene import SceneWorld

_TYPES = (
    ("SceneFile", (".mrml", ".mrb")),
    ("MarkupsFile", (".mrk.json", ".fcsv")),
    ("SegmentationFile", (".seg.nrrd", ".seg.nhdr")),
    ("TableFile", (".tsv", ".csv")),
    ("TextFile", (".txt", ".json")),
    ("VolumeFile", (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm")),
)


class IOManager:
    """Reads and writes through the modules' real logics and the nodes' real storage nodes."""

    def __init__(self, world: SceneWorld) -> None:
        self._world = world

    def fileType(self, filename: str) -> str:
        """The kind of a file, by its ending."""
        lower = str(filename).lower()
        return next((kind for kind, endings in _TYPES if lower.endswith(endings)), "NoFile")

    def fileWriterFileType(self, node: Any) -> str:
        """The kind of file of a node; all are written by their storage node."""
        return node.GetClassName()

    def loadNodes(self, kind: str, properties: dict[str, Any], loaded: Any = None, messages: Any = None) -> bool:
        """Load a file; the new nodes are added to ``loaded``."""
        path = properties["fileName"]
        if not Path(path).is_file():
            return False
        if kind == "SceneFile":
            return self._load_scene(path, properties.get("clear", False))
        reader = getattr(self, f"_load_{kind.removesuffix('File').lower()}", None)
        node = reader(path, properties) if reader else None
        if node is None:
            return False
        if properties.get("name"):
            node.SetName(properties["name"])
        if loaded is not None:
            loaded.AddItem(node)
        return True

    def _load_scene(self, path: str, clear: bool) -> bool:
        scene = self._world.scene
        if path.endswith(".mrb"):
            return bool(self._world.application_logic.OpenSlicerDataBundle(path, slicer.app.temporaryPath))
        scene.SetURL(path)
        return bool(scene.Connect() if clear else scene.Import())

    def _load_volume(self, path: str, properties: dict[str, Any]) -> Any:
        logic = self._world.logics["Volumes"]
        options = logic.LabelMap if properties.get("labelmap") else 0
        if properties.get("singleFile"):
            options |= logic.SingleFile
        node = logic.AddArchetypeVolume(path, properties.get("name") or _stem(path), options)
        if node is not None and properties.get("show", True):
            selection = self._world.application_logic.GetSelectionNode()
            if properties.get("labelmap"):
                selection.SetActiveLabelVolumeID(node.GetID())
            else:
                selection.SetActiveVolumeID(node.GetID())
            self._world.application_logic.PropagateVolumeSelection()
        return node

    def _load_markups(self, path: str, _: dict[str, Any]) -> Any:
        node_id = self._world.logics["Markups"].LoadMarkups(path, _stem(path))
        return self._world.scene.GetNodeByID(node_id) if node_id else None

    def _load_segmentation(self, path: str, _: dict[str, Any]) -> Any:
        return self._world.logics["Segmentations"].LoadSegmentationFromFile(path, True, _stem(path))

    def _load_table(self, path: str, _: dict[str, Any]) -> Any:
        return self._world.logics["Tables"].AddTable(path, _stem(path))

    def _load_text(self, path: str, _: dict[str, Any]) -> Any:
        node = self._world.scene.AddNewNodeByClass("vtkMRMLTextNode", _stem(path))
        node.SetText(Path(path).read_text(encoding="utf-8"))
        return node

    def saveNodes(self, kind: str, properties: dict[str, Any], messages: Any = None) -> bool:
        """Write a node, or the scene."""
        scene, path = self._world.scene, str(properties["fileName"])
        if kind == "SceneFile":
            return self._save_scene(path)
        node = scene.GetNodeByID(properties["nodeID"])
        node.AddDefaultStorageNode(path)
        storage = node.GetStorageNode()
        storage.SetFileName(path)
        return bool(storage.WriteData(node))

    def _save_scene(self, path: str) -> bool:
        scene, logic = self._world.scene, self._world.application_logic
        if path.endswith(".mrml"):
            scene.SetURL(path)
            return bool(scene.Commit())
        if path.endswith(".mrb"):
            return bool(scene.WriteToMRB(path, None))
        return bool(logic.SaveSceneToSlicerDataBundleDirectory(path, None))


def _stem(path: str) -> str:
    name = Path(path).name
    endings = sorted((ending for _, endings in _TYPES for ending in endings), key=len, reverse=True)
    ending = next((one for one in endings if name.lower().endswith(one)), "")
    return name[: len(name) - len(ending)] if ending else Path(name).stem
