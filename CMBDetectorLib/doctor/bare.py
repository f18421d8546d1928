"""The command line where the packages of the program cannot be loaded: says so, and can still examine the computer."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from CMBDetectorLib.doctor import findings
from CMBDetectorLib.doctor.examination import basic_checks, made
from CMBDetectorLib.doctor.packages import HINT
from CMBDetectorLib.errors import MissingPackageError


def run_without_packages(arguments: Sequence[str], events: int | None, error: ImportError) -> int:
    """Answer ``arguments`` as far as it can be done after ``error``; returns the exit code.

    ``events`` is the descriptor of the event stream.
    """
    if "doctor" in arguments[:1]:
        found = [finding for name, check in basic_checks() for finding in made(name, check)]
        data = findings.result(found)
        _tell(events, {"event": "result", **data}, _asked(arguments, data), sys.stdout)
        return int(data["exit_code"]) or MissingPackageError.exit_code
    if events is not None or "--verbose" in arguments:
        traceback.print_exception(error)
    message = f"The package {(error.name or 'of the program').split('.')[0]} is not installed or damaged."
    event = {"event": "error", "code": MissingPackageError.code, "message": message, "hint": HINT}
    _tell(events, event, f"cmbdetector: {message}\n  {HINT}", sys.stderr)
    return MissingPackageError.exit_code


def _asked(arguments: Sequence[str], data: dict[str, Any]) -> str:
    return json.dumps(data, indent=2) if "--json" in arguments else str(data["report"])


def _tell(events: int | None, event: dict[str, Any], text: str, stream: Any) -> None:
    if events is None:
        print(text, file=stream, flush=True)
    else:
        os.write(events, (json.dumps(event) + "\n").encode("ascii"))
