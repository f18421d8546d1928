"""``cmbdetector convert``: public datasets into the BIDS layout that all other commands read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from CMBDetectorLib.datasets.dou2016 import convert_dou2016
from CMBDetectorLib.datasets.valdo import convert_valdo
from CMBDetectorLib.worker.listeners import Listener


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser = commands.add_parser("convert", parents=[common], help="bring a public dataset into BIDS")
    parser.add_argument("format", choices=("dou2016", "valdo"), help="layout of the source")
    parser.add_argument("source", type=Path, metavar="SRC", help="folder of the release")
    parser.add_argument("destination", type=Path, metavar="DST", help="new folder for the BIDS dataset")
    parser.add_argument(
        "--scans", choices=("paper", "all"), default="paper", help="dou2016: the paper's 15 scans or all 20"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """Convert, all or nothing."""
    if options.format == "dou2016":
        convert_dou2016(options.source, options.destination, listener, options.scans)
    else:
        convert_valdo(options.source, options.destination, listener)
    return {"output": str(options.destination)}, f"BIDS dataset in {options.destination}"
