"""A picture for the README: five axial slices of one scan of each data set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from CMBDetectorLib.datasets.bids import read_dataset
from CMBDetectorLib.volume import read_mask, read_volume

# Heights as parts of the brain's extent from its lowest to its highest slice: cerebellum to centrum semiovale.
_HEIGHTS = (0.2, 0.36, 0.48, 0.6, 0.76)
_MARGIN_MM = 18.0
_WHITE = 2.2  # white matter is shown at 1 / 2.2 of full brightness, so that bright fluid is still below it


def write_picture(path: Path, datasets: Sequence[Path]) -> None:
    """Write a PNG: a row for each data set, its first scan from below to above, named by the protocol."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [_slices(dataset) for dataset in datasets]
    figure = Figure(figsize=(10, 2.45 * len(rows)), dpi=130, facecolor="black")
    FigureCanvasAgg(figure)
    for number, (name, slices, aspect) in enumerate(rows):
        for column, picture in enumerate(slices):
            axes = figure.add_subplot(len(rows), len(_HEIGHTS), number * len(_HEIGHTS) + column + 1)
            axes.imshow(picture.T, cmap="gray", vmin=0, vmax=1, origin="lower", aspect=aspect, interpolation="lanczos")
            axes.set_axis_off()
            if column == 0:
                axes.text(0.02, 0.97, name, color="white", fontsize=11, va="top", transform=axes.transAxes)
    figure.subplots_adjust(0, 0, 1, 1, 0.01, 0.01)
    figure.savefig(path)


def _slices(dataset: Path) -> tuple[str, list[np.ndarray], float]:
    """Return the protocol's name, the slices (left of the picture is the head's right) and the pixels' aspect."""
    case = read_dataset(dataset)[0]
    scan = read_volume(case.scan)
    sidecar = json.loads(case.scan.with_name(case.scan.name.split(".")[0] + ".json").read_text(encoding="utf-8"))
    mask = read_mask(case.brain_mask, scan) if case.brain_mask else scan.with_array(scan.array > 0)
    scan, mask = scan.canonical(), mask.canonical()
    level = _WHITE * float(np.median(scan.array[mask.array]))
    ends = []
    for axis in range(3):
        found = np.flatnonzero(mask.array.any(axis=tuple(a for a in range(3) if a != axis)))
        ends.append((found[0], found[-1]))
    window = []
    for axis in range(2):
        margin = int(_MARGIN_MM / scan.spacing[axis])
        window.append(slice(max(0, ends[axis][0] - margin), ends[axis][1] + margin + 1))
    heights = [round(ends[2][0] + part * (ends[2][1] - ends[2][0])) for part in _HEIGHTS]
    shown = [np.clip(scan.array[(*window, k)] / level, 0, 1)[::-1] for k in heights]
    return sidecar["ProtocolName"], shown, scan.spacing[1] / scan.spacing[0]
