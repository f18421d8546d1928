"""``cmbdetector train`` and ``crossvalidate``: the paper's two stages on a BIDS dataset of one's own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from CMBDetectorLib.datasets.bids import Case, is_simulated, read_dataset
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.files import check_output_folder, output_folder, write_json
from CMBDetectorLib.models.bundle import BUNDLE_FILES, Bundle
from CMBDetectorLib.models.companions import MOST_WINDOWS
from CMBDetectorLib.models.versions import load_bundle
from CMBDetectorLib.worker.listeners import Listener
from CMBDetectorLib.worker.options import add_brain_mask, choose_brain_mask, fraction, whole_number

if TYPE_CHECKING:
    from CMBDetectorLib.training.cases import PreparedCase
    from CMBDetectorLib.training.settings import TrainingSettings

CROSSVALIDATION_FILES = (
    "froc.json", "froc.png", "groups.tsv", "scans.tsv", "missed.tsv", "report.html", "settings.json", "predictions",
    "mimics",
)  # fmt: skip


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare both commands."""
    train = commands.add_parser("train", parents=[common], help="train a model bundle on a dataset")
    _add_options(train, "BUNDLE")
    train.add_argument("--name", help="name of the bundle (that of its folder)")
    train.add_argument(
        "--replay", type=whole_number, metavar="N", help="keep N windows of these simulated scans for retraining"
    )
    train.set_defaults(run=run_train)
    cross = commands.add_parser("crossvalidate", parents=[common], help="leave-N-out cross-validation on a dataset")
    _add_options(cross, "DIR")
    cross.add_argument("--leave-out", type=whole_number, default=2, metavar="N", help="scans a fold (%(default)s)")
    cross.set_defaults(run=run_crossvalidate)


def _add_options(parser: argparse.ArgumentParser, output: str) -> None:
    parser.add_argument("dataset", type=Path, nargs="+", help="BIDS folders with annotations")
    parser.add_argument("--output", type=Path, required=True, metavar=output, help="new folder for the result")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--work", type=Path, metavar="DIR", help="folder for checkpoints (OUTPUT.work)")
    parser.add_argument("--keep-work", action="store_true", help="do not remove that folder at the end")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="same seed, same result (%(default)s)")
    parser.add_argument(
        "--epochs", type=whole_number, metavar="N", help="epochs of each U-Net; twice as many of each CNN"
    )
    parser.add_argument("--cnn-epochs", type=whole_number, metavar="N", help="epochs of each CNN")
    parser.add_argument("--steps", type=whole_number, metavar="N", help="batches of an epoch")
    parser.add_argument(
        "--recipe", choices=("paper", "context"), default="context", help="the paper's networks, or more context"
    )
    parser.add_argument("--from", dest="start", metavar="MODEL", help="train the networks of this model further")
    parser.add_argument("--keep-unets", action="store_true", help="train only the CNNs of that model further")
    parser.add_argument(
        "--cnn-channels", type=whole_number, nargs="+", metavar="N", help="widen the CNNs of that model to N a level"
    )
    parser.add_argument(
        "--new-share",
        type=fraction,
        metavar="S",
        help="how far to go from the weights of that model to the trained ones (0-1; 1)",
    )
    parser.add_argument(
        "--mimic-threshold",
        type=fraction,
        metavar="L",
        help="least likelihood of a mimic, and of a candidate later (0-1; 0.05, for the paper's networks 0.15, or as "
        "that model has it)",
    )
    parser.add_argument("--cases", type=Path, metavar="DIR", help="folder where preprocessed scans are kept and reused")
    parser.add_argument("--tiny", action="store_true", help="small networks, to try things out")
    add_brain_mask(parser, default="dataset")


