"""``cmbdetector export``: adds a reviewed scan to a local dataset, from the log of its review."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from CMBDetectorLib.review.export_dataset import export_dataset
from CMBDetectorLib.review.finding import State
from CMBDetectorLib.review.log import read_log
from CMBDetectorLib.volume import read_mask, read_volume
from CMBDetectorLib.worker.listeners import Listener
from CMBDetectorLib.worker.options import fraction

_STAGES = [("reading", 1.0), ("writing", 4.0)]


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser = commands.add_parser("export", parents=[common], help="add a reviewed scan to a local dataset")
    parser.add_argument("review", type=Path, help="log of the review (.jsonl)")
    parser.add_argument("--scan", type=Path, required=True, metavar="FILE", help="the scan that was reviewed")
    parser.add_argument("--dataset", type=Path, required=True, metavar="DIR", help="BIDS folder, made where absent")
    parser.add_argument("--brain-mask", type=Path, metavar="FILE", help="brain mask on the scan's grid")
    parser.add_argument("--link", type=Path, metavar="FILE", help="link to this NIfTI file of the scan, do not copy")
    parser.add_argument("--threshold", type=fraction, help="least score that had to be judged (0-1)")
    parser.add_argument("--replace", action="store_true", help="also where another reader's review is there")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """Export one review.

    Raises:
        CMBDetectorError: review, scan or mask cannot be used, or the dataset cannot be written.
    """
    listener.plan(_STAGES)
    listener.report("reading")
    recorded = read_log(options.review)
    review = recorded.review()
    scan = read_volume(options.scan)
    mask = read_mask(options.brain_mask, scan) if options.brain_mask is not None else None
    listener.report("reading", 1, 1)
    listener.report("writing")
    exported = export_dataset(
        options.dataset,
        review,
        scan,
        recorded.key,
        scan_file=options.link,
        include="copy" if options.link is None else "reference",
        brain_mask=mask,
        replace=options.replace,
        log=options.review,
        threshold=options.threshold,
    )
    listener.report("writing", 1, 1)
    counts = {"microbleeds": review.count(State.ACCEPTED), "mimics": review.count(State.REJECTED)}
    text = f"{exported.scan}: {counts['microbleeds']} microbleeds, {counts['mimics']} mimics"
    return {"scan": str(exported.scan), **counts}, text
