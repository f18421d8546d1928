"""The whole module in the stand-in application: real scene, real panels, real worker process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from CMBDetectorLib.candidate import Candidate, Detection, candidate_id
from CMBDetectorLib.datasets.bids import read_dataset, read_points
from CMBDetectorLib.review.finding import Certainty, State
from CMBDetectorLib.review.log import find_reviews, read_review

MODEL = {"name": "made up", "version": "1", "checksum": "ab" * 32, "training_data": "Made up.", "licence": ""}


@pytest.fixture
def panels(host, tmp_path):
    import qt

    qt.QSettings().setValue("CMBDetector/DataFolder", str(tmp_path / "données"))
    qt.QSettings().setValue("CMBDetector/Interpreter", sys.executable)
    qt.QSettings().setValue("CMBDetector/Reader", "AB")
    host.window.resize(1300, 1000)
    return host.load_module("CMBDetector").panels


def add_scan(affine=None, shape=(40, 44, 30), name="scan", seed=0):
    """Put a volume of noise into the scene and the slice views; ``shape`` along i, j, k."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    array = np.random.default_rng(seed).integers(100, 400, shape).astype(np.int16)
    slicer.util.updateVolumeFromArray(node, array.transpose(2, 1, 0))
    affine = np.diag([2.0, 2.0, 3.0, 1.0]) if affine is None else affine
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(np.asarray(affine, float)))
    node.CreateDefaultDisplayNodes()
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    return node


def oblique():
    """A flipped and oblique affine (mm)."""
    a, b = np.deg2rad([20.0, -15.0])
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-2.0, 2.0, -3.0])
    affine[:3, 3] = 31.0, -52.0, 44.0
    return affine


def made_up(count=30, affine=None, threshold=0.0):
    """A detection of ``count`` candidates inside the volume of :func:`add_scan`."""
    affine = np.diag([2.0, 2.0, 3.0, 1.0]) if affine is None else affine
    rng = np.random.default_rng(1)
    places = [tuple(float(v) for v in (affine @ [*rng.uniform(6, 28, 3), 1])[:3]) for _ in range(count)]
    candidates = [
        Candidate(candidate_id(place), place, 0.5, round(1 - k / (count + 1), 4), 2.0 + 0.2 * (k % 30))
        for k, place in enumerate(places)
    ]
    return Detection({"name": "made up"}, MODEL, {"threshold": threshold}, candidates)


def begin(host, panels, count=30, affine=None, threshold=0.0, **scan):
    """Show a made-up detection of a made-up scan; returns (scan node, detection, review)."""
    node = add_scan(affine, **scan)
    panels.detect.parameters.inputVolume = node
    detection = made_up(count, affine, threshold)
    panels.review.show_detection(node, detection, select_first=True)
    host.wait_until(lambda: panels.review.session.current, 5)
    return node, detection, panels.review.session.review


def record_node(scan):
    from CMBDetectorLib.gui.candidates_node import CandidatesNode

    return CandidatesNode.of_scan(scan).node


def described(node):
    """What each point of the list says of itself, by id."""
    entries = [json.loads(node.GetNthControlPointDescription(i)) for i in range(node.GetNumberOfControlPoints())]
    return {entry["id"]: entry for entry in entries}


def small_copy(crops, tmp_path):
    """The first simulated crop, alone."""
    return read_dataset(crops)[0].scan


# Detection


