"""One phantom on every kind of grid keeps its positions through files, canonical(), resampled() and cropped()."""

import nibabel
import numpy as np
import pytest
from grids import CENTRE_RAS, MARK_RAS, ORDERS, mark, phantom, write_dicom
from hypothesis import example, given, settings
from hypothesis import strategies as st

from CMBDetectorLib.volume import (
    Volume,
    from_sitk,
    nrrd_header,
    ras_to_lps,
    read_volume,
    resample_onto,
    to_sitk,
    write_volume,
)

grids = st.builds(
    phantom,
    order=st.permutations(range(3)).map(tuple),
    signs=st.tuples(*[st.sampled_from((1, -1))] * 3),
    spacing=st.tuples(*[st.sampled_from((0.7, 1.0, 1.6, 2.0))] * 3),
    turn_deg=st.tuples(*[st.floats(-40, 40)] * 3),
)


def half_a_voxel(volume):
    return max(volume.spacing) / 2


@pytest.mark.parametrize(("order", "signs"), ORDERS)
def test_files_of_all_48_axis_orders_mark_the_same_place(tmp_path, order, signs):
    volume = phantom(order, signs, spacing=(0.8, 1.0, 2.0), turn_deg=(10, -6, 4))
    for name in ("scan.nii.gz", "scan.nrrd"):
        write_volume(tmp_path / name, volume)
        read = read_volume(tmp_path / name)
        assert read.shape == volume.shape
        np.testing.assert_allclose(read.ijk_to_ras, volume.ijk_to_ras, atol=1e-4)
        np.testing.assert_array_equal(read.array, volume.array)
        assert np.abs(mark(read) - MARK_RAS).max() < half_a_voxel(volume)
    with_nibabel = nibabel.load(tmp_path / "scan.nii.gz")
    np.testing.assert_allclose(with_nibabel.affine, volume.ijk_to_ras, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(with_nibabel.dataobj), volume.array)


@pytest.mark.parametrize(("order", "signs"), ORDERS[::5])
def test_dicom_series_marks_the_same_place(tmp_path, order, signs):
    volume = phantom(order, signs, spacing=(0.8, 1.0, 2.0), turn_deg=(12, -8, 5))
    write_dicom(tmp_path / "serie ü", volume)
    read = read_volume(tmp_path / "serie ü")
    assert sorted(read.shape) == sorted(volume.shape)
    assert np.abs(mark(read) - MARK_RAS).max() < half_a_voxel(volume)
    assert read.source["kind"] == "dicom"
    assert "Doe" not in str(read.source)


