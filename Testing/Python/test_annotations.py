"""Annotations made elsewhere: whatever file they come in, they land where they were; what is wrong gets a sentence."""

from __future__ import annotations

import json
import re
import string
from contextlib import suppress

import numpy as np
import pytest
from grids import CENTRE_RAS
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from local_datasets import GRIDS, SCANS, refused, written
from reviews import judged

from CMBDetectorLib.datasets import annotations
from CMBDetectorLib.datasets.annotations import read_annotations
from CMBDetectorLib.datasets.bids import Point, write_points
from CMBDetectorLib.datasets.places import check_apart
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.report.markups import MarkupPoint, write_markups, write_point_list
from CMBDetectorLib.report.tables import write_candidate_table
from CMBDetectorLib.review.export import write_review_markups, write_review_table
from CMBDetectorLib.volume import Volume, write_volume

OFFSETS = st.tuples(*[st.integers(-80, 80).map(lambda n: n / 10)] * 3)


@pytest.fixture
def plain() -> Volume:
    """A phantom of 28 mm around CENTRE_RAS (12, -7, 20)."""
    return SCANS["plain"]


def as_fcsv(places: np.ndarray, space: str) -> str:
    """What Slicer 4.11 wrote (``space`` "LPS"), and what it wrote before ("0")."""
    turned = places * [-1, -1, 1] if space in ("LPS", "1") else places
    head = f"# Markups fiducial file version = 4.11\n# CoordinateSystem = {space}\n"
    head += "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
    rows = [f'{n},{x!r},{y!r},{z!r},0,0,0,1,1,1,0,"F, {n}",,\n' for n, (x, y, z) in enumerate(turned.tolist())]
    return head + "".join(rows)


def as_table(places: np.ndarray, names: str, delimiter: str, end: str) -> str:
    """A table with an empty line, spaces, a column nobody knows and a byte order mark."""
    turned = places * [-1, -1, 1] if names == "LPS" else places
    header = delimiter.join(["label", *(f" {name} " for name in names)])
    rows = [delimiter.join([f"F-{n}", *(repr(v) for v in row)]) for n, row in enumerate(turned.tolist())]
    return "\ufeff" + end.join([header, "", *rows])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    grid=st.sampled_from(sorted(GRIDS)),
    offsets=st.lists(OFFSETS, max_size=5, unique=True),
    form=st.sampled_from(["tsv", "csv", "semicolon", "points", "fcsv", "mrk.json", "label map"]),
    space=st.sampled_from(["RAS", "LPS"]),
    named=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_places_land_where_they_were(tmp_path, grid, offsets, form, space, named, end):
    scan = SCANS[grid]
    places = np.array(offsets, float).reshape(-1, 3)
    if form == "label map":
        inner = np.unique(np.round(scan.to_ijk(CENTRE_RAS + places) / 3).astype(int) * 3, axis=0)
        ijk = inner[((inner >= 0) & (inner < scan.shape)).all(axis=1)]
        places = scan.to_ras(ijk)
    else:
        places = places + CENTRE_RAS
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)[np.triu_indices(len(places), 1)]
    assume((apart > 0.6).all())
    asked = None
    if form == "label map":
        labels = np.zeros(scan.shape, np.uint8)
        labels[tuple(ijk.T)] = 1
        path = tmp_path / ("labels.nrrd" if named else "labels.nii.gz")
        write_volume(path, scan.with_array(labels))
    elif form == "points":
        path = tmp_path / "points.tsv"
        write_points(path, [Point(tuple(place), 3.0, "possible") for place in places])
    elif form == "fcsv":
        path = written(tmp_path, "F.fcsv", as_fcsv(places, space if named else {"RAS": "0", "LPS": "1"}[space]))
    elif form == "mrk.json":
        path = tmp_path / "F.mrk.json"
        turned = places * [-1, -1, 1] if space == "RAS" else places
        write_point_list(path, [MarkupPoint("1", "F", "", place) for place in turned], "F")
        if space == "RAS":
            written(tmp_path, "F.mrk.json", path.read_text().replace('"LPS"', '"RAS"'))
    else:
        delimiter = {"tsv": "\t", "csv": ",", "semicolon": ";"}[form]
        names = ("ras" if space == "RAS" else "LPS") if named else "xyz"
        turned = places * [-1, -1, 1] if space == "LPS" and not named else places
        path = written(tmp_path, f"p.{'tsv' if form == 'tsv' else 'csv'}", as_table(turned, names, delimiter, end))
        asked = None if named or space == "RAS" else space
    found = read_annotations(path, scan, asked)
    wanted = places if form != "label map" else places[np.lexsort(ijk.T[::-1])]
    np.testing.assert_allclose(np.array([p.ras_mm for p in found]).reshape(-1, 3), wanted, atol=2e-3)