def test_detect_by_clicks_with_the_real_worker(host, panels, crops, tiny_model):
    import slicer

    case = read_dataset(crops)[0]
    scan = host.load_volume(case.scan)
    panels.enter()
    assert panels.detect.scan is scan, "the volume in the slice views is the default"
    panels.detect.parameters.model = str(tiny_model)
    ui = panels.detect.ui
    ui.maskCombo.setCurrentIndex(ui.maskCombo.findData("none"))
    host.click(ui.detectButton)
    assert ui.detectButton.text == "Cancel"
    host.wait_until(lambda: ui.progressBar.value > 0, 60)
    assert "stage" in ui.stageLabel.text or "%" in ui.stageLabel.text
    host.wait_until(lambda: not panels.logic.is_running, 120)
    assert ui.detectButton.text == "Detect", ui.messageLabel.text
    node = record_node(scan)
    detection = panels.review.session.review.detection
    assert node.GetNumberOfControlPoints() == len(detection.candidates) > 0
    assert node.GetLocked()
    for index, candidate in enumerate(detection.candidates):
        np.testing.assert_allclose(node.GetNthControlPointPosition(index), candidate.ras_mm, atol=1e-3)
    mask = host.wait_until(lambda: node.GetNodeReference("CMBDetector.BrainMask"), 5)
    assert mask.GetSegmentation().GetNumberOfSegments() == 1
    assert not mask.GetDisplayNode().GetVisibility()
    host.click(ui.showMaskBox)
    assert mask.GetDisplayNode().GetVisibility()
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    parent = tree.GetItemParent(tree.GetItemByDataNode(scan))
    assert tree.GetItemParent(tree.GetItemByDataNode(node)) == parent
    assert panels.logic.last_report.is_file()
    assert not {"tensorflow", "torch", "HD_BET", "nnunetv2"} & set(sys.modules)


def test_cancel_leaves_no_process_within_two_seconds(host, panels, crops, tiny_model):
    scan = host.load_volume(read_dataset(crops)[0].scan)
    panels.detect.parameters.inputVolume = scan
    panels.detect.parameters.model = str(tiny_model)
    ui = panels.detect.ui
    host.click(ui.detectButton)
    children = host.wait_until(lambda: psutil.Process().children(recursive=True), 30)
    host.wait(0.5)
    began = time.monotonic()
    host.click(ui.detectButton)
    host.wait_until(lambda: not panels.logic.is_running, 5)
    assert time.monotonic() - began < 2.5
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert "cancelled" in ui.messageLabel.text
    assert record_node_or_none(scan) is None


def record_node_or_none(scan):
    from CMBDetectorLib.gui.candidates_node import CandidatesNode

    return CandidatesNode.of_scan(scan)


def test_a_killed_worker_becomes_a_sentence_and_the_next_run_works(host, panels, crops, tiny_model):
    scan = host.load_volume(read_dataset(crops)[0].scan)
    panels.detect.parameters.inputVolume = scan
    panels.detect.parameters.model = str(tiny_model)
    ui = panels.detect.ui
    ui.maskCombo.setCurrentIndex(ui.maskCombo.findData("none"))
    host.click(ui.detectButton)
    host.wait_until(lambda: psutil.Process().children(recursive=True), 30)

    def is_over():
        # The worker begins once more by itself, in smaller pieces: that attempt is killed, too.
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        return not panels.logic.is_running

    host.wait_until(is_over, 20)
    assert ui.messageLabel.text.strip()
    assert "Traceback" not in ui.messageLabel.text
    host.click(ui.detectButton)
    host.wait_until(lambda: not panels.logic.is_running, 120)
    assert record_node(scan).GetNumberOfControlPoints() > 0


def test_several_scans_wait_for_their_turn(host, panels, crops, tiny_model):
    cases = read_dataset(crops)[:3:2]
    first, second = (host.load_volume(case.scan) for case in cases)
    parameters, ui = panels.detect.parameters, panels.detect.ui
    parameters.model = str(tiny_model)
    ui.maskCombo.setCurrentIndex(ui.maskCombo.findData("none"))
    parameters.inputVolume = first
    host.click(ui.detectButton)
    parameters.inputVolume = second
    host.process_events()
    host.click(ui.queueButton)
    host.wait_until(lambda: ui.queueList.count == 1, 5)
    assert not ui.queueButton.enabled
    host.wait_until(lambda: not panels.logic.is_running, 240)
    assert record_node(first).GetNumberOfControlPoints() > 0
    assert record_node(second).GetNumberOfControlPoints() > 0
    assert panels.review.scan is second


