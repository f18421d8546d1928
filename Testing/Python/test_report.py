"""Table, Slicer markups, pictures and page of one detection, on scans of every orientation."""

import csv
import json
import re
import struct
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from grids import CENTRE_RAS, MARK_RAS, ORDERS, phantom

from CMBDetectorLib.candidate import Candidate, Detection, candidate_id
from CMBDetectorLib.report import html as report_html
from CMBDetectorLib.report.html import write_detection_report
from CMBDetectorLib.report.markups import write_markups
from CMBDetectorLib.report.tables import write_candidate_table
from CMBDetectorLib.report.thumbnails import FIELD_OF_VIEW_MM, grey_window, png, thumbnails

EVIL = "<script>alert('x')</script>=1&\"ü"


def detection(count=3, threshold=0.5, name="sub-01_swi.nii.gz"):
    places = [tuple(float(v) for v in MARK_RAS + 1.5 * n) for n in range(count)]
    candidates = [Candidate(candidate_id(p), p, 0.9 - 0.01 * n, 0.9 - 0.25 * n, 2.5) for n, p in enumerate(places)]
    model = {"name": name, "version": "1.0", "checksum": "ab" * 32, "licence": "Apache-2.0"}
    model["training_data"] = "Trained on simulated scans."
    settings = {"threshold": threshold, "brain_mask": name, "keep": [], "ensemble": True}
    scan = {"name": name, "shape": [20, 20, 20], "spacing_mm": [1.0, 1.0, 2.0]}
    return Detection(scan, model, settings, candidates, {"stage 1": 12.34})


