"""Copies a dataset, annotations included, with scans that look as from scanners which the model knows nothing like.

    python benchmarks/altered_scans.py DATASET FOLDER [--only dark|flat|ghosted]

Scan by scan, in turn, they are dark, flat and ghosted (below), or all alike with --only. None of it is what training
varies (`training/augmentation.py`) in the same form: how far a model gets on such scans tells how much it relies on
the looks of those it knows. The scan is brought to 1 at its 99th percentile first, and to 1000 afterwards.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage

from CMBDetectorLib.datasets.bids import find_cases
from CMBDetectorLib.files import output_folder
from CMBDetectorLib.volume import read_volume, write_volume

_IN_SLICE = np.array([1, 1, 0])
_SIGMA_MM = 0.5  # of all blurring


def dark(scan: np.ndarray, spacing_mm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return ``scan`` (i, j, k) blurred in the slice, with squared intensities and coloured noise of 3 %."""
    scan = ndimage.gaussian_filter(scan, _IN_SLICE * _SIGMA_MM / spacing_mm)
    noise = ndimage.gaussian_filter(rng.standard_normal(scan.shape), _IN_SLICE * 0.8)
    return np.where(scan < 1, scan**2, scan) + 0.03 * noise / noise.std()


def flat(scan: np.ndarray, spacing_mm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return ``scan`` (i, j, k) with little contrast, the inner 60 % of its frequencies in the slice, a shading of 15 %
    to either side and white noise of 2 %."""
    frequencies = np.fft.fftshift(np.fft.fft2(scan**0.6, axes=(0, 1)), axes=(0, 1))
    kept = np.zeros(scan.shape[:2])
    kept[tuple(slice(n // 2 - int(0.3 * n), n // 2 + int(0.3 * n)) for n in kept.shape)] = 1
    image = np.abs(np.fft.ifft2(np.fft.ifftshift(frequencies * kept[..., None], axes=(0, 1)), axes=(0, 1)))
    i, j = (0.15 * np.linspace(-1, 1, n) for n in kept.shape)
    return image * (1 + i[:, None] + j)[..., None] + 0.02 * rng.standard_normal(scan.shape)


def ghosted(scan: np.ndarray, spacing_mm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return ``scan`` (i, j, k) with more contrast, enhanced edges, ghosts of 6 and 3 % along j and white noise."""
    sharp = scan**1.4
    sharp = sharp + 0.8 * (sharp - ndimage.gaussian_filter(sharp, _IN_SLICE * _SIGMA_MM / spacing_mm))
    rows = scan.shape[1]
    ghosts = 0.06 * np.roll(sharp, rows // 5, 1) - 0.03 * np.roll(sharp, -rows // 7, 1)
    return sharp + ghosts + 0.015 * rng.standard_normal(scan.shape)


LOOKS: dict[str, Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]] = {
    "dark": dark,
    "flat": flat,
    "ghosted": ghosted,
}


def alter(dataset: Path, folder: Path, only: str | None = None) -> Path:
    """Return ``folder``, made if it is missing: ``dataset`` with each of :data:`LOOKS` in turn, or with ``only``."""
    if folder.exists():
        return folder
    rng = np.random.default_rng(0)
    looks = itertools.cycle([LOOKS[only]] if only else LOOKS.values())
    with output_folder(folder, ()) as temporary:
        shutil.copytree(dataset, temporary, dirs_exist_ok=True)
        for case, look in zip(find_cases(temporary), looks, strict=False):
            scan = read_volume(case.scan)
            seen = np.clip(scan.array / np.percentile(scan.array, 99), 0, 2).astype(float)
            altered = np.rint(1000 * np.clip(look(seen, np.array(scan.spacing), rng), 0, None))
            write_volume(case.scan, scan.with_array(altered.astype(np.float32)))
    return folder


def main() -> None:
    """Write the altered copy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="dataset of simulated scans")
    parser.add_argument("folder", type=Path, help="new folder for the copy")
    parser.add_argument("--only", choices=LOOKS, help="all scans alike, instead of in turn")
    options = parser.parse_args()
    alter(options.dataset, options.folder, options.only)


if __name__ == "__main__":
    main()
