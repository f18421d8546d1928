"""The module's self-test: what a radiologist does, from loading a scan to the exported count, with the real worker.

Runs inside Slicer and in the stand-in host; without packages for the worker it tests the review alone and says so.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import qt
import slicer

from CMBDetectorLib.candidate import Candidate, Detection, candidate_id
from CMBDetectorLib.errors import CMBDetectorError
from CMBDetectorLib.gui import preferences
from CMBDetectorLib.gui.candidates_node import CandidatesNode
from CMBDetectorLib.gui.detection import worker_interpreter
from CMBDetectorLib.gui.module_widget import LATER_SECTIONS
from CMBDetectorLib.review.finding import State

_LONGEST_S = 240.0
_SIDE = 48


def run_self_test(tell: Callable[[str], None]) -> None:
    """Run it; ``tell`` shows a sentence.

    Raises:
        AssertionError: something does not work.
    """
    folder = preferences.temporary_folder("selftest")
    kept = preferences.text("DataFolder")
    preferences.store("DataFolder", str(folder))
    try:
        _test(tell, folder)
    finally:
        preferences.store("DataFolder", kept)
        shutil.rmtree(folder, ignore_errors=True)


def _test(tell: Callable[[str], None], folder: Path) -> None:
    slicer.util.selectModule("CMBDetector")
    panels = slicer.util.getModuleWidget("CMBDetector").panels
    scan = _phantom()
    panels.detect.parameters.inputVolume = scan
    tell("Reviewing candidates that are given")
    _test_review(panels, scan, folder)
    try:
        worker_interpreter()
    except CMBDetectorError as error:
        tell(f"Detection was not tested: {error.message}")
        return
    tell("Exporting with the worker")
    panels.export.add_to_dataset(folder / "dataset")
    _wait(lambda: not panels.export.exporter.is_running)
    assert list((folder / "dataset").glob("sub-*/swi/*.nii.gz")), panels.export.ui.messageLabel.text
    tell("Listing the local dataset and the models with the worker")
    _test_learning(panels, folder / "dataset")
    tell("Detecting with the worker")
    _test_detection(panels, scan)
    tell("Passed")


def _test_review(panels: object, scan: slicer.vtkMRMLScalarVolumeNode, folder: Path) -> None:
    detection = _detection(scan)
    nodes = panels.review.show_detection(scan, detection, select_first=True)
    _wait(lambda: panels.review.session.current is not None)
    assert nodes.node.GetNumberOfControlPoints() == len(detection.candidates)
    assert nodes.node.GetLocked()
    first, second = detection.candidates[0].id, detection.candidates[1].id
    review = panels.review.session.review
    panels.review.view.buttons.buttons["accept"].click()
    assert review[first].state is State.ACCEPTED, "the button Accept did not accept"
    assert panels.review.session.shown.current == second, "the next candidate did not come by itself"
    panels.review.view.buttons.buttons["reject-vessel"].click()
    assert review[second].mimic_class == "vessel"
    panels.review.view.buttons.buttons["undo"].click()
    assert review[second].state is State.UNREVIEWED, "Undo did not undo"
    panels.export.save(folder / "review.csv")
    lines = (folder / "review.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(detection.candidates)


def _test_learning(panels: object, dataset: Path) -> None:
    kept = preferences.text("LocalDataset")
    preferences.store("LocalDataset", str(dataset))
    try:
        panels.retrain.follow_folder()
        for name in LATER_SECTIONS:
            panels.sections[name].collapsed = False
        _wait(lambda: not panels.learning.commands.is_running)
        assert panels.retrain.table.widget.rowCount == 1, panels.retrain.ui.summaryLabel.text
        assert not panels.retrain.ui.retrainButton.enabled, "one scan is too little to learn from"
        assert panels.models.models, panels.models.ui.messageLabel.text
        panels.models.show_comparison(_comparison())
        assert panels.models.comparison.comparison is not None, panels.models.ui.messageLabel.text
        panels.models.comparison.show_plot()
        assert slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLPlotChartNode") is not None
    finally:
        preferences.store("LocalDataset", kept)
        panels.retrain.follow_folder()
        for name in LATER_SECTIONS:
            panels.sections[name].collapsed = True


def _comparison() -> dict[str, object]:
    point = {"sensitivity": 0.5, "ci": [0.3, 0.7]}
    rate = {"fp": 4.1, "old": point, "new": point, "difference": 0.0, "difference_ci": [-0.1, 0.1]}
    curve = {"fp": [0.5, 2.0], "sensitivity": [0.4, 0.6]}
    place = {"scan": "sub-01", "ras_mm": [0.0, 0.0, 0.0], "old_score": None, "new_score": 0.8}
    both = {"won": [place], "lost": [], "rates": [rate], "curves": {"old": curve, "new": curve}}
    return {"verdict": "Made up.", "old": {"reference": "a@1"}, "new": {"name": "b"}, "scans": 1, **both}


def _test_detection(panels: object, scan: slicer.vtkMRMLScalarVolumeNode) -> None:
    panels.detect.parameters.brainMask = "none"
    panels.detect.ui.maskCombo.setCurrentIndex(panels.detect.ui.maskCombo.findData("none"))
    panels.detect.ui.detectButton.click()
    assert panels.logic.is_running, panels.detect.ui.messageLabel.text
    _wait(lambda: not panels.logic.is_running)
    detection = CandidatesNode.of_scan(scan).detection()
    assert detection.model["name"] != "self-test", panels.detect.ui.messageLabel.text


def _wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + _LONGEST_S
    while not condition():
        assert time.monotonic() < end, "the worker did not end"
        slicer.app.processEvents()
        time.sleep(0.01)


def _phantom() -> slicer.vtkMRMLScalarVolumeNode:
    """Return a small volume in the scene: a bright ball with dark spots, flipped and oblique."""
    rng = np.random.default_rng(5)
    grid = np.stack(np.meshgrid(*[np.arange(_SIDE)] * 3, indexing="ij"), -1).astype(float)
    distance = np.linalg.norm(grid - _SIDE / 2, axis=-1)
    image = np.where(distance < 0.46 * _SIDE, 300.0, 5.0) + rng.normal(0, 6, distance.shape)
    for spot in _SPOTS:
        image -= 260 * np.exp(-np.sum((grid - spot) ** 2, -1) / (2 * 1.6**2))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CMBDetector self-test")
    slicer.util.updateVolumeFromArray(node, np.maximum(image, 0).astype(np.int16).transpose(2, 1, 0))
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(_AFFINE))
    node.CreateDefaultDisplayNodes()
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    slicer.app.processEvents(qt.QEventLoop.AllEvents)
    return node


_SPOTS = np.array([(24, 20, 24), (30, 28, 22), (16, 26, 28)])
_TURN = np.deg2rad(20)
_AFFINE = np.array(
    [
        [-0.9 * np.cos(_TURN), 0.9 * np.sin(_TURN), 0.0, 30.0],
        [-0.9 * np.sin(_TURN), -0.9 * np.cos(_TURN), 0.0, 25.0],
        [0.0, 0.0, 1.2, -40.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)


def _detection(scan: slicer.vtkMRMLScalarVolumeNode) -> Detection:
    places = [tuple(float(v) for v in (_AFFINE @ [*spot, 1])[:3]) for spot in _SPOTS]
    candidates = [
        Candidate(candidate_id(place), place, 0.9, 0.9 - 0.1 * rank, 3.5) for rank, place in enumerate(places)
    ]
    model = {"name": "self-test", "version": "0", "checksum": "", "training_data": "Made up.", "licence": ""}
    return Detection({"name": "self-test"}, model, {"threshold": 0.5}, candidates)