def test_closing_the_scene_in_the_middle_of_a_run(host, panels, crops, tiny_model):
    scan = host.load_volume(read_dataset(crops)[0].scan)
    panels.detect.parameters.inputVolume = scan
    panels.detect.parameters.model = str(tiny_model)
    host.click(panels.detect.ui.detectButton)
    host.wait_until(lambda: psutil.Process().children(recursive=True), 30)
    host.close_scene()
    host.wait_until(lambda: not panels.logic.is_running, 5)
    host.wait_until(lambda: not psutil.Process().children(recursive=True), 3)
    assert panels.review.session is None
    assert panels.detect.parameters is not None
    assert not panels.detect.ui.detectButton.enabled
    assert panels.detect.ui.detectButton.toolTip


def test_a_missing_interpreter_is_a_sentence(host, panels):
    import qt

    qt.QSettings().setValue("CMBDetector/Interpreter", "/nowhere/python")
    panels.detect.parameters.inputVolume = add_scan()
    host.click(panels.detect.ui.detectButton)
    assert "no Python" in panels.detect.ui.messageLabel.text
    assert not panels.logic.is_running


def test_a_volume_loaded_after_the_module_was_opened_is_chosen(host, panels, crops):
    assert panels.detect.scan is None
    scan = host.load_volume(read_dataset(crops)[0].scan)
    host.process_events()
    assert panels.detect.scan is scan
    assert panels.detect.ui.detectButton.enabled


def test_masks_of_the_scene_lie_on_the_grid_of_the_scan(host, panels):
    import slicer

    from CMBDetectorLib.errors import BadInputError
    from CMBDetectorLib.gui.candidates_node import CandidatesNode
    from CMBDetectorLib.gui.scan_node import scan_volume
    from CMBDetectorLib.gui.scene import mask_volume, show_brain_mask

    scan, _detection, _review = begin(host, panels, 2, oblique())
    grid = scan_volume(scan)
    inside = np.zeros(grid.shape, bool)
    inside[5:20, 7:30, 4:9] = True
    nodes = CandidatesNode.of_scan(scan)
    show_brain_mask(nodes, grid.with_array(inside))
    segmentation = nodes.node.GetNodeReference("CMBDetector.BrainMask")
    assert np.array_equal(mask_volume(segmentation, scan).array, inside)
    labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    slicer.util.updateVolumeFromArray(labels, inside.astype(np.uint8).transpose(2, 1, 0))
    with pytest.raises(BadInputError, match="another grid"):
        mask_volume(labels, scan)
    labels.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(grid.ijk_to_ras))
    assert np.array_equal(mask_volume(labels, scan).array, inside)
    slicer.util.updateVolumeFromArray(labels, np.zeros((30, 44, 40), np.uint8))
    with pytest.raises(BadInputError, match="empty"):
        mask_volume(labels, scan)


def test_installed_models_can_be_chosen_and_the_active_one_is_the_default(host, panels, tmp_path, monkeypatch):
    from CMBDetectorLib.models.bundle import DEFAULT_MODEL, RESOURCES
    from CMBDetectorLib.models.registry import Registry

    monkeypatch.setenv("CMBDETECTOR_MODELS", str(tmp_path / "models"))
    registry = Registry()
    bundle, _is_new = registry.install(RESOURCES / "Models" / DEFAULT_MODEL, name="ours")
    registry.activate(bundle.reference)
    panels = host.load_module("CMBDetector").panels
    combo = panels.detect.ui.modelCombo
    names = [combo.itemText(index) for index in range(combo.count)]
    assert any(name.startswith(DEFAULT_MODEL) for name in names)
    assert combo.currentText == "ours 1 (active)"
    assert panels.detect.settings().model == "ours@1"
    assert "simulated" in panels.detect.ui.noticeLabel.text


# Review


