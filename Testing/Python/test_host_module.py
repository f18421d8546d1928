"""The stand-in for 3D Slicer: the life of a module, its parameters and its widgets."""

# ruff: noqa: F811  (fixtures are imported, and named again as arguments)
from __future__ import annotations

from pathlib import Path

import pytest
from host_example import EXAMPLE, scan  # noqa: F401  (a fixture)


@pytest.fixture
def example(host):
    """The example module's Python widget, open."""
    return host.load_module(EXAMPLE)


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
    host.press(host.view("Yellow"), "A")
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
