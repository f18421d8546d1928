"""A reviewed scan as part of a dataset that the training reads."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
from hashlib import sha256
from pathlib import Path

import nibabel
import numpy as np
import pytest
from grids import CENTRE_RAS, MARK_RAS, mark, phantom
from reviews import MODEL, OFFSETS, detection, ids, judged

from CMBDetectorLib.datasets.bids import derivative_path, read_dataset, read_points
from CMBDetectorLib.errors import BadInputError, OutputError
from CMBDetectorLib.review.export_dataset import Exported, export_dataset
from CMBDetectorLib.review.finding import State
from CMBDetectorLib.review.log import ReviewLog
from CMBDetectorLib.review.review import Review
from CMBDetectorLib.review.scan_key import scan_key
from CMBDetectorLib.volume import Volume, read_mask, read_volume, write_volume

SCANS = {
    "plain": {},
    "flipped": {"order": (2, 0, 1), "signs": (-1, 1, -1), "spacing": (0.9, 1.0, 1.4)},
    "oblique": {"signs": (1, -1, 1), "spacing": (0.8, 0.8, 1.5), "turn_deg": (12.0, -20.0, 31.0)},
}


@pytest.fixture(params=SCANS)
def scan(request) -> Volume:
    """A phantom on three grids."""
    return phantom(**SCANS[request.param])


@pytest.fixture
def plain() -> Volume:
    """A phantom."""
    return phantom()


def key_of(scan: Volume) -> str:
    return scan_key(scan.array, scan.ijk_to_ras)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_a_review_becomes_a_case_to_learn_from(tmp_path, scan):
    of, key = judged(), key_of(scan)
    log = ReviewLog.create(tmp_path / "logs", key, of)
    mask = scan.with_array(scan.array > 100)
    made = export_dataset(tmp_path / "data", of, scan, key, brain_mask=mask, log=log.path)
    log.close()
    (case,) = read_dataset(tmp_path / "data")
    assert (case.scan, case.points, case.mimics, case.brain_mask) == (
        made.scan,
        made.points,
        made.mimics,
        made.brain_mask,
    )
    again = read_volume(case.scan)
    assert key_of(again) == key
    np.testing.assert_array_equal(again.array, scan.array)
    np.testing.assert_allclose(mark(again), MARK_RAS, atol=0.2)
    np.testing.assert_allclose(case.microbleeds(), [MARK_RAS, CENTRE_RAS], atol=1e-3)
    brightest = np.unravel_index(int(np.argmax(again.array)), again.shape)
    assert np.abs(again.to_ijk(case.microbleeds()[0]) - brightest).max() < 1
    np.testing.assert_array_equal(read_mask(case.brain_mask, again).array, mask.array)
    points = read_points(case.points)
    assert [(p.certainty, p.source, p.diameter_mm) for p in points] == [
        ("possible", "detector", 2.0),
        ("definite", "reader", None),
    ]
    (mimic,) = read_points(case.mimics)
    assert (mimic.mimic_class, mimic.source, mimic.certainty) == ("vessel", "detector", None)
    np.testing.assert_allclose(mimic.ras_mm, CENTRE_RAS + OFFSETS[1], atol=1e-3)
    review = json.loads(made.review.read_text())
    assert (review["reader"], review["complete"], review["scan_key"]) == ("Dr A", True, key)
    assert (review["counts"]["accepted"], review["counts"]["unsure"]) == (2, 1)
    assert review["log"] == {"sha256": sha256(log.path.read_bytes()).hexdigest(), "bytes": log.path.stat().st_size}
    assert review["model"]["checksum"] == MODEL["checksum"]


def test_nothing_of_the_source_comes_along(tmp_path, plain):
    image = nibabel.Nifti1Image(plain.array, plain.ijk_to_ras)
    image.header["descrip"] = b"DOE^JANE 1950-01-01"
    image.header["aux_file"] = b"DOE^JANE"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"DOE^JANE"))
    source = tmp_path / "DOE_JANE.nii.gz"
    nibabel.save(image, source)
    read = read_volume(source)
    of = judged(comment="seen with DOE JANE")
    folder = tmp_path / "data"
    made = export_dataset(folder, of, read, key_of(read), scan_file=source)
    assert made.brain_mask is None
    for path in folder.rglob("*"):
        assert "DOE" not in path.name
        if path.is_file():
            data = path.read_bytes()
            assert b"DOE" not in (gzip.decompress(data) if path.suffix == ".gz" else data)
    assert nibabel.load(made.scan).header["descrip"].item() == b""


def test_exporting_again_updates(tmp_path, plain):
    folder, key, of = tmp_path / "data", key_of(plain), judged()
    first = export_dataset(folder, of, plain, key, brain_mask=plain.with_array(plain.array > 0))
    there = files(folder)
    description = (folder / "dataset_description.json").read_bytes()
    of.judge(ids(of)[2], State.ACCEPTED)
    assert export_dataset(folder, of, plain, key) == first
    assert files(folder) == there
    assert len(read_points(first.points)) == 3
    for threshold, complete in ((None, True), (0.5, False)):
        export_dataset(folder, of, plain, key, threshold=threshold)
        assert json.loads(first.review.read_text())["complete"] is complete
    other = export_dataset(folder, of, plain, key, suffix="T2starw")
    assert other.scan.parent.name == "anat"
    assert [case.scan for case in read_dataset(folder)] == [other.scan]
    assert (other.points, len(files(folder))) == (first.points, len(there))
    assert (folder / "dataset_description.json").read_bytes() == description


def test_a_scan_without_microbleeds_counts_as_annotated(tmp_path, plain):
    of = Review(detection([]), "Dr A")
    export_dataset(tmp_path / "data", of, plain, key_of(plain))
    (case,) = read_dataset(tmp_path / "data")
    assert case.is_annotated
    assert case.microbleeds().shape == (0, 3)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_by_reference_the_scan_stays_where_it_is(tmp_path, scan, ending):
    source = tmp_path / f"scan{ending}"
    write_volume(source, scan)
    before = source.read_bytes()
    for suffix in ("swi", "SWI"):
        made = export_dataset(
            tmp_path / "d", judged(), None, key_of(scan), scan_file=source, include="reference", suffix=suffix
        )
        assert made.scan.is_symlink()
        (case,) = read_dataset(tmp_path / "d")
        assert case.scan == made.scan
        assert key_of(read_volume(case.scan)) == key_of(scan)
    copied = export_dataset(tmp_path / "d", judged(), None, key_of(scan), scan_file=source)
    assert not copied.scan.is_symlink()
    assert [case.scan for case in read_dataset(tmp_path / "d")] == [copied.scan]
    assert source.read_bytes() == before


def test_where_links_are_refused_a_hard_link_is_made(tmp_path, plain, monkeypatch):
    source = tmp_path / "scan.nii.gz"
    write_volume(source, plain)

    def refused(*_):
        raise OSError("A required privilege is not held by the client")

    monkeypatch.setattr(os, "symlink", refused)
    arguments = {"scan_file": source, "include": "reference"}
    for _ in range(2):
        made = export_dataset(tmp_path / "d", judged(), plain, key_of(plain), **arguments)
        assert os.path.samefile(made.scan, source)
        assert not made.scan.is_symlink()
    assert len(list(made.scan.parent.iterdir())) == 1

    def other_disk(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_disk)
    with pytest.raises(OutputError, match="No link to scan"):
        export_dataset(tmp_path / "e", judged(), plain, key_of(plain), **arguments)


def test_a_scan_opened_from_the_dataset_is_not_replaced_by_a_link_to_itself(tmp_path, plain):
    folder, key = tmp_path / "d", key_of(plain)
    made = export_dataset(folder, judged(), plain, key)
    for suffix in ("swi", "T2starw", "T2starw"):
        made = export_dataset(folder, judged(), None, key, scan_file=made.scan, include="reference", suffix=suffix)
        assert not made.scan.is_symlink()
        assert key_of(read_volume(read_dataset(folder)[0].scan)) == key
    write_volume(tmp_path / "scan.nii.gz", plain)
    made = export_dataset(folder, judged(), None, key, scan_file=tmp_path / "scan.nii.gz", include="reference")
    made = export_dataset(folder, judged(), None, key, scan_file=made.scan, include="reference")
    assert os.readlink(made.scan) == os.path.realpath(tmp_path / "scan.nii.gz")
    copied = export_dataset(folder, judged(), None, key, scan_file=made.scan)
    assert key_of(read_volume(copied.scan)) == key


def test_what_cannot_be_referenced(tmp_path, plain):
    write_volume(tmp_path / "scan.nrrd", plain)
    for source in (tmp_path / "scan.nrrd", tmp_path, tmp_path / "absent.nii.gz", None):
        with pytest.raises(BadInputError, match="Only a NIfTI file") as caught:
            export_dataset(tmp_path / "d", judged(), plain, key_of(plain), scan_file=source, include="reference")
        assert caught.value.hint == "Export a copy instead."
    assert not (tmp_path / "d").exists()


def test_only_what_was_reviewed_is_exported(tmp_path, plain):
    key, moved = key_of(plain), plain.ijk_to_ras.copy()
    moved[2, 3] += 1
    write_volume(tmp_path / "other.nii.gz", plain.with_array(plain.array + 1))
    with pytest.raises(BadInputError, match="not the one that was reviewed"):
        export_dataset(tmp_path / "d", judged(), Volume(plain.array, moved), key)
    with pytest.raises(BadInputError, match="not the one that was reviewed"):
        export_dataset(tmp_path / "d", judged(), plain, key, scan_file=tmp_path / "other.nii.gz", include="reference")
    with pytest.raises(BadInputError, match="no scan to export"):
        export_dataset(tmp_path / "d", judged(), None, key)
    mask = Volume(plain.array > 0, moved)
    with pytest.raises(BadInputError, match="another grid"):
        export_dataset(tmp_path / "d", judged(), plain, key, brain_mask=mask)
    assert not (tmp_path / "d").exists()


def test_another_reader_s_export_is_not_overwritten(tmp_path, plain):
    folder, key = tmp_path / "d", key_of(plain)
    made = export_dataset(folder, judged("Dr  Ä"), plain, key)
    export_dataset(folder, judged("dr ä "), plain, key)
    before = {name: (folder / name).read_bytes() for name in files(folder)}
    with pytest.raises(OutputError, match="exported to the dataset by another reader"):
        export_dataset(folder, judged("Dr B"), plain, key)
    with pytest.raises(OutputError, match=r"another reader \(dr ä \)"):
        export_dataset(folder, judged(""), plain, key)
    assert {name: (folder / name).read_bytes() for name in files(folder)} == before
    export_dataset(folder, judged("Dr B"), plain, key, replace=True)
    assert json.loads(made.review.read_text())["reader"] == "Dr B"
    made.review.write_text("{")
    with pytest.raises(OutputError, match="somebody unknown"):
        export_dataset(folder, judged("Dr B"), plain, key)
    made.review.write_text(json.dumps({"reader": "Dr B", "scan_key": "f" * 16}))
    with pytest.raises(OutputError, match="same short name"):
        export_dataset(folder, judged("Dr B"), plain, key, replace=True)


def test_a_dataset_of_others_keeps_what_they_wrote(tmp_path, plain):
    folder = tmp_path / "d"
    (folder / "sub-01/swi").mkdir(parents=True)
    write_volume(folder / "sub-01/swi/sub-01_swi.nii.gz", plain.with_array(plain.array + 1))
    (folder / "dataset_description.json").write_text('{"Name": "Theirs"}')
    (folder / "participants.tsv").write_text("participant_id\nsub-01\n")
    export_dataset(folder, judged(), plain, key_of(plain))
    assert len(read_dataset(folder)) == 2
    assert (folder / "dataset_description.json").read_text() == '{"Name": "Theirs"}'
    assert (folder / "participants.tsv").read_text() == "participant_id\nsub-01\n"
    assert "derivative" in (folder / "derivatives/cmbdetector/dataset_description.json").read_text()
    scan = read_volume(folder / "sub-01/swi/sub-01_swi.nii.gz")
    with pytest.raises(OutputError, match="twice"):
        export_dataset(folder, judged(), scan, key_of(scan), scan_file=folder / "sub-01/swi/sub-01_swi.nii.gz")


def test_folders_that_are_no_dataset(tmp_path, plain):
    key = key_of(plain)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_text("")
    (tmp_path / "simulated").mkdir()
    (tmp_path / "simulated/dataset_description.json").write_text('{"Simulated": true}')
    for name, words in (("photos", "no dataset"), ("photos/cat.jpg", "is a file"), ("simulated", "simulated")):
        with pytest.raises(OutputError, match=words):
            export_dataset(tmp_path / name, judged(), plain, key)
    with pytest.raises(BadInputError, match="review log"):
        export_dataset(tmp_path / "d", judged(), plain, key, log=tmp_path / "absent.jsonl")
    assert not (tmp_path / "d").exists()


def export_many(folder: Path, reader: str, numbers: list[int], results) -> None:
    """Export scans that differ in one number; tells how each went."""
    for number in numbers:
        scan = phantom(extent_mm=12.0)
        scan = scan.with_array(scan.array + np.float32(number))
        try:
            made = export_dataset(folder, judged(reader), scan, key_of(scan))
            results.put((reader, number, made))
        except OutputError as error:
            results.put((reader, number, error.message))


def test_exports_at_the_same_time(tmp_path):
    folder = tmp_path / "d"
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    jobs = [("Dr A", [0, 1, 2, 3, 9]), ("Dr B", [4, 5, 6, 7, 9])]
    workers = [context.Process(target=export_many, args=(folder, *job, results)) for job in jobs]
    for worker in workers:
        worker.start()
    told = [results.get(timeout=60) for _ in range(10)]
    for worker in workers:
        worker.join()
    refused = [outcome for _, _, outcome in told if not isinstance(outcome, Exported)]
    assert len(refused) == 1
    assert "another reader" in refused[0]
    cases = read_dataset(folder)
    assert len(cases) == 9
    assert all(case.is_annotated and len(case.microbleeds()) == 2 for case in cases)
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())
    assert not [name for name in files(folder) if "partial" in name or "lock" in name]


def test_waiting_for_another_export_has_an_end(tmp_path, plain, monkeypatch):
    from CMBDetectorLib.datasets import adding as module

    monkeypatch.setattr(module, "_WAIT_S", 0.1)
    lock = module.FileLock(tmp_path / "d/derivatives/cmbdetector/.export.lock")
    lock.path.parent.mkdir(parents=True)
    assert lock.acquire()
    with pytest.raises(OutputError, match=f"going on \\(process {os.getpid()} on"):
        export_dataset(tmp_path / "d", judged(), plain, key_of(plain))
    lock.release()
    export_dataset(tmp_path / "d", judged(), plain, key_of(plain))


def test_the_subject_tells_nothing_and_stays(tmp_path, plain):
    made = export_dataset(tmp_path / "d", judged("x" * 300), plain, key_of(plain))
    subject = made.scan.parts[-3]
    assert len(subject) == len("sub-") + 8
    assert key_of(plain)[:8] not in subject
    assert made.review == derivative_path(tmp_path / "d", made.scan, "desc-review.json")
