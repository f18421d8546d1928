"""Reading the folder of one DICOM series with ITK, refusing what would make a wrong volume without a word."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813

from CMBDetectorLib.errors import BadInputError

_LATERAL_MM = 0.5


def read_series(folder: Path) -> tuple[sitk.Image, dict[str, Any]]:
    """Return the 3D image of the only DICOM series in ``folder`` and what may be said of its source.

    The source holds no patient data: a hash of the series tells two of them apart.

    Raises:
        BadInputError: there is no series or more than one; it is 2D, in colour or damaged; slices are missing,
            doubled or not stacked at right angles.
    """
    names = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not names:
        raise BadInputError(
            f"The folder {folder.name} holds no DICOM images.",
            "Give the folder of one series, or a NIfTI or NRRD file.",
        )
    series = {uid: sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid) for uid in names}
    if len(series) > 1:
        labels = ", ".join(_label(files) for files in series.values())
        raise BadInputError(
            f"The folder {folder.name} holds {len(series)} series ({labels}).",
            "Give a folder with the SWI magnitude or T2* series alone.",
        )
    uid, files = next(iter(series.items()))
    if len(files) == 1:
        image = _read(folder, files[0])
    else:
        # Sorted along the normal, each as far as the next: what ITK takes for granted.
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(_sorted_slices(files))
        image = _execute(folder, reader)
    if image.GetNumberOfComponentsPerPixel() != 1 or image.GetDimension() != 3:
        raise BadInputError(f"The DICOM series in {folder.name} is no 3D grey-scale image.", "Choose the SWI series.")
    if image.GetSize()[2] == 1:
        raise BadInputError(f"The DICOM series in {folder.name} has a single slice.", "Choose the whole 3D series.")
    return image, {"kind": "dicom", "name": f"series-{hashlib.sha256(uid.encode()).hexdigest()[:12]}"}


def itk_reason(error: RuntimeError) -> str:
    """Return the words of an ITK exception that mean something to a user."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # MetaImage ends with whatever errno happened to hold.
    lines = [line for line in lines if not line.startswith("Reason:")]
    text = lines[-1] if lines else "unknown reason"
    if "Unable to determine ImageIO" in text:
        return "its content is not what its name says"
    if "MetaImageIO" in text:
        return "it is incomplete or its data file is missing"
    return text.split("):", 1)[-1].split("ERROR:", 1)[-1].strip().rstrip(".!")[:160] or "unknown reason"


def _read(folder: Path, file: str) -> sitk.Image:
    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    return _execute(folder, reader)


def _execute(folder: Path, reader: sitk.ImageFileReader | sitk.ImageSeriesReader) -> sitk.Image:
    try:
        return reader.Execute()
    except RuntimeError as error:
        raise BadInputError(
            f"The DICOM series in {folder.name} cannot be read: {itk_reason(error)}.", "Export the series again."
        ) from error


def _sorted_slices(files: Sequence[str]) -> list[str]:
    """Return ``files`` ordered along the normal of their planes."""
    origins, directions = np.empty((len(files), 3)), np.empty((len(files), 6))
    for number, file in enumerate(files):
        reader = sitk.ImageFileReader()
        reader.SetFileName(file)
        try:
            reader.ReadImageInformation()
            origins[number] = [float(v) for v in reader.GetMetaData("0020|0032").split("\\")]
            directions[number] = [float(v) for v in reader.GetMetaData("0020|0037").split("\\")]
        except (RuntimeError, ValueError) as error:
            raise BadInputError(
                "A DICOM file of the series has no slice position.", "Export the series again, or convert it to NIfTI."
            ) from error
    if np.abs(directions - directions[0]).max() > 1e-3:
        raise BadInputError(
            "The slices of the DICOM series lie in different directions, like a localizer.", "Choose the SWI series."
        )
    normal = np.cross(directions[0, :3], directions[0, 3:])
    heights = origins @ normal
    order = np.argsort(heights, kind="stable")
    gaps = np.diff(heights[order])
    if gaps.min() < 1e-3:
        raise BadInputError(
            "The DICOM series has several images at one position (echoes, phases or magnitude and phase together).",
            "Export one echo of the magnitude or SWI image as a series of its own.",
        )
    if gaps.max() > 1.5 * float(np.median(gaps)):
        raise BadInputError("The DICOM series lacks slices: they are not evenly spaced.", "Export the series again.")
    lateral = origins - origins[order[0]] - np.outer(heights - heights[order[0]], normal)
    if np.abs(lateral).max() > _LATERAL_MM:
        raise BadInputError(
            "The slices of the DICOM series are not stacked at right angles (a tilted gantry).",
            "Convert the series to NIfTI with a tool that resamples it.",
        )
    return [files[number] for number in order]


def _label(files: Sequence[str]) -> str:
    reader = sitk.ImageFileReader()
    reader.SetFileName(files[0])
    try:
        reader.ReadImageInformation()
        label = reader.GetMetaData("0008|103e").strip()
    except RuntimeError:
        label = ""
    return f"{label or 'unnamed'}: {len(files)} images"
