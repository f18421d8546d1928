"""What a user or another module may do to the scene under the module's hands, and what Slicer does to a panel."""

from __future__ import annotations

import gc
import time

import numpy as np
import pytest
from test_module import add_scan, begin, described, library_comes_back, made_up, panels, record_node

from CMBDetectorLib.review.finding import State

__all__ = ["library_comes_back", "panels"]

KEYS = ["A", "R", "P", "U", "1", "8", "Space", "N", "B", "Ctrl+Z", "Ctrl+Y", "M", "I", "Del", "L", "C", "H", "S"]


def press_all(host, panels):
    for key in KEYS:
        host.press(host.window, key)
        panels.review.placer.stop()
        host.window.setFocus()
    host.process_events()


def pictures(panels):
    """The widths of the four pictures on the card; 0 where there is none."""
    return [label.pixmap.width() if label.pixmap else 0 for label in panels.review.view.card.picture_labels]


# Odd inputs


def test_keys_without_candidates_do_nothing(host, panels):
    press_all(host, panels)
    panels.detect.parameters.inputVolume = add_scan()
    host.process_events()
    press_all(host, panels)
    assert panels.review.session is None
    assert not panels.review.view.buttons.buttons["accept"].enabled
    assert "detect" in panels.review.view.buttons.buttons["accept"].toolTip


@pytest.mark.parametrize("kind", ["vtkMRMLScalarVolumeNode", "vtkMRMLLabelMapVolumeNode", "vtkMRMLVectorVolumeNode"])
def test_a_volume_without_an_image_is_refused_in_words(host, panels, kind):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass(kind, "empty")
    panels.detect.parameters.inputVolume = node
    host.process_events()
    if panels.detect.scan is None:
        return
    panels.detect.detect()
    host.process_events()
    assert "3D image" in panels.detect.ui.messageLabel.text
    assert not panels.logic.is_running


def test_a_colour_volume_is_refused_in_words(host, panels):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "colours")
    slicer.util.updateVolumeFromArray(node, np.zeros((8, 9, 10, 3), np.uint8))
    panels.detect.parameters.inputVolume = node
    host.process_events()
    panels.detect.detect()
    host.process_events()
    assert "3D image" in panels.detect.ui.messageLabel.text


def test_names_with_quotes_umlauts_and_tags(host, panels, tmp_path):
    name = 'Müller "Ö" <b>\u0301 \'; 腦/\\ %s {x}'
    scan, _detection, review = begin(host, panels, 4, name=name)
    for key in "ARP":
        host.press(None, key)
    panels.export.save(tmp_path / "a.csv")
    panels.export.add_to_dataset(tmp_path / "data")
    panels.export._on_table()
    assert name in record_node(scan).GetName()
    scan.SetName("{0} %d")
    panels.export._on_table()
    panels.detect._on_queue()
    panels.logic.cancel_all()
    host.wait_until(lambda: not panels.logic.is_running, 10)
    assert review.count(State.REJECTED) == 1


def test_a_reader_without_a_name(host, panels):
    _scan, _detection, _review = begin(host, panels, 3)
    for text in ("", "   ", "\u200b", "ß" * 500, "a/b:c\\d\n"):
        edit = panels.review.ui.readerEdit
        edit.text = text
        host.press(edit, "Return")
        assert panels.review.session.review.reader
        host.press(None, "A")
        assert panels.review.session.review.count(State.ACCEPTED) >= 1


# What is done to the nodes


def test_the_user_deletes_the_candidates(host, panels):
    import slicer

    scan, _detection, _review = begin(host, panels, 5)
    host.press(None, "A")
    slicer.mrmlScene.RemoveNode(record_node(scan))
    host.process_events()
    press_all(host, panels)
    assert panels.review.session is None
    panels.review.show_detection(scan, made_up(5), select_first=True)
    host.wait_until(lambda: panels.review.session.current, 5)
    host.press(None, "A")
    assert panels.review.session.review.count(State.ACCEPTED) >= 1


