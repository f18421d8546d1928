"""The public datasets become BIDS: the same head in three orientations gives the same positions in mm."""

import gzip

import nibabel
import numpy as np
import pytest
from grids import CENTRE_RAS, MARK_RAS, mark, phantom
from scipy.io import savemat

from CMBDetectorLib.candidate import candidate_id
from CMBDetectorLib.datasets.bids import read_dataset, read_points
from CMBDetectorLib.datasets.dou2016 import PAPER_SCANS, convert_dou2016
from CMBDetectorLib.datasets.valdo import convert_valdo
from CMBDetectorLib.errors import BadInputError, Cancelled, OutputError
from CMBDetectorLib.progress import Progress
from CMBDetectorLib.volume import read_mask, read_volume, write_volume

SIGNS = {"LPS": (-1, -1, 1), "LAS": (-1, 1, 1), "RAS": (1, 1, 1)}
PLACES = np.array([MARK_RAS, CENTRE_RAS + np.array([-6.0, 2.0, 1.0])])


def head(orientation, turn_deg=(6.0, -4.0, 3.0)):
    return phantom(signs=SIGNS[orientation], spacing=(0.9, 0.9, 2.0), turn_deg=turn_deg)


def put_dou(root, name, volume, places=PLACES, ending=".nii"):
    for folder in ("nii", "ground_truth"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    nibabel.save(
        nibabel.Nifti1Image(volume.array.astype(np.int16), volume.ijk_to_ras), root / "nii" / f"{name}{ending}"
    )
    # Matlab counts voxels from 1.
    savemat(root / "ground_truth" / f"{name}.mat", {"cen": np.round(volume.to_ijk(places)) + 1})


def test_dou_gives_the_same_positions_in_every_orientation(tmp_path):
    source = tmp_path / "Dou Ü"
    for name, orientation in (("01", "LPS"), ("18", "LAS"), ("15", "RAS")):
        put_dou(source, name, head(orientation))
    put_dou(source, "16", head("RAS"), np.empty((0, 3)), ".nii.gz")
    convert_dou2016(source, tmp_path / "bids", Progress(), scans="all")
    cases = {case.id: case for case in read_dataset(tmp_path / "bids")}
    assert sorted(cases) == ["sub-01", "sub-15", "sub-16", "sub-18"]
    assert cases["sub-16"].is_annotated
    assert len(cases["sub-16"].microbleeds()) == 0
    for case_id, orientation in (("sub-01", "LPS"), ("sub-18", "LAS"), ("sub-15", "RAS")):
        scan = read_volume(cases[case_id].scan)
        assert scan.orientation == orientation
        found = cases[case_id].microbleeds()
        # Centres are whole voxels: half a voxel along each axis is as near as they come.
        assert (np.abs(scan.to_ijk(found) - scan.to_ijk(PLACES)) <= 0.5 + 1e-3).all()
        assert np.linalg.norm(found[0] - mark(scan)) < np.linalg.norm(scan.spacing) / 2 + 0.1
        with gzip.open(cases[case_id].scan) as packed:
            assert packed.read() == (source / "nii" / f"{case_id[4:]}.nii").read_bytes()


def test_dou_paper_takes_the_fifteen_whole_heads(tmp_path):
    assert len(PAPER_SCANS) == 15
    for name in (*PAPER_SCANS, "15"):
        put_dou(tmp_path / "src", name, head("LPS"))
    convert_dou2016(tmp_path / "src", tmp_path / "out", Progress())
    assert {case.id for case in read_dataset(tmp_path / "out")} == {f"sub-{name}" for name in PAPER_SCANS}
    (tmp_path / "src" / "nii" / "07.nii").unlink()
    with pytest.raises(BadInputError, match="lacks the scans 07"):
        convert_dou2016(tmp_path / "src", tmp_path / "out2", Progress())
    assert not (tmp_path / "out2").exists()


def assert_refused(tmp_path, words, convert, **options):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(BadInputError, match=words):
        convert(tmp_path / "src", tmp_path / "out", Progress(), **options)
    assert sorted(tmp_path.iterdir()) == before


def test_dou_that_cannot_be_converted_leaves_nothing(tmp_path):
    source = tmp_path / "src"
    put_dou(source, "01", head("LPS"))
    put_dou(source, "02", head("LPS"), PLACES + 100)
    assert_refused(tmp_path, r"Scan 02: .* outside", convert_dou2016, scans="all")
    (source / "ground_truth" / "02.mat").write_bytes(b"no matlab file")
    assert_refused(tmp_path, "02.mat cannot be read", convert_dou2016, scans="all")
    savemat(source / "ground_truth" / "02.mat", {"other": 1})
    assert_refused(tmp_path, "02.mat cannot be read", convert_dou2016, scans="all")
    savemat(source / "ground_truth" / "02.mat", {"cen": np.ones((4, 2))})
    assert_refused(tmp_path, "no list of voxel centres", convert_dou2016, scans="all")
    (source / "ground_truth" / "02.mat").unlink()
    assert_refused(tmp_path, "no centre file", convert_dou2016, scans="all")
    assert_refused(tmp_path, "lacks the scans 03", lambda s, d, p: convert_dou2016(s, d, p))
    assert_refused(tmp_path, "holds no scans", lambda s, d, p: convert_dou2016(tmp_path, d, p, scans="all"))


def test_interrupted_conversion_leaves_nothing(tmp_path):
    for name in ("01", "02"):
        put_dou(tmp_path / "src", name, head("LPS"))

    class Impatient(Progress):
        def show(self, stage, step, steps, fraction):
            if step == 1:
                raise Cancelled

    with pytest.raises(Cancelled):
        convert_dou2016(tmp_path / "src", tmp_path / "out", Impatient(), scans="all")
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


def test_existing_dataset_is_never_overwritten(tmp_path):
    put_dou(tmp_path / "src", "01", head("LPS"))
    convert_dou2016(tmp_path / "src", tmp_path / "out", Progress(), scans="all")
    with pytest.raises(OutputError, match="other files"):
        convert_dou2016(tmp_path / "src", tmp_path / "out", Progress(), scans="all")


def put_valdo(root, name, orientation):
    """A masked head with two lesions (one of two voxels that touch at a corner) and a hole in the brain."""
    volume = phantom(signs=SIGNS[orientation], spacing=(1.0, 1.0, 2.0))
    distance = np.linalg.norm(volume.to_ras(np.moveaxis(np.indices(volume.shape), 0, -1)) - CENTRE_RAS, axis=-1)
    brain = distance < 12
    array = np.where(brain & (distance > 2), volume.array, 0)
    lesions = np.zeros(volume.shape, np.float32)
    first = np.round(volume.to_ijk(CENTRE_RAS + np.array([5.5, 3.5, -5]))).astype(int)
    second = np.round(volume.to_ijk(CENTRE_RAS + np.array([-6.5, -4.5, 3]))).astype(int)
    step = np.array(SIGNS[orientation])
    lesions[tuple(first)] = lesions[tuple(first + step)] = 1
    lesions[tuple(second)] = 1
    folder = root / name
    write_volume(folder / f"{name}_space-T2S_desc-masked_T2S.nii.gz", volume.with_array(array.astype(np.float32)))
    write_volume(folder / f"{name}_space-T2S_CMB.nii.gz", volume.with_array(lesions))
    return volume, brain


def test_valdo_lesions_become_points_and_the_mask_a_brain(tmp_path):
    found = {}
    for orientation, name in zip(SIGNS, ("sub-101", "sub-201", "sub-301"), strict=True):
        volume, brain = put_valdo(tmp_path / "src", name, orientation)
    convert_valdo(tmp_path / "src", tmp_path / "out", Progress())
    for case in read_dataset(tmp_path / "out"):
        points = read_points(case.points)
        assert len(points) == 2
        found[case.id] = sorted(point.ras_mm for point in points)
        assert sorted(p.diameter_mm for p in points) == pytest.approx(np.cbrt(6 * np.array([2, 4]) / np.pi), rel=1e-4)
        scan = read_volume(case.scan)
        mask = read_mask(case.brain_mask, scan)
        if case.id == "sub-301":
            np.testing.assert_array_equal(mask.array, brain)
            assert mask.same_grid(volume)
        assert mask.array.sum() > (scan.array > 0).sum()
    for positions in found.values():
        np.testing.assert_allclose(positions, found["sub-101"], atol=0.01)
        assert [candidate_id(p) for p in positions] == [candidate_id(p) for p in found["sub-101"]]


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8"])
def test_valdo_takes_nan_as_zero(tmp_path, kind):
    """The scans of the release have NaN around the head; one of them must not cost all the others."""
    source = tmp_path / "src"
    for name in ("sub-101", "sub-102", "sub-103"):
        volume, _ = put_valdo(source, name, "LPS")
    files = [source / "sub-102" / f"sub-102_space-T2S_{what}.nii.gz" for what in ("desc-masked_T2S", "CMB")]
    for file in files:
        image = nibabel.load(file)
        array = image.get_fdata()
        array[:2] = array[-1, -1] = np.nan
        header = nibabel.Nifti1Header(endianness=kind[0])
        header.set_data_dtype(kind)
        nibabel.save(nibabel.Nifti1Image(array.astype(kind), image.affine, header), file)
    before = [file.read_bytes() for file in files]

    class Heard(Progress):
        words = ()

        def log(self, message):
            self.words = (*self.words, message)

    heard = Heard()
    convert_valdo(source, tmp_path / "out", heard)
    assert [file.read_bytes() for file in files] == before
    assert [words.split(":")[0] for words in heard.words] == [file.name for file in files]
    whole, repaired, _ = read_dataset(tmp_path / "out")
    scan = read_volume(repaired.scan)
    expected = read_volume(whole.scan).array.copy()
    expected[:2] = expected[-1, -1] = 0
    np.testing.assert_array_equal(scan.array, expected)
    assert scan.same_grid(volume)
    assert read_points(repaired.points) == read_points(whole.points)
    np.testing.assert_array_equal(read_mask(repaired.brain_mask, scan).array, read_mask(whole.brain_mask, scan).array)
    assert not [path for path in (tmp_path / "out").rglob("*") if "partial" in path.name]
    # Others are copied as they are, and what else is wrong with a scan is said of it by its name.
    for name in ("101", "103"):
        was = source / f"sub-{name}" / f"sub-{name}_space-T2S_desc-masked_T2S.nii.gz"
        assert (
            tmp_path / "out" / f"sub-{name}" / "anat" / f"sub-{name}_T2starw.nii.gz"
        ).read_bytes() == was.read_bytes()


@pytest.mark.parametrize(("damage", "words"), [("infinite", "not finite"), ("cut", "damaged"), ("empty", "empty")])
def test_valdo_names_the_scan_that_cannot_be_read(tmp_path, damage, words):
    for name in ("sub-101", "sub-102"):
        put_valdo(tmp_path / "src", name, "RAS")
    file = tmp_path / "src" / "sub-102" / "sub-102_space-T2S_desc-masked_T2S.nii.gz"
    array, affine = np.array(nibabel.load(file).get_fdata(), np.float32), nibabel.load(file).affine
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-20])
    else:
        array[:2] = np.nan
        array[2:] = np.inf if damage == "infinite" else 0
        nibabel.save(nibabel.Nifti1Image(array, affine), file)
    assert_refused(tmp_path, f"^sub-102_space-T2S_desc-masked_T2S.nii.gz .*{words}", convert_valdo)


def test_valdo_that_cannot_be_converted_leaves_nothing(tmp_path):
    source = tmp_path / "src"
    source.mkdir()
    assert_refused(tmp_path, "no scans of VALDO", convert_valdo)
    volume, _ = put_valdo(source, "sub-101", "LAS")
    lesions = source / "sub-101" / "sub-101_space-T2S_CMB.nii.gz"
    empty = volume.with_array(np.zeros(volume.shape, np.uint8))
    write_volume(lesions, empty.cropped((0, 0, 0), (9, 9, 9)))
    assert_refused(tmp_path, "another grid", convert_valdo)
    lesions.unlink()
    assert_refused(tmp_path, "no mask file", convert_valdo)
    write_volume(lesions, empty)
    convert_valdo(source, tmp_path / "out", Progress())
    case = read_dataset(tmp_path / "out")[0]
    assert case.is_annotated
    assert len(case.microbleeds()) == 0
