"""Sensitivity by group: figures and intervals counted by hand, and what holds for any scans."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from CMBDetectorLib.candidate import Candidate, Detection, candidate_id
from CMBDetectorLib.datasets.bids import Point
from CMBDetectorLib.evaluation.evaluate import compare
from CMBDetectorLib.evaluation.froc import ScanResult, froc
from CMBDetectorLib.evaluation.groups import GROUP_FP, HitScan, by_group, in_cluster
from CMBDetectorLib.report.evaluation_files import write_evaluation

MODEL = {"name": "toy", "version": "1", "checksum": "a" * 64, "training_data": "Toys.", "licence": "none"}


def detection(*candidates):
    """Candidates as (place, score)."""
    made = [Candidate(candidate_id(place), tuple(map(float, place)), 0.5, score, 3.0) for place, score in candidates]
    return Detection({"name": "toy"}, MODEL, {"threshold": 0.5}, made)


def by_hand():
    """Three scans, five microbleeds; false positives at .8 .7 .5 .2, of which .7 ties with the hit of (0, 0, 0) in b.

    At most .5 FP a scan: threshold .8 (one of the two at .7 would be too many); 1: .5; 4.1 and more: .2.
    """
    far = (80.0, 0, 0)
    truths = {
        "a": [
            Point((0, 0, 0), location="lobar", near_dark=False, contrast=0.5),  # found at .9
            Point((5, 0, 0), location="deep", near_dark=True, contrast=0.49),  # its one candidate is taken
            Point((40, 0, 0), location="lobar", near_dark=False, contrast=0.8),  # found at .6
        ],
        "b": [Point((0, 0, 0), location="infratentorial"), Point((5.001, 0, 0))],  # found at .7, and never
        "c": [],
    }
    detections = {
        "a": detection(((2, 0, 0), 0.9), ((40, 1, 0), 0.6), (far, 0.7)),
        "b": detection(((0, 0, 0), 0.7), (far, 0.8), ((0, 80, 0), 0.2)),
        "c": detection((far, 0.5)),
    }
    return detections, truths


def in_json(evaluation):
    return [group.to_json() for group in evaluation.groups]


def test_figures_counted_by_hand():
    groups = {group.name: group for group in compare(*by_hand()).groups}
    found = {
        "all": (5, 2, [1, 3, 3, 3]),
        "in clusters": (2, 1, [1, 1, 1, 1]),  # 5 mm apart is beside each other, 5.001 mm is not
        "alone": (3, 2, [0, 2, 2, 2]),
        "beside dark tissue": (1, 1, [0, 0, 0, 0]),
        "elsewhere": (2, 1, [1, 2, 2, 2]),  # not those of b, of which nobody says
        "lobar": (2, 1, [1, 2, 2, 2]),
        "deep": (1, 1, [0, 0, 0, 0]),
        "infratentorial": (1, 1, [0, 1, 1, 1]),
        "contrast < 0.5": (1, 1, [0, 0, 0, 0]),
        "contrast >= 0.5": (2, 1, [1, 2, 2, 2]),
    }
    assert list(groups) == list(found)
    for name, (microbleeds, scans, counts) in found.items():
        group = groups[name]
        assert (group.microbleeds, group.scans) == (microbleeds, scans), name
        assert [point.found for point in group.points] == counts, name
        assert [point.threshold for point in group.points] == [0.8, 0.5, 0.2, 0.2]
        np.testing.assert_allclose([point.sensitivity for point in group.points], np.array(counts) / microbleeds)


def test_intervals_counted_by_hand():
    groups = {group.name: group for group in compare(*by_hand()).groups}
    # Of the 26 of 27 draws with a microbleed of the group, 7 hold a without b and 7 b without a: both ends are reached.
    assert groups["all"].points[0].sensitivity_ci == pytest.approx((0, 1 / 3))
    assert groups["all"].points[1].sensitivity_ci == pytest.approx((1 / 2, 2 / 3))
    assert groups["alone"].points[1].sensitivity_ci == pytest.approx((1 / 2, 1))
    # One scan: nothing can be said.
    assert np.isnan(groups["lobar"].points[1].sensitivity_ci).all()


def test_intervals_against_every_possible_draw():
    truths = [(1, 0), (3, 1), (2, 2), (8, 7), (1, 1), (0, 0)]
    scans, results = [], []
    for number, (count, found) in enumerate(truths):
        places = [Point((30.0 * k, 0, 0)) for k in range(count)]
        scores = np.array([0.9] * found + [-np.inf] * (count - found))
        scans.append(HitScan(places, scores, f"sub-{len(scans):02d}"))
        where = np.array([p.ras_mm for p in places]).reshape(-1, 3)
        results.append(ScanResult(str(number), where[:found], scores[:found], where))
    whole = by_group(scans, froc(results))[0]
    draws = np.array(truths)[np.array(list(itertools.product(range(6), repeat=6)))].sum(axis=1)
    draws = draws[draws[:, 0] > 0]
    exact = draws[:, 1] / draws[:, 0]
    assert whole.points[0].sensitivity == pytest.approx(11 / 15)
    low, high = whole.points[0].sensitivity_ci
    # 1000 draws at random, so the share of all 46 656 draws beyond each end is 2.5 % within three standard errors.
    assert (exact < low).mean() < 0.04 < 0.96 < (exact <= high).mean()
    assert (exact <= low).mean() > 0.01
    assert (exact >= high).mean() > 0.01


@st.composite
def random_scans(draw):
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    detections, truths = {}, {}
    for case_id in "abcd"[: draw(st.integers(1, 4))]:
        places = generator.uniform(-12, 12, (generator.integers(0, 8), 3))
        marks = [None, False, True]
        truths[case_id] = [Point(tuple(p), near_dark=marks[generator.integers(3)]) for p in places]
        rows = zip(generator.uniform(-14, 14, (12, 3)), generator.integers(0, 6, 12) / 6, strict=True)
        detections[case_id] = detection(*rows)
    return detections, truths


@given(random_scans())
@settings(max_examples=20, deadline=None)
def test_all_is_the_froc_and_parts_make_the_whole(scans):
    result = compare(*scans)
    groups = {group.name: group for group in result.groups}
    assert bool(groups) == bool(result.final.microbleeds)
    points = {point.fp_allowed: point for point in result.final.operating_points}
    for t, fp in enumerate(GROUP_FP if groups else ()):
        assert groups["all"].points[t].sensitivity == pytest.approx(points[fp].sensitivity)
        assert groups["all"].points[t].threshold == points[fp].threshold
        parts = [groups[name] for name in ("in clusters", "alone")]
        assert sum(part.points[t].found for part in parts) == groups["all"].points[t].found
        assert sum(part.microbleeds for part in parts) == groups["all"].microbleeds
    for group in groups.values():
        for point in group.points:
            low, high = point.sensitivity_ci
            assert np.isnan(low) == np.isnan(high) == (group.scans < 2)
            assert np.isnan(low) or 0 <= low <= high <= 1
    assert in_json(compare(*scans)) == in_json(result)


def test_only_what_the_annotations_support():
    detections, truths = by_hand()
    places = {case: np.array([p.ras_mm for p in points]).reshape(-1, 3) for case, points in truths.items()}
    bare = compare(detections, places)
    assert [group.name for group in bare.groups] == ["all", "in clusters", "alone"]
    assert in_json(bare) == in_json(compare(detections, truths))[:3]
    one = {case: [Point(p.ras_mm, location=p.location) for p in points] for case, points in truths.items()}
    assert [group.name for group in compare(detections, one).groups][3:] == ["lobar", "deep", "infratentorial"]
    assert compare(detections, {case: [] for case in truths}).groups == []
    np.testing.assert_array_equal(in_cluster([]), np.zeros(0, bool))
    np.testing.assert_array_equal(in_cluster([Point((1, 1, 1)), Point((1, 1, 1))]), [True, True])


def test_what_is_written_and_shown(tmp_path):
    result = compare(*by_hand())
    write_evaluation(tmp_path, result)
    rows = [line.split("\t") for line in (tmp_path / "groups.tsv").read_text().splitlines()]
    assert rows[0][:6] == ["group", "microbleeds", "scans", "fp_allowed", "threshold", "found"]
    assert len(rows) == 1 + 10 * 4
    assert rows[2] == ["all", "5", "2", "1", "0.5", "3", "0.6", "0.5", "0.666667"]
    assert rows[5 + 1] == ["in clusters", "2", "1", "1", "0.5", "1", "0.5", "n/a", "n/a"]
    stored = json.loads((tmp_path / "froc.json").read_text())["groups"]
    assert [group["name"] for group in stored] == [group.name for group in result.groups]
    assert stored[0]["points"][1] == {
        "fp_allowed": 1.0, "threshold": 0.5, "found": 3, "sensitivity": 0.6, "sensitivity_ci": [0.5, 0.666667],
    }  # fmt: skip
    assert stored[1]["points"][1]["sensitivity_ci"] == [None, None]
    page = (tmp_path / "report.html").read_text()
    assert "<td>60.0 % (50-67)</td>" in page
    assert "contrast &lt; 0.5" in page
    text = result.text()
    assert text.startswith(result.final.table())
    assert "60.0 % (50-67)" in text