def test_the_user_deletes_points_and_adds_one_of_his_own(host, panels):
    import slicer

    scan, detection, review = begin(host, panels, 6)
    node = record_node(scan)
    node.SetLocked(False)
    node.RemoveNthControlPoint(3)
    node.AddControlPoint([1.0, 2.0, 3.0], "mine")
    host.process_events()
    for key in ["A", "R", "Ctrl+Z", "N", "N", "U", "H", "H", "L", "L"]:
        host.press(host.window, key)
    panels.review.view.slider.slider.setValue(500)
    panels.review.view.slider.slider.setValue(0)
    panels.review.select(detection.candidates[3].id)
    host.press(host.window, "A")
    assert review[detection.candidates[3].id].state is State.ACCEPTED
    node.RemoveAllControlPoints()
    host.press(host.window, "N")
    host.press(host.window, "P")
    for helper in slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode"):
        if helper is not node:
            slicer.mrmlScene.RemoveNode(helper)
    press_all(host, panels)
    assert panels.review.session is not None


def test_the_user_deletes_what_is_drawn(host, panels):
    import slicer

    scan, _detection, review = begin(host, panels, 6)
    host.press(None, "A")
    for kind in ("vtkMRMLModelNode", "vtkMRMLModelDisplayNode", "vtkMRMLMarkupsFiducialDisplayNode"):
        for node in slicer.util.getNodesByClass(kind):
            slicer.mrmlScene.RemoveNode(node)
    host.process_events()
    press_all(host, panels)
    assert review.count(State.ACCEPTED) >= 1
    assert record_node(scan) is not None


def test_a_copy_of_the_candidates_changes_nothing(host, panels):
    import slicer

    scan, _detection, review = begin(host, panels, 5)
    host.press(None, "A")
    node = record_node(scan)
    copy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "copy")
    copy.Copy(node)
    host.press(None, "A")
    assert review.count(State.ACCEPTED) == 2
    slicer.mrmlScene.RemoveNode(copy)
    host.process_events()
    host.press(None, "A")
    assert panels.review.session.review.count(State.ACCEPTED) == 3
    assert len(described(node)) == 5


def test_the_scan_loses_its_image_during_the_review(host, panels):
    scan, _detection, _review = begin(host, panels, 5)
    scan.SetAndObserveImageData(None)
    host.process_events()
    press_all(host, panels)
    assert panels.review.session is not None
    assert len(described(record_node(scan))) == 5


def test_removing_the_scan_while_a_click_is_awaited(host, panels):
    import slicer

    scan, _detection, _review = begin(host, panels, 5)
    host.press(None, "I")
    slicer.mrmlScene.RemoveNode(scan)
    host.process_events()
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform
    assert not panels.review.placer.is_waiting
    press_all(host, panels)


@pytest.mark.parametrize("how", ["exit", "close", "load", "other scan", "reload"])
def test_leaving_while_a_click_is_awaited(library_comes_back, host, panels, tmp_path, how):
    import slicer

    scan, _detection, _review = begin(host, panels, 4)
    slicer.util.saveNode(scan, str(tmp_path / "scan.nrrd"))
    slicer.util.saveNode(record_node(scan), str(tmp_path / "points.mrk.json"))
    slicer.util.saveScene(str(tmp_path / "scene.mrml"))
    host.press(None, "M")
    assert panels.review.placer.is_waiting
    if how == "exit":
        host.exit()
    elif how == "close":
        host.close_scene()
    elif how == "load":
        slicer.util.loadScene(str(tmp_path / "scene.mrml"))
    elif how == "reload":
        host.reload_module()
    else:
        panels.detect.parameters.inputVolume = add_scan(name="other", seed=3)
    host.process_events()
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform
    assert not slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode") or all(
        node.GetName() != "CMBDetector place" for node in slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")
    )


# Many and fast


def test_very_fast_clicks_count_once_each(host, panels):
    _scan, _detection, review = begin(host, panels, 30)
    button = panels.review.view.buttons.buttons["accept"]
    for _ in range(30):
        button.click()
    host.process_events()
    assert review.count(State.ACCEPTED) == 30
    for _ in range(40):
        panels.review.view.buttons.buttons["undo"].click()
    assert review.count(State.ACCEPTED) == 0


