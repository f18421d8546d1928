"""``cmbdetector simulate``: a BIDS dataset of simulated scans with known microbleeds and mimics."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from CMBDetectorLib.datasets.bids import read_dataset
from CMBDetectorLib.worker.listeners import Listener
from CMBDetectorLib.worker.options import whole_number


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command."""
    from CMBDetectorLib.simulation.protocols import PROTOCOLS

    parser = commands.add_parser("simulate", parents=[common], help="make simulated scans with known microbleeds")
    parser.add_argument("--scans", type=whole_number, required=True, metavar="N", help="how many")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="new folder for the BIDS dataset")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="same seed, same scans (%(default)s)")
    parser.add_argument("--protocol", default="swi-3t", help=f"one of {', '.join(PROTOCOLS)} (%(default)s)")
    parser.add_argument("--microbleeds", type=whole_number, metavar="N", help="in all scans together (random)")
    parser.add_argument("--vary", action="store_true", help="give every scan its own protocol around the chosen one")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """Write the dataset; an interrupted one is completed."""
    from CMBDetectorLib.simulation.dataset import simulate_dataset

    simulate_dataset(
        options.output,
        options.scans,
        options.seed,
        options.protocol,
        options.microbleeds,
        progress=listener,
        vary=options.vary,
    )
    text = f"{options.scans} simulated scan{'s' * (options.scans != 1)} in {options.output}"
    scans = [os.path.abspath(case.scan) for case in read_dataset(options.output)]
    return {"output": str(options.output), "scans": scans}, text
