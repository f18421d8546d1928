"""The hit rule and the FROC: properties that hold whatever the candidates are, and figures counted by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from CMBDetectorLib.evaluation.comparison import compare_models
from CMBDetectorLib.evaluation.froc import OPERATING_FP, ScanResult, froc
from CMBDetectorLib.evaluation.matching import HIT_RADIUS_MM, match


@st.composite
def scans(draw, ties=False):
    """Candidates, scores and microbleeds of one crowded scan (several within the radius of each other)."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    truths, candidates = draw(st.integers(0, 8)), draw(st.integers(0, 20))
    scores = generator.integers(0, 4, candidates) / 4 if ties else generator.permutation(candidates) / 20
    return generator.uniform(-8, 8, (candidates, 3)), scores, generator.uniform(-8, 8, (truths, 3))


@given(scans(ties=True))
@settings(max_examples=100, deadline=None)
def test_matching_is_one_to_one_and_within_the_radius(scan):
    candidates, scores, truth = scan
    found = match(candidates, scores, truth)
    hits = found.truth[found.is_hit]
    assert len(set(hits)) == len(hits)
    assert (found.distance_mm[found.is_hit] <= HIT_RADIUS_MM).all()
    assert np.isnan(found.distance_mm[~found.is_hit]).all()
    for index in np.flatnonzero(found.is_hit):
        assert found.candidate[found.truth[index]] == index
        apart = np.linalg.norm(candidates[index] - truth[found.truth[index]])
        assert found.distance_mm[index] == pytest.approx(apart)
    # Nobody is left over who could still be matched: greedy is maximal.
    for index in np.flatnonzero(~found.is_hit):
        free = truth[found.candidate < 0]
        assert not (np.linalg.norm(free - candidates[index], axis=1) <= HIT_RADIUS_MM).any()


