"""``cmbdetector evaluate``: predictions against the annotations of a dataset."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from CMBDetectorLib.datasets.bids import read_dataset
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.files import output_folder
from CMBDetectorLib.models.bundle import add_metrics
from CMBDetectorLib.models.versions import load_bundle
from CMBDetectorLib.worker.listeners import Listener

if TYPE_CHECKING:
    from CMBDetectorLib.evaluation.evaluate import Evaluation

_CARD_RATES = (1, 4.1, 14.5)


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser = commands.add_parser("evaluate", parents=[common], help="FROC of predictions against annotations")
    parser.add_argument("dataset", type=Path, help="BIDS folder with annotations")
    parser.add_argument("--predictions", type=Path, required=True, metavar="DIR", help="what detect wrote for it")
    parser.add_argument("--output", type=Path, metavar="DIR", help="new folder for froc.json, plot and report")
    parser.add_argument("--card", metavar="MODEL", help="also write the figures into the card of this model")
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
    if options.card is not None:
        bundle = load_bundle(options.card)
        if any(model.get("checksum") != bundle.checksum for model in evaluation.models):
            raise BadInputError(
                f"These predictions were not made by the model {bundle.name}.", "Detect with that model first."
            )
        name = options.dataset.resolve().name
        add_metrics(bundle, {name: _figures(evaluation)}, {name: _scores(evaluation)})
        text += f"\nWritten into the card of {bundle.name}."
    return {"output": str(options.output) if options.output else None, "final": evaluation.final.to_json()}, text


def _figures(evaluation: Evaluation) -> str:
    """Return the operating points in one line for a model card."""
    final = evaluation.final
    points = "; ".join(
        f"{point.fp_allowed:g} FP/scan {point.sensitivity:.1%} ({point.mean_sensitivity:.1%})"
        for point in final.operating_points
        if point.fp_allowed in _CARD_RATES
    )
    return f"sensitivity pooled (mean of scans) at {points}; {final.microbleeds} microbleeds in {final.scans} scans"


def _scores(evaluation: Evaluation) -> dict[str, float]:
    """Return the score from which on candidates stay within the false positives a scan, where there is one."""
    return {
        f"{point.fp_allowed:g}": round(point.threshold, 4)
        for point in evaluation.final.operating_points
        if point.fp_allowed in _CARD_RATES and point.threshold is not None
    }
