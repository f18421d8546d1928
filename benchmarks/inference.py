"""Speed of the two inference modes on one full-size scan (512x512x150 voxels of 0.45x0.45x1 mm), in one run.

Prints what N4 with the mask takes, what `exact` takes (measured on a part of the brain and scaled by the number of
windows), what `dense` takes, their ratio, the share of the machine's floating-point rate that `dense` reaches, the peak
memory, and whether `dense` finds each candidate of `exact` that scores above 0.5 within 2 mm.

    python benchmarks/inference.py [--model NAME] [--slices 12]
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np
import psutil

from CMBDetectorLib.detection.detector import Detector
from CMBDetectorLib.detection.likelihood import exact_windows, tile_margin
from CMBDetectorLib.detection.tiles import plan_tiles
from CMBDetectorLib.models.bundle import DEFAULT_MODEL
from CMBDetectorLib.models.versions import load_bundle
from CMBDetectorLib.networks import backend, unet
from CMBDetectorLib.preprocessing.pipeline import preprocess
from CMBDetectorLib.simulation.head import simulate_head
from CMBDetectorLib.simulation.protocols import PROTOCOLS
from CMBDetectorLib.volume import Volume

NEAR_MM = 2.0
SURE = 0.5


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--slices", type=int, default=12, help="slices of the part on which `exact` is measured")
    parser.add_argument("--seed", type=int, default=424242)
    options = parser.parse_args()
    bundle = load_bundle(options.model)
    simulated = simulate_head(options.seed, PROTOCOLS["swi-3t"], 60)
    scan = simulated.scan
    print(f"scan {scan.shape} voxels of {scan.spacing} mm, {os.cpu_count()} cores, model {bundle.name}")

    started = time.perf_counter()
    made = preprocess(scan, "simple", bundle.spacing_mm)
    print(f"simple mask, N4, normalisation: {time.perf_counter() - started:.1f} s")
    # The true mask from here on, so that the work is that of a well-masked brain.
    made = preprocess(scan, simulated.brain_mask, bundle.spacing_mm)
    brain = int(made.mask.array.sum())
    print(f"brain: {brain / 1e6:.2f} M voxels")

    detector = Detector.from_bundle(bundle)
    detector.detect(*_part(made.image, made.mask, 16), 0.2)  # loads and compiles
    peak = psutil.Process().memory_info().rss
    started = time.perf_counter()
    dense = detector.detect(made.image, made.mask, bundle.thresholds["mimics"])
    dense_s = time.perf_counter() - started
    peak = max(peak, _peak_bytes())

    image, mask = _part(made.image, made.mask, options.slices)
    started = time.perf_counter()
    exact = detector.detect(image, mask, bundle.thresholds["stage1"], "exact")
    part_s = time.perf_counter() - started
    windows, part_windows = exact_windows(made.mask.array), exact_windows(mask.array)
    exact_s = part_s * windows / part_windows

    print(f"exact: {part_s:.1f} s for {part_windows} of {windows} windows, scaled: {exact_s:.0f} s")
    print(f"dense: {dense_s:.1f} s (both U-Nets, both CNNs, {len(dense.candidates)} candidates)")
    print(f"dense is {exact_s / dense_s:.0f} times faster")
    print(f"peak memory of this process: {peak / 1e9:.2f} GB (the simulation of the scan included)")
    _report_rate(bundle, made.mask.array, dense_s)
    _report_agreement(exact.candidates, dense.candidates)


def _part(image: Volume, mask: Volume, slices: int) -> tuple[Volume, Volume]:
    """Return one hemisphere of the middle ``slices`` slices; the image keeps its margins."""
    middle, half = image.shape[2] // 2, image.shape[0] // 2
    low, high = middle - slices // 2, middle + slices // 2
    inside = np.zeros(mask.shape, bool)
    inside[:half, :, low:high] = mask.array[:half, :, low:high]
    box = (0, 0, low - unet.WINDOW[2]), (*image.shape[:2], high + unet.WINDOW[2])
    return image.cropped(*box), mask.with_array(inside).cropped(*box)


def _report_rate(bundle, mask: np.ndarray, seconds: float) -> None:
    """Print the floating-point rate of `dense` against a large matrix product of the same back end."""
    architecture = bundle.networks("unets")[0][1]
    voxels = sum(tile.voxels for tile in plan_tiles(mask, unet.stride(architecture), tile_margin(architecture)))
    operations = 2 * voxels * unet.operations_per_voxel(architecture)
    peak = backend.peak_rate()
    print(
        f"dense computes {voxels / 1e6:.1f} M voxels for each U-Net: {operations / seconds / 1e9:.0f} GFLOP/s, "
        f"{operations / seconds / peak:.0%} of a 4096x4096 matrix product ({peak / 1e9:.0f} GFLOP/s)"
    )


def _report_agreement(exact: list, dense: list) -> None:
    sure = [c for c in exact if c.score > SURE]
    places = np.array([c.ras_mm for c in dense]).reshape(-1, 3)
    lost = [c for c in sure if np.linalg.norm(places - c.ras_mm, axis=1).min(initial=np.inf) > NEAR_MM]
    print(f"exact scores {len(sure)} candidates above {SURE}; dense lacks {len(lost)} of them within {NEAR_MM:g} mm")
    for candidate in lost:
        print(f"  lacking: {candidate}")


def _peak_bytes() -> int:
    """Return the peak resident size of this process."""
    if os.name == "nt":
        return psutil.Process().memory_info().peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024)


if __name__ == "__main__":
    main()
