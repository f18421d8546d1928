"""How like real scans simulated ones are: their intensities, microbleeds, mimics and veins beside real figures.

Each line of the tables gives what was measured on real scans (benchmarks/realism/figures.json), the same on simulated
ones, and a mark where the simulated figure lies outside the real range or, without a range, differs by over 25 %.

    python benchmarks/realism.py DATASET [DATASET ...] [--scans 3] [--output FILE.md] [--picture FILE.png]

DATASET is a folder made by `cmbdetector simulate`. Tissues are told apart by the template that the simulator bends
(see realism/heads.py), which is drawn again from the recorded seed, or fitted to the brain mask if that fails; spots
and tubes are found on the image itself (realism/spots.py, realism/tubes.py). The picture has a row a data set.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

import realism.picture
import realism.report

CROP = Path(__file__).resolve().parents[2] / "shared" / "real" / "gre_mag.nii"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path, metavar="DATASET")
    parser.add_argument("--scans", type=int, default=3, help="scans of each data set that are measured")
    parser.add_argument("--output", type=Path, help="write the tables to this file, too")
    parser.add_argument("--picture", type=Path, help="write five slices of one scan a data set to this PNG file")
    parser.add_argument("--crop", type=Path, default=CROP, help="a real crop with three echoes; left out if absent")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "(All-NaN|Mean of empty)", RuntimeWarning)
    started = time.perf_counter()

    def say(text: str) -> None:
        print(f"{time.perf_counter() - started:5.0f} s  {text}", file=sys.stderr, flush=True)

    if options.picture:
        realism.picture.write_picture(options.picture, options.datasets)
    measured = [realism.report.measure(dataset, max(1, options.scans), say) for dataset in options.datasets]
    text = realism.report.tables(measured, realism.report.real_crop(options.crop))
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
