"""The local dataset: what is listed as fit to learn from, whatever is damaged or there twice."""

from __future__ import annotations

import gzip
import json
import os
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from local_datasets import elsewhere, exported, key_of, only, scan_of
from reviews import ids, judged

from CMBDetectorLib.datasets.bids import POINTS, Point, derivative_path, write_points
from CMBDetectorLib.datasets.local import list_scans, summary
from CMBDetectorLib.datasets.reviewed import read_review_note
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.review.export_dataset import export_dataset
from CMBDetectorLib.review.finding import State
from CMBDetectorLib.review.log import ReviewLog
from CMBDetectorLib.volume import Volume, to_sitk, write_volume


def test_a_complete_review_trains(tmp_path):
    review, scan = judged("Dr  \u00c4\n"), scan_of()
    log = ReviewLog.create(tmp_path / "logs", key_of(scan), review)
    log.close()
    made = export_dataset(tmp_path / "d", review, scan, key_of(scan), log=log.path)
    listed = only(tmp_path / "d")
    assert (listed.scan, listed.microbleeds, listed.mimics, listed.reader) == (made.scan, 2, 1, "Dr \u00c4")
    assert (listed.is_reviewed, listed.is_complete, listed.trains, listed.reason) == (True, True, True, "")
    assert listed.checksum == sha256(log.path.read_bytes()).hexdigest()
    assert listed.key == key_of(scan)
    json.dumps(listed.as_json(), allow_nan=False)


def test_an_incomplete_review_does_not_train(tmp_path):
    review = judged()
    exported(tmp_path / "d", review=review, threshold=0.1)
    listed = only(tmp_path / "d")
    assert (listed.is_complete, listed.trains) == (False, False)
    assert listed.reason.startswith("Its review is not complete: 1 places are not judged;")
    review.judge(ids(review)[3], State.REJECTED)
    exported(tmp_path / "d", review=review, threshold=0.1)
    assert only(tmp_path / "d").trains


def test_a_dataset_made_elsewhere_is_complete(tmp_path):
    path = elsewhere(tmp_path / "d")
    other = elsewhere(tmp_path / "d", "sub-02", scan_of(5), ())
    points = derivative_path(tmp_path / "d", path, POINTS)
    first, second = list_scans(tmp_path / "d")
    assert (first.reader, first.is_reviewed, first.is_complete, first.trains) == ("", False, True, True)
    assert first.checksum == sha256(points.read_bytes()).hexdigest()
    assert (second.microbleeds, second.trains) == (0, True)
    assert summary([first, second]) == {
        "listed": 2, "scans": 2, "with_microbleeds": 1, "microbleeds": 1, "mimics": 0
    }  # fmt: skip
    derivative_path(tmp_path / "d", other, POINTS).unlink()
    assert list_scans(tmp_path / "d")[1].reason.startswith("Nobody has annotated it")


def test_no_folder_and_an_empty_one(tmp_path):
    with pytest.raises(BadInputError, match="no dataset folder"):
        list_scans(tmp_path / "absent")
    (tmp_path / "sub-01").write_text("a file")
    assert list_scans(tmp_path) == []


def _cut(made, folder):
    made.scan.write_bytes(made.scan.read_bytes()[:-500])


def _text(made, folder):
    made.scan.write_text("Patient will bring the CD tomorrow.")


def _no_scan(made, folder):
    made.scan.unlink()
    made.scan.symlink_to(folder / "go\nne\x1b.nii.gz")


def _loop(made, folder):
    made.scan.unlink()
    made.scan.symlink_to(made.scan)


def _folder(made, folder):
    made.scan.unlink()
    made.scan.mkdir()


def _pipe(made, folder):
    made.points.unlink()
    os.mkfifo(made.points)


def _note_pipe(made, folder):
    made.review.unlink()
    os.mkfifo(made.review)


def _columns(made, folder):
    made.mimics.write_text("a\tb\n1\t2\n")


def _formula(made, folder):
    made.points.write_text("x\ty\tz\n=1+1\t2\t3\n")


def _latin(made, folder):
    made.points.write_bytes("x\ty\tz\tsource\n1\t2\t3\tMüller\n".encode("latin-1"))


def _huge(made, folder):
    made.points.write_text("x\ty\tz\n" + "1\t2\t3\n" * 1_000_000)


def _moved(made, folder):
    made.points.write_text(made.points.read_text().replace("15", "16", 1))


def _fewer(made, folder):
    lines = made.mimics.read_text().splitlines(keepends=True)
    made.mimics.write_text("".join(lines[:-1]))


def _outside(made, folder):
    write_points(made.points, [Point((900.0, 0.0, 0.0))])


def _no_points(made, folder):
    made.points.unlink()


def _half_note(made, folder):
    made.review.write_bytes(made.review.read_bytes()[:100])


def _long_note(made, folder):
    made.review.write_text(" " * (2 << 20))


def _deep_note(made, folder):
    made.review.write_text("[" * 100_000)


def _forged_note(made, folder):
    note = json.loads(made.review.read_text())
    made.review.write_text(json.dumps({**note, "complete": "yes"}))


def _second_scan(made, folder):
    write_volume(folder / made.scan.parts[-3] / "anat" / made.scan.name.replace("_swi", "_T2starw"), scan_of(9))