def test_thirty_candidates_need_thirty_keys(host, panels):
    scan, detection, review = begin(host, panels, 30)
    for key in ["A", "R", "P", "1", "U"] * 6:
        host.press(None, key)
    assert [review.count(state) for state in (State.ACCEPTED, State.REJECTED, State.UNSURE)] == [12, 12, 6]
    assert review.count(State.UNREVIEWED) == 0
    assert "judged" in panels.review.ui.messageLabel.text
    said = described(record_node(scan))
    assert said[detection.candidates[3].id] == {
        "id": detection.candidates[3].id,
        "state": "rejected",
        "mimic_class": "vessel",
        "score": detection.candidates[3].score,
        "diameter_mm": detection.candidates[3].diameter_mm,
    }
    assert "14 microbleeds" not in panels.export.ui.summaryText.plainText
    assert "12 microbleeds: 6 definite, 6 possible" in panels.export.ui.summaryText.plainText


def test_the_views_go_where_the_candidate_is(host, panels):
    import slicer

    affine = oblique()
    scan, detection, _review = begin(host, panels, 6, affine)
    move = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    move.SetMatrixTransformToParent(
        slicer.util.vtkMatrixFromArray(np.array([[0, -1, 0, 5], [1, 0, 0, -9], [0, 0, 1, 3], [0, 0, 0, 1.0]]))
    )
    for transformed in (False, True):
        if transformed:
            scan.SetAndObserveTransformNodeID(move.GetID())
            panels.review.show_detection(scan, detection, select_first=True)
            node = record_node(scan)
            assert node.GetTransformNodeID() == move.GetID()
        for candidate in detection.candidates[:3]:
            panels.review.select(candidate.id)
            host.process_events()
            x, y, z = candidate.ras_mm
            wanted = (-y + 5, x - 9, z + 3) if transformed else (x, y, z)
            for view in ("Red", "Yellow", "Green"):
                matrix = slicer.util.arrayFromVTKMatrix(
                    slicer.app.layoutManager().sliceWidget(view).mrmlSliceNode().GetSliceToRAS()
                )
                np.testing.assert_allclose(matrix[:3, 3], wanted, atol=0.01)


def test_field_of_view_is_fixed_in_mm(host, panels):
    import slicer

    begin(host, panels, 3)
    panels.review.ui.fieldBox.value = 50
    host.press(None, "N")
    node = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    assert min(node.GetFieldOfView()[:2]) == pytest.approx(50, rel=0.01)


def test_undo_redo_and_second_look(host, panels):
    _scan, detection, review = begin(host, panels, 5)
    first, second = detection.candidates[0].id, detection.candidates[1].id
    for key in "RR":
        host.press(None, key)
    host.press(None, "Ctrl+Z")
    assert review[second].state is State.UNREVIEWED
    assert panels.review.session.shown.current == second
    host.press(None, "Ctrl+Y")
    assert review[second].state is State.REJECTED
    host.press(None, "L")
    assert panels.review.table.order() == [first, second]
    assert panels.review.session.shown.current == first
    host.press(None, "A")
    assert review[first].state is State.ACCEPTED
    assert panels.review.session.shown.current == second
    host.press(None, "L")
    assert len(panels.review.table.order()) == 5


def test_add_and_move_by_a_click_in_a_transformed_scan(host, panels):
    import slicer

    affine = oblique()
    scan = add_scan(affine)
    shift = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    shift.SetMatrixTransformToParent(
        slicer.util.vtkMatrixFromArray(np.array([[1, 0, 0, 4], [0, 1, 0, -6], [0, 0, 1, 2], [0, 0, 0, 1.0]]))
    )
    scan.SetAndObserveTransformNodeID(shift.GetID())
    panels.detect.parameters.inputVolume = scan
    detection = made_up(4, affine)
    panels.review.show_detection(scan, detection, select_first=True)
    review = panels.review.session.review
    world = np.add(detection.candidates[1].ras_mm, [4, -6, 2])
    panels.review.select(detection.candidates[1].id)
    host.process_events()
    host.press(None, "I")
    assert "Click" in panels.review.ui.messageLabel.text
    host.click_slice("Red", np.add(world, [3, 2, 0]))
    host.process_events()
    added = [f for f in review.findings if f.is_added]
    assert len(added) == 1
    assert added[0].state is State.ACCEPTED
    np.testing.assert_allclose(added[0].ras_mm, np.add(detection.candidates[1].ras_mm, [3, 2, 0]), atol=0.5)
    panels.review.select(detection.candidates[1].id)
    host.press(None, "M")
    host.click_slice("Red", np.subtract(world, [2, 0, 0]))
    host.process_events()
    moved = review[detection.candidates[1].id]
    np.testing.assert_allclose(moved.ras_mm, np.subtract(detection.candidates[1].ras_mm, [2, 0, 0]), atol=0.5)
    assert moved.detected_ras_mm == detection.candidates[1].ras_mm
    assert moved.is_moved
    assert added[0].id in described(record_node(scan))


