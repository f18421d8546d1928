"""A reviewed scan as part of a local BIDS dataset, without the patient's name, to learn from.

The voxels are kept as they are: a head scan shows a face, and a dataset is for this machine and not for the net.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from CMBDetectorLib import __version__
from CMBDetectorLib.datasets import bids
from CMBDetectorLib.datasets.adding import Annotations, Exported, OtherReaderError, add_scan, source_ending
from CMBDetectorLib.datasets.reviewed import SCHEMA
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.review.finding import Finding, State
from CMBDetectorLib.review.review import Review, utc_now
from CMBDetectorLib.review.scan_key import scan_key
from CMBDetectorLib.review.summary import summarise
from CMBDetectorLib.volume import Volume, read_volume

__all__ = ["Exported", "OtherReaderError", "export_dataset"]


def export_dataset(
    folder: Path | str,
    review: Review,
    scan: Volume | None,
    key: str,
    *,
    scan_file: Path | str | None = None,
    include: Literal["copy", "reference"] = "copy",
    brain_mask: Volume | None = None,
    suffix: Literal["swi", "SWI", "T2starw"] = "swi",
    replace: bool = False,
    log: Path | str | None = None,
    threshold: float | None = None,
) -> Exported:
    """Add the reviewed scan with the scan key ``key`` to the BIDS dataset ``folder``, or bring it up to date there.

    ``include`` "copy" writes ``scan`` (read from ``scan_file`` where it is ``None``) as a new NIfTI file without
    any text of the old header; "reference" makes a link to the NIfTI ``scan_file``, whose path can be read from the
    link. Accepted places become microbleeds and rejected ones mimics (RAS mm); unsure and unreviewed ones neither.
    ``brain_mask`` (above 0 inside) lies on the grid of the scan; without it one exported earlier stays. ``log`` is the
    file of the review log, whose checksum is noted. Whether the review is complete is told at ``threshold`` of the
    score, by default that of the detection. Comments are not exported.

    Raises:
        BadInputError: the scan or mask is not that of the review, or cannot be referenced.
        OutputError: the folder is no dataset, another reader has exported this scan (and not ``replace``), another
            export goes on for too long, or the folder cannot be written.
    """
    source = None if scan_file is None else Path(scan_file)
    if include == "reference":
        source_ending(source)
    scan = _checked_scan(scan, source, include, key)
    annotations = Annotations(
        _points(review, State.ACCEPTED),
        _points(review, State.REJECTED),
        _provenance(review, key, None if log is None else Path(log), threshold),
        brain_mask,
    )
    return add_scan(Path(folder), scan, annotations, source=source, include=include, suffix=suffix, replace=replace)


def _points(review: Review, state: State) -> list[bids.Point]:
    return [_point(finding) for finding in review.findings if finding.state is state]


def _point(finding: Finding) -> bids.Point:
    return bids.Point(
        finding.ras_mm,
        finding.diameter_mm,
        finding.certainty.value if finding.certainty else None,
        "reader" if finding.is_added else "detector",
        finding.mimic_class,
    )


def _provenance(review: Review, key: str, log: Path | None, threshold: float | None) -> dict[str, Any]:
    summary = summarise(review, threshold)
    times = sorted(finding.judged_at for finding in review.findings if finding.judged_at)
    return {
        "schema": SCHEMA,
        "program": f"cmbdetector {__version__}",
        "scan_key": key,
        "reader": review.reader.encode("utf-8", "replace").decode("utf-8"),
        "complete": summary.is_complete,
        "counts": summary.counts(),
        "model": review.detection.model,
        "first_verdict": times[0] if times else None,
        "last_verdict": times[-1] if times else None,
        "exported": utc_now(),
        "log": None if log is None else _checksum(log),
    }


def _checksum(log: Path) -> dict[str, Any]:
    """Return the SHA-256 of the log's first ``bytes``: it may go on growing, and can still be verified then."""
    try:
        data = log.read_bytes()
    except OSError as error:
        raise BadInputError(f"The review log {log} cannot be read: {error.strerror}.", "Check it is there.") from error
    return {"sha256": sha256(data).hexdigest(), "bytes": len(data)}


def _checked_scan(scan: Volume | None, source: Path | None, include: str, key: str) -> Volume:
    """Return the scan, having made sure that what will lie in the dataset is what was reviewed."""
    if include == "reference" or scan is None:
        if source is None:
            raise BadInputError("There is no scan to export.", "Load the scan again.")
        scan = read_volume(source)
    if scan_key(scan.array, scan.ijk_to_ras) != key:
        raise BadInputError(
            "The scan to export is not the one that was reviewed: its voxels or its position differ.",
            "Load the scan again from its file, or export the copy that was reviewed.",
        )
    return scan
