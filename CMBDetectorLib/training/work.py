"""The work folder of a training run: what was asked for, so that only the same run is resumed from it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from CMBDetectorLib.datasets.bids import Case
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.files import write_json

_DESCRIPTION = "run.json"


def open_work(work: Path, description: dict[str, Any], resume: bool) -> None:
    """Make the work folder, or with ``resume`` take up the one that an interrupted run left.

    ``description`` (JSON values) says what the run is made from: data and settings.

    Raises:
        BadInputError: there is an interrupted run and ``resume`` was not asked for, it was another run, or the folder
            is none of this program's.
    """
    path = work / _DESCRIPTION
    description = json.loads(json.dumps(description))
    if work.exists() and any(work.iterdir()):
        if not path.is_file():
            raise BadInputError(f"The folder {work} holds other files.", "Choose another --work folder.")
        if not resume:
            raise BadInputError(
                f"An interrupted run lies in {work}.", "Add --resume to go on with it, or remove that folder."
            )
        known = json.loads(path.read_text(encoding="utf-8"))
        if known != description:
            changed = sorted(key for key in description if known.get(key) != description[key])
            raise BadInputError(
                f"The interrupted run in {work} was another one ({', '.join(changed)} changed).",
                "Repeat the command as it was, or remove that folder to begin anew.",
            )
        return
    write_json(path, description)


def close_work(work: Path, keep: bool) -> None:
    """Remove the work folder of a finished run unless ``keep``."""
    if not keep:
        shutil.rmtree(work, ignore_errors=True)


def describe_cases(cases: Sequence[Case]) -> dict[str, str]:
    """Return case id -> hash of name, size and time of its scan and brain mask, and of its microbleeds.

    What stage 1 proposed is kept as voxels of the crop that the mask gave.

    Raises:
        BadInputError: a scan or mask is missing.
    """
    described = {}
    for case in cases:
        parts = []
        for path in (case.scan, case.brain_mask):
            if path is not None:
                parts.append(_file_state(path, case))
        text = f"{' '.join(parts)} {case.microbleeds().tolist()} {case.is_annotated}"
        described[case.id] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return described


def _file_state(path: Path, case: Case) -> str:
    try:
        stat = path.stat()
    except OSError as error:
        raise BadInputError(
            f"A file of {case.id} cannot be read ({path.name}).", "Fetch or restore it, or take the scan out."
        ) from error
    return f"{path.name} {stat.st_size} {stat.st_mtime_ns}"
