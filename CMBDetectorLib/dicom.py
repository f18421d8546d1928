"""Reading the folder of one DICOM series with ITK, refusing what would make a wrong volume without a word.

Nothing that is said or returned here names the patient, nor the folder or files, which are often called after one.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813

from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.image_headers import check_size
from CMBDetectorLib.pseudonyms import pseudonym

_LATERAL_MM = 0.5
_PATIENT = {"name": "0010|0010", "id": "0010|0020", "birth date": "0010|0030"}
_SEPARATORS = re.compile(r"[\W_]+")
# The character sets of western hospitals (DICOM PS3.3, C.12.1.1.2); other letters become question marks.
_LETTERS = {"ISO_IR 100": "latin-1", "ISO_IR 101": "iso8859-2", "ISO_IR 192": "utf-8", "GB18030": "gb18030"}


def _number_in(sequence: bytes, element: bytes) -> re.Pattern[bytes]:
    """Match the head of a decimal ``element`` among the first of a ``sequence`` (tags as bytes); groups: its length.

    In explicit or implicit little endian; a ``sequence`` must be named since private ones repeat what frames say.
    """
    item = rb"(?:SQ\0\0)?.{4}\xfe\xff\x00\xe0.{4}.{0,64}?"
    return re.compile(re.escape(sequence) + item + re.escape(element) + rb"(?:DS(..)|(.{4}))", re.DOTALL)


# Position, orientation and voxel size of a frame (DICOM PS3.3, C.7.6.16.2); ITK tells those of the first one only.
_POSITION = _number_in(b"\x20\x00\x13\x91", b"\x20\x00\x32\x00")
_ORIENTATION = _number_in(b"\x20\x00\x16\x91", b"\x20\x00\x37\x00")
_PIXEL_SPACING = _number_in(b"\x28\x00\x10\x91", b"\x28\x00\x30\x00")
# Six numbers of 16 characters, and what is between them.
_LONGEST_NUMBERS = 6 * 17
# Values of ImageType (0008,0008) of what lies beside the right series in the same study, as vendors write them.
_UNFIT = (
    (("P", "PHASE", "PHASE MAP", "FILTERED PHASE"), "a phase image"),
    (("MNIP", "MINIP", "MIN IP", "MIN_IP", "MINIMUM"), "a minimum intensity projection"),
)
_CONVERT = "Convert it to NIfTI with a program that sorts its frames, one kind of image at a time."


def read_series(folder: Path) -> tuple[sitk.Image, dict[str, Any]]:
    """Return the 3D image of the only DICOM series in ``folder`` and what may be said of its source.

    The source holds no patient data: a salted hash of the series' number tells two of them apart.

    Raises:
        BadInputError: there is no series or more than one; it is 2D, in colour, too large or damaged; slices (or the
            frames of a multi-frame file) are missing, doubled, of different sizes or not stacked at right angles;
            frames do not follow one another in space, or have no position.
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
        # Else the first slice decides: where its rescale slope is a whole number, the others lose their fractions.
        reader.SetOutputPixelType(sitk.sitkFloat32)
        image = _execute(reader)
    if image.GetNumberOfComponentsPerPixel() != 1 or image.GetDimension() != 3:
        raise BadInputError("The DICOM series is no 3D grey-scale image.", "Choose the SWI series.")
    if image.GetSize()[2] == 1:
        raise BadInputError("The DICOM series has a single slice.", "Choose the whole 3D series.")
    return image, {"kind": "dicom", "name": pseudonym("series", uid), **_note(files[0])}


def _note(file: str) -> dict[str, str]:
    """Return a ``note`` for the user where the series says that it is no magnitude or SWI image."""
    kinds = {value.strip().upper() for value in _text(file, "0008|0008").split("\\")}
    for values, what in _UNFIT:
        if not kinds.isdisjoint(values):
            return {"note": f"The DICOM series calls itself {what}: choose the magnitude or SWI series."}
    return {}


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
    frames = prod(reader.GetSize()[2:])
    if frames == 1:
        return _execute(reader)
    # ITK stacks the frames as they come, whatever they are, and takes voxels of 1 mm where it finds no even step.
    origin, spacing, direction = _frame_geometry(file, frames)
    image = _execute(reader)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    return image


def _frame_geometry(file: str, frames: int) -> tuple[list[float], list[float], list[float]]:
    """Return the origin (LPS mm), spacing (mm along i, j, k) and direction (3x3, row by row) of a multi-frame file.

    Raises:
        BadInputError: not each of its ``frames`` states where it lies, or they are not one stack in file order.
    """
    try:
        with open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            positions = _numbers(data, _POSITION, 3)
            directions = _numbers(data, _ORIENTATION, 6)
            sizes = _numbers(data, _PIXEL_SPACING, 2)
    except (OSError, ValueError):
        positions = directions = sizes = np.empty((0, 0))
    if len(positions) != frames or len(directions) == 0 or len(sizes) == 0 or np.ptp(sizes, axis=0).max() > 1e-3:
        raise BadInputError(
            "The DICOM file does not say of each of its frames where it lies and how large its voxels are.", _CONVERT
        )
    order, normal = _stacked(positions, directions)
    if not (np.diff(order) == 1).all() and not (np.diff(order) == -1).all():
        raise BadInputError("The frames of the DICOM file are not in the order of their positions.", _CONVERT)
    step = (positions[-1] - positions[0]) / (frames - 1)
    if np.abs(positions - positions[0] - np.outer(np.arange(frames), step)).max() > _LATERAL_MM:
        raise _uneven()
    height = float(step @ normal)
    axes = np.column_stack([directions[0, :3], directions[0, 3:], np.sign(height) * normal])
    # DICOM gives the distance of the rows, which is along j, first.
    spacing = [float(sizes[0, 1]), float(sizes[0, 0]), abs(height)]
    return [float(v) for v in positions[0]], spacing, [float(v) for v in axes.ravel()]