def test_the_score_slider_hides_only_what_is_not_judged(host, panels):
    scan, detection, review = begin(host, panels, 20)
    worst = detection.candidates[-1].id
    panels.review.select(worst)
    host.press(None, "A")
    panels.review.view.slider.set_threshold(0.5)
    panels.review._on_threshold(0.5)
    seen = set(panels.review.table.order())
    assert worst in seen
    assert seen == {c.id for c in detection.candidates if c.score >= 0.5} | {worst, panels.review.session.shown.current}
    node = record_node(scan)
    ids = list(described(node))
    drawn = {key for i, key in enumerate(ids) if node.GetNthControlPointVisibility(i)}
    assert drawn == {c.id for c in detection.candidates if c.score >= 0.5} - {panels.review.session.shown.current}
    assert review.count(State.ACCEPTED) == 1


def test_keys_are_off_while_somebody_types(host, panels):
    _scan, _detection, review = begin(host, panels, 3)
    host.press(panels.review.ui.commentEdit, "A")
    assert review.count(State.ACCEPTED) == 0
    assert panels.review.ui.commentEdit.text == "a"
    host.press(panels.review.ui.commentEdit, "Return")
    host.press(None, "A")
    assert review.count(State.ACCEPTED) == 1
    assert review.findings[0].comment == "a"


def test_keys_belong_to_the_module_only(host, panels):
    _scan, _detection, review = begin(host, panels, 3)
    host.exit()
    host.press(host.window, "A")
    assert review.count(State.ACCEPTED) == 0
    host.enter()
    host.press(None, "A")
    assert review.count(State.ACCEPTED) == 1


def test_two_readers_stay_apart(host, panels):
    _scan, detection, review = begin(host, panels, 4)
    first = detection.candidates[0].id
    host.press(None, "A")
    edit = panels.review.ui.readerEdit
    edit.text = "CD"
    host.press(edit, "Return")
    other = panels.review.session.review
    assert other.reader == "CD"
    assert other[first].state is State.UNREVIEWED
    panels.review.select(first)
    host.press(None, "R")
    edit.text = "AB"
    host.press(edit, "Return")
    assert panels.review.session.review[first].state is State.ACCEPTED
    assert review.reader == "AB"


def test_detecting_again_keeps_the_verdicts(host, panels):
    scan, _detection, review = begin(host, panels, 6)
    host.press(None, "P")
    review.add((10.0, 12.0, 14.0))
    again = made_up(6)
    nudged = [
        Candidate(f"x{i}", tuple(v + 0.4 for v in c.ras_mm), c.stage1_score, c.score, c.diameter_mm)
        for i, c in enumerate(again.candidates)
    ]
    panels.review.show_detection(
        scan, Detection(again.scan, {**MODEL, "version": "2"}, again.settings, nudged), select_first=True
    )
    now = panels.review.session.review
    assert now["x0"].state is State.ACCEPTED
    assert now["x0"].certainty is Certainty.POSSIBLE
    assert [f for f in now.findings if f.is_added]
    assert len(described(record_node(scan))) == 7


# Nothing is lost


