"""``cmbdetector evaluate``: predictions against the annotations of a dataset, or of several together."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from CMBDetectorLib.candidate import threshold_at
from CMBDetectorLib.datasets.bids import read_dataset
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.files import output_folder
from CMBDetectorLib.models.bundle import add_metrics, set_shown_threshold
from CMBDetectorLib.models.versions import load_bundle
from CMBDetectorLib.worker.listeners import Listener

if TYPE_CHECKING:
    from CMBDetectorLib.evaluation.evaluate import Evaluation

_CARD_RATES = (1, 4.1, 14.5)
_SHOWN_RATES = (0.5, 1.0, 4.1, 14.5)


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser = commands.add_parser("evaluate", parents=[common], help="FROC of predictions against annotations")
    parser.add_argument("dataset", type=Path, nargs="*", help="BIDS folders with annotations")
    parser.add_argument(
        "--predictions", type=Path, nargs="+", required=True, metavar="DIR", help="what detect wrote for each dataset"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="new folder for froc.json, plot and report")
    parser.add_argument("--card", metavar="MODEL", help="also write the figures into the card of this model")
    parser.add_argument(
        "--show-at",
        type=float,
        choices=_SHOWN_RATES,
        metavar="FP",
        help=f"with --card: let the model show so many false positives a scan {_SHOWN_RATES}",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """Print the table and, with ``--output``, write the report."""
    from CMBDetectorLib.evaluation.evaluate import Predicted, evaluate_datasets
    from CMBDetectorLib.report.evaluation_files import FILES, write_evaluation

    pairs = _pairs(options.dataset, options.predictions)
    names = [folder.resolve().name for folder, _ in pairs]
    if len(set(names)) < len(names):
        raise BadInputError("Two of the datasets have the same folder name.", "Rename one of the folders.")
    predicted = [
        Predicted(name if len(pairs) > 1 else "", read_dataset(folder), predictions)
        for name, (folder, predictions) in zip(names, pairs, strict=True)
    ]
    evaluation = evaluate_datasets(predicted, listener)
    text = evaluation.text()
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
        name = " + ".join(names)
        add_metrics(bundle, {name: _figures(evaluation)}, {name: _scores(evaluation)})
        text += f"\nWritten into the card of {bundle.name}."
        if options.show_at is not None:
            shown = _shown_score(evaluation, options.show_at)
            set_shown_threshold(load_bundle(options.card), shown)
            text += f"\nIt now shows candidates with a score of {shown:g} or more."
    elif options.show_at is not None:
        raise BadInputError("--show-at changes a model's card.", "Name the model with --card.")
    data = {
        "output": str(options.output) if options.output else None,
        "final": evaluation.final.to_json(),
        "groups": [group.to_json() for group in evaluation.groups],
        "datasets": [dataset.to_json() for dataset in evaluation.datasets],
    }
    return data, text


def _pairs(datasets: Sequence[Path], predictions: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Return each dataset with its predictions, in the order given."""
    # "--predictions DIR DATASET": the option has taken what follows it.
    if not datasets and len(predictions) % 2 == 0:
        half = len(predictions) // 2
        predictions, datasets = predictions[:half], predictions[half:]
    if len(datasets) != len(predictions):
        raise BadInputError(
            f"{len(datasets)} dataset{'s' * (len(datasets) != 1)} and {len(predictions)} folder"
            f"{'s' * (len(predictions) != 1)} of predictions do not pair up.",
            "Name as many of one as of the other: evaluate A B --predictions PA PB.",
        )
    return list(zip(datasets, predictions, strict=True))


def _figures(evaluation: Evaluation) -> str:
    """Return the operating points in one line for a model card."""
    final = evaluation.final
    points = "; ".join(
        f"{point.fp_allowed:g} FP/scan {point.sensitivity:.1%} ({point.mean_sensitivity:.1%})"
        for point in final.operating_points
        if point.fp_allowed in _CARD_RATES
    )
    return f"sensitivity pooled (mean of scans) at {points}; {final.microbleeds} microbleeds in {final.scans} scans"


def _shown_score(evaluation: Evaluation, rate: float) -> float:
    """Return the lowest score that leaves every dataset within ``rate`` false positives a scan."""
    if evaluation.datasets:
        points = [p for figures in evaluation.datasets for p in figures.points if p.fp_allowed == rate]
        scores = [point.own_threshold for point in points]
    else:
        scores = [p.threshold for p in evaluation.final.operating_points if p.fp_allowed == rate]
    return threshold_at(max((score for score in scores if score is not None), default=0.99))


def _scores(evaluation: Evaluation) -> dict[str, float]:
    """Return the score from which on candidates stay within the false positives a scan, where there is one."""
    return {
        f"{point.fp_allowed:g}": threshold_at(point.threshold)
        for point in evaluation.final.operating_points
        if point.fp_allowed in _CARD_RATES and point.threshold is not None
    }