DAMAGE = {
    _cut: "damaged", _text: "read", _no_scan: "link to a file that is gone", _loop: "", _folder: "no file",
    _pipe: "cannot be read", _note_pipe: "no file", _columns: "lacks the columns", _formula: "no number",
    _latin: "cannot be read", _huge: "100000 rows", _moved: "not those of its review",
    _fewer: "not those of its review", _outside: "1 of its 1 microbleed lie outside", _no_points: "broken off",
    _half_note: "damaged", _long_note: "damaged", _deep_note: "damaged", _forged_note: "damaged",
    _second_scan: "Two scans are called",
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_scan_is_listed_and_stops_nothing(tmp_path, damage):
    folder = tmp_path / "d"
    made, whole = exported(folder), exported(folder, 7.0)
    damage(made, folder)
    listed = list_scans(folder)
    assert [scan.scan for scan in listed if scan.trains] == [whole.scan]
    for scan in listed:
        if scan.scan != whole.scan:
            assert DAMAGE[damage] in scan.reason
            assert scan.reason.endswith(".")
            assert "\n" not in scan.reason
            assert scan.checksum or damage not in (_cut, _text)
    assert summary(listed)["scans"] == 1


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    entry=st.sampled_from(["schema", "scan_key", "reader", "complete", "counts", "points", "log", "imported"]),
    value=st.none() | st.booleans() | st.floats() | st.text(max_size=20) | st.integers()
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(
        st.sampled_from(["sha256", "accepted", "microbleeds", "mimics", "rejected"]),
        st.none() | st.integers() | st.text(max_size=4) | st.dictionaries(st.just("sha256"), st.text(max_size=3)),
    ),
)  # fmt: skip
def test_whatever_a_note_says_it_is_read_or_refused(tmp_path, entry, value):
    note = {"schema": 1, "scan_key": "0" * 16, "reader": "Dr A", "complete": True, "counts": {}, "log": None}
    path = tmp_path / "note.json"
    path.write_text(json.dumps({**note, entry: value}))
    try:
        read = read_review_note(path)
    except BadInputError as error:
        message = error.message
    else:
        assert read.reader.isprintable()
        read.doubts([], [])
        message = "damaged"
    assert "damaged" in message


def _as_int16(path: Path, scan: Volume) -> None:
    sitk.WriteImage(sitk.Cast(to_sitk(scan), sitk.sitkInt16), str(path))


def test_the_same_scan_twice_trains_once(tmp_path):
    folder = tmp_path / "d"
    scan = scan_of()
    first = elsewhere(folder, "sub-01", scan)
    elsewhere(folder, "sub-03", scan_of(1))
    # The same voxels as another type, not compressed, under another name.
    second = folder / "sub-02" / "anat" / "sub-02_T2starw.nii"
    second.parent.mkdir(parents=True)
    _as_int16(second, scan)
    write_points(derivative_path(folder, second, POINTS), [])
    assert [scan.trains for scan in list_scans(folder)] == [True, False, True]
    assert "the same scan as sub-01" in list_scans(folder)[1].reason
    # Whoever reviewed it counts more than a list; one that does not train is in nobody's way.
    made = exported(folder)
    listed = {scan.id: scan for scan in list_scans(folder)}
    reviewed = next(scan.id for scan in listed.values() if scan.scan == made.scan)
    assert [name for name, scan in listed.items() if scan.trains] == sorted([reviewed, "sub-03"])
    made.points.write_text("broken")
    assert {scan.id: scan.trains for scan in list_scans(folder)}["sub-01"] is True
    assert first.is_file()


def test_scaled_voxels_are_compared_as_they_are_read(tmp_path):
    import nibabel

    folder, scan = tmp_path / "d", scan_of()
    elsewhere(folder, "sub-01", scan)
    second = elsewhere(folder, "sub-02", scan_of(3))
    image = nibabel.Nifti1Image((scan.array * 2).astype(np.int16), scan.ijk_to_ras)
    image.header.set_slope_inter(0.5, 0)
    nibabel.save(image, second)
    assert [scan.trains for scan in list_scans(folder)] == [True, False]


def test_scans_that_look_alike_are_told_apart_or_found_damaged(tmp_path):
    folder = tmp_path / "d"
    array = np.zeros((80, 80, 60), np.float32)
    for number in range(3):
        # Alike in the first 2^18 voxels.
        array[40, 40, 58] = number + 1
        elsewhere(folder, f"sub-0{number}", Volume(array.copy(), np.eye(4)), ((40, 40, 40),))
    assert all(scan.trains for scan in list_scans(folder))
    path = folder / "sub-02" / "swi" / "sub-02_swi.nii.gz"
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(data)
    assert [scan.trains for scan in list_scans(folder)] == [True, True, False]


def test_a_gzip_file_in_parts_is_whole(tmp_path):
    path = elsewhere(tmp_path / "d")
    data = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(data[:5000]) + gzip.compress(data[5000:]))
    assert only(tmp_path / "d").trains


def test_notes_of_before_without_checksums_are_told_by_their_counts(tmp_path):
    made = exported(tmp_path / "d")
    note = json.loads(made.review.read_text())
    del note["points"]
    made.review.write_text(json.dumps(note))
    assert only(tmp_path / "d").trains
    write_points(made.points, [])
    assert "not those of its review" in only(tmp_path / "d").reason