@given(scans(ties=True), st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_matching_does_not_depend_on_the_order_of_the_input(scan, seed):
    candidates, scores, truth = scan
    generator = np.random.default_rng(seed)
    order, turn = generator.permutation(len(candidates)), generator.permutation(len(truth))
    before = match(candidates, scores, truth)
    after = match(candidates[order], scores[order], truth[turn])
    expected = [np.flatnonzero(turn == t)[0] if t >= 0 else -1 for t in before.truth[order]]
    np.testing.assert_array_equal(after.truth, np.array(expected, dtype=int))


@given(scans(), st.tuples(*[st.floats(-180, 180)] * 3), st.tuples(*[st.floats(-90, 90)] * 3), st.booleans())
@settings(max_examples=100, deadline=None)
def test_matching_does_not_depend_on_where_the_head_lies(scan, angles, shift, mirror):
    candidates, scores, truth = scan
    motion = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * (-1 if mirror else 1)
    moved = match(candidates @ motion.T + shift, scores, truth @ motion.T + shift)
    np.testing.assert_array_equal(moved.truth, match(candidates, scores, truth).truth)


@given(scans(ties=True), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_hits_above_a_threshold_do_not_depend_on_what_lies_below(scan, threshold):
    candidates, scores, truth = scan
    kept = scores >= threshold
    np.testing.assert_array_equal(
        match(candidates[kept], scores[kept], truth).truth, match(candidates, scores, truth).truth[kept]
    )


def test_the_surer_candidate_chooses_first_and_takes_the_nearest():
    truth = [[0, 0, 0], [4, 0, 0]]
    found = match([[1.9, 0, 0], [0, 0, 1], [0, 0, 2]], [0.5, 0.9, 0.2], truth)
    assert found.truth.tolist() == [1, 0, -1]
    assert found.candidate.tolist() == [1, 0]
    assert match([[0, 0, 5.0]], [1], truth[:1]).is_hit.tolist() == [True]
    assert match([[0, 0, 5.001]], [1], truth[:1]).is_hit.tolist() == [False]


def test_values_that_are_no_numbers_are_errors():
    with pytest.raises(ValueError, match="scores"):
        match([[0, 0, 0]], [np.nan], [])
    with pytest.raises(ValueError, match="scores"):
        match([[0, 0, 0]], [], [])
    with pytest.raises(ValueError, match="NaN"):
        match([[0, 0, np.nan]], [1], [])
    with pytest.raises(ValueError, match="no scans"):
        froc([])


results = st.lists(scans(ties=True), min_size=1, max_size=4).map(
    lambda many: [ScanResult(f"s{n}", *scan) for n, scan in enumerate(many)]
)


@given(results)
@settings(max_examples=25, deadline=None)
def test_curve_equals_matching_anew_at_every_threshold(scans):
    curve = froc(scans)
    truths = [len(scan.truth_ras) for scan in scans]
    assert (np.diff(curve.threshold) < 0).all()
    for name in ("fp_per_scan", "sensitivity", "mean_sensitivity"):
        values = getattr(curve, name)
        assert np.isnan(values).all() or (np.diff(values) >= -1e-12).all()
    for index, threshold in enumerate(curve.threshold):
        kept = [scan.scores >= threshold for scan in scans]
        hits = [
            int(match(scan.candidates_ras[k], scan.scores[k], scan.truth_ras).is_hit.sum())
            for scan, k in zip(scans, kept, strict=True)
        ]
        false = sum(int(k.sum()) for k in kept) - sum(hits)
        assert curve.fp_per_scan[index] == pytest.approx(false / len(scans))
        assert curve.precision[index] == pytest.approx(sum(hits) / (sum(hits) + false))
        assert curve.at(threshold)["fp_per_scan"] == curve.fp_per_scan[index]
        if not sum(truths):
            assert np.isnan([curve.sensitivity[index], curve.mean_sensitivity[index], curve.f1[index]]).all()
            continue
        assert curve.sensitivity[index] == pytest.approx(sum(hits) / sum(truths))
        each = [h / t for h, t in zip(hits, truths, strict=True) if t]
        assert curve.mean_sensitivity[index] == pytest.approx(np.mean(each))
        assert curve.f1[index] == pytest.approx(2 * sum(hits) / (2 * sum(hits) + false + sum(truths) - sum(hits)))


@given(results)
@settings(max_examples=20, deadline=None)
def test_operating_points_are_reached_and_the_best_that_exist(scans):
    curve = froc(scans)
    json.dumps(curve.to_json(), allow_nan=False)
    for point in curve.operating_points:
        assert point.fp_per_scan <= point.fp_allowed
        allowed = curve.fp_per_scan <= point.fp_allowed
        if point.threshold is None:
            assert not allowed.any()
        else:
            assert point.threshold == curve.threshold[allowed].min()
        if curve.microbleeds:
            assert point.sensitivity == max([0.0, *curve.sensitivity[allowed]])
            for low, high in (point.sensitivity_ci, point.mean_sensitivity_ci):
                if curve.scans_with_microbleeds < 2:
                    assert np.isnan([low, high]).all(), "one scan says nothing about others"
                else:
                    assert 0 <= low <= high <= 1 + 1e-12
    assert len(curve.table().splitlines()) == 1 + 1 + len(OPERATING_FP) + 2 + 3


def by_hand():
    """Two scans with microbleeds, one without; hits at .9 .8 .3, false positives at .85 .5 .5 .1."""
    far, farther = [50.0, 0, 0], [60.0, 0, 0]
    first = ([[0, 0, 0], [20, 0, 0], far, farther], [0.9, 0.3, 0.85, 0.5], [[0, 0, 1], [20, 0, 0]])
    second = ([[0, 0, 0], far], [0.8, 0.1], [[1, 0, 0], [-30, 0, 0], [30, 0, 0], [0, 40, 0]])
    third = ([far], [0.5], np.zeros((0, 3)))
    return [ScanResult(name, *map(np.array, scan)) for name, scan in zip("abc", (first, second, third), strict=True)]


def test_figures_counted_by_hand():
    curve = froc(by_hand())
    assert (curve.scans, curve.scans_with_microbleeds, curve.microbleeds, curve.candidates) == (3, 2, 6, 7)
    np.testing.assert_allclose(curve.threshold, [0.9, 0.85, 0.8, 0.5, 0.3, 0.1])
    np.testing.assert_allclose(curve.fp_per_scan, np.array([0, 1, 1, 3, 3, 4]) / 3)
    np.testing.assert_allclose(curve.sensitivity, np.array([1, 1, 2, 2, 3, 3]) / 6)
    np.testing.assert_allclose(curve.mean_sensitivity, [0.25, 0.25, 0.375, 0.375, 0.625, 0.625])
    np.testing.assert_allclose(curve.precision, [1, 1 / 2, 2 / 3, 2 / 5, 3 / 6, 3 / 7])
    points = {point.fp_allowed: point for point in curve.operating_points}
    assert points[0.5].threshold == 0.8
    assert points[0.5].sensitivity == pytest.approx(2 / 6)
    assert points[1.0].threshold == 0.3
    assert points[2.0].sensitivity == points[38.15].sensitivity == curve.ceiling()["sensitivity"] == 0.5
    assert curve.best_f1()["threshold"] == pytest.approx(0.3)
    assert curve.best_f1()["f1"] == pytest.approx(6 / 12)
    assert curve.at(0.95)["sensitivity"] == 0


def test_intervals_are_seeded_contain_the_estimate_and_narrow_with_scans():
    scans = by_hand()
    assert froc(scans, seed=4).to_json() == froc(scans, seed=4).to_json()
    wide = froc(scans).operating_points[3]
    more = [replace(scan, case_id=f"{scan.case_id}-{n}") for n in range(20) for scan in scans]
    narrow = froc(more).operating_points[3]
    for point in (wide, narrow):
        assert point.sensitivity_ci[0] <= point.sensitivity <= point.sensitivity_ci[1]
    assert np.diff(narrow.sensitivity_ci) < 0.6 * np.diff(wide.sensitivity_ci)
    assert wide.sensitivity_ci[1] - wide.sensitivity_ci[0] > 0.1


def test_scans_of_one_subject_are_drawn_together():
    scans = by_hand()
    alone = froc(scans).operating_points[3].sensitivity_ci
    sessions = [replace(scan, case_id=f"sub-{n:02d}_ses-{s}") for n, scan in enumerate(scans) for s in range(5)]
    together = froc(sessions).operating_points[3].sensitivity_ci
    apart = froc([replace(scan, case_id=f"sub-{n:02d}") for n, scan in enumerate(sessions)]).operating_points[3]

    assert together == pytest.approx(alone), "five sessions tell no more than one about other subjects"
    assert np.diff(apart.sensitivity_ci) < 0.7 * np.diff(together)


def test_microbleeds_of_one_subject_alone_have_no_interval():
    scans = [replace(scan, case_id=f"sub-01_ses-{n}") for n, scan in enumerate(by_hand())]
    curve = froc(scans)
    same = compare_models(scans, scans)

    assert np.isnan(curve.operating_points[3].sensitivity_ci).all()
    assert curve.table().splitlines()[5].split("%")[1].split()[0] == "-"
    assert same.outcome == "same"
    assert "nan" not in same.verdict() + same.table()
    assert "unknown" in same.verdict()


def test_a_printed_threshold_keeps_the_candidate_it_stands_for():
    scan = ScanResult("sub-01", np.array([[0.0, 0, 0], [50, 0, 0]]), np.array([0.8326, 0.5]), np.array([[0.0, 0, 0]]))
    row = next(row for row in froc([scan]).rows() if row[0] == "<= 0.5")

    assert float(row[-1]) == 0.8326
    assert froc([scan]).at(float(row[-1]))["sensitivity"] == 1


def test_a_scan_without_microbleeds_counts_for_false_positives_only():
    scans = by_hand()
    with_empty, without = froc(scans), froc(scans[:2])
    assert with_empty.ceiling()["sensitivity"] == without.ceiling()["sensitivity"]
    assert with_empty.ceiling()["mean_sensitivity"] == without.ceiling()["mean_sensitivity"]
    assert with_empty.ceiling()["fp_per_scan"] == pytest.approx(4 / 3)
    assert without.ceiling()["fp_per_scan"] == pytest.approx(3 / 2)
