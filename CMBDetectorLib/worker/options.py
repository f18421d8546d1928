"""Options that several commands share."""

from __future__ import annotations

import argparse

from CMBDetectorLib.preprocessing import hd_bet
from CMBDetectorLib.progress import Progress

LOW_MEMORY = "--low-memory"


def add_brain_mask(parser: argparse.ArgumentParser, default: str = "auto") -> None:
    """Declare ``--brain-mask``."""
    parser.add_argument(
        "--brain-mask",
        default=default,
        metavar="HOW",
        help="hd-bet, simple, none, or a mask file on the scan's grid; auto: hd-bet where it is set up; "
        "dataset: the masks of the BIDS dataset (%(default)s)",
    )


def add_low_memory(parser: argparse.ArgumentParser) -> None:
    """Declare :data:`LOW_MEMORY`."""
    parser.add_argument(
        LOW_MEMORY,
        action="store_true",
        help="search in small pieces from the start (else only once memory has run out)",
    )


def choose_brain_mask(how: str, progress: Progress) -> str:
    """Return the method for :func:`CMBDetectorLib.preprocessing.pipeline.preprocess`, telling what "auto" became."""
    if how != "auto":
        return how
    if hd_bet.hd_bet_available():
        return "hd-bet"
    progress.log("HD-BET is not set up: the simple brain mask is used. Look at the mask.")
    return "simple"


def fraction(text: str) -> float:
    """Return the number that ``text`` stands for, in [0, 1]; for argparse."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} does not lie between 0 and 1")
    return value


def whole_number(text: str) -> int:
    """Return the positive whole number that ``text`` stands for; for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def plain_name(text: str) -> str:
    """Return ``text`` as one line without control characters and slashes, at most 100 characters; for argparse.

    A name of nothing else becomes "", which stands for none.
    """
    text = "".join(" " if c.isspace() else c for c in text if c.isprintable() or c.isspace())
    return " ".join(text.replace("/", "-").replace("\\", "-").split())[:100].strip()
