"""A lopsided phantom on any grid, and its writing as a DICOM series: what the geometry tests have in common."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from CMBDetectorLib.volume import Volume

CENTRE_RAS = np.array([12.0, -7.0, 20.0])
MARK_RAS = CENTRE_RAS + np.array([3.0, 5.0, -4.0])
# Fainter blobs that no flip or turn maps onto one another.
_OTHERS = ((CENTRE_RAS + np.array([-6.0, 2.0, 1.0]), 0.6), (CENTRE_RAS + np.array([1.0, -7.0, 5.0]), 0.4))
ORDERS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]


def phantom(
    order=(0, 1, 2), signs=(1, 1, 1), spacing=(1.0, 1.0, 1.0), turn_deg=(0.0, 0.0, 0.0), extent_mm=28.0
) -> Volume:
    """A Volume whose axis n runs along the RAS axis ``order[n]`` in the direction ``signs[n]``, turned by Euler angles.

    ``spacing`` is that of the RAS axes before turning; the brightest blob lies at MARK_RAS.
    """
    spacing = np.array(spacing, dtype=float)[list(order)]
    directions = np.zeros((3, 3))
    for axis, (target, sign) in enumerate(zip(order, signs, strict=True)):
        directions[target, axis] = sign
    directions = Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix() @ directions
    shape = np.round(extent_mm / spacing).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = CENTRE_RAS - affine[:3, :3] @ ((shape - 1) / 2)
    grid = Volume(np.zeros(tuple(shape), np.float32), affine)
    places = grid.to_ras(np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1))
    array = np.full(tuple(shape), 20.0)
    for centre, height in ((MARK_RAS, 1.0), *_OTHERS):
        array += 1000 * height * np.exp(-((places - centre) ** 2).sum(-1) / (2 * 1.8**2))
    return grid.with_array(np.round(array).astype(np.float32))


def mark(volume: Volume) -> np.ndarray:
    """The RAS position of the brightest blob: the centroid of what exceeds 70 % of the maximum."""
    weight = np.clip(volume.array - 0.7 * volume.array.max(), 0, None)
    where = np.argwhere(weight > 0)
    return volume.to_ras(np.average(where, axis=0, weights=weight[tuple(where.T)]))


def write_dicom(folder: Path, volume: Volume, skip=(), change=lambda number, data: None, prefix="im") -> None:
    """Write the k planes of ``volume`` as single-frame MR images, named in an order that says nothing.

    ``skip`` leaves planes out; ``change(number, dataset)`` may alter each.
    """
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.ijk_to_ras
    spacing = volume.spacing
    series, study = generate_uid(), generate_uid()
    for number in range(volume.shape[2]):
        if number in skip:
            continue
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.SeriesInstanceUID, data.StudyInstanceUID = series, study
        data.FrameOfReferenceUID = study
        data.Modality, data.SeriesDescription, data.PatientName = "MR", "SWI", "Doe^Jane"
        data.InstanceNumber = number + 1
        data.ImagePositionPatient = [f"{v:.6f}" for v in (lps @ [0, 0, number, 1])[:3]]
        data.ImageOrientationPatient = [f"{v:.8f}" for v in (lps[:3, :2] / np.array(spacing[:2])).T.ravel()]
        data.PixelSpacing = [f"{spacing[1]:.6f}", f"{spacing[0]:.6f}"]
        data.SliceThickness = f"{spacing[2]:.6f}"
        data.Rows, data.Columns = volume.shape[1], volume.shape[0]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
        data.PixelData = volume.array[:, :, number].T.astype("<u2").tobytes()
        change(number, data)
        data.save_as(folder / f"{prefix}{(number * 7919) % 1000:03d}.dcm", enforce_file_format=True)
