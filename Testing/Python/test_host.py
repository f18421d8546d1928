"""The stand-in for 3D Slicer: its module ``qt``, its scene and views, and the life of a module in it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

EXAMPLE = Path(__file__).resolve().parents[1] / "SlicerHost" / "Example" / "HostExample.py"


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bright ball of 20 mm around the origin, written as NIfTI."""
    ijk = np.indices((40, 40, 40)) - 19.5
    path = tmp_path_factory.mktemp("host") / "ball.nii.gz"
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -39
    nib.save(nib.Nifti1Image((1000.0 * (np.linalg.norm(ijk, axis=0) < 10)).astype(np.float32), affine), path)
    return path


@pytest.fixture
def example(host):
    """The example module's Python widget, open."""
    return host.load_module(EXAMPLE)


def middle(host, view: str) -> int:
    """How bright the middle of a slice view is painted, 0 to 255."""
    host.process_events()
    place = host.view(view)
    return place.grab().toImage().pixelColor(place.width // 2, place.height // 2).value()


# ---- qt as PythonQt offers it


def test_properties_are_attributes(host):
    import ctk
    import qt

    button = qt.QPushButton("one")
    button.text, button.enabled, button.checkable, button.name = "two", False, True, "apply"
    assert (button.text, button.enabled, button.checked, button.objectName) == ("two", False, False, "apply")
    assert button.className() == "QPushButton"
    timer = qt.QTimer()
    timer.singleShot = True
    assert (timer.singleShot, timer.active) == (True, False)
    with pytest.raises(AttributeError, match="cannot be set"):
        button.width = 5
    with pytest.raises(AttributeError, match="no attribute 'enabeld'"):
        button.enabeld = True
    section = ctk.ctkCollapsibleButton()
    with pytest.raises(AttributeError, match="no attribute 'collaped'"):
        section.collaped = True


def test_a_python_subclass_may_have_attributes_and_overrides(host):
    import qt

    class Wide(qt.QLabel):
        def __init__(self):
            super().__init__()
            self.mine = 3

        def sizeHint(self):
            return qt.QSize(321, 20)

    label = Wide()
    label.text = "wide"
    label.adjustSize()
    assert (label.mine, label.text, label.width) == (3, "wide", 321)


def test_signals_are_connected_by_signature(host):
    import qt

    seen = []
    button = qt.QPushButton("x")
    button.checkable = True
    button.connect("clicked(bool)", seen.append)
    button.connect("clicked()", lambda key="default": seen.append(key))
    button.connect("toggled(bool)", lambda: seen.append("fewer arguments"))
    button.toggled.connect(lambda on: seen.append(f"by attribute {on}"))
    button.click()
    assert seen == ["fewer arguments", "by attribute True", True, "default"]
    with pytest.raises(ValueError, match="no signal 'clickt"):
        button.connect("clickt(bool)", seen.append)
    with pytest.raises(ValueError, match=r"currentIndexChanged\(int\)"):
        qt.QComboBox().connect("currentIndexChanged(QString)", seen.append)


def test_slots_are_kept_alive_and_can_be_disconnected(host):
    import qt

    class Counter:
        clicks = 0

        def count(self):
            Counter.clicks += 1

    button = qt.QPushButton("x")
    button.connect("clicked(bool)", Counter().count)
    button.click()
    keeper = Counter()
    button.connect("clicked(bool)", keeper.count)
    assert button.disconnect("clicked(bool)", keeper.count)
    assert not button.disconnect("clicked(bool)", keeper.count)
    button.click()
    assert Counter.clicks == 2


def test_what_a_slot_raises_is_collected(host, capsys):
    import qt
    import vtk

    def fail():
        raise RuntimeError("in the slot")

    button, source = qt.QPushButton("x"), vtk.vtkObject()
    button.connect("clicked()", fail)
    source.AddObserver("ModifiedEvent", lambda *_: fail())
    qt.QTimer.singleShot(0, fail)
    button.click()
    source.Modified()
    host.wait(0.02)
    assert [str(error) for error in host.slot_errors] == ["in the slot"] * 3
    host.slot_errors.clear()
    with pytest.raises(AssertionError, match="in the slot"), host.no_slot_errors():
        button.click()


def test_header_views_lists_and_shortcuts_connect(host):
    import qt

    table = qt.QTableWidget(2, 2)
    sections = []
    table.horizontalHeader().connect("sectionClicked(int)", sections.append)
    table.horizontalHeader().sectionClicked.emit(1)
    table.setItem(0, 0, qt.QTableWidgetItem("cell"))
    assert (table.rowCount, table.item(0, 0).text(), sections) == (2, "cell", [1])


def test_file_dialogs_answer_with_the_path_alone_and_never_block_a_test(host, monkeypatch):
    import qt
    from SlicerHost import pythonqt

    with pytest.raises(RuntimeError, match="nobody would answer"):
        qt.QFileDialog.getSaveFileName(host.window, "Save")

    class Dialog:
        ask = staticmethod(lambda: ("report.csv", "*.csv"))

    pythonqt._ask_as_pythonqt(Dialog, "ask")
    monkeypatch.setattr(host.app, "_testing", False)
    assert Dialog.ask() == "report.csv"


# ---- scene and views


def test_a_volume_is_loaded_and_painted(host, scan):
    import slicer

    assert middle(host, "Red") == 0
    node = host.load_volume(scan)
    assert (node.GetName(), node.GetClassName()) == ("ball", "vtkMRMLScalarVolumeNode")
    assert node.GetStorageNode().GetFileName() == str(scan)
    assert node.GetDisplayNode() is not None
    assert slicer.app.layoutManager().sliceViewNames() == ("Red", "Green", "Yellow")
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


# ---- the application


def test_settings_are_kept_apart_from_the_users(host):
    import qt
    import slicer

    qt.QSettings().setValue("HostExample/key", 5)
    assert slicer.util.settingsValue("HostExample/key", 0, converter=int) == 5
    assert qt.QSettings().fileName().startswith(str(host.folder))
    host.reset()
    assert not slicer.app.userSettings().contains("HostExample/key")


def test_messages_do_not_wait_for_a_click(host, caplog):
    import slicer

    assert slicer.util.mainWindow() is host.window
    slicer.util.errorDisplay("went wrong")
    assert slicer.util.confirmOkCancelDisplay("sure?") is True or slicer.util.confirmYesNoDisplay("sure?") is not None
    assert "went wrong" in caplog.text
    assert slicer.util.showStatusMessage("done")


def test_blocking_is_measured(host):
    with host.main_thread_gaps() as quiet:
        host.wait(0.1)
    with host.main_thread_gaps() as blocked:
        host.wait(0.02)
        time.sleep(0.15)
    assert len(quiet.gaps) > 5
    assert 0.1 < blocked.longest_s < 1
    with pytest.raises(TimeoutError):
        host.wait_until(lambda: False, timeout_s=0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="the lock can be kept on Linux only")
def test_a_thread_can_be_made_to_starve_as_it_does_in_slicer(host):
    import qt

    steps, stop = [], threading.Event()

    def work():
        while not stop.wait(0.001):
            steps.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        host.wait(0.3)
        free = len(steps)
        with host.interpreter_held():
            host.wait(0.3)
            starved = len(steps) - free
            timer = qt.QTimer()
            timer.connect("timeout()", lambda: time.sleep(0.001))
            timer.start(5)
            host.wait(0.3)
            timer.stop()
            ticked = len(steps) - free - starved
    finally:
        stop.set()
        thread.join()
    assert starved < 20 < ticked
    assert free > 50


def test_qt_in_another_thread_is_reported(host):
    import qt

    label = qt.QLabel("x")

    def touch():
        with pytest.raises(RuntimeError):
            label.text += "y"

    def in_a_thread():
        with host.no_slot_errors():
            thread = threading.Thread(target=touch)
            thread.start()
            thread.join()

    with pytest.raises(AssertionError, match="other than the main one"):
        in_a_thread()


def test_the_program_writes_a_picture_of_the_window(application, scan, tmp_path):
    picture = tmp_path / "folder" / "window.png"
    command = [sys.executable, "-m", "SlicerHost", "--module", str(EXAMPLE)]
    env = {**os.environ, "PYTHONPATH": str(EXAMPLE.parents[2])}
    done = subprocess.run([*command, str(scan), "--screenshot", str(picture)], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert picture.stat().st_size > 10_000
    done = subprocess.run([*command, "absent.nii", "--screenshot", "x"], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (2, "there is no file absent.nii")


def test_sample_data_is_registered(host):
    import SampleData

    register = SampleData.SampleDataLogic.registerCustomSampleDataSource
    for node in ("first", "second"):
        register(category="Tests", sampleName="ball", uris="file:ball", fileNames="ball.nii", nodeNames=node)
    assert [source.nodeNames for source in SampleData.sources["Tests"]] == [["second"]]


# ---- a module


def test_a_module_lives_as_in_the_application(host, example):
    import slicer

    assert example.calls == ["setup", "enter"]
    assert slicer.modules.hostexample.title == "Host example"
    assert slicer.modules.HostExampleInstance.started == 1
    assert slicer.util.getModuleWidget("HostExample") is example is slicer.modules.HostExampleWidget
    assert slicer.util.getModuleLogic("HostExample") is example.logic
    assert Path(slicer.util.modulePath("HostExample")) == EXAMPLE
    slicer.selfTests["HostExample"]()
    host.exit()
    host.enter()
    host.click(example.ui.applyButton)
    again = host.reload_module()
    assert again is not example is not host.widget
    assert again.calls == ["setup"]
    assert example.calls == ["setup", "enter", "exit", "enter", "apply", "cleanup"]
    host.unload_module()
    assert again.calls[-2:] == ["exit", "cleanup"]
    assert not hasattr(slicer.modules, "hostexample")


def test_a_disabled_button_cannot_be_clicked(host, example):
    example.ui.applyButton.enabled = False
    example.ui.applyButton.toolTip = "choose a volume first"
    with pytest.raises(AssertionError, match="choose a volume first"):
        host.click(example.ui.applyButton)


def test_parameters_and_widgets_follow_each_other(host, example, scan):
    import slicer

    ui, parameters = example.ui, example.parameters
    assert (ui.threshold.value, ui.threshold.maximum, ui.mode.currentText, ui.size.currentText) == (
        0.5,
        1,
        "Exact",
        "large",
    )
    node = host.load_volume(scan)
    assert parameters.volume is None
    ui.volume.setCurrentNode(node)
    ui.threshold.value, ui.mode.currentIndex, ui.exact.checked, ui.count.value = 0.25, 0, False, 9
    ui.remark.text, ui.folder.currentPath = "seen", str(scan.parent)
    assert (parameters.volume, parameters.threshold, parameters.mode.name) == (node, 0.25, "FAST")
    assert (parameters.exact, parameters.count, parameters.remark) == (False, 9, "seen")
    assert parameters.folder == scan.parent
    parameters.threshold, parameters.size, parameters.count = 0.75, "small", 4
    assert (ui.threshold.value, ui.size.currentText, ui.count.value) == (0.75, "small", 4)
    slicer.mrmlScene.RemoveNode(node)
    assert parameters.volume is None
    assert ui.volume.currentNode() is None


def test_parameters_are_checked(host, example):
    parameters = example.parameters
    for name, value, error in (
        ("threshold", 1.5, ValueError),
        ("threshold", "much", TypeError),
        ("count", None, ValueError),
        ("size", "huge", ValueError),
        ("volume", parameters.parameterNode, TypeError),
    ):
        with pytest.raises(error):
            setattr(parameters, name, value)
    with pytest.raises(RuntimeError, match="cannot bind"):
        parameters.connectParametersToGui({"names": example.ui.remark})
    with pytest.raises(ValueError, match="no parameter 'absent'"):
        parameters.getValue("absent")


def test_parameters_survive_save_and_load(host, example, scan, tmp_path):
    import slicer

    parameters = example.parameters
    parameters.volume = host.load_volume(scan)
    parameters.points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "points")
    parameters.names = ["a", "b"]
    parameters.names.append("c")
    parameters.threshold = 0.125
    slicer.util.saveScene(str(tmp_path / "scene.mrml"))
    host.close_scene()
    assert "closing" in example.calls
    assert (example.parameters.threshold, example.parameters.volume, list(example.parameters.names)) == (0.5, None, [])
    slicer.util.loadScene(str(tmp_path / "scene.mrml"))
    loaded = example.logic.getParameterNode()
    assert (loaded.threshold, list(loaded.names), loaded.volume.GetName()) == (0.125, ["a", "b", "c"], "ball")
    assert loaded.points.GetName() == "points"


def test_types_that_slicer_cannot_store_are_refused(host):
    from slicer.parameterNodeWrapper import parameterNodeWrapper

    with pytest.raises(TypeError, match="no parameter can be"):

        @parameterNodeWrapper
        class _Refused:
            value: int | None


def test_the_node_selector_follows_the_scene(host, example, scan):
    import slicer

    selector, changed = example.ui.volume, []
    selector.connect("currentNodeChanged(vtkMRMLNode*)", changed.append)
    first = host.load_volume(scan)
    hidden = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "hidden")
    hidden.SetHideFromEditors(True)
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "points")
    host.load_volume(scan)
    assert selector.nodeCount() == 2
    assert selector.currentNode() is None
    selector.setCurrentNode(first)
    first.SetName("renamed")
    assert selector._combo.currentText == "renamed"
    slicer.mrmlScene.RemoveNode(first)
    assert changed == [first, None]
    assert selector.currentNodeID == ""


