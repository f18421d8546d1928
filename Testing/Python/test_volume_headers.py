"""What headers leave open or contradict: refused where positions would be wrong, noted where they are a choice."""

import nibabel
import numpy as np
import pytest
from grids import phantom, write_dicom

from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.volume import Volume, read_grid, read_volume, write_volume

VOLUME = phantom((1, 0, 2), (-1, 1, -1), spacing=(1.0, 1.0, 2.0), turn_deg=(4, 0, 8))
AFFINE = VOLUME.ijk_to_ras
MIRROR = np.diag([-1.0, 1, 1, 1])
SHIFT = np.eye(4)
SHIFT[0, 3] = 10
GUESS = "left and right are a guess"


def save(path, qform=AFFINE, sform=AFFINE, codes=(1, 1)):
    image = nibabel.Nifti1Image(VOLUME.array.astype(np.int16), AFFINE)
    image.set_qform(qform, codes[0])
    image.set_sform(sform, codes[1])
    nibabel.save(image, path)
    return path


def note(path):
    return read_volume(path).source.get("note", "")


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_shear_is_refused_where_it_moves_a_corner(tmp_path, ending):
    path = tmp_path / f"scan{ending}"
    for shear_mm, is_read in ((0.01, True), (0.15, False), (1.2, False)):
        affine = AFFINE.copy()
        affine[0, 2] += shear_mm
        write_volume(path, Volume(VOLUME.array, affine))
        for read in (read_volume, read_grid):
            if is_read:
                np.testing.assert_allclose(read(path).ijk_to_ras, affine, atol=1e-6)
            else:
                with pytest.raises(BadInputError, match="not at right angles"):
                    read(path)


@pytest.mark.parametrize(
    ("code", "used", "other"), [(1, "sform", "qform"), (2, "qform", "sform"), (4, "qform", "sform")]
)
def test_forms_that_disagree_are_noted(tmp_path, code, used, other):
    forms = {"qform": AFFINE, "sform": SHIFT @ AFFINE}
    path = save(tmp_path / "scan.nii.gz", *forms.values(), (1, code))
    np.testing.assert_allclose(read_volume(path).ijk_to_ras, forms[used], atol=1e-4)
    assert f"the {used} was used" in note(path)
    assert f"programs that use the {other} lie elsewhere" in note(path)
    assert "uncertain" not in note(path)


@pytest.mark.parametrize(("code", "used"), [(1, "sform"), (2, "qform")])
def test_forms_that_are_mirror_images_make_the_sides_uncertain(tmp_path, code, used):
    path = save(tmp_path / "scan.nii", AFFINE, MIRROR @ AFFINE, (1, code))
    assert note(path).startswith("Left and right are uncertain")
    assert f"the {used} was used" in note(path)


def test_forms_that_agree_or_stand_alone_are_not_noted(tmp_path):
    near = AFFINE.copy()
    near[:3, 3] += 0.3
    assert note(save(tmp_path / "same.nii")) == ""
    assert note(save(tmp_path / "near.nii", AFFINE, near, (1, 2))) == ""
    assert note(save(tmp_path / "q.nii", AFFINE, SHIFT @ AFFINE, (1, 0))) == ""
    assert note(save(tmp_path / "s.nii", SHIFT @ AFFINE, AFFINE, (0, 1))) == ""
    assert GUESS in note(save(tmp_path / "none.nii", codes=(0, 0)))


def without(path, *starts):
    """Take the lines that begin with ``starts`` out of the text header of ``path``."""
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(line for line in lines if not line.startswith(starts)))
    return path


def test_nrrd_and_metaimage_that_do_not_say_how_they_lie(tmp_path):
    for name in ("scan.nrrd", "scan.mha"):
        write_volume(tmp_path / name, VOLUME)
        assert note(tmp_path / name) == ""
    assert GUESS in note(without(tmp_path / "scan.mha", b"TransformMatrix"))
    path = tmp_path / "scan.nrrd"
    whole = path.read_bytes()
    for space in (b"RAS", b"Right-Anterior-Superior", b"LPS", b"left-anterior-superior"):
        path.write_bytes(whole.replace(b"left-posterior-superior", space))
        assert note(path) == ""
    path.write_bytes(whole.replace(b"left-posterior-superior", b"scanner-xyz"))
    assert GUESS in note(path)
    path.write_bytes(whole)
    assert GUESS in note(without(path, b"space", b"kinds"))


def test_what_is_said_of_a_folder_does_not_name_it(tmp_path):
    flat, folder = VOLUME.with_array(VOLUME.array * 0 + 7), tmp_path / "MUSTERFRAU_Erika"
    write_dicom(folder, flat)
    with pytest.raises(BadInputError, match=r"^The DICOM series is empty"):
        read_volume(folder)
    write_dicom(tmp_path / "MUSTERFRAU_2", VOLUME.cropped((0, 0, 0), (28, 28, 3)))
    with pytest.raises(BadInputError, match=r"^The DICOM series is too thin"):
        read_volume(tmp_path / "MUSTERFRAU_2")


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("SWI Li", "unnamed"),
        ("WU swi", "unnamed"),
        ("SWI 1964-08-12", "unnamed"),
        ("SWI 12.08.1964", "unnamed"),
        ("SWI 12/08/64", "unnamed"),
        ("SWI_Annemarie2", "unnamed"),
        ("SWI 12-345", "unnamed"),
        ("Wuhan slices", "Wuhan slices"),
        ("SWI 3 mm 1.5 T", "SWI 3 mm 1.5 T"),
    ],
)
def test_labels_with_short_names_or_dates_of_the_patient_are_left_out(tmp_path, label, shown):
    def identify(number, data):
        data.PatientName, data.PatientID, data.PatientBirthDate = "Wu^Li^Annemarie", "12345", "19640812"
        data.SeriesDescription = label

    volume = phantom(spacing=(4.0, 4.0, 8.0))
    for prefix in ("a", "b"):
        write_dicom(tmp_path / "two", volume, change=identify, prefix=prefix)
    with pytest.raises(BadInputError, match="holds 2 series") as caught:
        read_volume(tmp_path / "two")
    assert f"({shown}: " in caught.value.message


def test_slices_of_different_sizes(tmp_path):
    def smaller(number, data):
        data.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.1"
        if number == 3:
            data.Rows, data.PixelData = 10, data.PixelData[: 10 * data.Columns * 2]

    write_dicom(tmp_path / "series", VOLUME, change=smaller)
    with pytest.raises(BadInputError, match="differ in size"):
        read_volume(tmp_path / "series")


def test_nifti_2_and_other_units_are_called_so(tmp_path):
    nibabel.save(nibabel.Nifti2Image(VOLUME.array.astype(np.int16), AFFINE), tmp_path / "two.nii.gz")
    with pytest.raises(BadInputError, match="NIfTI-2") as caught:
        read_volume(tmp_path / "two.nii.gz")
    assert "NIfTI-1" in caught.value.hint
    for unit, factor, word in (("micron", 1000, "micrometres"), ("meter", 0.001, "in metres")):
        image = nibabel.Nifti1Image(VOLUME.array.astype(np.int16), np.diag([factor, factor, factor, 1]) @ AFFINE)
        image.header.set_xyzt_units(unit)
        nibabel.save(image, tmp_path / "unit.nii")
        with pytest.raises(BadInputError, match=word):
            read_volume(tmp_path / "unit.nii")
