"""The tables: a data set's figures beside the real ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from CMBDetectorLib.datasets.bids import read_dataset
from CMBDetectorLib.preprocessing.normalisation import PEAK, histogram_peak
from realism.figures import Line, read_lines, sources
from realism.heads import Head, read_head
from realism.intensities import intensities
from realism.lesions import microbleeds, mimics, veins
from realism.spots import darkest_near, look_at

_CROP_ECHO = 2


@dataclass
class Measured:
    """One data set: ``values[key]`` holds an array a scan, ``recorded[class]`` contrast and width (n, 2) of mimics."""

    name: str
    protocol: str
    family: str
    spacing: tuple[float, float, float]
    scans: int
    anatomy: str
    values: dict[str, list[np.ndarray]] = field(default_factory=dict)
    recorded: dict[str, list[np.ndarray]] = field(default_factory=dict)


def measure(dataset: Path, scans: int, say: Callable[[str], None]) -> Measured:
    """Measure the first ``scans`` scans of a simulated data set; ``say`` is told of each.

    Raises:
        BadInputError: the folder holds no scans, or a scan lacks its brain mask.
    """
    result = None
    for case in read_dataset(dataset)[:scans]:
        head = read_head(dataset, case)
        say(f"{dataset.name} {case.id} ({head.protocol}, anatomy: {head.anatomy})")
        if result is None:
            result = Measured(dataset.name, head.protocol, head.family, head.image.spacing, 0, head.anatomy)
        result.scans += 1
        for found in (intensities(head), microbleeds(head), mimics(head)):
            for key, values in found.items():
                result.values.setdefault(key, []).append(np.asarray(values))
        for kind, values in _recorded(head).items():
            result.recorded.setdefault(kind, []).append(values)
    assert result is not None  # read_dataset refuses a folder without scans
    return result


def _recorded(head: Head) -> dict[str, np.ndarray]:
    """Return contrast and width (n, 2) of the simulator's own list of mimics, by class."""
    found = {}
    for kind in Counter(kind for _, kind in head.mimics):
        ijk = np.array([at for at, other in head.mimics if other == kind])
        at = darkest_near(head.image.array, ijk, head.image.spacing)
        looks = look_at(head.image.array, at, head.image.spacing)
        found[kind] = np.stack([looks.contrast, looks.width_mm], -1)
    return found


def real_crop(path: Path) -> dict[str, np.ndarray] | None:
    """Return the vein lines of the real crop (4D, the last axis echoes) at its third echo; None if it is not there."""
    if not path.is_file():
        return None
    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image)[_CROP_ECHO].transpose(2, 1, 0).astype(np.float32)
    return veins(array * np.float32(PEAK / histogram_peak(array)), image.GetSpacing()[:3])


def tables(measured: Sequence[Measured], crop: dict[str, np.ndarray] | None) -> str:
    """Return everything as Markdown."""
    text = ["# Simulated beside real scans", ""]
    text += [f"* {family}: {source}" for family, source in sources().items()]
    text += [
        "* Several figures in a cell: percentiles or classes as named in the line. Brackets: range over scans; round",
        "  brackets: figures of another family, for orientation. Intensities with the histogram peak at 0.5.",
        "",
    ]
    for one in measured:
        text += _one(one, crop)
    return "\n".join(text) + "\n"


def _one(one: Measured, crop: dict[str, np.ndarray] | None) -> Iterator[str]:
    size = " x ".join(f"{s:.3g}" for s in one.spacing)
    yield f"## {one.protocol} ({one.family}, {size} mm; {one.name}, scans: {one.scans}, anatomy: {one.anatomy})"
    section = ""
    crop = crop if one.family == "swi" else None
    for line in read_lines(one.family, one.spacing[0]):
        if line.key not in one.values:
            continue
        if line.section != section:
            section = line.section
            yield ""
            yield f"| {section} | real | simulated | mark |"
            yield "|---|---|---|---|"
        yield _row(line, one.values[line.key], crop)
    if one.recorded:
        yield from _recorded_table(one)
    yield ""


def _row(line: Line, scans: Sequence[np.ndarray], crop: dict[str, np.ndarray] | None) -> str:
    named = " / ".join(label for label in line.labels if label)
    what = f"{line.what} ({named})" if named else line.what
    simulated = line.simulated(scans)
    if simulated is None or not np.isfinite(simulated).any():
        return f"| {what} | {_real(line)} | - | |"
    shown = _numbers(simulated)
    if line.quantiles is None and line.pool is None and len(line.labels) == 1 and len(scans) > 1:
        shown += f" [{_number(float(np.nanmin(scans)))}-{_number(float(np.nanmax(scans)))}]"
    real = _real(line)
    if crop is not None and line.key in crop:
        again = line.simulated([crop[line.key]])
        real += f"; crop measured here: {_numbers(again)}" if again is not None else "; crop measured here: none"
    return f"| {what} | {real} | {shown} | {line.mark(simulated)} |"


def _real(line: Line) -> str:
    parts = [_numbers(line.real)] if line.real else []
    parts += [f"[{_number(low)}-{_number(high)}]" for low, high in line.ranges or ()]
    text = " ".join(parts) or "-"
    return f"({text})" if line.borrowed and parts else text


def _recorded_table(one: Measured) -> Iterator[str]:
    yield ""
    yield "| Mimics as the simulator recorded them | a scan | contrast 5 / 50 / 95 % | width mm 5 / 50 / 95 % |"
    yield "|---|---|---|---|"
    for kind, scans in sorted(one.recorded.items()):
        contrast, width = np.nanpercentile(np.concatenate(scans), (5, 50, 95), axis=0).T
        yield f"| {kind} | {sum(map(len, scans)) / one.scans:.3g} | {_numbers(contrast)} | {_numbers(width)} |"


def _numbers(values: Sequence[float]) -> str:
    return " / ".join(_number(float(v)) for v in values)


def _number(value: float) -> str:
    if not np.isfinite(value):
        return "-"
    return f"{value:.3f}" if abs(value) < 0.1 and value else f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"
