"""The FROC curves of two models on the same scans as one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from CMBDetectorLib.evaluation.comparison import Comparison
from CMBDetectorLib.files import atomic_path
from CMBDetectorLib.report.froc_plot import LEFT, corners, lay_out

_COLOURS = ("#6e7781", "#0969da")


def write_comparison_plot(path: Path | str, comparison: Comparison, names: tuple[str, str]) -> None:
    """Draw the pooled sensitivity of the old and the new model, called ``names``, with their 95 % bands as PNG.

    Raises:
        OutputError: it cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    curves = comparison.old, comparison.new
    right = max(20.0, *(float(curve.fp_per_scan.max(initial=0)) for curve in curves))
    for curve, name, colour in zip(curves, names, _COLOURS, strict=True):
        seen = (curve.band_fp >= LEFT) & np.isfinite(curve.band_low)
        band = curve.band_fp[seen], curve.band_low[seen], curve.band_high[seen]
        axes.fill_between(*band, step="post", color=colour, alpha=0.15, linewidth=0)
        axes.step(*corners(curve, "sensitivity", right), where="post", color=colour, label=name)
    lay_out(axes, right)
    axes.set_title(f"{comparison.old.microbleeds} microbleeds in {comparison.old.scans} scans left out of the training")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