def test_own_exports_bring_back_what_was_judged(tmp_path, plain):
    review = judged()
    write_review_table(tmp_path / "review.csv", review)
    write_review_table(tmp_path / "review.tsv", review)
    write_review_markups(tmp_path / "review.mrk.json", review)
    accepted = [finding for finding in review.findings if finding.state.value == "accepted"]
    for name in ("review.csv", "review.tsv", "review.mrk.json"):
        points = read_annotations(tmp_path / name, plain)
        np.testing.assert_allclose([p.ras_mm for p in points], [f.ras_mm for f in accepted], atol=1e-3)
        assert [(p.certainty, p.diameter_mm) for p in points] == [("possible", 2.0), ("definite", None)]
        (mimic,) = read_annotations(tmp_path / name, plain, kind="mimics")
        assert mimic.mimic_class == "vessel"
    write_candidate_table(tmp_path / "candidates.csv", review.detection)
    write_markups(tmp_path / "candidates.mrk.json", review.detection)
    for name in ("candidates.csv", "candidates.mrk.json"):
        assert "nobody has judged" in refused(tmp_path / name, plain)


def test_a_point_added_to_a_review_makes_no_microbleed_of_what_was_rejected(tmp_path, plain):
    for write, of in ((write_review_markups, judged()), (write_markups, judged().detection)):
        path = tmp_path / "points.mrk.json"
        write(path, of)
        data = json.loads(path.read_text())
        data["markups"][0]["controlPoints"].append({"position": [-12, 7, 20]})
        path.write_text(json.dumps(data))
        assert "verdict" in (message := refused(path, plain)) or "nobody has judged" in message


def test_what_else_a_table_says_is_kept(tmp_path, plain):
    text = "x;y;z;diameter_mm;certainty;mimic_class;defined\n12;-7;20;3.5;Definite;Iron deposition;1\n"
    text += "8;-7;20;;n/a;vessel;1\n0;0;0;;;;0\n"
    points = read_annotations(written(tmp_path, "a.csv", text), plain)
    assert points == [
        Point((12, -7, 20), 3.5, "definite", "import", "iron"),
        Point((8, -7, 20), None, None, "import", "vessel"),
    ]


def test_slicer_s_own_table_and_points_never_placed(tmp_path, plain):
    text = "label,l,p,s,defined,selected,visible,locked,description\nF-1,-12,7,20,1,1,1,0,\nF-2,0,0,0,0,1,1,0,\n"
    assert [p.ras_mm for p in read_annotations(written(tmp_path, "t.csv", text), plain)] == [(12, -7, 20)]
    node = {"type": "Fiducial", "coordinateSystem": "RAS", "coordinateUnits": ["mm", "UCUM", "millimeter"]}
    points = [{"position": [12, -7, 20], "positionStatus": "defined"}, {"positionStatus": "undefined"}]
    path = written(tmp_path, "F.mrk.json", json.dumps({"markups": [{**node, "controlPoints": points}, node]}))
    assert [p.ras_mm for p in read_annotations(path, plain)] == [(12, -7, 20)]