def _numbers(data: mmap.mmap, pattern: re.Pattern[bytes], count: int) -> np.ndarray:
    """Return the numbers of all elements whose heads ``pattern`` matches, a row of ``count`` for each.

    Raises:
        ValueError: they are no finite numbers, or not ``count``.
    """
    # A list, since no search may be under way when the file is closed.
    found = [(match.end(), int.from_bytes(match[1] or match[2], "little")) for match in list(pattern.finditer(data))]
    texts = [data[start : start + min(length, _LONGEST_NUMBERS)].decode("ascii") for start, length in found]
    rows = [[float(number) for number in text.strip(" \0").split("\\")] for text in texts]
    numbers = np.array(rows, dtype=float).reshape(len(rows), count)
    if not np.isfinite(numbers).all():
        raise ValueError("not finite")
    return numbers


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
    voxels, sizes, spacings = 0, set(), np.empty((len(files), 2))
    for number, file in enumerate(files):
        reader = sitk.ImageFileReader()
        reader.SetFileName(file)
        try:
            reader.ReadImageInformation()
            origins[number] = [float(v) for v in reader.GetMetaData("0020|0032").split("\\")]
            directions[number] = [float(v) for v in reader.GetMetaData("0020|0037").split("\\")]
            spacings[number] = [float(v) for v in reader.GetMetaData("0028|0030").split("\\")]
            sizes.add(reader.GetSize())
            voxels += prod(reader.GetSize())
        except (RuntimeError, ValueError) as error:
            raise BadInputError(
                "A DICOM file of the series does not say where its slice lies and how large its voxels are.",
                "Export the series again, or convert it to NIfTI.",
            ) from error
    check_size("The DICOM series", [voxels])
    if len(sizes) > 1:
        raise BadInputError("The slices of the DICOM series differ in size.", "Choose the SWI series.")
    if np.ptp(spacings, axis=0).max() > 1e-3:
        raise BadInputError("The slices of the DICOM series differ in voxel size.", "Choose the SWI series.")
    if prod(next(iter(sizes))[2:]) > 1:
        raise BadInputError("The DICOM series consists of several multi-frame files.", _CONVERT)
    order, _ = _stacked(origins, directions)
    return [files[number] for number in order]


def _stacked(origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of planes along their normal, and the normal (LPS).

    ``origins`` has a row (LPS mm) for each plane, ``directions`` the cosines of its rows and columns; a single row of
    them holds for all planes.

    Raises:
        BadInputError: the planes are not one stack: not parallel, missing, doubled or shifted along themselves.
    """
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
        raise _uneven()
    lateral = origins - origins[order[0]] - np.outer(heights - heights[order[0]], normal)
    if np.abs(lateral).max() > _LATERAL_MM:
        raise BadInputError(
            "The slices of the DICOM series are not stacked at right angles (a tilted gantry).",
            "Convert the series to NIfTI with a tool that resamples it.",
        )
    return order, normal


def _uneven() -> BadInputError:
    return BadInputError("The DICOM series lacks slices: they are not evenly spaced.", "Export the series again.")


def _label(files: Sequence[str]) -> str:
    """Return what the series is called; descriptions into which somebody has written the patient are left out."""
    label = _text(files[0], "0008|103e")
    if _names(label.lower(), _patient(files[0])):
        label = ""
    return f"{label or 'unnamed'}: {len(files)} images"


def _names(label: str, patient: dict[str, str]) -> bool:
    """Tell whether ``label`` (lower case) has a word of the patient's name or number, or the birth date, in it."""
    words = {word for text in patient.values() for word in _SEPARATORS.split(text.lower()) if word}
    if found := re.fullmatch(r"(\d\d)(\d\d)\D?(\d\d)\D?(\d\d)", patient.get("birth date", "")):
        century, year, month, day = found.groups()
        dates = [(year, month, day), (day, month, year), (month, day, year)]
        dates += [(day, month, century, year), (month, day, century, year)]
        words |= {"".join(date) for date in dates}
    # Longer ones also within other words and split by signs ("1964-08-12"); "Li" would be found in many a word.
    compact = _SEPARATORS.sub("", label)
    return not words.isdisjoint(_SEPARATORS.split(label)) or any(len(word) > 2 and word in compact for word in words)


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
