"""The scene with Slicer's own logics: what the application sets up before the first node is added."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import slicer
from vtkmodules.vtkCommonCore import vtkCollection

from .subject_hierarchy import SubjectHierarchyKeeper

#: The modules whose real logic the wheel has, by the name under which ``slicer.modules`` offers them.
LOGICS = {
    "Colors": "vtkSlicerColorLogic",
    "Units": "vtkSlicerUnitsLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Texts": "vtkSlicerTextsLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
    "Plots": "vtkSlicerPlotsLogic",
}
_SLICE_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLScalarBarDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
)


@dataclass
class SceneWorld:
    """The scene, the application logic and the modules' logics."""

    scene: slicer.vtkMRMLScene
    application_logic: slicer.vtkSlicerApplicationLogic
    logics: dict[str, slicer.vtkMRMLAbstractLogic] = field(default_factory=dict)
    slice_logics: vtkCollection = field(default_factory=vtkCollection)
    keeper: SubjectHierarchyKeeper | None = None


def build(home: Path, temporary: Path) -> SceneWorld:
    """Make ``slicer.mrmlScene`` and everything that observes it."""
    scene = slicer.vtkMRMLScene()
    slicer.mrmlScene = scene
    scene.SetRootDirectory(str(temporary))
    application = slicer.vtkSlicerApplicationLogic()
    application.SetHomeDirectory(str(home))
    (home / "ColorFiles").mkdir(parents=True, exist_ok=True)
    application.SetShareDirectory(".")
    application.SetTemporaryPath(str(temporary))
    world = SceneWorld(scene, application)
    application.SetSliceLogics(world.slice_logics)
    application.SetViewLogics(vtkCollection())
    factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
    factory.SetMRMLApplicationLogic(application)
    for name in _SLICE_MANAGERS:
        if not factory.IsDisplayableManagerRegistered(name):
            factory.RegisterDisplayableManager(name)
    application.SetMRMLScene(scene)
    # Before any node: the logics register the node classes and the default storage nodes.
    for name, cls in LOGICS.items():
        logic = getattr(slicer, cls)()
        logic.SetMRMLApplicationLogic(application)
        logic.SetMRMLScene(scene)
        application.SetModuleLogic(name, logic)
        world.logics[name] = logic
    application.SetColorLogic(world.logics["Colors"])
    world.logics["Colors"].AddDefaultColorNodes()
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    _add_crosshair(scene)
    link = slicer.vtkMRMLSliceLinkLogic()
    link.SetMRMLApplicationLogic(application)
    link.SetMRMLScene(scene)
    world.logics["SliceLink"] = link
    world.keeper = SubjectHierarchyKeeper(scene)
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    return world


def _add_crosshair(scene: slicer.vtkMRMLScene) -> None:
    crosshair = slicer.vtkMRMLCrosshairNode()
    crosshair.SetCrosshairName("default")
    crosshair.SetSingletonTag("default")
    crosshair.SetName("Crosshair")
    scene.AddNode(crosshair)
