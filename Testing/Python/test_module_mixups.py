"""Verdicts, results and markers stay with their own scan and reader, whatever is chosen, typed or moved in between."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from test_module import add_scan, begin, library_comes_back, made_up, oblique, panels, record_node

from CMBDetectorLib.review.finding import State
from CMBDetectorLib.review.scan_key import scan_key

__all__ = ["library_comes_back", "panels"]

ELSEWHERE = np.array([[2.0, 0, 0, 1], [0, 2, 0, 2], [0, 0, 3, 3], [0, 0, 0, 1]])


def another_reader(host, panels, name):
    panels.review.ui.readerEdit.text = name
    host.press(panels.review.ui.readerEdit, "Return")


def is_drawn(node):
    return bool(node.GetDisplayNode().GetVisibility())


def save_scene(folder, scan):
    import slicer

    folder.mkdir()
    slicer.util.saveNode(scan, str(folder / "scan.nrrd"))
    for node in slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode"):
        slicer.util.saveNode(node, str(folder / f"{node.GetID()}.mrk.json"))
    slicer.util.saveScene(str(folder / "scene.mrml"))
    return folder / "scene.mrml"


# What the disk knows better than a scene


def test_an_older_scene_offers_the_verdicts_given_after_it_was_saved(host, panels, tmp_path):
    import slicer

    scan, _detection, _review = begin(host, panels, 8)
    host.press(None, "A")
    path = save_scene(tmp_path / "scene", scan)
    for key in "RRRAA":
        host.press(None, key)
    host.close_scene()
    slicer.util.loadScene(str(path))
    host.process_events()

    assert panels.review.ui.resumeFrame.isVisible()
    assert "6 of 8" in panels.review.ui.resumeLabel.text
    host.click(panels.review.ui.resumeButton)
    assert sum(f.is_reviewed for f in panels.review.session.review.findings) == 6


def test_as_many_but_other_verdicts_are_offered_only_where_they_are_newer(host, panels):
    scan, detection, _review = begin(host, panels, 3)
    for key in "AAA":
        host.press(None, key)
    record = record_node(scan)
    saved = {name: record.GetAttribute(name) for name in ("CMBDetector.Review", "CMBDetector.Detection")}
    host.wait(1.1)  # times are in seconds
    panels.review.select(detection.candidates[0].id)
    host.press(None, "R")
    panels.review.open_scan(None)
    panels.review.open_scan(scan)
    assert not panels.review.ui.resumeFrame.isVisible(), "the scene is as new as the disk"
    panels.review.open_scan(None)
    for name, value in saved.items():
        record.SetAttribute(name, value)
    panels.review.open_scan(scan)

    assert panels.review.session.review.count(State.ACCEPTED) == 3
    assert panels.review.ui.resumeFrame.isVisible()
    host.click(panels.review.ui.resumeButton)
    assert panels.review.session.review[detection.candidates[0].id].state is State.REJECTED


def test_resuming_keeps_what_the_scene_holds_of_other_readers(host, panels):
    from CMBDetectorLib.gui.candidates_node import CandidatesNode

    scan, _detection, _review = begin(host, panels, 5)
    for key in "AA":
        host.press(None, key)
    record = record_node(scan)
    of_ab_alone = record.GetAttribute("CMBDetector.Review")
    another_reader(host, panels, "CD")
    for key in "RRR":
        host.press(None, key)
    panels.review.open_scan(None)
    record.SetAttribute("CMBDetector.Review", of_ab_alone)
    panels.review.open_scan(scan)
    host.click(panels.review.ui.resumeButton)

    nodes = CandidatesNode.of_scan(scan)
    assert {reader: sum(f.is_reviewed for f in nodes.findings(reader)) for reader in nodes.readers()} == {
        "AB": 2,
        "CD": 3,
    }


def test_an_offer_says_when_its_candidates_are_other_ones(host, panels):
    from dataclasses import replace

    _scan, detection, _review = begin(host, panels, 6)
    for key in "AAARR":
        host.press(None, key)
    host.close_scene()
    scan = add_scan()
    panels.detect.parameters.inputVolume = scan
    assert "take the place" not in panels.review.ui.resumeLabel.text
    model = {**detection.model, "version": "2", "checksum": "cd" * 32}
    panels.review.show_detection(scan, replace(detection, model=model), select_first=True)

    assert "made up 1" in panels.review.ui.resumeLabel.text
    assert "take the place" in panels.review.ui.resumeLabel.text


# Results


def run_detection(host, panels, crops, tiny_model):
    from CMBDetectorLib.datasets.bids import read_dataset

    scan = host.load_volume(read_dataset(crops)[0].scan)
    panels.detect.parameters.inputVolume = scan
    panels.detect.parameters.model = str(tiny_model)
    panels.detect.ui.maskCombo.setCurrentIndex(panels.detect.ui.maskCombo.findData("none"))
    host.click(panels.detect.ui.detectButton)
    return scan


@pytest.mark.parametrize("changed", ["grid", "voxels"])
def test_a_scan_that_was_changed_while_it_was_searched_gets_no_result(host, panels, crops, tiny_model, changed):
    import slicer

    scan = run_detection(host, panels, crops, tiny_model)
    host.wait_until(lambda: panels.detect.ui.progressBar.value > 0, 60)
    if changed == "grid":
        scan.SetOrigin(*np.add(scan.GetOrigin(), 7))
    else:
        slicer.util.updateVolumeFromArray(scan, slicer.util.arrayFromVolume(scan)[:, ::-1].copy())
    host.wait_until(lambda: not panels.logic.is_running, 120)

    assert "changed while it was searched" in panels.detect.ui.messageLabel.text
    assert panels.review.session is None
    assert not slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")


def test_a_result_of_the_scene_before_is_not_told(host, panels, crops, tiny_model):
    import slicer

    first = run_detection(host, panels, crops, tiny_model)
    panels._timer.stop()
    host.wait_until(lambda: (panels.logic.tick(), panels.logic._ended)[1], 120)
    host.close_scene()
    second = add_scan(name="another patient")
    panels.detect.parameters.inputVolume = second
    host.wait_until(lambda: (panels.logic.tick(), not panels.logic.is_running)[1], 20)

    assert second.GetID() == "vtkMRMLScalarVolumeNode1", "as the first one's was"
    assert first is not second
    assert panels.review.session is None
    assert not slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")


# Another reader's work in the dataset


def refused(host, panels, monkeypatch):
    """Refuse an export of scan A in words; returns both scans and what was exported with --replace afterwards."""
    from CMBDetectorLib.gui.dataset_export import Exported

    first, _, _ = begin(host, panels, 3, name="A")
    second, _, _ = begin(host, panels, 3, ELSEWHERE, name="B", seed=4)
    panels.detect.parameters.inputVolume = first
    replaced = []
    monkeypatch.setattr(
        panels.export.exporter, "add", lambda session, target: replaced.append((session.nodes.scan, target.replace))
    )
    folder = panels.export._folder()
    panels.export._on_exported(Exported(first.GetID(), "AB", folder), "Another reader's.", "other-reader")
    return first, second, replaced


def test_replacing_holds_for_the_scan_that_was_refused_alone(host, panels, monkeypatch):
    first, second, replaced = refused(host, panels, monkeypatch)
    button = panels.export.ui.replaceButton
    assert button.isVisible()
    panels.detect.parameters.inputVolume = second
    assert not button.isVisible()
    panels.export._on_replace()
    assert replaced == []
    panels.detect.parameters.inputVolume = first
    assert button.isVisible()
    another_reader(host, panels, "CD")
    assert not button.isVisible()
    another_reader(host, panels, "AB")
    host.click(button)
    assert replaced == [(first, True)]


def test_a_refusal_that_comes_late_names_its_scan(host, panels, monkeypatch):
    from CMBDetectorLib.gui.dataset_export import Exported

    first, second, _replaced = refused(host, panels, monkeypatch)
    panels.detect.parameters.inputVolume = second
    panels.export._on_exported(Exported(first.GetID(), "AB", panels.export._folder()), "Refused.", "other-reader")

    assert panels.export.ui.messageLabel.text == "A: Refused."
    assert not panels.export.ui.replaceButton.isVisible()


def test_replacing_annotations_holds_for_the_scan_that_was_refused_alone(host, panels, monkeypatch):
    import slicer

    from CMBDetectorLib.gui.endings import JobError

    first, second = add_scan(name="A"), add_scan(ELSEWHERE, name="B", seed=4)
    importing, asked = panels.retrain.importing, []

    def refuse(_kind, arguments, _done, failed, _make):
        asked.append("--replace" in arguments)
        failed(JobError("Another reader's.", "", "other-reader"))

    monkeypatch.setattr(importing._commands, "run", refuse)
    points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "points")
    points.AddControlPoint([10.0, 10.0, 10.0])
    panels.detect.parameters.inputVolume = first
    importing.add_points(points)
    panels.detect.parameters.inputVolume = second
    importing._on_replace()
    assert asked == [False]
    panels.detect.parameters.inputVolume = first
    importing._on_replace()
    assert asked == [False, True]


# What is seen


def test_only_the_scan_under_review_has_markers_and_lies_in_the_views(host, panels):
    from CMBDetectorLib.gui import slice_views

    first, detection, _ = begin(host, panels, 5, name="A")
    host.press(None, "A")
    second, _, _ = begin(host, panels, 5, ELSEWHERE, name="B", seed=4)
    assert [is_drawn(record_node(scan)) for scan in (first, second)] == [False, True]
    panels.detect.parameters.inputVolume = first
    host.process_events()
    assert [is_drawn(record_node(scan)) for scan in (first, second)] == [True, False]
    assert slice_views.background_volume() is first
    third = add_scan(ELSEWHERE, name="C", seed=5)
    panels.review.show_detection(third, made_up(7, ELSEWHERE), select_first=False)

    assert [is_drawn(record_node(scan)) for scan in (first, second, third)] == [True, False, False]
    panels.detect.parameters.inputVolume = third
    host.process_events()
    assert [is_drawn(record_node(scan)) for scan in (first, second, third)] == [False, False, True]
    panels.detect.parameters.inputVolume = first
    panels.review.select(detection.candidates[2].id)
    assert record_node(first).GetNodeReference("CMBDetector.Layer.current").GetDisplayNode().GetVisibility()


def test_a_scan_that_is_overlaid_stays_where_it_is(host, panels):
    import slicer

    scan, other = add_scan(name="scan"), add_scan(name="other", seed=2)
    slicer.util.setSliceViewerLayers(background=other, foreground=scan)
    panels.detect.parameters.inputVolume = scan
    composite = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceCompositeNode()

    assert composite.GetBackgroundVolumeID() == other.GetID()


def test_a_filter_ends_with_its_session_and_is_named_where_it_hides_what_is_left(host, panels):
    begin(host, panels, 5)
    host.press(None, "R")
    host.press(None, "L")
    begin(host, panels, 5, ELSEWHERE, name="other", seed=3)
    assert len(panels.review.table.order()) == 5
    panels.review.table.filter_edit.text = "nothing is called so"
    panels.review.select(None)
    host.press(None, "A")
    panels.review.table.select(None)
    host.press(None, "Space")

    assert "filter" in panels.review.ui.messageLabel.text


def test_a_saved_layout_is_known_before_its_button_is_pressed(host, panels):
    import slicer

    from CMBDetectorLib.gui import slice_views

    sys.modules["CMBDetector"].register_layout()
    layouts = slicer.app.layoutManager().layoutLogic().GetLayoutNode()

    assert layouts.IsLayoutDescription(slice_views.REVIEW_LAYOUT)


def test_two_scans_of_one_name_have_a_table_each(host, panels):
    import slicer

    for affine, seed in ((None, 0), (ELSEWHERE, 4)):
        begin(host, panels, 3 + seed, affine, name="SWI", seed=seed)
        host.click(panels.export.ui.tableButton)
        host.click(panels.export.ui.tableButton)

    assert sorted(t.GetNumberOfRows() for t in slicer.util.getNodesByClass("vtkMRMLTableNode")) == [3, 7]


# What stands in a field


def test_a_typed_remark_belongs_to_the_candidate_it_was_typed_for(host, panels):
    _scan, detection, review = begin(host, panels, 4)
    first, second, third = (c.id for c in detection.candidates[:3])
    edit = panels.review.ui.commentEdit
    edit.setFocus()
    edit.text = "beside a vein"
    panels.review.view.buttons.buttons["accept"].click()
    assert review[first].comment == "beside a vein"
    assert not edit.hasFocus()
    assert panels.review.session.current == second
    edit.text = "a beam hardening"
    panels.review.view.buttons.buttons["next"].click()
    assert (review[second].comment, review[third].comment) == ("a beam hardening", "")
    edit.text = "typed while a new detection came"
    panels.review.show_detection(panels.review.scan, detection, select_first=False)
    assert panels.review.session.review[third].comment == "typed while a new detection came"


def test_a_verdict_counts_for_the_reader_who_stands_in_the_field(host, panels):
    from CMBDetectorLib.gui.candidates_node import CandidatesNode

    scan, _detection, _review = begin(host, panels, 4)
    host.press(None, "A")
    panels.review.ui.readerEdit.setFocus()
    panels.review.ui.readerEdit.text = "CD"
    panels.review.view.buttons.buttons["reject"].click()

    nodes = CandidatesNode.of_scan(scan)
    states = {r: sorted(f.state.value for f in nodes.findings(r) if f.is_reviewed) for r in ("AB", "CD")}
    assert states == {"AB": ["accepted"], "CD": ["rejected"]}
    panels.review.ui.readerEdit.text = "EF"
    panels.export.ui.copyButton.click()
    assert panels.review.session.review.reader == "EF"


# A scan that is moved


def turned():
    """A turn by 90 degrees about S, with a shift (RAS mm)."""
    return np.array([[0, -1, 0, 5], [1, 0, 0, -9], [0, 0, 1, 3], [0, 0, 0, 1.0]])


@pytest.mark.parametrize("affine", [None, oblique()], ids=["plain", "oblique"])
def test_candidates_stay_on_their_lesions_when_a_transform_is_hardened(host, panels, affine):
    import slicer

    scan, detection, review = begin(host, panels, 4, affine)
    first, second, third = (c.id for c in detection.candidates[:3])
    host.press(None, "A")
    another_reader(host, panels, "CD")
    review = panels.review.session.review
    panels.review.select(second)
    review.move(second, np.add(detection.candidates[1].ras_mm, [1, 2, 3]))
    move = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    move.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(turned()))
    scan.SetAndObserveTransformNodeID(move.GetID())
    panels.review.select(third)
    nodes = panels.review.session.nodes
    before = {f.id: nodes.world(f) for f in review.findings}
    scan.HardenTransform()
    panels.review.select(third)

    session = panels.review.session
    assert session.current == third
    assert session.review.reader == "CD"
    assert record_node(scan).GetTransformNodeID() is None
    for finding in session.review.findings:
        np.testing.assert_allclose(session.nodes.world(finding), before[finding.id], atol=0.01)
    assert session.review[second].is_moved
    assert [f.state for f in session.nodes.findings("AB") if f.id == first] == [State.ACCEPTED]
    matrix = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode().GetSliceToRAS()
    np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(matrix)[:3, 3], before[third], atol=0.01)
    volume = slicer.util.arrayFromVolume(scan).transpose(2, 1, 0)
    assert session.nodes.key == scan_key(volume, turned() @ (np.diag([2.0, 2, 3, 1]) if affine is None else affine))


def test_a_new_detection_of_a_moved_scan_takes_the_verdicts_along(host, panels):
    from dataclasses import replace

    import slicer

    scan, detection, _review = begin(host, panels, 4)
    for key in "AR":
        host.press(None, key)
    affine = turned() @ np.diag([2.0, 2, 3, 1])
    scan.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(affine))
    moved = [
        replace(c, id=f"c{k}", ras_mm=tuple((turned() @ [*c.ras_mm, 1])[:3]))
        for k, c in enumerate(detection.candidates)
    ]
    panels.review.show_detection(scan, replace(detection, candidates=moved), select_first=True)

    states = {f.id: f.state for f in panels.review.session.review.findings}
    assert states == {"c0": State.ACCEPTED, "c1": State.REJECTED, "c2": State.UNREVIEWED, "c3": State.UNREVIEWED}


def test_other_voxels_are_told_and_move_nothing(host, panels):
    import slicer

    scan, detection, _review = begin(host, panels, 3)
    host.press(None, "A")
    panels.review.open_scan(None)
    slicer.util.updateVolumeFromArray(scan, slicer.util.arrayFromVolume(scan)[:, ::-1].copy())
    scan.SetOrigin(4, 5, 6)
    panels.review.open_scan(scan)

    assert "changed since it was searched" in panels.review.ui.messageLabel.text
    assert panels.review.session.review.count(State.ACCEPTED) == 1
    host.press(None, "R")
    for finding, candidate in zip(panels.review.session.review.findings, detection.candidates, strict=True):
        assert finding.ras_mm == pytest.approx(candidate.ras_mm, abs=0.001)


def test_a_damaged_key_costs_no_review(host, panels):
    scan, _detection, _review = begin(host, panels, 3)
    host.press(None, "A")
    record = record_node(scan)
    panels.review.open_scan(None)
    record.SetAttribute(
        "CMBDetector.Review", json.dumps({**json.loads(record.GetAttribute("CMBDetector.Review")), "key": "?"})
    )
    panels.review.open_scan(scan)
    host.press(None, "R")

    assert panels.review.session.review.count(State.ACCEPTED) == 1
    assert panels.review.session.log is not None