def run_train(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """Train on all annotated scans and write a bundle."""
    check_output_folder(options.output, BUNDLE_FILES)
    if options.replay and not all(is_simulated(folder) for folder in options.dataset):
        raise BadInputError("Windows of patients are not kept in a model.", "Leave --replay out for real scans.")
    if options.replay and not 2 <= options.replay <= MOST_WINDOWS:
        raise BadInputError(f"--replay {options.replay} is not between 2 and {MOST_WINDOWS}.", "A hundred are usual.")
    listener.plan([("preprocessing", 20.0), ("training", 80.0)])
    prepared, settings, work, start = _prepare(options, listener, {"command": "train"})
    from CMBDetectorLib.progress import Part
    from CMBDetectorLib.training.bundles import save_bundle, train_networks
    from CMBDetectorLib.training.work import close_work

    trained = train_networks(prepared, settings, work / "networks", Part(listener, "training"), start)
    lesions = sum(len(case.microbleeds_ras) for case in prepared)
    name = options.name or options.output.resolve().name
    description = f"Trained on {len(prepared)} scans with {lesions} microbleeds and {trained.mimics} mimics."
    bundle = save_bundle(trained, options.output, name, prepared, _training_data(options.dataset), description, start)
    if options.replay:
        from CMBDetectorLib.training.mimics import known_mimics
        from CMBDetectorLib.training.replay import add_replay, make_replay

        mimics = [known_mimics(case, work / "networks" / "mimics") for case in prepared]
        add_replay(bundle, make_replay(prepared, mimics, options.replay, options.seed))
    close_work(work, options.keep_work)
    data = {"output": str(options.output), "checksum": bundle.checksum, "scans": len(prepared), "microbleeds": lesions}
    return data, f"{description}\nModel {bundle.name} in {options.output}"


def run_crossvalidate(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """Cross-validate and write the FROC, the predictions and the mimics of each fold."""
    check_output_folder(options.output, CROSSVALIDATION_FILES)
    listener.plan([("preprocessing", 5.0), ("folds", 95.0)])
    extra = {"command": "crossvalidate", "leave_out": options.leave_out}
    prepared, settings, work, start = _prepare(options, listener, extra)
    from CMBDetectorLib.evaluation.evaluate import compare
    from CMBDetectorLib.report.evaluation_files import write_evaluation
    from CMBDetectorLib.training.crossvalidation import collect, crossvalidate
    from CMBDetectorLib.training.work import close_work

    detections = crossvalidate(prepared, settings, options.leave_out, work, listener, start)
    annotated = {case.id: case.annotations() for case in read_datasets(options.dataset)}
    evaluation = compare(detections, {case.id: annotated[case.id] for case in prepared})
    lesions = sum(len(case.microbleeds_ras) for case in prepared)
    notes = [
        f"Leave-{options.leave_out}-out cross-validation over {len(prepared)} scans with {lesions} microbleeds: "
        "each scan was searched by networks that never saw it.",
        _training_data(options.dataset),
    ]
    with output_folder(options.output, CROSSVALIDATION_FILES) as folder:
        collect(work, folder)
        write_json(folder / "settings.json", settings.to_json())
        write_evaluation(folder, evaluation, "Cross-validation", notes)
    close_work(work, options.keep_work)
    data = {"output": str(options.output), "scans": len(prepared), "microbleeds": lesions}
    return data, f"{evaluation.text()}\nReport: {options.output / 'report.html'}"


def _prepare(
    options: argparse.Namespace, listener: Listener, extra: dict[str, Any]
) -> tuple[list[PreparedCase], TrainingSettings, Path, Bundle | None]:
    """Read the dataset, open the work folder and preprocess the scans; also the model to start from."""
    from CMBDetectorLib.networks import backend
    from CMBDetectorLib.training.cases import prepare_cases
    from CMBDetectorLib.training.settings import further, recipe_of, settings_from
    from CMBDetectorLib.training.work import describe_cases, open_work

    backend.prefer_torch()
    start = load_bundle(options.start) if options.start else None
    for asked, lacking in (
        (options.keep_unets, "There are no U-Nets to keep."),
        (options.cnn_channels, "There are no CNNs to widen."),
        (options.new_share is not None, "There are no weights to stay near to."),
    ):
        if asked and start is None:
            raise BadInputError(lacking, "Name their model with --from.")
    recipe = recipe_of(start.card) if start is not None else options.recipe
    settings = settings_from(options.seed, options.epochs, options.steps, options.tiny, recipe, options.cnn_epochs)
    if start is not None:
        settings = replace(further(settings, start.card, options.cnn_channels), keep_unets=options.keep_unets)
        if options.new_share is not None:
            settings = replace(settings, new_share=options.new_share)
        extra = {**extra, "start": start.checksum}
    if options.mimic_threshold is not None:
        settings = replace(settings, mimic_threshold=options.mimic_threshold)
    cases = read_datasets(options.dataset)
    work = options.work or options.output.with_name(options.output.name + ".work")
    mask = choose_brain_mask(options.brain_mask, listener)
    description = {"settings": settings.to_json(), "cases": describe_cases(cases), "brain_mask": mask, **extra}
    open_work(work, description, options.resume)
    prepared = prepare_cases(cases, options.cases or work / "cases", settings.spacing_mm, mask, listener)
    return prepared, settings, work, start


def read_datasets(folders: Sequence[Path]) -> list[Case]:
    """Return the cases of all datasets; where there are several, each id begins with the name of its dataset."""
    cases = []
    for folder in folders:
        prefix = f"{folder.resolve().name}_" if len(folders) > 1 else ""
        cases += [replace(case, id=prefix + case.id) for case in read_dataset(folder)]
    if len({case.id for case in cases}) < len(cases):
        raise BadInputError("Two of the datasets have the same folder name.", "Rename one of the folders.")
    return cases


def _training_data(folders: Sequence[Path]) -> str:
    """Return the sentence that says on what was trained."""
    real = [folder.resolve().name for folder in folders if not is_simulated(folder)]
    if not real:
        return "Trained on simulated scans."
    return f"Trained on the dataset{'s' * (len(real) > 1)} {', '.join(real)}."
