"""The command line: parses, runs one command, turns every end into a sentence and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

import CMBDetectorLib
from CMBDetectorLib.errors import (
    BadInputError,
    Cancelled,
    CMBDetectorError,
    MissingPackageError,
    OutOfMemoryError,
    OutputError,
    is_out_of_memory,
)
from CMBDetectorLib.worker.listeners import make_listener
from CMBDetectorLib.worker.stopping import follow_stdin, give_way

CANCELLED = Cancelled.exit_code
STOP_WITH_STDIN = "--stop-with-stdin"
_ONE_WISH_S = 2.0
_DESCRIPTION = (
    "Finds cerebral microbleeds in susceptibility-weighted MRI. Research use only: the bundled networks are trained "
    "on simulated scans and are not for clinical use."
)
_EPILOG = (
    "Exit codes: 0 done, 2 bad input or output folder, 3 missing package, 4 missing or damaged model, 5 out of memory, "
    "6 cancelled, 1 anything else."
)


def run(arguments: Sequence[str], events: int | None, commands: Sequence[Any]) -> int:
    """Run the command line ``arguments`` and return the exit code; ``events`` is the descriptor of the event stream.

    ``commands`` are the modules of those that are known.
    """
    parser = _parser(events is not None, commands)
    options = argparse.Namespace()
    with make_listener(events) as listener:
        try:
            _catch_signals()
            if events is not None and STOP_WITH_STDIN in arguments:
                follow_stdin()
                give_way()
            options = parser.parse_args(arguments)
            if options.verbose:
                logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
            data, text = options.run(options, listener)
            listener.result(data, text)
            return int(data.get("exit_code", 0))
        except (Exception, KeyboardInterrupt) as error:
            failure = _as_user_error(error)
            if failure.exit_code == CANCELLED and "resume" in options:
                failure = Cancelled("Cancelled; what was trained so far is kept.", "Add --resume to go on with it.")
            # A host keeps them for who asks; wrong input and a wish to stop need no more than the sentence.
            has_details = failure.exit_code not in (BadInputError.exit_code, CANCELLED)
            if failure.exit_code == 1 or "--verbose" in arguments or (events is not None and has_details):
                # The disk of the log may be the one that is full.
                with contextlib.suppress(OSError):
                    traceback.print_exc(file=sys.stderr)
            listener.error(failure)
            return failure.exit_code


class _Parser(argparse.ArgumentParser):
    """Turns wrong words on the command line into an error event where somebody listens to events."""

    as_event = False

    def error(self, message: str) -> NoReturn:
        if self.as_event:
            raise BadInputError(f"The command line is wrong: {message}.", f"See {self.prog} --help.")
        super().error(message)


def _parser(as_event: bool, known: Sequence[Any]) -> argparse.ArgumentParser:
    _Parser.as_event = as_event
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--events", action="store_true", help="write progress as JSON lines to standard output")
    # For programs that start this one: end when they close its standard input, or are gone.
    common.add_argument(STOP_WITH_STDIN, action="store_true", help=argparse.SUPPRESS)
    common.add_argument("--verbose", action="store_true", help="show technical details of errors")
    parser = _Parser(prog="cmbdetector", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"cmbdetector {CMBDetectorLib.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for command in known:
        command.add_parser(commands, common)
    return parser


def _catch_signals() -> None:
    """Let Ctrl-C and a polite kill unwind the work, so that temporary folders are removed."""
    asked = -math.inf

    def cancel(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        # A signal and a closed standard input come together: the second must not break off the cleaning up.
        if time.monotonic() - asked > _ONE_WISH_S:
            asked = time.monotonic()
            raise Cancelled

    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        number = getattr(signal, name, None)
        # What the caller has switched off stays so: a run under nohup outlives its terminal.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, cancel)


def _as_user_error(error: BaseException) -> CMBDetectorError:
    """Return ``error`` as one sentence with a next step."""
    if isinstance(error, KeyboardInterrupt | Cancelled):
        # Keras adds words of its own to what passes through a layer.
        return Cancelled()
    if isinstance(error, CMBDetectorError):
        return error
    if is_out_of_memory(error):
        return OutOfMemoryError("There is not enough memory for this.", "Close other programs, or use smaller scans.")
    if isinstance(error, ModuleNotFoundError):
        return MissingPackageError(
            f"The package {error.name} is not installed.", f"Install it: pip install {error.name}"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError("The disk is full; nothing was written.", "Free some space.")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"No permission: {error.filename}.", "Choose a folder that you may read and write.")
    kind = type(error).__name__
    return CMBDetectorError(
        f"Something unforeseen happened ({kind}: {os.fspath(str(error))[:200]}).",
        "Repeat the command with --verbose and report what it prints.",
    )
