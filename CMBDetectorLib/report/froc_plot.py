"""FROC curve as a picture, with the published operating points of the method as a reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from CMBDetectorLib.evaluation.froc import OPERATING_FP, Froc
from CMBDetectorLib.files import atomic_path

# (false positives per scan, sensitivity) of Rau 2026: leave-two-out cross-validation on 15 scans.
_PUBLISHED = ((4.1, 0.95), (14.5, 0.975))
LEFT = 0.1


def write_froc_plot(path: Path | str, final: Froc, stage1: Froc | None = None) -> None:
    """Draw sensitivity against false positives per scan as PNG.

    Shows the pooled sensitivity with its 95 % band, the mean over scans, and, where given, stage 1 alone. The
    horizontal axis is logarithmic and begins at 0.1; what happens with fewer false positives stands at its left edge.

    Raises:
        OutputError: it cannot be written.
    """
    # The class, not pyplot: no global state and no window system.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    right = max(50.0, *(float(curve.fp_per_scan.max(initial=0)) for curve in (final, stage1) if curve is not None))
    visible = (final.band_fp >= LEFT) & np.isfinite(final.band_low)
    axes.fill_between(
        final.band_fp[visible],
        final.band_low[visible],
        final.band_high[visible],
        step="post",
        color="#0969da",
        alpha=0.15,
        linewidth=0,
        label="95 % interval (scans resampled)",
    )
    axes.step(*corners(final, "sensitivity", right), where="post", color="#0969da", label="pooled over microbleeds")
    axes.step(
        *corners(final, "mean_sensitivity", right), where="post", color="#bc4c00", ls="--", label="mean over scans"
    )
    if stage1 is not None:
        axes.step(
            *corners(stage1, "sensitivity", right), where="post", color="#6e7781", ls=":", label="stage 1 alone, pooled"
        )
    axes.plot(*zip(*_PUBLISHED, strict=True), "k*", ms=10, ls="none", label="Rau 2026 on its own data")
    lay_out(axes, right)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def lay_out(axes: Any, right: float) -> None:
    """Give matplotlib's ``axes`` the scales, ticks and legend of a FROC up to ``right`` false positives a scan."""
    axes.set_xscale("log")
    axes.set_xlim(LEFT, right)
    axes.set_ylim(0, 1.02)
    ticks = [LEFT, *OPERATING_FP]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("false positives per scan")
    axes.set_ylabel("sensitivity")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize="small", framealpha=0.9)


def corners(curve: Froc, name: str, right: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of a curve from 0 to ``right`` false positives per scan, the left end put at the axis."""
    fp = np.concatenate([[0.0], curve.fp_per_scan, [right]])
    values = getattr(curve, name)
    values = np.concatenate([[0.0], values, values[-1:] if len(values) else [0.0]])
    return np.maximum(fp, LEFT), values