def test_the_slider_at_its_ends(host, panels):
    scan, detection, _review = begin(host, panels, 20)
    for value in (1000, 0, 1000, 500, 0):
        panels.review.view.slider.slider.setValue(value)
        host.wait(0.05)
        press_all(host, panels)
    panels.review.view.slider.spin_box.setValue(1.0)
    host.wait(0.05)
    host.press(host.window, "Space")
    assert panels.review.session.review.unreviewed(1.0) == []
    assert len(described(record_node(scan))) >= len(detection.candidates)


def test_five_hundred_candidates(host, panels):
    _scan, _detection, review = begin(host, panels, 500)
    host.press(None, "A")
    began = time.perf_counter()
    for _ in range(10):
        host.press(None, "R")
    each = (time.perf_counter() - began) / 10
    assert review.count(State.REJECTED) == 10
    assert each < 0.5, f"{each:.2f} s a verdict"


# What Slicer does


def test_selectors_and_parameters_say_the_same(host, panels):
    import slicer

    first, second = add_scan(name="first"), add_scan(name="second", seed=2)
    ui, parameters = panels.detect.ui, panels.detect.parameters
    parameters.inputVolume = first
    assert ui.inputSelector.currentNode() is first
    ui.inputSelector.setCurrentNode(second)
    assert parameters.inputVolume is second
    mask = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mask")
    labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "points")
    offered = [ui.maskSelector.nodeFromIndex(index) for index in range(ui.maskSelector.nodeCount())]
    assert mask in offered
    assert labels in offered
    assert points not in offered
    for node in (mask, labels, None, mask):
        ui.maskSelector.setCurrentNode(node)
        assert parameters.maskNode is node
    parameters.maskNode = labels
    assert ui.maskSelector.currentNode() is labels
    slicer.mrmlScene.RemoveNode(labels)
    host.process_events()
    assert parameters.maskNode is None
    slicer.mrmlScene.RemoveNode(second)
    host.process_events()
    assert parameters.inputVolume is None
    assert ui.inputSelector.currentNode() is None


def test_no_parameters_are_left_behind(library_comes_back, host, panels):
    """Left behind, they answer every change of the node, and crash once the garbage collector has cleared them."""

    def alive():
        gc.collect()
        return sum(type(thing).__name__ == "CMBDetectorParameterNode" for thing in gc.get_objects())

    widget = host.widget
    for round_ in range(3):
        host.close_scene()
        widget.panels.detect.parameters.inputVolume = add_scan(seed=round_)
        host.process_events()
    assert alive() == 1
    widget = host.reload_module()
    assert alive() == 1
    scan = add_scan(name="after")
    widget.panels.detect.parameters.inputVolume = scan
    host.process_events()
    assert widget.panels.review.scan is scan


def test_reload_keeps_the_keys_and_the_review(library_comes_back, host, panels):
    """Slicer does not call enter() after a reload."""
    _scan, detection, _review = begin(host, panels, 5)
    host.press(None, "A")
    widget = host.reload_module()
    review = widget.panels.review.session.review
    assert review[detection.candidates[0].id].state.value == "accepted"
    host.press(host.window, "Space")
    host.press(host.window, "R")
    assert sum(finding.state.value == "rejected" for finding in review.findings) == 1


def test_reload_of_a_module_that_was_left_takes_no_keys(library_comes_back, host, panels):
    host.exit()
    widget = host.reload_module()
    assert not widget.panels.review.shortcuts.is_enabled


