"""A review as table, markups and JSON."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from grids import MARK_RAS
from reviews import MODEL, judged

from CMBDetectorLib.errors import OutputError
from CMBDetectorLib.review.export import write_review, write_review_markups, write_review_table


def test_the_table_has_a_row_for_each_finding(tmp_path):
    of = judged()
    write_review_table(tmp_path / "r.csv", of)
    with open(tmp_path / "r.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["number"] for row in rows] == ["1", "2", "3", "4", "6"]
    assert [row["state"] for row in rows] == ["accepted", "rejected", "unsure", "unreviewed", "accepted"]
    first, second, *_, last = rows
    assert [float(first[f"{axis}_ras_mm"]) for axis in "xyz"] == MARK_RAS.tolist()
    assert [float(first[f"detected_{axis}_ras_mm"]) for axis in "xyz"] == [15, -2, 16]
    assert (first["certainty"], first["size_class"], first["added"]) == ("possible", "< 5 mm", "no")
    assert (second["mimic_class"], second["comment"], second["reader"]) == ("vessel", "faint", "Dr A")
    assert (last["added"], last["score"], last["detected_x_ras_mm"], last["size_class"]) == ("yes", "", "", "unknown")
    assert {row["model_checksum"] for row in rows} == {MODEL["checksum"]}
    write_review_table(tmp_path / "r.tsv", of)
    lines = (tmp_path / "r.tsv").read_text().splitlines()
    assert len(lines) == 6
    assert lines[5].split("\t")[11] == "n/a"


@pytest.mark.parametrize("text", ["=1+1", "+cmd|'/C calc'!A0", "-2+3", "@A1", " \t=1", 'a"b,c;d', "ü\u2028読\ud83e"])
def test_a_spreadsheet_runs_nothing_a_reader_typed(tmp_path, text):
    of = judged(reader=text, comment=text)
    for name in ("r.csv", "r.tsv"):
        write_review_table(tmp_path / name, of)
    with open(tmp_path / "r.csv", encoding="utf-8", newline="") as stream:
        row = list(csv.DictReader(stream))[1]
    assert row["comment"][0] not in "=+-@"
    assert row["reader"].lstrip()[0] not in "=+-@"
    assert all(line.count("\t") == 21 for line in (tmp_path / "r.tsv").read_text().splitlines())
    write_review(tmp_path / "r.json", of)
    write_review_markups(tmp_path / "r.mrk.json", of)


def test_markups_say_the_verdict_in_lps(tmp_path):
    of = judged()
    write_review_markups(tmp_path / "r.mrk.json", of)
    (node,) = json.loads((tmp_path / "r.mrk.json").read_text())["markups"]
    points = node["controlPoints"]
    assert (node["coordinateSystem"], node["locked"]) == ("LPS", True)
    assert [p["label"] for p in points] == [
        "1 accepted (possible)",
        "2 rejected (vessel)",
        "3 unsure",
        "4 unreviewed",
        "6 accepted (definite)",
    ]
    np.testing.assert_allclose(points[0]["position"], MARK_RAS * [-1, -1, 1])
    assert points[1]["description"] == "rejected, vessel, score 0.800, diameter 5.1 mm, faint"
    assert points[4]["description"] == "accepted, definite, added by the reader"
    assert [p["selected"] for p in points] == [True, False, False, False, True]
    assert [p["visibility"] for p in points] == [True, True, True, False, True]


def test_the_whole_review_as_json(tmp_path):
    of = judged()
    write_review(tmp_path / "review.json", of)
    data = json.loads((tmp_path / "review.json").read_text(encoding="utf-8"))
    assert (data["schema"], data["reader"], data["model"]) == (1, "Dr A", MODEL)
    assert (data["summary"]["accepted"], data["summary"]["complete"]) == (2, True)
    assert data["summary"]["text"].endswith("Not for clinical use.")
    assert [f["number"] for f in data["findings"]] == [1, 2, 3, 4, 6]
    assert data["findings"][0]["state"] == "accepted"
    write_review(tmp_path / "review.json", of, 0.5)
    assert json.loads((tmp_path / "review.json").read_text(encoding="utf-8"))["summary"]["not_reviewed"] == 1
    write_review_markups(tmp_path / "r.mrk.json", of, threshold=0.5)
    (node,) = json.loads((tmp_path / "r.mrk.json").read_text())["markups"]
    assert all(point["visibility"] for point in node["controlPoints"])
    blocked = tmp_path / "file"
    blocked.write_text("")
    for write in (write_review, write_review_markups, write_review_table):
        with pytest.raises(OutputError):
            write(blocked / "r.csv", of)