WRONG_TABLES = {
    "empty": ("", "first line"),
    "no header": ("1,2,3\n4,5,6\n", "first line"),
    "two columns": ("x,y\n1,2\n", "first line"),
    "twice": ("x,y,z,r,a,s\n1,2,3,1,2,3\n", "twice"),
    "column twice": ("x,y,z,x\n1,2,3,4\n", "twice"),
    "formula": ("x,y,z\n=1+1,2,3\n", r"Line 2 of .* column x \('=1\+1'\)"),
    "command": ("x,y,z\n12,-7,=cmd|' /C calc'!A0\n", "no number in column z"),
    "link in a word": (
        'x,y,z,mimic_class\n12,-7,20,"=HYPERLINK(""http://e"")"\n',
        "unknown word in column mimic_class",
    ),
    "decimal comma": ("x;y;z\n12,5;-7,25;20\n", "'12,5'"),
    "not a number": ("x,y,z\nnan,2,3\n", "no number"),
    "infinite": ("x,y,z\ninf,2,3\n", "no number"),
    "too large": ("x,y,z\n1e999,2,3\n", "no number"),
    "far": ("x,y,z\n1e300,2,3\n", "outside"),
    "underscore": ("x,y,z\n1_0,2,3\n", "no number"),
    "other digits": ("x,y,z\n\u0661\u0662,-7,20\n", "no number"),
    "empty cell": ("x,y,z\n12,,20\n", r"column y \(empty\)"),
    "ragged": ("x,y,z\n12,-7\n", "2 cells"),
    "open quote": ('x,y,z\n"12,-7,20\n', "not a table from line"),
    "open quote first": ('"x,y,z\n1,2,3\n', "not a table"),
    "nul": ("x,y,z\n1\0,2,3\n", "UTF-8"),
    "diameter": ("x,y,z,diameter_mm\n12,-7,20,-3\n", "diameter of -3"),
    "state": ("x,y,z,state\n12,-7,20,maybe\n", "unknown state"),
    "same place": ("x,y,z\n12,-7,20\n8,-7,20\n12.1,-7,20\n", "points 1 and 3"),
    "outside": ("x,y,z\n12,-7,20\n12,-7,90\n", "1 of the 2 places .* first is 12, -7, 90 mm"),
}


@pytest.mark.parametrize("case", WRONG_TABLES)
def test_tables_that_are_refused(tmp_path, plain, case):
    text, words = WRONG_TABLES[case]
    path = written(tmp_path, "Bögen & Co.csv", text)
    message = refused(path, plain)
    assert re.search(words, message), message


@pytest.mark.parametrize(
    "data",
    [
        "x,y,z\n1,2,3\n".encode("utf-16"),
        "x,y,z,reader\n1,2,3,Müller\n".encode("latin-1"),
        b"\xff\xfe\x00",
        b"\x80" * 50,
        bytes(range(256)),
        b"PK\x03\x04" + bytes(200),
    ],
)
def test_wrong_encodings_are_refused(tmp_path, plain, data):
    for name in ("a.csv", "a.tsv", "a.fcsv", "a.mrk.json"):
        assert "UTF-8" in refused(written(tmp_path, name, data), plain)


def test_a_million_rows_are_refused_at_once(tmp_path, plain):
    rows = "12.000,-7.00,20.0\n" * 1_000_000
    assert "10000 places" in refused(written(tmp_path, "a.csv", "x,y,z\n" + rows), plain)
    assert "larger than any" in refused(written(tmp_path, "a.csv", "x,y,z\n" + rows * 2), plain)
    assert "10000 places" in refused(written(tmp_path, "a.fcsv", "1,12.,-7.,20.\n" * 1_000_000), plain)
    point = '{"position":[1,2,3]},' * 900_000
    text = '{"markups":[{"type":"Fiducial","controlPoints":[' + point[:-1] + "]}]}"
    assert "10000 places" in refused(written(tmp_path, "a.mrk.json", text), plain)
    assert "not a table" in refused(written(tmp_path, "a.csv", 'x,y,z\n"' + "1" * 1_000_000), plain)


def markups(**changes) -> str:
    node = {"type": "Fiducial", "coordinateSystem": "RAS", "controlPoints": [{"position": [12, -7, 20]}]}
    return json.dumps({"markups": [{**node, **changes}]})


WRONG_MARKUPS = {
    "no json": ("{", "no markups file"),
    "a list": ("[]", "no markups file"),
    "a number": ("3", "no markups file"),
    "no nodes": ('{"markups": []}', "no markups file"),
    "no node": ('{"markups": [3]}', "no markups file"),
    "deep": ("[" * 100_000, "no markups file"),
    "long number": ('{"markups": ' + "1" * 10_000 + "}", "no markups file"),
    "points": (markups(controlPoints=[3]), "no markups file"),
    "points of text": (markups(controlPoints="text"), "no markups file"),
    "line": (markups(type="Line"), "no point list"),
    "indices": (markups(coordinateSystem="IJK"), "RAS or LPS"),
    "units": (markups(coordinateUnits="cm"), "not millimetres"),
    "infinite": (markups(controlPoints=[{"position": [1e999, 0, 0]}]), "Point 1"),
    "not a number": (markups(controlPoints=[{"position": [float("nan"), 0, 0]}]), "Point 1"),
    "huge": (markups(controlPoints=[{"position": [10**400, 0, 0]}]), "Point 1"),
    "text": (markups(controlPoints=[{"position": ["=1+1", 0, 0]}]), "Point 1"),
    "truth": (markups(controlPoints=[{"position": [True, 0, 0]}]), "Point 1"),
    "two numbers": (markups(controlPoints=[{"position": [1, 2]}]), "Point 1"),
    "no position": (markups(controlPoints=[{}]), "Point 1"),
    "outside": (markups(controlPoints=[{"position": [500, 2, 3]}]), "outside"),
}


