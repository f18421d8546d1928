"""Annotations imported into the local dataset: where they were made, once, and nobody else's lost."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest
from grids import CENTRE_RAS, MARK_RAS, write_dicom
from local_datasets import GRIDS, elsewhere, exported, key_of, only, points_file, scan_of

from CMBDetectorLib.datasets.bids import POINTS, derivative_path, read_dataset
from CMBDetectorLib.datasets.importing import import_annotations
from CMBDetectorLib.datasets.local import list_scans
from CMBDetectorLib.errors import BadInputError, OutputError
from CMBDetectorLib.review.export_dataset import OtherReaderError
from CMBDetectorLib.volume import read_volume, write_volume


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("form", ["nifti", "nrrd", "dicom"])
def test_imported_scans_train_where_they_were_annotated(tmp_path, grid, form):
    scan = scan_of(**GRIDS[grid])
    path = tmp_path / {"nifti": "DOE_JANE.nii.gz", "nrrd": "DOE_JANE.nrrd", "dicom": "DOE_JANE"}[form]
    write_dicom(path, scan) if form == "dicom" else write_volume(path, scan)
    marks = points_file(tmp_path, MARK_RAS, CENTRE_RAS, name="DOE_JANE.tsv")
    others = points_file(tmp_path, CENTRE_RAS + np.array([-6, 2, 1]), name="vessels.tsv")
    folder = tmp_path / "d"
    made = import_annotations(folder, path, marks, others, reader="Dr\tA", is_complete=True)
    listed = only(folder)
    assert (listed.scan, listed.microbleeds, listed.mimics, listed.reader) == (made.scan, 2, 1, "Dr A")
    assert listed.trains
    assert listed.checksum == sha256(marks.read_bytes()).hexdigest()
    (case,) = read_dataset(folder)
    again = read_volume(case.scan)
    brightest = np.unravel_index(int(np.argmax(again.array)), again.shape)
    assert np.abs(again.to_ijk(case.microbleeds()[0]) - brightest).max() < 1
    for file in folder.rglob("*"):
        assert "DOE" not in file.name
        assert file.is_dir() or b"DOE" not in file.read_bytes()


def test_importing_again_updates(tmp_path):
    path, folder = tmp_path / "scan.nii.gz", tmp_path / "d"
    write_volume(path, scan_of())
    first = import_annotations(
        folder, path, points_file(tmp_path, MARK_RAS), points_file(tmp_path, CENTRE_RAS, name="m.tsv")
    )
    assert only(folder).reason == "Nobody has said that all its microbleeds are annotated; import it again as complete."
    files = sorted(folder.rglob("*"))
    again = import_annotations(folder, path, points_file(tmp_path), is_complete=True)
    assert (again, sorted(folder.rglob("*"))) == (first, files)
    # The mimics are still those given before.
    assert (only(folder).microbleeds, only(folder).mimics, only(folder).trains) == (0, 1, True)
    with pytest.raises(BadInputError, match="microbleed and mimic at once"):
        import_annotations(folder, path, points_file(tmp_path, CENTRE_RAS), is_complete=True)
    assert (only(folder).microbleeds, only(folder).trains) == (0, True)
    # The copy in the dataset is the same scan, and so is a review of it.
    assert import_annotations(folder, first.scan, points_file(tmp_path, MARK_RAS), is_complete=True) == first
    with pytest.raises(OtherReaderError):
        exported(folder)
    assert exported(folder, replace=True) == first
    assert (len(list_scans(folder)), only(folder).reader) == (1, "Dr A")


def test_a_scan_of_the_dataset_is_annotated_where_it_is(tmp_path):
    folder = tmp_path / "d"
    path = elsewhere(folder)
    derivative_path(folder, path, POINTS).unlink()
    assert not only(folder).trains
    marks, before = points_file(tmp_path, MARK_RAS), path.read_bytes()
    made = import_annotations(folder, path, marks, reader="Dr A", is_complete=True)
    assert (made.scan, path.read_bytes(), only(folder).trains) == (path, before, True)
    # A copy of it from anywhere is recognised, and its review, too.
    write_volume(tmp_path / "copy.nrrd", scan_of())
    assert import_annotations(folder, tmp_path / "copy.nrrd", marks, reader="Dr A", is_complete=True) == made
    assert exported(folder) == made
    assert only(folder).microbleeds == 2


@pytest.mark.parametrize("replace", [False, True])
def test_two_scans_that_share_one_list_are_not_annotated(tmp_path, replace):
    folder = tmp_path / "d"
    path = elsewhere(folder)
    derivative_path(folder, path, POINTS).unlink()
    derivative_path(folder, path, POINTS).parent.rmdir()
    marks = points_file(tmp_path, MARK_RAS)
    other = folder / "sub-01" / "anat" / "sub-01_T2starw.nii.gz"
    write_volume(other, scan_of(4))
    before = sorted(folder.rglob("*"))
    for scan in (path, other):
        with pytest.raises(BadInputError, match="sub-01 has two scans") as caught:
            import_annotations(folder, scan, marks, reader="Dr A", is_complete=True, replace=replace)
        assert caught.value.hint.startswith("Keep one of them")
        assert sorted(folder.rglob("*")) == before
    other.unlink()
    made = import_annotations(folder, path, marks, reader="Dr A", is_complete=True)
    # The same reader comes back to the second scan: the list of the first is as it was.
    write_volume(other, scan_of(4))
    files = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    write_volume(tmp_path / "copy.nii.gz", scan_of())
    for scan in (path, other, tmp_path / "copy.nii.gz"):
        with pytest.raises(BadInputError, match="two scans"):
            import_annotations(folder, scan, points_file(tmp_path), reader="Dr A", is_complete=True, replace=replace)
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == files
    assert made.points in files
    # One that can be told apart by its name is no matter.
    other.rename(other.with_name("sub-01_acq-gre_T2starw.nii.gz"))
    assert import_annotations(folder, path, marks, reader="Dr A", is_complete=True) == made


def test_a_scan_that_was_exchanged_is_annotated_anew(tmp_path):
    folder = tmp_path / "d"
    path, marks = elsewhere(folder), points_file(tmp_path, MARK_RAS)
    derivative_path(folder, path, POINTS).unlink()
    import_annotations(folder, path, marks, reader="Dr A", is_complete=True)
    write_volume(path, scan_of(4))
    with pytest.raises(OtherReaderError):
        import_annotations(folder, path, marks, reader="Dr B", is_complete=True)
    import_annotations(folder, path, marks, reader="Dr A", is_complete=True)
    assert (only(folder).trains, only(folder).key) == (True, key_of(scan_of(4)))


def test_annotations_of_somebody_unknown_are_not_overwritten(tmp_path):
    folder = tmp_path / "d"
    path = elsewhere(folder)
    points = derivative_path(folder, path, POINTS)
    before = points.read_bytes()
    with pytest.raises(OtherReaderError, match="somebody unknown"):
        import_annotations(folder, path, points_file(tmp_path), reader="Dr A")
    assert points.read_bytes() == before
    import_annotations(folder, path, points_file(tmp_path), reader="Dr A", replace=True, is_complete=True)
    with pytest.raises(OtherReaderError, match="Dr A"):
        import_annotations(folder, path, points_file(tmp_path), reader="Dr B")


def test_what_cannot_be_imported_leaves_nothing(tmp_path):
    path = tmp_path / "scan.nii.gz"
    write_volume(path, scan_of())
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("x,y,z\n=1,2,3\n")
    with pytest.raises(BadInputError, match="no number"):
        import_annotations(tmp_path / "d", path, wrong)
    with pytest.raises(BadInputError, match="no number"):
        import_annotations(tmp_path / "d", path, points_file(tmp_path), wrong)
    with pytest.raises(BadInputError, match="at once"):
        import_annotations(tmp_path / "d", path, points_file(tmp_path, MARK_RAS), points_file(tmp_path, MARK_RAS))
    with pytest.raises(BadInputError, match="no file"):
        import_annotations(tmp_path / "d", tmp_path / "absent.nii", points_file(tmp_path))
    assert not (tmp_path / "d").exists()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("")
    with pytest.raises(OutputError, match="no dataset"):
        import_annotations(tmp_path / "photos", path, points_file(tmp_path))


def test_the_command_lists_and_imports(worker, tmp_path):
    folder, path = tmp_path / "d\u00e4ta set", tmp_path / "scan.nii.gz"
    write_volume(path, scan_of())
    lps = tmp_path / "a.csv"
    x, y, z = MARK_RAS
    lps.write_text(f"x;y;z;diameter_mm\n{-x};{-y};{z};3\n")
    arguments = ("dataset", "import", path, "--annotations", lps, "--dataset", folder, "--reader", "Dr A")
    wrong = worker(*arguments)
    assert (wrong.code, wrong.last("error")["hint"]) == (2, "Say so: --space LPS.")
    assert "Traceback" not in wrong.stderr
    done = worker(*arguments, "--space", "LPS", "--complete")
    assert done.code == 0, done.stderr
    added = done.last("result")["added"]
    assert (added["microbleeds"], added["mimics"], added["complete"], added["trains"]) == (1, 0, True, True)
    listed = worker("dataset", "list", folder)
    assert listed.last("result")["scans"] == done.last("result")["scans"] == [added]
    assert listed.last("result")["summary"]["microbleeds"] == 1
    assert set(added) == {
        "id", "scan", "microbleeds", "mimics", "reader", "reviewed", "complete", "trains", "reason", "exported",
        "checksum",
    }  # fmt: skip
    other = worker(*arguments[:-1], "Dr B", "--space", "LPS")
    assert (other.code, other.last("error")["code"]) == (2, "other-reader")
    words = worker("dataset", "list", folder, events=False)
    assert "1 of 1 scans train, with 1 microbleeds (in 1 of them) and 0 mimics." in words.stdout
    assert worker("dataset", "list", tmp_path / "absent").code == 2
