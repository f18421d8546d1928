"""``cmbdetector doctor``: what is wrong with this installation, and what to do about it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from CMBDetectorLib.doctor import findings
from CMBDetectorLib.doctor.examination import all_checks, made
from CMBDetectorLib.worker.listeners import Listener

# About seconds; what is not named takes a moment.
_WEIGHTS = {"Self-test": 10.0, "Packages": 1.0, "HD-BET": 1.0}


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser = commands.add_parser("doctor", parents=[common], help="check this installation, with a self-test")
    parser.add_argument("--json", action="store_true", help="print everything as JSON, for programs")
    parser.add_argument("--no-self-test", action="store_true", help="leave out the detection on a phantom")
    parser.add_argument("--registry", type=Path, metavar="DIR", help="folder of the installed models")
    parser.add_argument(
        "--folder",
        type=_named_folder,
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="also check whether DIR can be written; the report calls it NAME",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """Make all checks; the result holds ``exit_code``: 0, or that of the first problem."""
    stage = "starting"
    checks = all_checks(
        dict(options.folder), options.registry, not options.no_self_test, lambda: listener.report(stage)
    )
    listener.plan([(name, _WEIGHTS.get(name, 0.1)) for name, _ in checks])
    found: list[findings.Finding] = []
    for name, check in checks:
        stage = name
        listener.report(name)
        found += made(name, check)
        listener.report(name, 1, 1)
    data = findings.result(found)
    return data, json.dumps(data, indent=2) if options.json else data["report"]


def _named_folder(text: str) -> tuple[str, Path]:
    name, sign, folder = text.partition("=")
    if not (name.strip() and sign and folder.strip()):
        raise argparse.ArgumentTypeError(f"{text} is not NAME=DIR")
    return name.strip(), Path(folder)
