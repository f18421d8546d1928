"""Candidate lists survive the way to disk and back; damaged ones are refused. Progress only moves forward."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from CMBDetectorLib.candidate import Candidate, Detection, candidate_id, read_detection, write_detection
from CMBDetectorLib.errors import BadInputError, Cancelled
from CMBDetectorLib.progress import Part, Progress
from CMBDetectorLib.review.review import Review
from CMBDetectorLib.worker.listeners import TimeLeft

MODEL = {"name": "m", "version": "1", "checksum": "ab", "training_data": "Trained on nothing.", "licence": "none"}


def detection(candidates, threshold=0.5):
    return Detection({"name": "ü.nii"}, MODEL, {"threshold": threshold}, candidates, {"stage 1": 1.5})


def candidates(*scores):
    places = [(float(n), -2.0 * n, 3.25) for n in range(len(scores))]
    return [
        Candidate(candidate_id(place), place, 0.75, score, 2.5) for place, score in zip(places, scores, strict=True)
    ]


def test_round_trip_sorts_by_score_and_keeps_everything(tmp_path):
    written = detection(candidates(0.2, 0.9, 0.5, 0.4999))
    write_detection(tmp_path / "candidates.json", written)
    read = read_detection(tmp_path / "candidates.json")
    assert [c.score for c in read.candidates] == [0.9, 0.5, 0.4999, 0.2]
    assert sorted(read.candidates, key=lambda c: c.id) == sorted(written.candidates, key=lambda c: c.id)
    assert (read.scan, read.model, read.settings) == (written.scan, written.model, written.settings)
    assert read.seconds == written.seconds
    assert [c.score for c in read.shown()] == [0.9, 0.5]


def test_what_is_shown_is_the_same_when_it_is_read_again(tmp_path):
    written = detection(candidates(0.49996, 0.49994, 0.9))
    write_detection(tmp_path / "candidates.json", written)
    assert [c.id for c in written.shown()] == [c.id for c in read_detection(tmp_path / "candidates.json").shown()][::-1]
    assert len(written.shown()) == 2


def test_candidates_that_are_written_with_one_score_have_one_order_everywhere(tmp_path):
    # The fifth digit, which is not written, would turn the first two round.
    low, high, best = candidates(0.90001, 0.90004, 0.95)
    made = [replace(low, stage1_score=0.8), high, replace(high, id="0"), best]
    order = [best.id, low.id, "0", high.id]
    assert [c.id for c in sorted(made, key=lambda c: c.rank)] == order
    write_detection(tmp_path / "candidates.json", detection(made))
    read = read_detection(tmp_path / "candidates.json").candidates
    assert [c.id for c in read] == [c.id for c in sorted(read, key=lambda c: c.rank)] == order
    assert [finding.id for finding in Review(detection(read[::-1])).findings] == order


@given(st.tuples(*[st.floats(-200, 200)] * 3))
def test_id_depends_on_the_position_to_a_hundredth(place):
    rounded = tuple(round(v, 2) for v in place)
    assert candidate_id(rounded) == candidate_id([v + 0.0 for v in rounded])
    assert candidate_id(rounded) != candidate_id((rounded[0] + 0.01, *rounded[1:]))
    assert candidate_id(rounded) == candidate_id(tuple(v + 1e-4 for v in rounded))


def test_id_of_zero_and_minus_zero_is_one():
    assert candidate_id((0.0, -0.0, -0.001)) == candidate_id((-0.0, 0.0, 0.0))
    assert candidate_id((-0.004, -10.0, 1.0)) == candidate_id((0.0, -10.0, 1.0))


def damaged():
    yield "text", lambda data: "no json"
    yield "a list", lambda data: "[]"
    yield "another schema", lambda data: json.dumps({**data, "schema": 2})
    yield "no schema", lambda data: json.dumps({k: v for k, v in data.items() if k != "schema"})
    yield "no threshold", lambda data: json.dumps({**data, "settings": {}})
    for key, value in (
        ("ras_mm", [1, 2]),
        ("ras_mm", [1, 2, float("nan")]),
        ("score", float("nan")),
        ("score", "high"),
    ):
        yield (
            f"{key} {value}",
            lambda d, k=key, v=value: json.dumps({**d, "candidates": [{**d["candidates"][0], k: v}]}),
        )


@pytest.mark.parametrize(("what", "damage"), list(damaged()))
def test_damaged_lists_are_refused(tmp_path, what, damage):
    file = tmp_path / "candidates.json"
    write_detection(file, detection(candidates(0.5)))
    file.write_text(damage(json.loads(file.read_text())))
    with pytest.raises(BadInputError) as caught:
        read_detection(file)
    assert caught.value.hint


def test_absent_list_says_so(tmp_path):
    with pytest.raises(BadInputError, match="no file"):
        read_detection(tmp_path / "candidates.json")


class Recorder(Progress):
    def __init__(self):
        super().__init__()
        self.seen = []
        self.notes = []

    def show(self, stage, step, steps, fraction):
        self.seen.append((stage, step, steps, fraction))

    def log(self, message):
        self.notes.append(message)


def test_progress_moves_forward_by_weight():
    progress = Recorder()
    progress.plan([("a", 1), ("b", 3)])
    assert list(progress.track("xy", "a")) == ["x", "y"]
    progress.report("b", 1, 3)
    progress.report("a", 0, 2)
    progress.report("b", 3, 3)
    assert [fraction for *_, fraction in progress.seen] == pytest.approx([0, 0.125, 0.25, 0.5, 0.5, 1.0])
    assert set(progress.seconds()) == {"a", "b"}


def test_part_fills_one_stage_of_its_parent():
    progress = Recorder()
    progress.plan([("before", 1), ("scans", 1)])
    for number in range(2):
        part = Part(progress, "scans", number, 2)
        part.plan([("inner", 1)])
        list(part.track(range(2), "inner"))
        part.log(f"scan {number}")
    assert [fraction for *_, fraction in progress.seen] == pytest.approx([0.5, 0.625, 0.75, 0.75, 0.875, 1.0])
    assert {stage for stage, *_ in progress.seen} == {"scans"}
    assert progress.notes == ["scan 0", "scan 1"]


def test_listener_may_cancel_from_within():
    class Impatient(Progress):
        def show(self, stage, step, steps, fraction):
            if step == 2:
                raise Cancelled

    done = []
    with pytest.raises(Cancelled) as caught:
        done.extend(Impatient().track(range(5), "work"))
    assert done == [0, 1]
    part = Part(Impatient(), "scans", 0, 1000)
    part.plan([("inner", 1)])
    with pytest.raises(Cancelled):
        part.report("inner", 2, 1000)
    assert caught.value.exit_code == 6


def test_the_time_left_follows_the_speed_of_late():
    left = TimeLeft()
    assert left.at(1, 0.01) is None
    # Six tenths were called long and took no time; then a tenth takes 500 s.
    known = [left.at(second, 0.6 + second / 5000) for second in range(10, 1001)]
    assert known[-1] == pytest.approx(1000, rel=0.02)
    assert left.at(1400, 0.8) == known[-1], "nothing new is known"


@given(st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1)), min_size=1, max_size=40))
def test_the_time_left_is_never_negative(reports):
    left = TimeLeft()
    for (elapsed_s, _), (_, fraction) in zip(sorted(reports), sorted(reports, key=lambda r: r[1]), strict=True):
        told = left.at(elapsed_s, fraction)
        assert told is None or told >= 0


@pytest.mark.parametrize("text", ["[" * 5000, '{"schema": 1, "a": ' + '{"a":' * 3000, "null", "[]"])
def test_what_is_nested_too_deeply_or_no_list_is_refused(tmp_path, text):
    (tmp_path / "candidates.json").write_text(text)
    with pytest.raises(BadInputError, match="is not a candidate list"):
        read_detection(tmp_path / "candidates.json")
