"""Evaluating predictions on disk against a BIDS dataset, and what is written about it."""

import json

import numpy as np
import pytest
from grids import phantom

from CMBDetectorLib.candidate import Candidate, Detection, candidate_id, write_detection
from CMBDetectorLib.datasets.bids import POINTS, Point, derivative_path, read_dataset, write_points
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.evaluation.evaluate import evaluate
from CMBDetectorLib.progress import Progress
from CMBDetectorLib.report.evaluation_files import FILES, write_evaluation
from CMBDetectorLib.volume import write_volume

MODEL = {"name": "toy", "version": "1", "checksum": "a" * 64, "training_data": "Trained on <toys>.", "licence": "none"}


class Notes(Progress):
    def __init__(self):
        super().__init__()
        self.notes = []

    def log(self, message):
        self.notes.append(message)


def candidate(place, score, stage1=0.6):
    return Candidate(candidate_id(place), tuple(map(float, place)), stage1, score, 3.0)


def put(root, case_id, truth, candidates):
    scan = root / case_id / "swi" / f"{case_id}_swi.nii.gz"
    write_volume(scan, phantom(turn_deg=(5, 0, 3)))
    if truth is not None:
        write_points(derivative_path(root, scan, POINTS), [Point(tuple(p)) for p in truth])
    if candidates is not None:
        detection = Detection({"name": case_id}, MODEL, {"threshold": 0.5}, candidates)
        write_detection(root.parent / "predictions" / case_id / "candidates.json", detection)


@pytest.fixture
def dataset(tmp_path):
    root = tmp_path / "data set ä"
    truth = [(0, 0, 0), (20, 0, 0), (0, 30, 0)]
    found = [candidate((0, 1, 0), 0.9, 0.3), candidate((20, 1, 0), 0.4), candidate((50, 0, 0), 0.8, 0.9)]
    put(root, "sub-01", truth, found)
    put(root, "sub-02", [], [candidate((5, 5, 5), 0.7)])
    put(root, "sub-03", None, None)
    return root


def test_evaluation_of_files(dataset, tmp_path):
    progress = Notes()
    result = evaluate(read_dataset(dataset), tmp_path / "predictions", progress)
    assert progress.notes == ["1 of 3 scans have no list of microbleeds and are left out."]
    assert [vars(scan) for scan in result.scans] == [
        dict(case_id="sub-01", microbleeds=3, candidates=3, shown=2, found=1, false_positives=1, found_by_any=2),
        dict(case_id="sub-02", microbleeds=0, candidates=1, shown=1, found=0, false_positives=1, found_by_any=0),
    ]
    hidden, never = result.missed
    assert (hidden.ras_mm, hidden.score, hidden.stage1_score) == ((20, 0, 0), 0.4, 0.6)
    assert (never.ras_mm, never.score) == ((0, 30, 0), None)
    assert result.final.at(0.5)["sensitivity"] == pytest.approx(1 / 3)
    assert result.final.at(0.9)["sensitivity"] == pytest.approx(1 / 3)
    assert result.stage1.at(0.9)["sensitivity"] == 0
    assert result.stage1.ceiling() == result.final.ceiling()
    assert result.models == [MODEL]


def test_what_is_written(dataset, tmp_path):
    result = evaluate(read_dataset(dataset), tmp_path / "predictions", Progress())
    write_evaluation(tmp_path / "out", result, "Toys & co", ["Two <scans>."])
    # One dataset has no table of datasets.
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(FILES) - {"datasets.tsv"}
    data = json.loads((tmp_path / "out" / "froc.json").read_text())
    assert data["final"]["microbleeds"] == 3
    assert [p["fp_allowed"] for p in data["final"]["operating_points"]] == [0.5, 1, 2, 4.1, 8, 14.5, 38.15]
    assert data["final"]["curve"]["threshold"] == [0.9, 0.8, 0.7, 0.4]
    assert data["stage1"]["curve"]["threshold"] == [0.9, 0.6, 0.3]
    rows = (tmp_path / "out" / "scans.tsv").read_text().splitlines()
    assert rows[1].split("\t") == ["sub-01", "3", "3", "2", "1", "1", "2"]
    missed = (tmp_path / "out" / "missed.tsv").read_text().splitlines()
    assert missed[2].split("\t") == ["sub-01", "0", "30", "0", "n/a", "n/a"]
    page = (tmp_path / "out" / "report.html").read_text()
    for words in ("Trained on &lt;toys&gt;. Not for clinical use.", "Toys &amp; co", "Two &lt;scans&gt;.", "sub-02"):
        assert words in page
    assert "<script" not in page
    assert "http" not in page
    assert (tmp_path / "out" / "froc.png").read_bytes().startswith(b"\x89PNG")


def test_missing_predictions_are_listed(dataset, tmp_path):
    put(dataset, "sub-04", [(0, 0, 0)], None)
    put(dataset, "sub-05", [(0, 0, 0)], None)
    with pytest.raises(BadInputError, match="lacks the candidates of 2 of 4 scans: sub-04, sub-05") as caught:
        evaluate(read_dataset(dataset), tmp_path / "predictions", Progress())
    assert "<predictions>/<scan id>" in caught.value.hint
    (tmp_path / "predictions" / "sub-01" / "candidates.json").write_text("{")
    with pytest.raises(BadInputError, match="not a candidate list"):
        evaluate(read_dataset(dataset)[:1], tmp_path / "predictions", Progress())


def test_nothing_annotated(dataset, tmp_path):
    cases = [case for case in read_dataset(dataset) if not case.is_annotated]
    with pytest.raises(BadInputError, match="None of the scans"):
        evaluate(cases, tmp_path / "predictions", Progress())


def test_no_microbleeds_anywhere_still_counts_false_positives(dataset, tmp_path):
    cases = [case for case in read_dataset(dataset) if case.id == "sub-02"]
    result = evaluate(cases, tmp_path / "predictions", Progress())
    assert result.final.ceiling()["fp_per_scan"] == 1
    assert np.isnan(result.final.ceiling()["sensitivity"])
    write_evaluation(tmp_path / "out", result)
    assert "only false positives can be counted" in (tmp_path / "out" / "report.html").read_text()
    assert json.loads((tmp_path / "out" / "froc.json").read_text())["final"]["ceiling"]["sensitivity"] is None
