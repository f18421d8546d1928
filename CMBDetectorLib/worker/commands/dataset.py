"""``cmbdetector dataset``: what a local dataset holds, and annotations made elsewhere brought into it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from CMBDetectorLib.datasets.importing import import_annotations
from CMBDetectorLib.datasets.local import LocalScan, list_scans, summary
from CMBDetectorLib.datasets.reviewed import one_line
from CMBDetectorLib.worker.listeners import Listener
from CMBDetectorLib.worker.options import plain_name


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser = commands.add_parser("dataset", parents=[common], help="list a local dataset, or import annotations")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=type(parser))
    action = actions.add_parser("list", parents=[common], help="its scans, and which of them are to be learnt from")
    action.add_argument("dataset", type=Path, metavar="FOLDER", help="BIDS folder")
    action.set_defaults(run=run_list)
    action = actions.add_parser("import", parents=[common], help="add a scan with annotations made elsewhere")
    action.add_argument("scan", type=Path, metavar="SCAN", help="NIfTI or NRRD file, or folder of one DICOM series")
    files = "table (.tsv, .csv), point list of 3D Slicer (.mrk.json, .fcsv) or label map (.nii.gz, .nrrd)"
    action.add_argument("--annotations", type=Path, required=True, metavar="FILE", help=f"its microbleeds: {files}")
    action.add_argument("--mimics", type=Path, metavar="FILE", help="what resembles microbleeds, in the same formats")
    action.add_argument("--space", choices=("RAS", "LPS"), help="what x, y, z are where FILE does not say (RAS)")
    action.add_argument("--dataset", type=Path, required=True, metavar="FOLDER", help="BIDS folder, made where absent")
    action.add_argument("--reader", type=plain_name, default="", metavar="NAME", help="who annotated the scan")
    action.add_argument("--complete", action="store_true", help="all microbleeds of the scan are annotated")
    action.add_argument("--replace", action="store_true", help="also where another reader's annotations are there")
    action.set_defaults(run=run_import)


def run_list(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """List the scans of a dataset."""
    listener.plan([("scans", 1)])
    scans = list_scans(options.dataset, listener)
    return _listed(options.dataset, scans), _table(scans)


def run_import(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """Import the annotations of one scan.

    Raises:
        CMBDetectorError: scan or annotations cannot be used, or the dataset cannot be written.
    """
    listener.plan([("importing", 4), ("scans", 1)])
    listener.report("importing")
    added = import_annotations(
        options.dataset,
        options.scan,
        options.annotations,
        options.mimics,
        space=options.space,
        reader=options.reader,
        is_complete=options.complete,
        replace=options.replace,
    )
    scans = list_scans(options.dataset, listener)
    scan = next(scan for scan in scans if scan.scan == added.scan)
    text = f"{added.scan}: {scan.microbleeds} microbleeds, {scan.mimics} mimics"
    if not scan.trains:
        text += f"\nIt does not train yet: {scan.reason}"
    return {"added": scan.as_json(), **_listed(options.dataset, scans)}, text


def _listed(folder: Path, scans: Sequence[LocalScan]) -> dict[str, Any]:
    return {"dataset": str(folder), "scans": [scan.as_json() for scan in scans], "summary": summary(scans)}


def _table(scans: Sequence[LocalScan]) -> str:
    """Return a line a scan and one with the sums."""
    if not scans:
        return "The dataset holds no scans yet."
    width = max(len(scan.id) for scan in scans)
    lines = []
    for scan in scans:
        reader = scan.reader or (
            "not named" if scan.is_reviewed else "annotated elsewhere" if scan.is_complete else "-"
        )
        state = "trains" if scan.trains else f"does not train: {scan.reason}"
        counts = f"{scan.microbleeds:4} microbleeds  {scan.mimics:4} mimics"
        lines.append(f"{one_line(scan.id):<{width}}  {counts}  {reader:<19}  {state}")
    sums = summary(scans)
    lines.append(
        f"{sums['scans']} of {sums['listed']} scans train, with {sums['microbleeds']} microbleeds "
        f"(in {sums['with_microbleeds']} of them) and {sums['mimics']} mimics."
    )
    return "\n".join(lines)
