"""BIDS: which scans are found, where their annotations lie, and what a point list may hold."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from CMBDetectorLib.datasets.bids import (
    BRAIN_MASK,
    LOCATIONS,
    MIMICS,
    POINTS,
    Point,
    derivative_path,
    read_dataset,
    read_points,
    write_descriptions,
    write_points,
)
from CMBDetectorLib.errors import BadInputError

DERIVATIVES = Path("derivatives/cmbdetector")


def put(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(b""))


def test_finds_scans_of_every_layout_and_nothing_else(tmp_path):
    put(
        tmp_path,
        "sub-02/swi/sub-02_swi.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_T2starw.nii",
        "sub-01/ses-b/swi/sub-01_ses-b_acq-hi_run-1_SWI.nii.gz",
        "sub-01/ses-b/swi/sub-01_ses-b_acq-hi_run-2_SWI.nii.gz",
        "sub-03/anat/sub-03_part-mag_T2starw.nii.gz",
        "sub-03/anat/sub-03_part-phase_T2starw.nii.gz",
        "sub-03/anat/sub-03_T1w.nii.gz",
        "sub-03/swi/sub-03_minIP.nii.gz",
        "sub-03/swi/._sub-03_swi.nii.gz",
        "sub-04/dwi/sub-04_swi.nii.gz",
        "derivatives/other/sub-09/swi/sub-09_swi.nii.gz",
        "derivatives/cmbdetector/sub-02/sub-02_desc-brain_mask.nii.gz",
    )
    cases = read_dataset(tmp_path)
    assert [case.id for case in cases] == [
        "sub-01_ses-a",
        "sub-01_ses-b_acq-hi_run-1",
        "sub-01_ses-b_acq-hi_run-2",
        "sub-02",
        "sub-03_part-mag",
    ]
    assert cases[0].points == tmp_path / DERIVATIVES / "sub-01/ses-a/sub-01_ses-a_desc-cmb_points.tsv"
    assert cases[3].mimics == tmp_path / DERIVATIVES / "sub-02/sub-02_desc-mimic_points.tsv"
    assert cases[3].brain_mask == tmp_path / DERIVATIVES / "sub-02/sub-02_desc-brain_mask.nii.gz"
    assert cases[0].brain_mask is None
    assert not cases[0].is_annotated
    assert cases[0].microbleeds().shape == cases[0].mimic_positions().shape == (0, 3)


def test_annotations_come_back(tmp_path):
    put(tmp_path, "sub-01/swi/sub-01_swi.nii.gz", "sub-02/swi/sub-02_swi.nii.gz")
    scan = tmp_path / "sub-01/swi/sub-01_swi.nii.gz"
    points = [Point((-1.5, 2.0, 3.25), 2.5, "definite", "reader ü"), Point((0.0, 0.0, -70.125))]
    write_points(derivative_path(tmp_path, scan, POINTS), points)
    write_points(derivative_path(tmp_path, scan, MIMICS), [Point((1, 2, 3), mimic_class="vessel")], mimics=True)
    write_points(derivative_path(tmp_path, "sub-02/swi/sub-02_swi.nii.gz", POINTS), [])
    first, second = read_dataset(tmp_path)
    assert read_points(first.points) == points
    np.testing.assert_array_equal(first.microbleeds(), [[-1.5, 2, 3.25], [0, 0, -70.125]])
    assert read_points(first.mimics)[0].mimic_class == "vessel"
    assert second.is_annotated
    assert second.microbleeds().shape == (0, 3)


def test_derivative_path_of_relative_and_foreign_scans():
    expected = Path("d") / DERIVATIVES / "sub-1/ses-2/sub-1_ses-2_run-3_desc-brain_mask.nii.gz"
    for scan in ("sub-1/ses-2/swi/sub-1_ses-2_run-3_swi.nii.gz", "d/sub-1/ses-2/anat/sub-1_ses-2_run-3_T2starw.nii"):
        assert derivative_path("d", scan, BRAIN_MASK) == expected


@given(st.lists(st.tuples(*[st.floats(-150, 150)] * 3), max_size=20))
@settings(max_examples=30)
def test_any_positions_survive_to_a_micrometre(tmp_path_factory, places):
    path = tmp_path_factory.mktemp("points") / "p.tsv"
    write_points(path, [Point(place) for place in places])
    read = np.array([p.ras_mm for p in read_points(path)]).reshape(-1, 3)
    np.testing.assert_allclose(read, np.array(places).reshape(-1, 3), atol=1e-3)


def points(column):
    words = st.sampled_from([None, "definite", "reader ü"])
    optional = {
        "location": st.sampled_from([None, *LOCATIONS]),
        "near_dark": st.sampled_from([None, False, True]),
        "contrast": st.none() | st.integers(-1000, 1000).map(lambda v: v / 1000),
    }
    kept = {name: values if name in column else st.none() for name, values in optional.items()}
    place = st.tuples(*[st.integers(-150_000, 150_000).map(lambda v: v / 1000)] * 3)
    diameter = st.none() | st.integers(0, 1000).map(lambda v: v / 100)
    return st.builds(Point, place, diameter_mm=diameter, certainty=words, source=words, mimic_class=words, **kept)


@given(st.sets(st.sampled_from(["location", "near_dark", "contrast"])).flatmap(lambda c: st.lists(points(c))))
@settings(max_examples=100)
def test_whatever_is_known_of_points_survives_and_has_a_column_only_where_needed(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("points") / "p.tsv"
    write_points(path, rows, mimics=True)
    assert read_points(path) == rows
    columns = path.read_text(encoding="utf-8").splitlines()[0].split("\t")
    assert columns[:7] == ["x", "y", "z", "diameter_mm", "certainty", "source", "mimic_class"]
    known = ("location", "near_dark", "contrast")
    assert columns[7:] == [name for name in known if any(getattr(point, name) is not None for point in rows)]


def test_optional_columns_as_text(tmp_path):
    path = tmp_path / "p.tsv"
    rows = [Point((1, 2, 3), location="deep", near_dark=True, contrast=0.25), Point((4, 5, 6), near_dark=False)]
    write_points(path, iter(rows))
    header, first, second = (line.split("\t") for line in path.read_text().splitlines())
    assert header[6:] == ["location", "near_dark", "contrast"]
    assert (first[6:], second[6:]) == (["deep", "1", "0.25"], ["n/a", "0", "n/a"])
    for wrong in ({"location": "Deep"}, {"contrast": 1.5}, {"contrast": float("nan")}, {"contrast": -float("inf")}):
        with pytest.raises(ValueError, match=r"location|contrast"):
            write_points(path, [Point((1, 2, 3), **wrong)])
    assert len(read_points(path)) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x\ty\n1\t2\n", "lacks the column z in line 1"),
        ("", "lacks the columns x, y, z in line 1"),
        ("x,y,z\n1,2,3\n", "lacks the columns"),
        ("x\ty\tz\n1\t2\t3\n1\t2\n", "column z of line 3"),
        ("x\ty\tz\n1\t2\tnan\n", "column z of line 2"),
        ("x\ty\tz\n1\tinf\t3\n", "column y of line 2"),
        ("x\ty\tz\n1,5\t2\t3\n", "column x of line 2"),
        ("x\ty\tz\tdiameter_mm\n1\t2\t3\tbig\n", "column diameter_mm of line 2"),
        ("x\ty\tz\tcontrast\n1\t2\t3\tn/a\n1\t2\t3\tdark\n", "no number in column contrast of line 3"),
        ("x\ty\tz\tcontrast\n1\t2\t3\tinf\n", "no number in column contrast of line 2"),
        ("x\ty\tz\tcontrast\n1\t2\t3\t60\n", "contrast above 1 in line 2 .'60'"),
        ("x\ty\tz\tlocation\n1\t2\t3\tLobar\n", "unknown value in column location of line 2 .'Lobar'"),
        ("x\ty\tz\tnear_dark\n1\t2\t3\tTrue\n", "unknown value in column near_dark of line 2 .'True'"),
        ("x\ty\tz\n" + "1\t2\t3\n" * 100_001, "line 100002"),
    ],
)
def test_damaged_lists_are_refused_with_file_and_line(tmp_path, text, words):
    put(tmp_path, "sub-01/swi/sub-01_swi.nii.gz")
    path = derivative_path(tmp_path, "sub-01/swi/sub-01_swi.nii.gz", POINTS)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(BadInputError, match=words) as caught:
        read_dataset(tmp_path)
    assert path.name in caught.value.message
    assert caught.value.exit_code == 2


def test_lists_of_other_programs(tmp_path):
    path = tmp_path / "p.tsv"
    path.write_bytes('\ufeffname\tz\ty\tx\tcertainty\r\n"a\t3\t2\t1\tn/a\r\n'.encode())
    assert read_points(path) == [Point((1.0, 2.0, 3.0))]
    path.write_bytes(b"x\ty\tz\n\xff\xfe\n")
    with pytest.raises(BadInputError, match="cannot be read"):
        read_points(path)
    with pytest.raises(ValueError, match="finite"):
        write_points(path, [Point((float("nan"), 0, 0))])


def test_datasets_that_cannot_be_used(tmp_path):
    with pytest.raises(BadInputError, match="no dataset folder"):
        read_dataset(tmp_path / "absent")
    put(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz")
    with pytest.raises(BadInputError, match="holds no scans"):
        read_dataset(tmp_path)
    put(tmp_path, "sub-01/swi/sub-01_swi.nii.gz", "sub-01/anat/sub-01_T2starw.nii.gz")
    with pytest.raises(BadInputError, match="two scans"):
        read_dataset(tmp_path)


def test_descriptions_name_the_dataset(tmp_path):
    write_descriptions(tmp_path, "Mine")
    assert '"Mine"' in (tmp_path / "dataset_description.json").read_text()
    assert '"derivative"' in (tmp_path / DERIVATIVES / "dataset_description.json").read_text()