def test_state_survives_saving_and_loading_the_scene(host, panels, tmp_path):
    import slicer

    scan, detection, review = begin(host, panels, 8)
    for key in ["A", "2", "U"]:
        host.press(None, key)
    review.add((20.0, 22.0, 24.0))
    panels.detect.parameters.brainMask = "simple"
    panels.review.view.slider.slider.value = 300
    host.wait(0.1)
    # The log on disk is not what brings the verdicts back here.
    import qt

    qt.QSettings().setValue("CMBDetector/DataFolder", str(tmp_path / "elsewhere"))
    slicer.util.saveNode(scan, str(tmp_path / "scan.nrrd"))
    node = record_node(scan)
    slicer.util.saveNode(node, str(tmp_path / "candidates.mrk.json"))
    slicer.util.saveScene(str(tmp_path / "scene.mrml"))
    host.close_scene()
    assert panels.review.session is None
    slicer.util.loadScene(str(tmp_path / "scene.mrml"))
    host.process_events()
    assert panels.detect.parameters.brainMask == "simple"
    assert panels.review.view.slider.threshold == pytest.approx(0.3)
    assert panels.review.session.shown.threshold == pytest.approx(0.3)
    now = panels.review.session.review
    assert [f.state for f in now.findings] == [f.state for f in review.findings]
    assert now.findings[1].mimic_class == "calcification"
    assert len([f for f in now.findings if f.is_added]) == 1
    assert now.detection.model["checksum"] == detection.model["checksum"]
    node = record_node(panels.detect.scan)
    assert len(described(node)) == 9
    host.press(None, "Space")
    host.press(None, "A")
    assert now.count(State.ACCEPTED) == 3


@pytest.fixture
def library_comes_back():
    """A reload makes all modules of the library anew; the tests after it need the old ones, as they know them."""
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "CMBDetectorLib"}
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "CMBDetectorLib"]:
        del sys.modules[name]
    sys.modules.update(before)


def test_reload_of_the_module_keeps_the_review(library_comes_back, host, panels):
    scan, detection, _review = begin(host, panels, 5)
    host.press(None, "A")
    widget = host.reload_module()
    widget.enter()
    host.process_events()
    again = widget.panels.review.session.review
    assert again[detection.candidates[0].id].state.value == "accepted"
    assert widget.panels.detect.scan is scan