@pytest.mark.parametrize("code", ["sform", "qform"])
def test_nifti_written_by_nibabel_with_one_form_only(tmp_path, code):
    volume = phantom((2, 0, 1), (-1, 1, -1), spacing=(0.5, 1.0, 2.0), turn_deg=(20, 5, -9))
    image = nibabel.Nifti1Image(volume.array, volume.ijk_to_ras)
    image.set_sform(volume.ijk_to_ras, int(code == "sform"))
    image.set_qform(volume.ijk_to_ras, int(code == "qform"))
    nibabel.save(image, tmp_path / "scan.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "scan.nii").ijk_to_ras, volume.ijk_to_ras, atol=1e-3)


@given(grids)
@example(phantom(spacing=(0.7, 0.7, 0.7), turn_deg=(0.0, 0.0, 2.2250738585e-313)))  # ITK's inverse fails on these
@settings(max_examples=40, deadline=None)
def test_canonical_and_resampled_keep_positions(volume):
    canonical = volume.canonical()
    assert canonical.orientation == "RAS"
    assert sorted(canonical.array.ravel()) == sorted(volume.array.ravel())
    assert np.abs(mark(canonical) - mark(volume)).max() < 1e-3
    fine = volume.resampled((1.0, 1.0, 1.0))
    np.testing.assert_allclose(fine.spacing, 1.0, atol=1e-9)
    assert np.abs(mark(fine) - mark(volume)).max() < half_a_voxel(volume)
    # Both grids cover the same field of view: their outer faces, not their first voxel centres, coincide.
    np.testing.assert_allclose(fine.to_ras([-0.5] * 3), volume.to_ras([-0.5] * 3), atol=1e-9)
    nearest = volume.resampled((1.5, 1.5, 1.5), nearest=True)
    assert set(np.unique(nearest.array)) <= set(np.unique(volume.array))
    back = resample_onto(volume, fine)
    assert back.same_grid(volume)
    assert np.abs(mark(back) - mark(volume)).max() < half_a_voxel(volume)


@given(grids, st.tuples(*[st.floats(-80, 80)] * 3))
@settings(max_examples=40, deadline=None)
def test_index_and_position_are_inverse(volume, ras):
    np.testing.assert_allclose(volume.to_ras(volume.to_ijk(ras)), ras, atol=1e-8)
    assert volume.to_ras(np.zeros((4, 5, 3))).shape == (4, 5, 3)
    np.testing.assert_allclose(from_sitk(to_sitk(volume)).ijk_to_ras, volume.ijk_to_ras, atol=1e-9)
    physical = to_sitk(volume).TransformContinuousIndexToPhysicalPoint([1.0, 2.0, 3.0])
    np.testing.assert_allclose(ras_to_lps(volume.to_ras([1, 2, 3])), physical, atol=1e-6)


@pytest.mark.parametrize(("order", "signs"), ORDERS)
def test_orientation_names_the_axes(order, signs):
    volume = phantom(order, signs, turn_deg=(20, 10, -15))
    assert volume.orientation == "".join(
        ("RAS" if s > 0 else "LPI")[axis] for axis, s in zip(order, signs, strict=True)
    )
    assert "".join(nibabel.aff2axcodes(volume.ijk_to_ras)) == volume.orientation


def test_coarse_resampling_does_not_lose_a_small_lesion_between_samples():
    array = np.full((40, 40, 40), 100.0, np.float32)
    for i in range(4, 36, 5):
        array[i, i, i] = 0
    coarse = Volume(array, np.eye(4)).resampled((3.0, 3.0, 3.0))
    assert coarse.shape == (13, 13, 13)
    lesions = coarse.to_ijk(np.array([[i, i, i] for i in range(9, 31, 5)])).round().astype(int)
    assert (coarse.array[tuple(lesions.T)] < 99.5).all()


def test_cropping_keeps_positions_and_clips_to_the_grid():
    volume = phantom((1, 2, 0), (-1, 1, 1), spacing=(1.0, 1.0, 2.0), turn_deg=(5, 5, 5))
    lower = np.floor(volume.to_ijk(MARK_RAS)).astype(int) - 4
    cropped = volume.cropped(lower, lower + 9)
    assert np.abs(mark(cropped) - mark(volume)).max() < 0.01
    assert volume.cropped((-5, -5, -5), (999, 999, 999)).same_grid(volume)


def test_same_grid_tells_shift_and_shape_apart():
    volume = phantom(turn_deg=(3, 0, 0))
    shifted = volume.ijk_to_ras.copy()
    shifted[0, 3] += 0.02
    assert volume.same_grid(Volume(volume.array, volume.ijk_to_ras))
    assert not volume.same_grid(Volume(volume.array, shifted))
    assert not volume.same_grid(volume.cropped((0, 0, 0), (9, 9, 9)))
    with pytest.raises(ValueError, match="shape"):
        volume.with_array(np.zeros((2, 2, 2)))


def test_phantom_is_where_the_tests_think(tmp_path):
    volume = phantom()
    np.testing.assert_allclose(volume.to_ras((np.array(volume.shape) - 1) / 2), CENTRE_RAS)
    assert np.abs(mark(volume) - MARK_RAS).max() < 0.1


@pytest.mark.parametrize("dtype", ["int16", "uint16", "uint8", "int32", "float32", "float64", ">i2"])
def test_a_raw_nrrd_written_piece_by_piece_reads_as_the_same_volume(tmp_path, dtype):
    rng = np.random.default_rng(3)
    array = rng.integers(0, 100, (9, 11, 13)).astype(dtype)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.array([1.5, 1.0, 2.0])
    affine[:3, 3] = -20.5, 3.25, 7
    path = tmp_path / "raw.nrrd"
    path.write_bytes(nrrd_header(array.shape, array.dtype, affine) + array.tobytes(order="F"))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.ijk_to_ras, affine, atol=1e-9)
