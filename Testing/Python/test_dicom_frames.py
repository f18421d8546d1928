"""A DICOM file of many frames is read where they are one stack in file order, and refused in all other cases."""

import numpy as np
import pydicom
import pytest
from grids import MARK_RAS, mark, phantom
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.volume import Volume, read_volume

VOLUME = phantom((0, 1, 2), (1, -1, 1), spacing=(0.8, 1.0, 2.0), turn_deg=(4, 0, 8))
SLICES = range(VOLUME.shape[2])


def item(**elements):
    data = pydicom.Dataset()
    for name, value in elements.items():
        setattr(data, name, value)
    return Sequence([data])


def write_frames(folder, slices, volume=VOLUME, change=lambda data: None, syntax=ExplicitVRLittleEndian):
    """Write planes of ``volume`` as one enhanced MR image; ``slices`` are their k in file order."""
    folder.mkdir()
    lps, spacing = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.ijk_to_ras, volume.spacing
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.SeriesInstanceUID, data.StudyInstanceUID = generate_uid(), generate_uid()
    data.FrameOfReferenceUID = generate_uid()
    data.Modality, data.SeriesDescription, data.PatientName = "MR", "SWI", "Doe^Jane"
    data.InstanceNumber, data.NumberOfFrames = 1, len(slices)
    directions = [f"{v:.8f}" for v in (lps[:3, :2] / np.array(spacing[:2])).T.ravel()]
    shared = item(
        PlaneOrientationSequence=item(ImageOrientationPatient=directions),
        PixelMeasuresSequence=item(
            PixelSpacing=[f"{spacing[1]:.6f}", f"{spacing[0]:.6f}"], SliceThickness=f"{spacing[2]:.6f}"
        ),
    )
    data.SharedFunctionalGroupsSequence = shared
    frames = []
    for k in slices:
        position = [f"{v:.6f}" for v in (lps @ [0, 0, k, 1])[:3]]
        frames += item(PlanePositionSequence=item(ImagePositionPatient=position))
    data.PerFrameFunctionalGroupsSequence = Sequence(frames)
    data.Rows, data.Columns = volume.shape[1], volume.shape[0]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PixelData = b"".join(volume.array[:, :, k].T.astype("<u2").tobytes() for k in slices)
    change(data)
    data.save_as(folder / "image.dcm", enforce_file_format=True)
    return folder


def assert_refused(folder, words):
    with pytest.raises(BadInputError, match=words) as caught:
        read_volume(folder)
    told = f"{caught.value.message} {caught.value.hint}"
    assert "Doe" not in told
    assert str(folder) not in told
    assert folder.name not in told


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("step", [1, -1])
def test_one_stack_in_either_direction_marks_the_same_place(tmp_path, step, syntax):
    read = read_volume(write_frames(tmp_path / "Doe_Jane", SLICES[::step], syntax=syntax))
    np.testing.assert_allclose(read.spacing, (0.8, 1.0, 2.0), atol=1e-5)
    affine = VOLUME.ijk_to_ras @ np.diag([1, 1, step, 1])
    affine[:3, 3] = VOLUME.to_ras([0, 0, 0 if step > 0 else SLICES[-1]])
    assert read.same_grid(Volume(VOLUME.array, affine))
    np.testing.assert_array_equal(read.array, VOLUME.array[:, :, ::step])
    assert np.abs(mark(read) - MARK_RAS).max() < 1.0


def test_voxels_of_unknown_size_are_not_taken_for_1_mm(tmp_path):
    def without_size(data):
        del data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence

    volume = phantom(spacing=(2.0, 2.0, 1.0))
    folder = write_frames(tmp_path / "Doe_Jane", range(volume.shape[2]), volume, without_size)
    assert_refused(folder, "does not say of each of its frames")


@pytest.mark.parametrize(
    ("slices", "words"),
    [
        (np.random.default_rng(0).permutation(SLICES), "not in the order of their positions"),
        ([*SLICES, *SLICES], "several images at one position"),
        (np.repeat(SLICES, 2), "several images at one position"),
        ([k for k in SLICES if k != 5], "not evenly spaced"),
        ([*SLICES[::2], *SLICES[1::2]], "not in the order of their positions"),
    ],
    ids=["shuffled", "echoes one after the other", "echoes in turn", "missing", "interleaved"],
)
def test_frames_that_are_not_one_stack(tmp_path, slices, words):
    assert_refused(write_frames(tmp_path / "Doe_Jane", slices), words)


def without_groups(data):
    del data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7.3"


def without_one_position(data):
    del data.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence


def with_one_turned(data):
    frames = data.PerFrameFunctionalGroupsSequence
    turn = data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    for number, frame in enumerate(frames):
        frame.PlaneOrientationSequence = (
            item(ImageOrientationPatient=["1", "0", "0", "0", "0", "-1"]) if number == 4 else turn
        )


def tilted(data):
    for number, frame in enumerate(data.PerFrameFunctionalGroupsSequence):
        x, y, z = (float(v) for v in frame.PlanePositionSequence[0].ImagePositionPatient)
        frame.PlanePositionSequence = item(ImagePositionPatient=[f"{x:.6f}", f"{y + number * 0.5:.6f}", f"{z:.6f}"])


def slowly_wider(data):
    """Move the frames apart by steps that grow a little: no gap is large, but ITK takes them for even."""
    for number, frame in enumerate(data.PerFrameFunctionalGroupsSequence):
        position = [float(v) for v in frame.PlanePositionSequence[0].ImagePositionPatient]
        normal = VOLUME.ijk_to_ras[:3, 2] / VOLUME.spacing[2] * [-1, -1, 1]
        moved = np.array(position) + normal * 0.03 * number**2
        frame.PlanePositionSequence = item(ImagePositionPatient=[f"{v:.6f}" for v in moved])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_groups, "does not say of each of its frames"),
        (without_one_position, "does not say of each of its frames"),
        (with_one_turned, "different directions"),
        (tilted, "right angles"),
        (slowly_wider, "not evenly spaced"),
    ],
)
def test_frames_whose_place_is_not_stated_or_odd(tmp_path, change, words):
    assert_refused(write_frames(tmp_path / "Doe_Jane", SLICES, change=change), words)


def test_several_files_of_frames(tmp_path):
    folder = write_frames(tmp_path / "Doe_Jane", SLICES)
    data = pydicom.dcmread(folder / "image.dcm")
    data.ImagePositionPatient, data.ImageOrientationPatient = ["0", "0", "0"], ["1", "0", "0", "0", "1", "0"]
    for number in range(2):
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.ImagePositionPatient = ["0", "0", str(number)]
        data.save_as(folder / f"image{number}.dcm")
    (folder / "image.dcm").unlink()
    assert_refused(folder, "several multi-frame files|where its slice lies")
