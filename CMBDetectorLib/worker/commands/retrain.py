"""``cmbdetector retrain``: a model trained further on a local dataset, and compared with what it was before."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from CMBDetectorLib.datasets.bids import is_simulated
from CMBDetectorLib.datasets.local import LocalScan, list_scans
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.models.bundle import CARD, DEFAULT_MODEL, Bundle
from CMBDetectorLib.models.companions import COMPARISON, read_comparison
from CMBDetectorLib.models.package import check_name
from CMBDetectorLib.models.registry import default_bundle, register
from CMBDetectorLib.models.versions import bundled_versions, load_bundle
from CMBDetectorLib.progress import Part, Progress
from CMBDetectorLib.worker.listeners import Listener
from CMBDetectorLib.worker.options import add_brain_mask, choose_brain_mask, whole_number

if TYPE_CHECKING:
    from CMBDetectorLib.evaluation.comparison import Comparison
    from CMBDetectorLib.training.cases import PreparedCase
    from CMBDetectorLib.training.retraining import LocalCase, Plan
    from CMBDetectorLib.training.workplace import Workplace

_DEPTHS = ("second-stage", "both-stages", "from-scratch")
_OWN_NAME = "local"


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser = commands.add_parser("retrain", parents=[common], help="train the active model further on local scans")
    parser.add_argument("dataset", type=Path, help="BIDS folder with reviewed or annotated scans")
    parser.add_argument("--depth", choices=_DEPTHS, default=_DEPTHS[0], help="what is trained (%(default)s)")
    parser.add_argument("--model", help="NAME[@VERSION] or folder of the model to start from (the active one)")
    parser.add_argument("--name", help=f"name of the new model (that of the old one; of a bundled one: {_OWN_NAME})")
    parser.add_argument("--check", action="store_true", help="only say whether there are enough scans")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted retraining")
    parser.add_argument("--work", type=Path, metavar="DIR", help="folder for the work (one beside the models)")
    parser.add_argument(
        "--leave-out", type=whole_number, default=2, metavar="N", help="scans left out at a time for the comparison"
    )
    parser.add_argument("--no-compare", dest="compare", action="store_false", help="do not compare old and new")
    parser.add_argument(
        "--replay", action=argparse.BooleanOptionalAction, default=True, help="learn from simulated windows besides"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="same seed, same result (%(default)s)")
    parser.add_argument("--epochs", type=whole_number, metavar="N", help="most epochs of each network")
    parser.add_argument("--steps", type=whole_number, metavar="N", help="batches of an epoch")
    add_brain_mask(parser, default="dataset")
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class _Job:
    """What was asked for, read and found possible."""

    options: argparse.Namespace
    scans: list[LocalScan]
    start: Bundle
    name: str
    plan: Plan
    folds: list[list[int]]
    place: Workplace

    def description(self) -> dict[str, Any]:
        """Return what the run is made from: only the same one is gone on with."""
        from CMBDetectorLib.training.work import describe_cases

        cases = [scan.case for scan in self.scans]
        mimics = {case.id: hashlib.sha256(case.mimic_positions().tobytes()).hexdigest()[:16] for case in cases}
        asked = {key: getattr(self.options, key) for key in ("brain_mask", "compare", "leave_out", "depth", "replay")}
        made_from = {"model": self.start.checksum, "name": self.name, "settings": self.plan.to_json()}
        return {"command": "retrain", **asked, **made_from, "cases": describe_cases(cases), "mimics": mimics}


def run(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """Retrain, compare and register a new version, which is not activated.

    Raises:
        BadInputError: too few scans, or the interrupted run was another one.
        OutputError: another retraining on the dataset is going on, or a folder cannot be written.
    """
    from CMBDetectorLib.networks import backend
    from CMBDetectorLib.training.sufficiency import described, missing_sentence

    backend.prefer_torch()
    listed = list_scans(options.dataset)
    start = load_bundle(options.model) if options.model else default_bundle()
    name = _name(options.name, start)
    told = {**described(listed, options.depth), "model": start.reference, "name": name, "depth": options.depth}
    train = [scan for scan in listed if scan.trains]
    if not told["enough"]:
        if options.check:
            listener.result(told, "")
        raise BadInputError(missing_sentence(train, options.depth), "Review more scans and add them to the dataset.")
    job = _job(options, train, start, name, listener)
    if options.check:
        return _checked(job, told)
    with job.place.alone():
        job.place.open(job.description(), options.resume)
        return _retrain(job, listener)


def _job(options: argparse.Namespace, train: list[LocalScan], start: Bundle, name: str, listener: Listener) -> _Job:
    from CMBDetectorLib.training.comparison import MOST_FOLDS, comparison_folds
    from CMBDetectorLib.training.replay import load_replay
    from CMBDetectorLib.training.retraining import Plan, retrain_settings
    from CMBDetectorLib.training.workplace import Workplace

    settings = retrain_settings(start, options.depth, options.seed, options.epochs, options.steps)
    replay = load_replay(start.replay) if options.replay and start.replay is not None else None
    if options.replay and replay is None and options.depth != "from-scratch" and not options.check:
        listener.log(f"{start.reference} has no simulated windows: it learns from the local scans alone.")
    folds: list[list[int]] = []
    if options.compare:
        most = None if options.depth == "from-scratch" else MOST_FOLDS
        counts = [scan.microbleeds for scan in train]
        folds = comparison_folds([scan.id for scan in train], counts, options.leave_out, options.seed, most)
    place = Workplace(options.dataset, options.work)
    return _Job(options, train, start, name, Plan(options.depth, settings, replay), folds, place)


def _name(wanted: str | None, start: Bundle) -> str:
    """Return the name of the new model, refused now if it would be refused when all is done.

    Raises:
        BadInputError: it is no name, or that of a bundled model.
    """
    own = {version.name.lower() for version in bundled_versions()} | {DEFAULT_MODEL}
    name = wanted or (_OWN_NAME if start.name.lower() in own else start.name)
    check_name("name", name)
    if name.lower() in own:
        raise BadInputError(f"The name {name} belongs to a model of this program.", "Choose another one with --name.")
    return name


def _checked(job: _Job, told: dict[str, Any]) -> tuple[dict[str, Any], str]:
    from CMBDetectorLib.training.sufficiency import expected_minutes

    prepared = job.place.prepared([scan.id for scan in job.scans])
    minutes = expected_minutes(len(job.scans), prepared, job.plan.depth, len(job.folds))
    data = {
        **told,
        "minutes": minutes,
        "folds": len(job.folds),
        "replay": job.plan.replay is not None,
        "resumable": job.place.is_interrupted(job.description()),
        "work": str(job.place.folder),
    }
    text = (
        f"{told['scans']} scans with {told['microbleeds']} microbleeds and {told['mimics']} rejected candidates are "
        f"enough to retrain {told['model']}: about {minutes:g} minutes on two cores."
    )
    return data, text


def _retrain(job: _Job, listener: Listener) -> tuple[dict[str, Any], str]:
    finished = job.place.run / "model"
    unchanged: dict[str, Any] | None = None
    if not (finished / CARD).is_file():
        unchanged = _make(job, finished, listener)
    content = read_comparison(finished / COMPARISON) if (finished / COMPARISON).is_file() else None
    data = {
        "parent": job.start.reference,
        "depth": job.plan.depth,
        "scans": len(job.scans),
        "microbleeds": sum(scan.microbleeds for scan in job.scans),
    }
    if unchanged is not None:
        job.place.close()
        nothing = {"reference": None, "folder": None, "checksum": None, "improved": False}
        text = f"The networks got no better on scans left out: {job.start.reference} stays as it is."
        return {**data, **nothing, **unchanged}, text
    bundle = register(finished, job.start.reference, job.name)
    job.place.close()
    made = {"reference": bundle.reference, "folder": str(bundle.folder), "checksum": bundle.checksum, "improved": True}
    text = f"{bundle.card['description']}\n"
    text += f"{content['verdict']}\n" if content else ""
    text += f"To use it: cmbdetector models activate {bundle.reference}"
    return {**data, **made, "comparison": content}, text


def _make(job: _Job, target: Path, listener: Listener) -> dict[str, Any] | None:
    """Retrain and compare, and write the bundle ``target``; where nothing got better return that comparison instead."""
    from CMBDetectorLib.evaluation.comparison import compare_models
    from CMBDetectorLib.training.comparison import run_folds
    from CMBDetectorLib.training.retrained_bundle import comparison_content, local_data, seen_by, write_retrained
    from CMBDetectorLib.training.retraining import retrain

    listener.plan(_stages(job))
    local = _local_cases(job, listener)
    retrained = retrain(local, job.start, job.plan, job.place.run / "all", _Through(listener))
    data = local_data(job.scans, is_simulated(job.options.dataset), [known.case for known in local])
    comparison: Comparison | None = None
    content: dict[str, Any] | None = None
    if job.folds:
        results = run_folds(local, job.folds, job.start, job.plan, job.place.run, listener)
        comparison = compare_models(*results, seed=job.options.seed)
        folds = [[local[index].case.id for index in fold] for fold in job.folds]
        seen = seen_by(job.start, data)
        content = comparison_content(comparison, folds, job.start, job.name, job.plan, seen)
        listener.log(content["verdict"])
    if not retrained.is_new:
        return {"comparison": content}
    write_retrained(target, retrained, job.start, job.name, data, job.plan, comparison, content)
    return None


def _local_cases(job: _Job, listener: Listener) -> list[LocalCase]:
    """Preprocess the scans and search them with the model to start from, once and for the next retraining, too."""
    from CMBDetectorLib.training.cases import prepare_cases
    from CMBDetectorLib.training.finetuning import load_networks
    from CMBDetectorLib.training.retraining import detector_of, known_of

    how = job.options.brain_mask
    otherwise = "hd-bet"
    if how == "auto" or (how == "dataset" and any(scan.case.brain_mask is None for scan in job.scans)):
        otherwise = choose_brain_mask("auto", listener)
    cases = [scan.case for scan in job.scans]
    job.place.forget_others([case.id for case in cases])
    chosen = otherwise if how == "auto" else how
    prepared: Sequence[PreparedCase] = prepare_cases(
        cases, job.place.cases, job.start.spacing_mm, chosen, listener, otherwise
    )
    detector = detector_of(load_networks(job.start, "unets"), load_networks(job.start, "cnns"))
    local = []
    for number, (case, scan) in enumerate(zip(prepared, job.scans, strict=True)):
        path = job.place.known_file(job.start.checksum, case)
        part = Part(listener, "mimics", number, len(prepared))
        rejected = scan.case.mimic_positions()
        local.append(known_of(detector, case, rejected, job.start.thresholds["mimics"], path, part))
        listener.report("mimics", number + 1, len(prepared))
    return local


def _stages(job: _Job) -> list[tuple[str, float]]:
    """Return the stages and about how many seconds each takes."""
    from CMBDetectorLib.training.sufficiency import stage_seconds

    prepared = job.place.prepared([scan.id for scan in job.scans])
    return stage_seconds(len(job.scans), prepared, job.plan.depth, len(job.folds))


class _Through(Progress):
    """Reports the stages of a part of the command as the command's own."""

    def __init__(self, parent: Progress) -> None:
        super().__init__()
        self._parent = parent

    def show(self, stage: str, step: int, steps: int, fraction: float) -> None:
        self._parent.report(stage, step, steps)

    def log(self, message: str) -> None:
        self._parent.log(message)

    def epoch(self, network: str, epoch: int, epochs: int, loss: float, validation: float | None = None) -> None:
        self._parent.epoch(network, epoch, epochs, loss, validation)
