"""Reading the folder of one DICOM series with ITK, refusing what would make a wrong volume without a word.

Nothing that is said or returned here names the patient, nor the folder or files, which are often called after one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813

from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.image_headers import check_size
from CMBDetectorLib.pseudonyms import pseudonym

_LATERAL_MM = 0.5
_PATIENT = {"name": "0010|0010", "id": "0010|0020", "birth date": "0010|0030"}
# The character sets of western hospitals (DICOM PS3.3, C.12.1.1.2); other letters become question marks.
_LETTERS = {"ISO_IR 100": "latin-1", "ISO_IR 101": "iso8859-2", "ISO_IR 192": "utf-8", "GB18030": "gb18030"}


def read_series(folder: Path) -> tuple[sitk.Image, dict[str, Any]]:
    """Return the 3D image of the only DICOM series in ``folder`` and what may be said of its source.

    The source holds no patient data: a salted hash of the series' number tells two of them apart.

    Raises:
        BadInputError: there is no series or more than one; it is 2D, in colour, too large or damaged; slices are
            missing, doubled or not stacked at right angles.
    """
    with _quiet():
        return _read_series(folder)


def patient(folder: Path) -> dict[str, str]:
    """Return ``name``, ``id`` and ``birth date`` of the patient as the first file of ``folder`` has them.

    What is not stated is left out; a folder that cannot be read gives nothing.
    """
    with _quiet():
        for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)):
            return _patient(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)[0])
    return {}


def _read_series(folder: Path) -> tuple[sitk.Image, dict[str, Any]]:
    names = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not names:
        raise BadInputError(
            "The folder holds no DICOM images.",
            "Give the folder of one series, or a NIfTI or NRRD file.",
        )
    series = {uid: sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid) for uid in names}
    if len(series) > 1:
        labels = ", ".join(_label(files) for files in series.values())
        raise BadInputError(
            f"The folder holds {len(series)} series ({labels}).",
            "Give a folder with the SWI magnitude or T2* series alone.",
        )
    uid, files = next(iter(series.items()))
    if len(files) == 1:
        image = _read(files[0])
    else:
        # Sorted along the normal, each as far as the next: what ITK takes for granted.
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(_sorted_slices(files))
        image = _execute(reader)
    if image.GetNumberOfComponentsPerPixel() != 1 or image.GetDimension() != 3:
        raise BadInputError("The DICOM series is no 3D grey-scale image.", "Choose the SWI series.")
    if image.GetSize()[2] == 1:
        raise BadInputError("The DICOM series has a single slice.", "Choose the whole 3D series.")
    return image, {"kind": "dicom", "name": pseudonym("series", uid)}


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


def _read(file: str) -> sitk.Image:
    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(error) from error
    check_size("The DICOM file", reader.GetSize())
    return _execute(reader)


def _execute(reader: sitk.ImageFileReader | sitk.ImageSeriesReader) -> sitk.Image:
    try:
        return reader.Execute()
    except RuntimeError as error:
        raise _unreadable(error) from error


def _unreadable(error: RuntimeError) -> BadInputError:
    # ITK names the file.
    reason = re.sub(r"\S*[/\\].*", "a file is damaged", itk_reason(error))
    return BadInputError(f"The DICOM series cannot be read: {reason}.", "Export the series again.")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep ITK from printing warnings, which name files, in the block."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def _sorted_slices(files: Sequence[str]) -> list[str]:
    """Return ``files`` ordered along the normal of their planes."""
    origins, directions = np.empty((len(files), 3)), np.empty((len(files), 6))
    voxels = 0
    for number, file in enumerate(files):
        reader = sitk.ImageFileReader()
        reader.SetFileName(file)
        try:
            reader.ReadImageInformation()
            origins[number] = [float(v) for v in reader.GetMetaData("0020|0032").split("\\")]
            directions[number] = [float(v) for v in reader.GetMetaData("0020|0037").split("\\")]
            voxels += int(np.prod(reader.GetSize(), dtype=object))
        except (RuntimeError, ValueError) as error:
            raise BadInputError(
                "A DICOM file of the series has no slice position.", "Export the series again, or convert it to NIfTI."
            ) from error
    check_size("The DICOM series", [voxels])
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
    """Return what the series is called; descriptions into which somebody has written the patient are left out."""
    label = _text(files[0], "0008|103e")
    words = [word for text in _patient(files[0]).values() for word in re.split(r"[\^\s=]+", text.lower())]
    if any(len(word) > 2 and word in label.lower() for word in words):
        label = ""
    return f"{label or 'unnamed'}: {len(files)} images"


def _patient(file: str) -> dict[str, str]:
    return {what: text for what, tag in _PATIENT.items() if (text := _text(file, tag))}


def _text(file: str, tag: str) -> str:
    """Return the text of ``tag`` in a DICOM file, in the letters that the file says it has; "" where it has none."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
        if not reader.HasMetaDataKey(tag):
            return ""
        charset = reader.GetMetaData("0008|0005").strip() if reader.HasMetaDataKey("0008|0005") else ""
        stored = reader.GetMetaData(tag).encode("utf-8", "surrogateescape")
    except RuntimeError:
        return ""
    return stored.decode(_LETTERS.get(charset, "utf-8"), "replace").strip(" \0")
