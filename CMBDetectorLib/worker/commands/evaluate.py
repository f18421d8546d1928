"""``cmbdetector evaluate``: predictions against the annotations of a dataset."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from CMBDetectorLib.datasets.bids import read_dataset
from CMBDetectorLib.files import output_folder
from CMBDetectorLib.worker.listeners import Listener


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser = commands.add_parser("evaluate", parents=[common], help="FROC of predictions against annotations")
    parser.add_argument("dataset", type=Path, help="BIDS folder with annotations")
    parser.add_argument("--predictions", type=Path, required=True, metavar="DIR", help="what detect wrote for it")
    parser.add_argument("--output", type=Path, metavar="DIR", help="new folder for froc.json, plot and report")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """Print the table and, with ``--output``, write the report."""
    from CMBDetectorLib.evaluation.evaluate import evaluate
    from CMBDetectorLib.report.evaluation_files import FILES, write_evaluation

    evaluation = evaluate(read_dataset(options.dataset), options.predictions, listener)
    text = evaluation.final.table()
    if options.output is not None:
        with output_folder(options.output, FILES) as folder:
            write_evaluation(folder, evaluation)
        text += f"\nReport: {options.output / 'report.html'}"
    return {"output": str(options.output) if options.output else None, "final": evaluation.final.to_json()}, text