_KILLED = """
import os, signal, sys
sys.path[:0] = [{testing!r}, {tests!r}, {checkout!r}]
import SlicerHost
host = SlicerHost.start()
import qt
qt.QSettings().setValue("CMBDetector/DataFolder", {data!r})
qt.QSettings().setValue("CMBDetector/Reader", "AB")
import test_module
panels = host.load_module("CMBDetector").panels
test_module.begin(host, panels, 30)
for key in ["A", "R", "P", "1"] * 4 + ["U"]:
    host.press(None, key)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killing_the_application_loses_no_verdict_and_the_review_is_offered_again(host, panels, tmp_path):
    import qt

    tests = Path(__file__).resolve().parent
    data = tmp_path / "killed"
    code = _KILLED.format(testing=str(tests.parent), tests=str(tests), checkout=str(tests.parents[1]), data=str(data))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    qt.QSettings().setValue("CMBDetector/DataFolder", str(data))
    scan = add_scan()
    panels.detect.parameters.inputVolume = scan
    host.process_events()
    assert panels.review.ui.resumeFrame.isVisible()
    assert "17 of 30" in panels.review.ui.resumeLabel.text
    host.click(panels.review.ui.resumeButton)
    review = panels.review.session.review
    assert len([f for f in review.findings if f.is_reviewed]) == 17
    assert review[panels.review.session.shown.current].state is State.UNREVIEWED
    for _ in range(13):
        host.press(None, "A")
    found = find_reviews(data / "reviews", panels.review.session.nodes.key)
    assert len(found) == 1
    assert found[0].reviewed == 30


def test_an_unwritable_disk_is_told_and_nothing_is_lost(host, panels, tmp_path):
    import qt

    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    qt.QSettings().setValue("CMBDetector/DataFolder", str(blocked))
    _scan, detection, review = begin(host, panels, 3)
    panels.review.judge(State.ACCEPTED)
    assert review[detection.candidates[0].id].state is State.ACCEPTED
    assert panels.review.ui.messageLabel.text
    qt.QSettings().setValue("CMBDetector/DataFolder", str(tmp_path / "good"))
    panels.review.judge(State.REJECTED)
    found = find_reviews(tmp_path / "good" / "reviews", panels.review.session.nodes.key)
    assert found[0].reviewed == 2
    assert read_review(found[0].path)[detection.candidates[0].id].state is State.ACCEPTED


# Export


def test_export_by_clicks(host, panels, tmp_path, monkeypatch):
    import qt
    import slicer

    affine = oblique()
    scan, detection, review = begin(host, panels, 6, affine, name="MÜLLER^HANS")
    for key in ["A", "1", "P", "U"]:
        host.press(None, key)
    added = review.add((1.0, -2.0, 3.5))
    panels.review.open_scan(scan)
    ui = panels.export.ui
    for name in ("out.csv", "out.tsv", "out.mrk.json", "out.json"):
        target = tmp_path / name
        monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *a, target=target: str(target))
        host.click(ui.saveButton)
        assert target.is_file(), ui.messageLabel.text
    lines = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 8
    loaded = slicer.util.loadMarkups(str(tmp_path / "out.mrk.json"))
    assert loaded.GetNumberOfControlPoints() == 7
    np.testing.assert_allclose(loaded.GetNthControlPointPosition(0), detection.candidates[0].ras_mm, atol=1e-3)
    host.click(ui.tableButton)
    tables = slicer.util.getNodesByClass("vtkMRMLTableNode")
    assert tables[0].GetNumberOfRows() == 7
    ui.folderEdit.text = str(tmp_path / "local")
    for _ in range(2):
        host.click(ui.datasetButton)
        host.wait_until(lambda: not panels.export.exporter.is_running, 30)
        assert "microbleeds: 3, mimics: 1" in ui.messageLabel.text
    cases = read_dataset(tmp_path / "local")
    assert len(cases) == 1, "exporting again updates"
    np.testing.assert_allclose(
        cases[0].microbleeds(),
        [detection.candidates[0].ras_mm, detection.candidates[2].ras_mm, added.ras_mm],
        atol=1e-3,
    )
    mimics = read_points(cases[0].mimics)
    assert [m.mimic_class for m in mimics] == ["vessel"]
    from CMBDetectorLib.volume import read_volume

    exported = read_volume(cases[0].scan)
    np.testing.assert_allclose(exported.ijk_to_ras, affine, atol=1e-4)
    for path in (tmp_path / "local").rglob("*"):
        assert "LLER" not in path.name
        if path.suffix in (".tsv", ".json"):
            assert "LLER" not in path.read_text(encoding="utf-8")


def test_the_verdicts_of_another_reader_in_the_dataset_are_replaced_only_on_request(host, panels, tmp_path):
    begin(host, panels, 3)
    ui, edit = panels.export.ui, panels.review.ui.readerEdit
    ui.folderEdit.text = str(tmp_path / "local")
    host.press(None, "A")
    host.click(ui.datasetButton)
    host.wait_until(lambda: not panels.export.exporter.is_running, 30)
    edit.text = "CD"
    host.press(edit, "Return")
    host.press(host.window, "Space")
    host.press(None, "R")
    host.click(ui.datasetButton)
    host.wait_until(lambda: not panels.export.exporter.is_running, 30)
    assert "another reader (AB)" in ui.messageLabel.text
    assert len(read_dataset(tmp_path / "local")[0].microbleeds()) == 1
    host.click(ui.replaceButton)
    host.wait_until(lambda: not panels.export.exporter.is_running, 30)
    assert len(read_dataset(tmp_path / "local")[0].microbleeds()) == 0
    assert not ui.replaceButton.isVisible()


def test_nothing_to_export_says_why(host, panels):
    assert not panels.export.ui.saveButton.enabled
    assert "nothing to export" in panels.export.ui.saveButton.toolTip


# The module itself


def test_the_self_test_passes_in_the_host(host, panels, monkeypatch, tiny_model):
    import CMBDetector

    monkeypatch.setattr("CMBDetectorLib.gui.detect_panel.default_model", lambda: str(tiny_model))
    said = []
    test = CMBDetector.CMBDetectorTest()
    monkeypatch.setattr(test, "delayDisplay", said.append)
    test.runTest()
    assert said[-1] == "Passed", said


def test_every_control_has_a_tip(host, panels):
    import qt

    begin(host, panels, 3)
    kinds = (qt.QAbstractButton, qt.QComboBox, qt.QLineEdit, qt.QSlider)
    for panel in (panels.detect.widget, panels.review.widget, panels.export.widget):
        for kind in kinds:
            for widget in panel.findChildren(kind):
                inner = widget.parent() is not None and widget.parent().inherits("QAbstractSpinBox")
                if not inner and not str(widget.objectName).startswith("qt_"):
                    parent = widget.parent()
                    tip = widget.toolTip or (parent.toolTip if parent is not None else "")
                    assert tip, f"{widget.objectName or widget} has no tool-tip"


def test_the_sample_is_registered_and_made_in_the_background(host, panels):
    import qt
    import SampleData

    qt.QSettings().setValue("CMBDetector/SampleProtocol", "crop")
    source = SampleData.sources["CMBDetector"][0]
    source.customDownloader(source)
    assert panels.logic.is_running
    host.wait_until(lambda: not panels.logic.is_running, 120)
    assert panels.detect.scan is not None, panels.detect.ui.messageLabel.text
    assert panels.detect.scan.GetName() == "Simulated SWI"


def test_two_scans_keep_their_own_reviews(host, panels):
    first, detection, _review = begin(host, panels, 3, name="first")
    host.press(None, "A")
    second, _other, _review = begin(host, panels, 4, name="second", seed=1)
    assert panels.review.session.review.count(State.ACCEPTED) == 0
    panels.detect.parameters.inputVolume = first
    host.process_events()
    assert panels.review.scan is first
    assert panels.review.session.review[detection.candidates[0].id].state is State.ACCEPTED
    import slicer

    slicer.mrmlScene.RemoveNode(first)
    host.process_events()
    assert panels.review.scan is not first
    panels.detect.parameters.inputVolume = second
    host.process_events()
    assert len(panels.review.session.review.findings) == 4


_LEAN = """
import sys
lacking = set("tensorflow keras torch matplotlib rich psutil nilearn nibabel pandas hypothesis".split())

