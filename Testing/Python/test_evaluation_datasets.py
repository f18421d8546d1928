"""Several datasets evaluated at once: through the command, from files."""

import json

import pytest
from grids import phantom

from CMBDetectorLib.candidate import Candidate, Detection, candidate_id, write_detection
from CMBDetectorLib.datasets.bids import POINTS, Point, derivative_path, write_points
from CMBDetectorLib.volume import write_volume

MODEL = {"name": "toy", "version": "1", "checksum": "a" * 64, "training_data": "Toys.", "licence": "none"}


def put(root, predictions, case_id, truth, candidates):
    """Write a scan, its microbleeds and its candidates, as (place, score)."""
    scan = root / case_id / "swi" / f"{case_id}_swi.nii.gz"
    write_volume(scan, phantom(turn_deg=(5, 0, 3)))
    if truth is not None:
        write_points(derivative_path(root, scan, POINTS), [Point(place) for place in truth])
        made = [Candidate(candidate_id(p), tuple(map(float, p)), 0.5, score, 3.0) for p, score in candidates]
        write_detection(predictions / case_id / "candidates.json", Detection({}, MODEL, {"threshold": 0.5}, made))


@pytest.fixture
def two(tmp_path):
    """Datasets "swi a" and "gre", and their predictions: two scans each, of the same names; gre scores lower."""
    a, b, pa, pb = (tmp_path / name for name in ("swi a", "gre", "pa", "pb"))
    hit, other, far = (0, 0, 0), (30, 0, 0), (60, 0, 0)
    put(a, pa, "sub-01", [hit, other], [(hit, 0.9), (other, 0.8), (far, 0.7)])
    put(a, pa, "sub-02", [hit], [(far, 0.6)])
    put(b, pb, "sub-01", [hit, other], [(hit, 0.5), (far, 0.4), (other, 0.1)])
    put(b, pb, "sub-02", [], [(far, 0.3)])
    put(b, pb, "sub-03", None, [])
    return a, b, pa, pb


@pytest.fixture
def evaluate(worker):
    """The command as a function that returns its exit code and all its words in one line and line by line."""

    def run(*arguments):
        done = worker("evaluate", *arguments, events=False, env={"COLUMNS": "400"})
        return done.code, done.stdout + done.stderr

    return run


def test_datasets_with_the_pooled_and_with_their_own_threshold(two, tmp_path, evaluate):
    a, b, pa, pb = two
    code, text = evaluate(a, b, "--predictions", pa, pb, "--output", tmp_path / "out")
    assert code == 0, text
    assert "1 of 3 scans of gre have no list" in text
    assert "Sensitivity by group" in text
    # False positives over all at .7 .6 .4 .3. Pooled: .5 a scan allows two, so .5; alone: one in each, so .7 and .4.
    row = next(line for line in text.splitlines() if line.startswith("swi a "))
    assert row.split()[2:9] == ["2", "3", "66.7", "%", "(1.0)", "66.7", "%"]
    row = next(line for line in text.splitlines() if line.startswith("gre "))
    assert row.split()[1:8] == ["2", "2", "50.0", "%", "(0.0)", "50.0", "%"]
    rows = [line.split("\t") for line in (tmp_path / "out" / "datasets.tsv").read_text().splitlines()]
    assert rows[1] == ["swi a", "2", "3", "0.5", "0.5", "1", "0.666667", "0.7", "0.5", "0.666667"]
    assert rows[5] == ["gre", "2", "2", "0.5", "0.5", "0", "0.5", "0.4", "0.5", "0.5"]
    # One a scan allows all four: the pooled threshold is the lowest score, as is gre's own.
    assert rows[6] == ["gre", "2", "2", "1", "0.1", "1", "1", "0.1", "1", "1"]
    stored = json.loads((tmp_path / "out" / "froc.json").read_text())
    assert [dataset["name"] for dataset in stored["datasets"]] == ["swi a", "gre"]
    assert stored["datasets"][1]["points"][0]["own_threshold"] == 0.4
    assert (stored["final"]["scans"], stored["final"]["microbleeds"]) == (4, 5)
    scans = [line.split("\t")[0] for line in (tmp_path / "out" / "scans.tsv").read_text().splitlines()[1:]]
    assert scans == ["swi a_sub-01", "swi a_sub-02", "gre_sub-01", "gre_sub-02"]
    assert "Sensitivity by dataset" in (tmp_path / "out" / "report.html").read_text()


def test_one_dataset_stays_as_it_was(two, tmp_path, evaluate):
    a, b, pa, pb = two
    code, text = evaluate(b, "--predictions", pb, "--output", tmp_path / "out")
    assert code == 0
    assert "1 of 3 scans have no list" in text
    assert "by dataset" not in text
    assert not (tmp_path / "out" / "datasets.tsv").exists()
    assert "\nsub-01\t" in (tmp_path / "out" / "scans.tsv").read_text()
    # The option first: it takes the dataset, too.
    assert evaluate("--predictions", pb, b) == evaluate(b, "--predictions", pb)
    assert evaluate("--predictions", pa, pb, a, b)[0] == 0


def test_what_does_not_fit_together(two, tmp_path, evaluate):
    a, b, pa, pb = two
    code, text = evaluate(a, b, "--predictions", pa)
    assert code == 2
    assert "2 datasets and 1 folder of predictions do not pair up" in text
    assert evaluate("--predictions", pa)[0] == 2
    code, text = evaluate(a, a, "--predictions", pa, pa)
    assert code == 2
    assert "same folder name" in text
    code, text = evaluate(a, b, "--predictions", pa, tmp_path)
    assert code == 2
    assert f"{tmp_path} lacks the candidates of 2 of 2 scans" in " ".join(text.split())
    put(tmp_path / "bare", None, "sub-01", None, [])
    code, text = evaluate(a, tmp_path / "bare", "--predictions", pa, pb)
    assert code == 2
    assert "None of the scans of bare has a list" in " ".join(text.split())