def test_a_loaded_scene_is_shown_as_it_was(host, panels, tmp_path):
    import slicer

    scan, detection, _review = begin(host, panels, 5)
    host.press(None, "A")
    assert all(width > 0 for width in pictures(panels))
    slicer.util.saveNode(scan, str(tmp_path / "scan.nrrd"))
    slicer.util.saveNode(record_node(scan), str(tmp_path / "points.mrk.json"))
    slicer.util.saveScene(str(tmp_path / "scene.mrml"))
    for _ in range(2):
        host.close_scene()
        assert panels.detect.ui.inputSelector.currentNode() is None
        slicer.util.loadScene(str(tmp_path / "scene.mrml"))
        host.process_events()
        assert panels.detect.ui.inputSelector.currentNode() is panels.detect.parameters.inputVolume is not None
        session = panels.review.session
        assert session.review[detection.candidates[0].id].state is State.ACCEPTED
        assert session.shown.current == detection.candidates[1].id
        assert all(width > 0 for width in pictures(panels)), "the pictures come from the image, which is loaded last"
        assert len(described(record_node(panels.detect.scan))) == 5


def test_a_layout_without_slice_views(host, panels):
    import slicer

    begin(host, panels, 4)
    slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
    host.process_events()
    press_all(host, panels)
    panels.review.ui.layoutButton.click()
    panels.review.ui.layoutButton.click()
    host.process_events()
    assert slicer.app.layoutManager().layout == slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView
    press_all(host, panels)
    assert panels.review.session is not None


def test_closing_the_scene_again_and_again(host, panels):
    import slicer

    for round_ in range(3):
        scan, _detection, review = begin(host, panels, 4, seed=round_)
        host.press(None, "A")
        assert review.count(State.ACCEPTED) == 1
        host.close_scene()
        assert panels.review.session is None
        assert not slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")
        press_all(host, panels)
        del scan


def test_adding_a_saved_scene_to_an_open_one(host, panels, tmp_path):
    import slicer

    scan, detection, _review = begin(host, panels, 5)
    host.press(None, "A")
    slicer.util.saveNode(scan, str(tmp_path / "scan.nrrd"))
    slicer.util.saveNode(record_node(scan), str(tmp_path / "points.mrk.json"))
    slicer.util.saveScene(str(tmp_path / "scene.mrml"))
    host.press(None, "R")
    slicer.util.loadScene(str(tmp_path / "scene.mrml"), {"clear": False})
    host.process_events()
    parameters = panels.detect.parameters
    assert panels.detect.ui.inputSelector.currentNode() is parameters.inputVolume
    assert panels.review.scan is parameters.inputVolume
    assert panels.review.session.review[detection.candidates[0].id].state is State.ACCEPTED
    parameters.inputVolume = scan
    host.process_events()
    assert panels.review.scan is scan
    assert panels.review.session.review[detection.candidates[1].id].state is State.REJECTED


def test_a_scan_that_no_selector_offers_goes_with_its_node(host, panels):
    import slicer

    labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    slicer.util.updateVolumeFromArray(labels, np.ones((8, 9, 10), np.uint8))
    panels.detect.parameters.inputVolume = labels
    host.process_events()
    slicer.mrmlScene.RemoveNode(labels)
    del labels
    host.process_events()
    press_all(host, panels)
    panels.detect.update()
    panels.detect.detect()
    host.wait_until(lambda: not panels.logic.is_running, 10)
    scan, _detection, review = begin(host, panels, 3)
    host.press(None, "A")
    assert review.count(State.ACCEPTED) == 1
    assert panels.review.scan is scan


def test_only_a_scan_is_taken_from_the_slice_views(host, panels):
    import slicer

    colours = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "colours")
    slicer.util.updateVolumeFromArray(colours, np.zeros((8, 9, 10, 3), np.uint8))
    slicer.util.setSliceViewerLayers(background=colours)
    host.exit()
    host.enter()
    assert panels.detect.parameters.inputVolume is None
    scan = add_scan()
    host.exit()
    host.enter()
    assert panels.detect.parameters.inputVolume is scan


def test_enter_in_the_readers_field_gives_the_keys_back(host, panels):
    _scan, _detection, _review = begin(host, panels, 3)
    edit = panels.review.ui.readerEdit
    edit.text = "CD"
    host.press(edit, "Return")
    host.press(None, "A")
    assert panels.review.session.review.reader == "CD"
    assert panels.review.session.review.count(State.ACCEPTED) == 1