def test_a_section_hides_what_is_in_it(host, example):
    section = example.ui.section
    assert example.ui.count.isVisible()
    section.collapsed = True
    assert not example.ui.count.isVisible()
    assert section.height < 30
    section.collapsed = False
    assert example.ui.count.isVisible()


def test_keys_reach_shortcuts_unless_a_field_is_edited(host, example):
    import qt

    pressed = []
    shortcut = qt.QShortcut(qt.QKeySequence("A"), host.window)
    shortcut.connect("activated()", lambda: pressed.append("A"))
    host.press(None, "A")
    host.press(host.view("Red"), "A")
    host.press(example.ui.remark, "A")
    assert (pressed, example.ui.remark.text) == (["A", "A"], "a")
    shortcut.setParent(None)
    host.press(host.view("Red"), "A")
    assert len(pressed) == 2


def test_a_ui_file_with_unknown_parts_is_refused(host, tmp_path):
    import slicer

    text = (EXAMPLE.parent / "Resources" / "UI" / "HostExample.ui").read_text(encoding="utf-8")
    for old, new, message in (
        ("ctkSliderWidget", "ctkUnheardOf", "no widget class ctkUnheardOf"),
        ("<receiver>volume<", "<receiver>nobody<", "nobody"),
        ("mrmlSceneChanged", "sceneChanged", "no signal"),
    ):
        path = tmp_path / "changed.ui"
        path.write_text(text.replace(old, new), encoding="utf-8")
        with pytest.raises((RuntimeError, ValueError), match=message):
            slicer.util.loadUI(str(path))


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


def test_misspelt_facts_about_a_module_are_refused(host, tmp_path):
    path = tmp_path / "Misspelt.py"
    path.write_text(
        "from slicer.ScriptedLoadableModule import *\n"
        "class Misspelt(ScriptedLoadableModule):\n"
        "    def __init__(self, parent):\n"
        "        super().__init__(parent)\n"
        "        parent.catgories = ['Testing']\n",
        encoding="utf-8",
    )
    with pytest.raises(AttributeError, match="catgories"):
        host.load_module(path)
