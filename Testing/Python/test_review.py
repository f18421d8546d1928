"""Verdicts, undo, carrying over, the key of a scan, the summary; any sequence of changes survives the log."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from grids import phantom
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from reviews import KEY, MODEL, Clock, detection, ids, review

from CMBDetectorLib.review.carry_over import carry_over
from CMBDetectorLib.review.finding import MIMIC_CLASSES, Certainty, Finding, State
from CMBDetectorLib.review.log import ReviewLog, resume
from CMBDetectorLib.review.review import Review
from CMBDetectorLib.review.scan_key import scan_key
from CMBDetectorLib.review.summary import size_class, summarise
from CMBDetectorLib.volume import read_volume, write_volume


def test_a_verdict_keeps_only_what_belongs_to_it():
    of = review()
    first, second, _ = ids(of)
    assert of.judge(first, State.ACCEPTED).certainty is Certainty.DEFINITE
    rejected = of.judge(first, State.REJECTED, Certainty.POSSIBLE, "vessel")
    assert (rejected.certainty, rejected.mimic_class) == (None, "vessel")
    back = of.judge(first, State.UNREVIEWED)
    assert back == Finding(first, (1.0, 2.0, 3.0), (1.0, 2.0, 3.0), 0.9, 0.95, 2.0)
    with pytest.raises(ValueError, match="mimic class"):
        of.judge(second, State.REJECTED, mimic_class="ghost")
    assert not of[second].is_reviewed


def test_the_same_verdict_twice_is_one_change():
    of = review()
    told = []
    of.changed.append(lambda finding, what: told.append(what))
    first = ids(of)[0]
    when = of.judge(first, State.REJECTED, mimic_class="vessel").judged_at
    assert of.judge(first, State.REJECTED, mimic_class="vessel").judged_at == when
    of.move(first, of[first].ras_mm)
    of.comment(first, " \n")
    assert told == ["judge"]
    of.undo()
    assert not of.can_undo


def test_numbers_are_never_given_twice():
    of = review()
    assert [of.number(key) for key in ids(of)] == [1, 2, 3]
    gone = of.add((5, 5, 5))
    of.remove(gone.id)
    again = of.add((5, 5, 5))
    assert again.id != gone.id
    assert [of.number(key) for key in (gone.id, again.id)] == [4, 5]
    assert gone.id not in of
    with pytest.raises(ValueError, match="rejected, not removed"):
        of.remove(ids(of)[0])


def test_moving_keeps_where_the_detector_saw_it():
    of = review()
    first = ids(of)[0]
    moved = of.move(first, np.array([1.5, 2.0, 3.00001]))
    assert (moved.ras_mm, moved.detected_ras_mm, moved.is_moved) == ((1.5, 2.0, 3.0), (1.0, 2.0, 3.0), True)
    for place in ((math.nan, 0, 0), (0, math.inf, 0)):
        with pytest.raises(ValueError, match="finite"):
            of.move(first, place)
        with pytest.raises(ValueError, match="finite"):
            of.add(place)
    assert of[first] == moved


def test_everybody_is_told_before_an_error_goes_on():
    of = review()
    told = []

    def broken(finding, what):
        raise RuntimeError("disk")

    of.changed += [broken, lambda finding, what: told.append((finding.state, what))]
    with pytest.raises(RuntimeError, match="disk"):
        of.judge(ids(of)[0], State.UNSURE)
    with pytest.raises(RuntimeError, match="disk"):
        of.undo()
    assert told == [(State.UNSURE, "judge"), (State.UNREVIEWED, "undo")]


def test_stepping_through_what_is_left():
    of = review(threshold=0.75)
    order = ids(of)
    assert [f.id for f in of.unreviewed(0.75)] == order[:2]
    assert of.next_unreviewed(None, order) == order[0]
    of.judge(order[0], State.UNSURE)
    assert of.next_unreviewed(order[2], order) == order[1]
    assert of.next_unreviewed(order[0], order[:1]) is None


def test_findings_refuse_what_is_none():
    good = review().findings[0].as_json()
    assert Finding.from_json({**good, "later": 1}) == review().findings[0]
    for bad in ({"ras_mm": [1, 2]}, {"score": math.nan}, {"state": "maybe"}, {"mimic_class": "ghost"}, {"id": None}):
        data = {**good, **bad}
        if bad == {"id": None}:
            del data["id"]
        with pytest.raises((ValueError, TypeError, KeyError)):
            Finding.from_json(data)


def test_repeating_what_is_so_already_is_no_step():
    of = review()
    of.replay(of.findings[0], "carried over")
    assert not of.can_undo


class AnySitting(RuleBasedStateMachine):
    """Whatever a reader does, and whenever the program is closed in between, the log gives it back."""

    @initialize()
    def begin(self) -> None:
        """Start with three candidates; the disk need not be waited for here."""
        self.folder = Path(tempfile.mkdtemp())
        self.quick = mock.patch("os.fsync")
        self.quick.start()
        self.review = review(places=((1.0, 2.0, 3.0), (-10.5, 20.25, 7.125), (0.3, -1e-3, 50.0)))
        self.log = ReviewLog.create(self.folder, KEY, self.review)
        self.review.changed.append(self.log.append)

    def teardown(self) -> None:
        self.log.close()
        self.quick.stop()
        shutil.rmtree(self.folder)

    @rule(
        pick=st.integers(0, 50),
        state=st.sampled_from(State),
        certainty=st.sampled_from([None, *Certainty]),
        mimic=st.sampled_from([None, *MIMIC_CLASSES]),
    )
    def judge(self, pick, state, certainty, mimic):
        self.review.judge(self.pick(pick), state, certainty, mimic)

    @rule(pick=st.integers(0, 50), place=st.tuples(*[st.floats(-100, 100)] * 3))
    def move(self, pick, place):
        self.review.move(self.pick(pick), place)

    @rule(place=st.tuples(*[st.sampled_from([0.0, -0.00001, 1.0, 7.77777])] * 3))
    def add(self, place):
        self.review.add(place)

    @precondition(lambda self: any(f.is_added for f in self.review.findings))
    @rule()
    def remove(self):
        self.review.remove(next(f.id for f in self.review.findings if f.is_added))

    @rule(pick=st.integers(0, 50), text=st.text(max_size=8))
    def comment(self, pick, text):
        self.review.comment(self.pick(pick), text)

    @rule()
    def undo(self):
        assert (self.review.undo() is not None) or not self.review.can_undo

    @rule()
    def redo(self):
        assert (self.review.redo() is not None) or not self.review.can_redo

    @rule()
    def close_and_open(self):
        self.log.close()
        opened, self.log = resume(self.log.path)
        self.same(opened)
        self.review = opened
        self.review._now = Clock(1000)
        self.review.changed.append(self.log.append)

    @invariant()
    def whole_history_comes_back(self):
        self.log.close()
        opened, self.log = resume(self.log.path)
        self.review.changed.clear()
        self.same(opened)
        steps = 0
        while self.review.can_undo:
            assert opened.undo().as_json() == self.review.undo().as_json()
            steps += 1
        assert not opened.can_undo
        for _ in range(steps):
            assert opened.redo().as_json() == self.review.redo().as_json()
        self.review.changed.append(self.log.append)

    def pick(self, number: int) -> str:
        """One of the findings."""
        return self.review.findings[number % len(self.review.findings)].id

    def same(self, opened: Review) -> None:
        """Compare all that a reader can see."""
        assert [f.as_json() for f in opened.findings] == [f.as_json() for f in self.review.findings]
        assert [opened.number(key) for key in ids(opened)] == [self.review.number(key) for key in ids(self.review)]
        assert (opened.can_undo, opened.can_redo) == (self.review.can_undo, self.review.can_redo)
        assert opened.detection == self.review.detection


TestAnySitting = AnySitting.TestCase
TestAnySitting.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


# The key of a scan


def test_the_key_does_not_depend_on_dtype_layout_or_file(tmp_path):
    scan = phantom((2, 0, 1), (1, -1, 1), (0.5, 0.7, 1.3), (10, 20, 30))
    key = scan_key(scan.array, scan.ijk_to_ras)
    assert len(key) == 16
    assert set(key) <= set("0123456789abcdef")
    for dtype in (np.int16, np.uint16, np.float64, ">f4", np.int64):
        for layout in (np.ascontiguousarray, np.asfortranarray, lambda a: np.repeat(a, 2, 0)[::2]):
            assert scan_key(layout(scan.array.astype(dtype)), scan.ijk_to_ras.tolist()) == key
    for name in ("a.nii.gz", "b.nrrd", "c.mha", "Name of a Patient.nii"):
        write_volume(tmp_path / name, scan)
        read = read_volume(tmp_path / name)
        assert scan_key(read.array, read.ijk_to_ras) == key


def test_the_key_tells_scans_apart():
    scan = phantom(spacing=(0.5, 0.5, 1.0))
    key = scan_key(scan.array, scan.ijk_to_ras)
    shifted, darker = scan.ijk_to_ras.copy(), scan.array.copy()
    shifted[0, 3] += 0.02
    darker[::2] -= 1
    assert len({key, scan_key(scan.array, shifted), scan_key(darker, scan.ijk_to_ras)}) == 3
    assert scan_key(scan.array[:, :, :-1], scan.ijk_to_ras) != key
    assert scan_key(scan.canonical().array[::-1], scan.ijk_to_ras) != key
    with pytest.raises(ValueError, match="three axes"):
        scan_key(scan.array[0], scan.ijk_to_ras)


def test_round_numbers_in_single_precision_give_the_same_key():
    array = np.zeros((8, 8, 8))
    for value in np.concatenate([np.arange(-200, 200, 0.225), np.arange(-100, 100, 0.125), np.arange(0, 50, 0.05)]):
        affine = np.diag([0.45, 0.45, 1.0, 1.0])
        affine[:3, 3] = value
        single = affine.astype(np.float32)
        assert scan_key(array, single) == scan_key(array, affine), value


def test_minus_zero_is_zero():
    affine = np.eye(4)
    assert scan_key(np.zeros((4, 4, 4)), affine) == scan_key(-np.zeros((4, 4, 4)), affine)


def test_a_large_scan_takes_milliseconds():
    array = np.zeros((512, 512, 150), np.int16)
    times = []
    for layout in (array, np.asfortranarray(array)):
        for _ in range(3):
            start = time.perf_counter()
            scan_key(layout, np.eye(4))
            times.append(time.perf_counter() - start)
    assert min(times) < 0.02


# Carrying over


def test_verdicts_go_to_the_nearest_candidate_one_to_one():
    old = review(places=[(0.0, 0, 0), (3.0, 0, 0), (20.0, 0, 0), (40.0, 0, 0)])
    a, b, c, d = ids(old)
    old.judge(a, State.ACCEPTED, Certainty.POSSIBLE)
    old.comment(a, "faint")
    old.judge(b, State.REJECTED, mimic_class="vessel")
    old.move(c, (21.5, 0, 0))
    old.judge(c, State.ACCEPTED)
    new = detection([(1.6, 0, 0), (1.4, 0, 0), (20.5, 0, 0), (40.0, 0, 0)], version="2")
    begun = Review(new, "Dr A", carry_over(old, new))
    two, one, three, four = begun.findings
    assert (one.state, one.certainty, one.comment, one.ras_mm) == (
        State.ACCEPTED,
        Certainty.POSSIBLE,
        "faint",
        (1.4, 0, 0),
    )
    assert (two.state, two.mimic_class, two.score) == (State.REJECTED, "vessel", 0.9)
    assert (three.state, three.ras_mm, three.detected_ras_mm) == (State.ACCEPTED, (21.5, 0, 0), (20.5, 0, 0))
    assert not four.is_reviewed
    assert d == four.id
    assert one.judged_at == old[a].judged_at


def test_nothing_a_reader_found_is_lost():
    old = review(places=[(0.0, 0, 0), (10.0, 0, 0), (20.0, 0, 0)])
    seen, unsure, vessel = ids(old)
    old.judge(seen, State.ACCEPTED)
    old.judge(unsure, State.UNSURE)
    old.judge(vessel, State.REJECTED)
    far, near, gone = (old.add(place).id for place in ((50, 0, 0), (61, 0, 0), (70, 0, 0)))
    old.remove(gone)
    new = detection([(60.0, 0, 0)])
    begun = Review(new, "Dr A", carry_over(old, new))
    assert {f.ras_mm[0]: (f.state, f.is_added) for f in begun.findings} == {
        61: (State.ACCEPTED, False),
        0: (State.ACCEPTED, True),
        10: (State.UNSURE, True),
        50: (State.ACCEPTED, True),
    }
    assert far in begun
    assert near not in begun
    assert begun.findings[0].is_moved
    assert carry_over(review(), detection([])) == []


def test_carrying_over_to_the_same_detection_changes_nothing():
    old = review()
    for key, state in zip(ids(old), (State.ACCEPTED, State.REJECTED, State.UNSURE), strict=True):
        old.judge(key, state)
    old.move(ids(old)[1], (0, 0, 0))
    old.add((5, 5, 5))
    assert Review(old.detection, "", carry_over(old, detection())).findings == old.findings


# Summary


def judged() -> Review:
    of = review(places=[(10.0 * n, 0, 0) for n in range(6)], threshold=0.45)
    keys = ids(of)
    of.judge(keys[0], State.ACCEPTED)
    of.judge(keys[1], State.ACCEPTED, Certainty.POSSIBLE)
    of.move(keys[1], (11, 0, 0))
    of.judge(keys[2], State.REJECTED, mimic_class="vessel")
    of.judge(keys[3], State.UNSURE)
    of.add((1, 2, 3))
    return of


def test_counts_of_an_unfinished_review():
    summary = summarise(judged())
    assert (summary.count, summary.added, summary.moved, summary.hidden) == (3, 1, 1, 1)
    assert (summary.shown, summary.not_reviewed, summary.is_complete) == (6, 1, False)
    assert summary.states == {"accepted": 3, "rejected": 1, "unsure": 1, "unreviewed": 1}
    assert summary.microbleeds["definite"] == {"< 5 mm": 1, "5-10 mm": 0, "> 10 mm": 0, "unknown": 1}
    assert summary.microbleeds["possible"] == {"< 5 mm": 0, "5-10 mm": 1, "> 10 mm": 0, "unknown": 0}
    assert summary.as_text().splitlines() == [
        "Review NOT complete: 1 of 6 places shown at a score threshold of 0.45 are not judged.",
        "3 microbleeds: 2 definite, 1 possible; 1 below 5 mm, 1 of 5-10 mm, 1 of unknown diameter (apparent diameter);"
        " 1 added by the reader; 1 moved by the reader.",
        "Other places: 1 rejected (vessel 1); 1 unsure, not counted.",
        "Reader: Dr A. Candidates by CMBDetector 0.1.0.",
        f"Model default 1 ({MODEL['checksum'][:12]}): Trained on simulated scans.",
        "Not for clinical use.",
    ]
    assert summarise(judged(), 0.6).is_complete
    data = summary.as_dict()
    assert (data["complete"], data["reviewed"], data["not_reviewed"]) == (False, 5, 1)
    assert data["notice"] == "Not for clinical use."


def test_a_finished_review_without_microbleeds():
    of = review(reader="\n", places=[(0.0, 0, 0)])
    assert "No microbleeds among those judged." in summarise(of).as_text()
    of.judge(ids(of)[0], State.REJECTED)
    text = summarise(of).as_text()
    assert text.startswith("No microbleeds.\nOther places: 1 rejected (no class given 1).\nReview complete: all")
    assert "Reader: not named." in text
    unknown = Review(detection([], training_data="", checksum=None), "x")
    assert "(unknown): It is not stated" in summarise(unknown).as_text()


def test_size_classes():
    words = [size_class(mm) for mm in (None, 0.0, 4.99, 5.0, 10.0, 10.01)]
    assert words == ["unknown", "< 5 mm", "< 5 mm", "5-10 mm", "5-10 mm", "> 10 mm"]