class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in lacking:
            raise ModuleNotFoundError(f"Slicer has no {{name}}", name=name)

sys.meta_path.insert(0, Lacking())
sys.path[:0] = [{testing!r}, {tests!r}, {checkout!r}]
sys.modules["pytest"] = sys.modules["psutil"] = type(sys)("absent")
sys.modules["pytest"].fixture = lambda f: f
import SlicerHost
host = SlicerHost.start()
import qt
qt.QSettings().setValue("CMBDetector/DataFolder", {data!r})
qt.QSettings().setValue("CMBDetector/Interpreter", sys.executable)
import test_module
panels = host.load_module("CMBDetector").panels
scan, _detection, review = test_module.begin(host, panels, 4)
for key in "AR1U":
    host.press(None, key)
for name in ("a.csv", "a.mrk.json", "a.json"):
    panels.export.save({data!r} + "/" + name)
panels.export.add_to_dataset(__import__("pathlib").Path({data!r}) / "local")
host.wait_until(lambda: not panels.export.exporter.is_running, 60)
print(panels.export.ui.messageLabel.text)
assert not host.slot_errors, host.slot_errors
assert len([f for f in review.findings if f.is_reviewed]) == 4
host.shutdown()
"""


def test_the_module_needs_no_package_that_slicer_lacks(host, tmp_path):
    tests = Path(__file__).resolve().parent
    code = _LEAN.format(testing=str(tests.parent), tests=str(tests), checkout=str(tests.parents[1]), data=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "microbleeds: 1, mimics: 2" in done.stdout


def test_environment_of_the_tests_is_real():
    """The worker of these tests is this checkout's, not one that is installed."""
    import CMBDetectorLib

    assert Path(CMBDetectorLib.__file__).resolve().parents[1] == Path(__file__).resolve().parents[2]
    assert os.environ.get("CMBDETECTOR_PYTHON") is None
