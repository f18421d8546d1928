"""The stand-in for 3D Slicer: volumes, points, layouts and scenes, through the slice views."""

# ruff: noqa: F811  (fixtures are imported, and named again as arguments)
from __future__ import annotations

import gc

import pytest
from host_example import EXAMPLE, middle, scan  # noqa: F401  (a fixture)


def test_a_volume_is_loaded_and_painted(host, scan):
    import slicer

    assert middle(host, "Red") == 0
    node = host.load_volume(scan)
    assert (node.GetName(), node.GetClassName()) == ("ball", "vtkMRMLScalarVolumeNode")
    assert node.GetStorageNode().GetFileName() == str(scan)
    assert node.GetDisplayNode() is not None
    # A layout that another test has shown leaves its views behind, as in Slicer.
    assert slicer.app.layoutManager().sliceViewNames()[:3] == ("Red", "Green", "Yellow")
    assert min(middle(host, view) for view in ("Red", "Green", "Yellow")) > 200
    host.view("Red").mrmlSliceNode().JumpSliceByOffsetting(0, 0, 35)
    assert middle(host, "Red") < 20


def test_loading_shows_the_volume_when_asked(host, scan):
    import slicer

    node = slicer.util.loadVolume(str(scan), {"name": "shown", "show": True})
    composite = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceCompositeNode()
    assert (node.GetName(), composite.GetBackgroundVolumeID()) == ("shown", node.GetID())
    with pytest.raises(RuntimeError, match="Failed to load"):
        slicer.util.loadVolume(str(scan.parent / "absent.nii"))


def test_a_click_places_a_point(host, scan):
    import slicer

    host.load_volume(scan)
    points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "points")
    points.CreateDefaultDisplayNodes()
    defined = []
    points.AddObserver(points.PointPositionDefinedEvent, lambda *_: defined.append(1))
    logic = slicer.app.applicationLogic()
    logic.GetSelectionNode().SetReferenceActivePlaceNodeClassName("vtkMRMLMarkupsFiducialNode")
    logic.GetSelectionNode().SetActivePlaceNodeID(points.GetID())
    logic.GetInteractionNode().SetCurrentInteractionMode(logic.GetInteractionNode().Place)
    host.click_slice("Red", [6, -8, 4])
    assert points.GetNthControlPointPosition(0) == pytest.approx((6, -8, 4), abs=0.5)
    assert defined == [1]
    assert logic.GetInteractionNode().GetCurrentInteractionMode() == logic.GetInteractionNode().ViewTransform
    host.click_slice("Green", [0, 0, 0])
    assert points.GetNumberOfControlPoints() == 1


def test_the_wheel_moves_the_slice(host, scan):
    host.load_volume(scan)
    node = host.view("Red").mrmlSliceNode()
    before = node.GetSliceOffset()
    host.scroll("Red", 3)
    assert node.GetSliceOffset() == pytest.approx(before + 6)
    host.scroll("Red", -1)
    assert node.GetSliceOffset() == pytest.approx(before + 4)


def test_a_layout_brings_a_view_of_its_own(host, scan):
    import slicer

    node = host.load_volume(scan)
    manager = slicer.app.layoutManager()
    views = "".join(
        f'<item><view class="vtkMRMLSliceNode" singletontag="{tag}">'
        '<property name="orientation" action="default">Axial</property></view></item>'
        for tag in ("Red", "Slab")
    )
    layout = manager.layoutLogic().GetLayoutNode()
    if not layout.IsLayoutDescription(4711):
        layout.AddLayoutDescription(4711, f'<layout type="horizontal">{views}</layout>')
    manager.setLayout(4711)
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    assert manager.layout == 4711
    assert middle(host, "Slab") > 200
    assert host.view("Red").isVisible()
    assert not host.view("Green").isVisible()
    assert manager.sliceWidget("absent") is None
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    assert middle(host, "Green") > 200


def test_the_scene_is_saved_closed_and_loaded(host, scan, tmp_path):
    import slicer

    node = host.load_volume(scan)
    points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "points")
    points.AddControlPoint([1, 2, 3], "first")
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    slicer.mrmlScene.RemoveNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "gone"))
    assert [tree.GetItemName(item) for item in slicer.util.getSubjectHierarchyItemChildren()] == ["ball", "points"]
    study = tree.CreateStudyItem(tree.GetSceneItemID(), "study")
    tree.SetItemParent(tree.GetItemByDataNode(node), study)
    assert slicer.util.saveNode(points, str(tmp_path / "points.mrk.json"))
    assert slicer.util.saveScene(str(tmp_path / "scene.mrml"))
    host.close_scene()
    assert slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") == []
    slicer.util.loadScene(str(tmp_path / "scene.mrml"))
    loaded = slicer.util.getNode("points")
    assert loaded.GetNthControlPointLabel(0) == "first"
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = tree.GetItemByDataNode(slicer.util.getNode("ball"))
    assert tree.GetItemName(tree.GetItemParent(item)) == "study"
    slicer.util.setSliceViewerLayers(background=slicer.util.getNode("ball"), fit=True)
    assert middle(host, "Red") > 200


def test_nothing_of_a_closed_scene_is_kept(host, scan):
    gone = []
    widget = host.load_module(EXAMPLE)
    node = host.load_volume(scan)
    node.AddObserver("DeleteEvent", lambda *_: gone.append("volume"))
    widget.parameters.volume = node
    del node, widget
    host.reset()
    gc.collect()
    assert set(gone) == {"volume"}