@pytest.mark.parametrize("case", WRONG_MARKUPS)
def test_markups_that_are_refused(tmp_path, plain, case):
    text, words = WRONG_MARKUPS[case]
    assert words in refused(written(tmp_path, "a.mrk.json", text), plain)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# CoordinateSystem = 2\n1,1,2,3\n", "neither RAS nor LPS"),
        ("1,12\n", "no position"),
        ('1,"12,2,3\n', "no row of a table"),
        ("1,=1+1,2,3\n", "no number in column x"),
        ("# columns = id\n1,2,3\n", "no position"),
    ],
)
def test_fcsv_that_is_refused(tmp_path, plain, text, words):
    assert words in refused(written(tmp_path, "a.fcsv", text), plain)


def test_left_and_right_are_named_where_they_are_exchanged(tmp_path, plain):
    path = written(tmp_path, "a.csv", "x,y,z\n-12,7,20\n")
    message = refused(path, plain)
    assert "when read as RAS, and all lie inside when read as LPS" in message
    with pytest.raises(BadInputError) as caught:
        read_annotations(path, plain)
    assert caught.value.hint == "Say so: --space LPS."
    assert read_annotations(path, plain, "LPS")[0].ras_mm == (12, -7, 20)
    path = written(tmp_path, "a.csv", "x,y,z\n12,-7,20\n")
    assert "(the first is 12, -7, 20 mm)" in refused(path, plain, space="LPS")
    path = written(tmp_path, "b.csv", "r,a,s\n-12,7,20\n")
    with pytest.raises(BadInputError, match="read as LPS") as caught:
        read_annotations(path, plain)
    assert "says RAS" in caught.value.hint
    for name, text in (("c.csv", "l,p,s\n-12,7,20\n"), ("a.mrk.json", markups(coordinateSystem="LPS"))):
        assert "RAS was asked for" in refused(written(tmp_path, name, text), plain, space="RAS")


def test_files_that_are_no_annotations(tmp_path, plain):
    assert "no file" in refused(tmp_path / "absent.csv", plain)
    (tmp_path / "folder.csv").mkdir()
    assert "no file" in refused(tmp_path / "folder.csv", plain)
    for name in ("a.xlsx", "a", "a.dcm"):
        assert "no kind" in refused(written(tmp_path, name, "x"), plain)


def test_a_place_cannot_be_both():
    check_apart([(0, 0, 0)], [(1, 0, 0)])
    check_apart([], [(1, 0, 0)])
    with pytest.raises(BadInputError, match="microbleed and mimic at once"):
        check_apart([(5, 5, 5), (0, 0, 0)], [(0.3, 0, 0)])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["a.csv", "a.tsv", "a.fcsv", "a.mrk.json"]),
    data=st.one_of(
        st.binary(max_size=200),
        st.text(alphabet=string.printable, max_size=200).map(str.encode),
        st.text(alphabet="x,yz;\t\n\"'=#0123456789.-e[]{}:", max_size=80).map(lambda t: f"x,y,z\n{t}".encode()),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=4) | st.integers(),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(st.sampled_from(["markups", "controlPoints", "position", "type", "x"]), inner)
            ),
            max_leaves=12,
        ).map(lambda v: json.dumps({"markups": v}).encode()),
    ),
)
def test_whatever_is_in_a_file_it_is_places_or_a_sentence(tmp_path, name, data):
    path = written(tmp_path, name, data)
    with suppress(BadInputError):
        for point in read_annotations(path, SCANS["plain"]):
            assert np.isfinite(point.ras_mm).all()


def test_the_room_does_not_write(tmp_path, plain, monkeypatch):
    path = written(tmp_path, "a.csv", "x,y,z\n12,-7,20\n")
    before = sorted(tmp_path.iterdir())
    assert len(read_annotations(path, plain)) == 1
    assert sorted(tmp_path.iterdir()) == before
    monkeypatch.setattr(annotations, "_MOST_BYTES", 3)
    assert "larger" in refused(path, plain)
