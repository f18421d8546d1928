"""Scans that cannot be used are refused with one sentence, a hint and exit code 2; odd but good ones are read."""

import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from grids import ORDERS, phantom, write_dicom

from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.volume import Volume, read_mask, read_volume, write_volume

AFFINE = phantom((1, 0, 2), (-1, 1, -1), spacing=(1.0, 1.0, 2.0), turn_deg=(4, 0, 8)).ijk_to_ras
ARRAY = np.random.default_rng(3).integers(0, 4096, (20, 22, 18)).astype(np.int16)


def save(path, array=ARRAY, affine=AFFINE):
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def patched(path, offset, kind, *values):
    """Overwrite header fields of a NIfTI file, as a careless program would."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<" + kind, data, offset, *values)
    path.write_bytes(data)
    return path


def assert_refused(path, words):
    with pytest.raises(BadInputError, match=words) as caught:
        read_volume(path)
    assert caught.value.exit_code == 2
    assert caught.value.message.endswith(".")
    assert "\n" not in caught.value.message
    assert "ERROR" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("lost", [1, 100, 9000])
def test_truncated_files(tmp_path, lost):
    whole = save(tmp_path / "whole.nii").read_bytes()
    (tmp_path / "t.nii").write_bytes(whole[:-lost])
    assert_refused(tmp_path / "t.nii", "shorter than its header says")
    # A copy that was packed after it had been cut is a sound gzip file.
    (tmp_path / "p.nii.gz").write_bytes(gzip.compress(whole[:-lost]))
    assert_refused(tmp_path / "p.nii.gz", "shorter than its header says")
    (tmp_path / "t.nii.gz").write_bytes(gzip.compress(whole)[:-lost])
    assert_refused(tmp_path / "t.nii.gz", "not a complete gzip file")


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_truncated_nrrd_and_metaimage(tmp_path, ending):
    whole = tmp_path / f"whole{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(ARRAY), str(whole))
    (tmp_path / f"t{ending}").write_bytes(whole.read_bytes()[:-500])
    assert_refused(tmp_path / f"t{ending}", "cannot be read")


def test_content_that_is_not_what_the_name_says(tmp_path):
    for name in ("a.nii.gz", "a.nii", "a.nrrd", "a.mha"):
        (tmp_path / name).write_text("this is no image " * 60)
        assert_refused(tmp_path / name, r"gzip|cannot be read")
        (tmp_path / name).write_bytes(b"")
        assert_refused(tmp_path / name, r"gzip|cannot be read")
    (tmp_path / "t.nii.gz").write_bytes(gzip.compress(b"this is no image " * 60))
    assert_refused(tmp_path / "t.nii.gz", "its content is not what its name says")
    (tmp_path / "packed.nii").write_bytes(gzip.compress(save(tmp_path / "whole.nii").read_bytes()))
    assert_refused(tmp_path / "packed.nii", "compressed, but not named so")
    (tmp_path / "scan.jpg").write_bytes(b"x")
    assert_refused(tmp_path / "scan.jpg", "not a NIfTI")
    assert_refused(tmp_path / "absent.nii", "no file or folder")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.nrrd"])
def test_voxels_that_are_not_finite(tmp_path, name, value):
    array = ARRAY.astype(np.float32)
    array[-1, -1, -1] = value
    if name.endswith(".nrrd"):
        write_volume(tmp_path / name, Volume(array, AFFINE))
    else:
        save(tmp_path / name, array)
    assert_refused(tmp_path / name, "not finite")


def test_a_fourth_axis_of_no_length_hides_no_voxel_that_is_not_finite(tmp_path):
    array = ARRAY.astype(np.float32)
    assert read_volume(patched(save(tmp_path / "whole.nii", array), 40, "5h", 4, *array.shape, 0)).shape == array.shape
    array[-1, -1, -1] = np.nan
    assert_refused(patched(save(tmp_path / "scan.nii", array), 40, "5h", 4, *array.shape, 0), "not finite")


def test_empty_and_flat_scans(tmp_path):
    assert_refused(save(tmp_path / "zero.nii", ARRAY * 0), "empty")
    assert_refused(save(tmp_path / "flat.nii", ARRAY * 0 + 7), "empty")


def test_wrong_dimensions(tmp_path):
    assert_refused(save(tmp_path / "2d.nii", ARRAY[:, :, 0]), "2D")
    assert_refused(save(tmp_path / "slice.nii", ARRAY[:, :, :1]), "too thin")
    assert_refused(save(tmp_path / "echoes.nii", np.stack([ARRAY] * 3, -1)), "4-D: it holds 3 volumes")
    colours = np.zeros(ARRAY.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert_refused(save(tmp_path / "rgb.nii", colours), "colour")
    sitk.WriteImage(
        sitk.GetImageFromArray(np.zeros((18, 22, 20, 3), np.uint8), isVector=True), str(tmp_path / "v.nrrd")
    )
    assert_refused(tmp_path / "v.nrrd", "colour")


def test_geometry_that_makes_no_sense(tmp_path):
    # Without sform and qform (codes at 252) the voxel size is pixdim (76); ITK reads a 0 there as 1 mm.
    for sizes in ((0, 1, 2), (1, float("nan"), 2), (1, 1, float("inf"))):
        path = patched(save(tmp_path / "pixdim.nii"), 80, "3f", *sizes)
        assert_refused(patched(path, 252, "2h", 0, 0), "no valid voxel size")
    assert_refused(patched(save(tmp_path / "srow.nii"), 280, "12f", *[0.0] * 12), "no valid voxel size")
    assert_refused(patched(save(tmp_path / "srow.nii"), 280, "f", float("nan")), "no valid voxel size")
    nrrd = tmp_path / "zero.nrrd"
    write_volume(nrrd, Volume(ARRAY, np.diag([1.0, 1, 2, 1])))
    nrrd.write_bytes(nrrd.read_bytes().replace(b"(0,0,2)", b"(0,0,0)"))
    with pytest.raises(BadInputError):
        read_volume(nrrd)
    assert_refused(save(tmp_path / "long.nii", affine=np.diag([1.0, 40, 1, 1])), "more than any head")
    sheared = np.diag([1.0, 1, 2, 1])
    sheared[0, 1] = 0.3
    assert_refused(save(tmp_path / "sheared.nii", affine=sheared), "sheared")
    # ITK takes sizes from pixdim and axes from the sform; where these contradict each other, neither is right.
    path = patched(save(tmp_path / "sizes.nii"), 80, "3f", 2.0, 2.0, 2.0)
    assert_refused(patched(path, 252, "2h", 0, 1), "contradicts itself")


def test_masks(tmp_path):
    scan = phantom((1, 0, 2), (-1, 1, -1), spacing=(1.0, 1.0, 2.0), turn_deg=(4, 0, 8))
    inside = scan.with_array(scan.array > 300)
    write_volume(tmp_path / "mask.nii.gz", inside)
    read = read_mask(tmp_path / "mask.nii.gz", scan)
    assert read.array.dtype == bool
    np.testing.assert_array_equal(read.array, inside.array)
    moved = scan.ijk_to_ras.copy()
    moved[2, 3] += 1
    write_volume(tmp_path / "moved.nii.gz", Volume(inside.array, moved))
    write_volume(tmp_path / "turned.nii.gz", inside.canonical())
    write_volume(tmp_path / "empty.nii.gz", inside.with_array(inside.array & False))
    for name, words in (("moved", "another grid"), ("turned", "another grid"), ("empty", "empty"), ("no", "no mask")):
        with pytest.raises(BadInputError, match=words):
            read_mask(tmp_path / f"{name}.nii.gz", scan)
    assert not read_mask(tmp_path / "empty.nii.gz", scan, may_be_empty=True).array.any()


@pytest.mark.parametrize("order", ORDERS[3:48:16])
def test_dicom_folders(tmp_path, order):
    volume = phantom(*order, spacing=(1.0, 1.0, 2.0), turn_deg=(4, 0, 8))
    last = volume.shape[2] - 1
    write_dicom(tmp_path / "gap", volume, skip=(last // 2,))
    assert_refused(tmp_path / "gap", "lacks slices")
    write_dicom(tmp_path / "two", volume)
    write_dicom(tmp_path / "two", volume, prefix="phase")
    assert_refused(tmp_path / "two", "holds 2 series")
    write_dicom(tmp_path / "one", volume, skip=range(1, last + 1))
    assert_refused(tmp_path / "one", "single slice")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "notes.txt").write_text("no images")
    assert_refused(tmp_path / "none", "no DICOM images")


def test_dicom_series_that_are_not_one_stack(tmp_path):
    volume = phantom(spacing=(1.0, 1.0, 2.0), turn_deg=(4, 0, 8))
    uid = "1.2.826.0.1.3680043.8.498.1"

    def same_series(number, data):
        data.SeriesInstanceUID = uid

    write_dicom(tmp_path / "echoes", volume, change=same_series)
    write_dicom(tmp_path / "echoes", volume, change=same_series, prefix="echo2")
    assert_refused(tmp_path / "echoes", "several images at one position")

    def tilted(number, data):
        x, y, z = (float(v) for v in data.ImagePositionPatient)
        data.ImagePositionPatient = [f"{x:.6f}", f"{y + number * 0.5:.6f}", f"{z:.6f}"]

    write_dicom(tmp_path / "tilted", volume, change=tilted)
    assert_refused(tmp_path / "tilted", "right angles")

    def localizer(number, data):
        if number > 6:
            data.ImageOrientationPatient = ["1", "0", "0", "0", "0", "-1"]

    write_dicom(tmp_path / "localizer", volume, change=localizer)
    assert_refused(tmp_path / "localizer", "different directions")

    for element in ("ImagePositionPatient", "PixelSpacing"):

        def without(number, data, element=element):
            delattr(data, element)

        write_dicom(tmp_path / element, volume, change=without)
        assert_refused(tmp_path / element, "where its slice lies and how large its voxels are")

    def zoomed(number, data):
        if number > 6:
            data.PixelSpacing = ["1.1", "1.1"]

    write_dicom(tmp_path / "zoomed", volume, change=zoomed)
    assert_refused(tmp_path / "zoomed", "differ in voxel size")


def test_good_but_unusual_scans(tmp_path):
    folder = tmp_path / "Köpfe mit Leerzeichen"
    folder.mkdir()
    twelve_bit = read_volume(save(folder / "größe.nii.gz", ARRAY.astype(np.uint16)))
    np.testing.assert_array_equal(twelve_bit.array, ARRAY)
    assert twelve_bit.array.dtype == np.float32
    np.testing.assert_allclose(twelve_bit.ijk_to_ras, AFFINE, atol=1e-4)
    assert read_volume(save(folder / "negative.nii", ARRAY - 2000)).array.min() == ARRAY.min() - 2000
    single = read_volume(save(folder / "one volume.nii.gz", ARRAY[..., None]))
    np.testing.assert_array_equal(single.array, ARRAY)
    np.testing.assert_allclose(single.ijk_to_ras, AFFINE, atol=1e-4)
    scaled = patched(save(folder / "scaled.nii"), 112, "2f", 0.5, 10.0)
    np.testing.assert_allclose(read_volume(scaled).array, ARRAY * 0.5 + 10)
    big_endian = nibabel.Nifti1Image(ARRAY.astype(">f4"), AFFINE, nibabel.Nifti1Header(endianness=">"))
    nibabel.save(big_endian, folder / "big endian.nii")
    np.testing.assert_array_equal(read_volume(folder / "big endian.nii").array, ARRAY)


def test_scaled_dicom_values_are_kept(tmp_path):
    volume = phantom((0, 2, 1), (1, -1, 1))

    def scale(number, data):
        data.RescaleSlope, data.RescaleIntercept = "2", "-100"

    write_dicom(tmp_path / "series", volume, change=scale)
    read = read_volume(tmp_path / "series")
    assert read.array.max() == 2 * volume.array.max() - 100
    assert read.array.min() == 2 * volume.array.min() - 100


def test_slopes_that_are_fractions_from_the_second_slice_on(tmp_path):
    volume = phantom((0, 2, 1), (1, -1, 1))

    def scale(number, data):
        data.RescaleSlope, data.RescaleIntercept = "0.37" if number else "1", "0"

    write_dicom(tmp_path / "series", volume, change=scale)
    read = read_volume(tmp_path / "series").canonical().array
    expected = volume.with_array(volume.array * np.where(np.arange(volume.shape[2]), 0.37, 1)).canonical().array
    np.testing.assert_allclose(read, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        (["ORIGINAL", "PRIMARY", "P", "ND"], "a phase image"),
        (["DERIVED", "PRIMARY", "MNIP", "SWI"], "a minimum intensity projection"),
        (["ORIGINAL", "PRIMARY", "M", "SWI", "NORM"], None),
        (None, None),
    ],
)
def test_a_series_that_calls_itself_something_else_is_read_with_a_note(tmp_path, kinds, words):
    def kind(number, data):
        if kinds:
            data.ImageType = kinds

    write_dicom(tmp_path / "series", phantom(), change=kind)
    note = read_volume(tmp_path / "series").source.get("note")
    assert (note is None) if words is None else (words in note)


def test_real_scan_with_three_echoes(tmp_path):
    path = Path(__file__).parents[3] / "shared" / "real" / "gre_mag.nii"
    if not path.is_file():
        pytest.skip("the real scan is not here")
    assert_refused(path, "4-D: it holds 3 volumes")
    image = nibabel.load(path)
    nibabel.save(image.slicer[..., 1], tmp_path / "echo2.nii.gz")
    echo = read_volume(tmp_path / "echo2.nii.gz")
    np.testing.assert_array_equal(echo.array, image.get_fdata(dtype=np.float32)[..., 1])
    np.testing.assert_allclose(echo.ijk_to_ras, image.affine, atol=1e-3)


@pytest.mark.parametrize("field", ['{"a":' * 300, "units: " + '"q' * 600])
def test_a_field_that_would_crash_itk_is_refused_unread(tmp_path, field):
    """In a process of its own, since what is refused here was a segmentation fault."""
    write_volume(tmp_path / "good.nrrd", Volume(np.arange(4096, dtype=np.float32).reshape(16, 16, 16), np.eye(4)))
    head, voxels = (tmp_path / "good.nrrd").read_bytes().split(b"\n\n", 1)
    for name, line in (("bad", field), ("long", "# " + "c" * 5000 + "\nkey:=" + "v" * 5000)):
        (tmp_path / f"{name}.nrrd").write_bytes(head + b"\n" + line.encode() + b"\n\n" + voxels)
    code = (
        "import sys\nfrom CMBDetectorLib.errors import BadInputError\nfrom CMBDetectorLib.volume import read_volume\n"
        "print(read_volume(sys.argv[2]).shape)\n"
        "try:\n    read_volume(sys.argv[1])\nexcept BadInputError as error:\n    print(error.message)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "bad.nrrd", tmp_path / "long.nrrd"], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["(16, 16, 16)", "bad.nrrd is damaged: its header makes no sense."]