def pixels(data):
    """Decode a PNG with another reader than the one under test."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    at, packed = 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        packed += body if kind == b"IDAT" else b""
        at += 12 + length
    rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, width + 1)
    assert (rows[:, 0] == 0).all()
    return rows[:, 1:]


def test_png_is_read_by_another_program(tmp_path):
    picture = np.arange(12.0).reshape(3, 4)
    picture[0, 1] = np.nan
    (tmp_path / "p.png").write_bytes(png(picture, (0.0, 11.0)))
    read = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "p.png")))
    np.testing.assert_array_equal(read, np.round(255 * np.nan_to_num(picture) / 11).astype(np.uint8))
    np.testing.assert_array_equal(read, pixels((tmp_path / "p.png").read_bytes()))


@pytest.mark.parametrize(("order", "signs"), ORDERS[::3])
def test_pictures_look_alike_whatever_the_axes_of_the_scan(order, signs):
    volume = phantom(order, signs, spacing=(0.8, 1.0, 1.6), turn_deg=(9, -5, 7), extent_mm=56)
    shown = {t.name: pixels(t.png).astype(float) for t in thumbnails(volume, CENTRE_RAS, (0.0, 1000.0))}
    assert list(shown) == ["axial", "sagittal", "coronal", "minimum projection"]
    size = shown["axial"].shape[0]
    assert {picture.shape for picture in shown.values()} == {(size, size)}
    scale = size / FIELD_OF_VIEW_MM
    for name, across, down in (("axial", 0, 1), ("sagittal", 1, 2), ("coronal", 0, 2)):
        # The bright blob lies 4 mm towards R or A of the centre and 3 mm towards A or S: on the left and above.
        centre = MARK_RAS - 4 * np.eye(3)[across] - 3 * np.eye(3)[down]
        seen = pixels(next(t.png for t in thumbnails(volume, centre, (0.0, 1000.0)) if t.name == name))
        row, column = np.unravel_index(seen.argmax(), seen.shape)
        assert column + 0.5 == pytest.approx(size / 2 - 4 * scale, abs=scale)
        assert row + 0.5 == pytest.approx(size / 2 - 3 * scale, abs=scale)


def test_letters_name_the_edges_of_radiological_convention():
    edges = {t.name: t.edges for t in thumbnails(phantom(), CENTRE_RAS, (0.0, 1000.0))}
    assert edges == {"axial": "RLAP", "sagittal": "APSI", "coronal": "RLSI", "minimum projection": "RLAP"}


def test_minimum_projection_shows_what_lies_beside_the_plane():
    volume = phantom((2, 0, 1), (-1, -1, 1), spacing=(1.0, 1.0, 2.0), turn_deg=(4, 4, 4), extent_mm=60)
    dark = volume.with_array(volume.array.max() - volume.array)
    axial, *_, slab = thumbnails(dark, MARK_RAS + np.array([0, 0, 7.0]), grey_window(dark))
    size = pixels(slab.png).shape[0]
    middle = (slice(size // 2 - 3, size // 2 + 3),) * 2
    assert int(pixels(slab.png)[middle].min()) + 50 < int(pixels(axial.png)[middle].min())


def test_beyond_the_scan_is_black():
    volume = phantom(turn_deg=(10, 0, 0))
    far = thumbnails(volume, CENTRE_RAS + 300, grey_window(volume))
    assert all(pixels(picture.png).max() == 0 for picture in far)


def test_table_holds_every_candidate_in_ras(tmp_path):
    write_candidate_table(tmp_path / "candidates.csv", detection(4))
    rows = list(csv.DictReader((tmp_path / "candidates.csv").open(encoding="utf-8")))
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["shown"] for row in rows] == ["yes", "yes", "no", "no"]
    assert [float(rows[1][f"{axis}_ras_mm"]) for axis in "xyz"] == pytest.approx(list(MARK_RAS + 1.5))
    assert float(rows[3]["score"]) == pytest.approx(0.15)
    assert float(rows[0]["stage1_score"]) == 0.9


def test_markups_hold_the_shown_candidates_in_lps(tmp_path):
    write_markups(tmp_path / "candidates.mrk.json", detection(4))
    data = json.loads((tmp_path / "candidates.mrk.json").read_text())
    assert re.search(r"/Markups/Resources/Schema/markups-schema-v1\.0\.3\.json#$", data["@schema"])
    (node,) = data["markups"]
    assert (node["type"], node["coordinateSystem"], node["coordinateUnits"]) == ("Fiducial", "LPS", "mm")
    assert node["locked"] is True
    points = node["controlPoints"]
    assert [point["id"] for point in points] == [c.id for c in detection(4).shown()]
    np.testing.assert_allclose(np.array(points[0]["position"]) * [-1, -1, 1], MARK_RAS)
    for point in points:
        assert point["positionStatus"] == "defined"
        assert point["locked"] is point["selected"] is point["visibility"] is True
    assert "score 0.900" in points[0]["description"]
    write_markups(tmp_path / "none.mrk.json", detection(0))
    assert json.loads((tmp_path / "none.mrk.json").read_text())["markups"][0]["controlPoints"] == []


class Page(HTMLParser):
    """Collects tags, attributes and text of a page and checks that its tags are balanced."""

    VOID = ("meta", "image", "circle", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.text, self._open = [], [], "", []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("href", "src")]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


def report(tmp_path, found, scan=None, notes=(), provenance=""):
    scan = scan or phantom((2, 0, 1), (-1, -1, 1), spacing=(1.0, 1.0, 2.0), turn_deg=(4, 4, 4))
    write_detection_report(tmp_path / "report.html", found, scan, notes, provenance)
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_report_says_what_was_found_and_is_self_contained(tmp_path):
    page = report(tmp_path, detection(5), notes=["The scan was upsampled."], provenance="Made by a test.")
    for words in (
        "Trained on simulated scans. Not for clinical use.",
        "2 candidates with a score of 0.5 or more; 3 more that stage 1 proposed scored lower and are not shown.",
        "The scan was upsampled.",
        "Made by a test.",
        "ab" * 32,
        "12.3 s",
        "Apache-2.0",
        "yes",
    ):
        assert words in page.text
    assert page.tags.count("section") == 2
    assert page.tags.count("image") == 2 * 4
    assert "script" not in page.tags
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in page.links)
    assert {link for link in page.links if link.startswith("#")} == {f"#{c.id}" for c in detection(5).shown()}


def test_report_escapes_every_name(tmp_path):
    page = report(tmp_path, detection(1, name=EVIL), notes=[EVIL], provenance=EVIL)
    assert "script" not in page.tags
    assert page.text.count(EVIL) == 7


@pytest.mark.parametrize(
    ("count", "threshold", "words"),
    [
        (0, 0.5, "No candidates were found."),
        (1, 0.5, "1 candidate with a score of 0.5 or more."),
        (1, 0.95, "No candidates with a score of 0.95 or more; 1 more that stage 1 proposed scored lower and is not"),
    ],
)
def test_report_of_few_candidates(tmp_path, count, threshold, words):
    page = report(tmp_path, detection(count, threshold))
    assert words in page.text
    assert "Not for clinical use." in page.text


def test_report_pictures_only_so_many_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(report_html, "MOST_CARDS", 2)
    page = report(tmp_path, detection(4, threshold=0.0))
    assert page.tags.count("section") == 2
    assert "Pictures of the first 2 of 4 candidates" in page.text
    assert all(c.id in page.text for c in detection(4).candidates)
