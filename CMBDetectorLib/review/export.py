"""A review as files of its own: table, Slicer markups, JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from CMBDetectorLib import __version__
from CMBDetectorLib.files import write_json, write_table
from CMBDetectorLib.report.markups import MarkupPoint, write_point_list
from CMBDetectorLib.review.finding import MIMIC_CLASSES, Finding, State
from CMBDetectorLib.review.review import Review, utc_now
from CMBDetectorLib.review.summary import size_class, summarise

SCHEMA = 1
COLUMNS = (
    "number",
    "id",
    "state",
    "certainty",
    "mimic_class",
    "x_ras_mm",
    "y_ras_mm",
    "z_ras_mm",
    "detected_x_ras_mm",
    "detected_y_ras_mm",
    "detected_z_ras_mm",
    "score",
    "stage1_score",
    "diameter_mm",
    "size_class",
    "added",
    "comment",
    "reader",
    "judged_at",
    "model_name",
    "model_version",
    "model_checksum",
)


def write_review_table(path: Path | str, review: Review) -> None:
    """Write every finding but the removed ones as a row of a CSV file, or of a TSV file by the ending of ``path``.

    Raises:
        OutputError: it cannot be written.
    """
    write_table(path, COLUMNS, [review_row(review, finding) for finding in review.findings])


def write_review_markups(
    path: Path | str, review: Review, name: str = "Microbleed review", threshold: float | None = None
) -> None:
    """Write one locked point list called ``name`` with every finding but the removed ones.

    Accepted ones are selected (bright in Slicer); candidates that nobody judged with a score below ``threshold`` (by
    default that of the detection) are not drawn.

    Raises:
        OutputError: it cannot be written.
    """
    if threshold is None:
        threshold = float(review.detection.settings["threshold"])
    points = [
        MarkupPoint(
            finding.id,
            f"{review.number(finding.id)} {_verdict(finding)}",
            _clean(_description(finding)),
            finding.ras_mm,
            selected=finding.state is State.ACCEPTED,
            visible=review.is_visible(finding, threshold),
        )
        for finding in review.findings
    ]
    write_point_list(path, points, name)


def write_review(path: Path | str, review: Review, threshold: float | None = None) -> None:
    """Write the whole review as JSON (schema 1): scan, model, settings, summary (also as text) and all findings.

    The summary is at ``threshold`` of the score, by default that of the detection.

    Raises:
        OutputError: it cannot be written.
    """
    summary = summarise(review, threshold)
    findings = [
        {"number": review.number(finding.id), **finding.as_json(), "size_class": size_class(finding.diameter_mm)}
        for finding in review.findings
    ]
    for finding in findings:
        del finding["removed"]
        finding["comment"] = _clean(finding["comment"])
    data = {
        "schema": SCHEMA,
        "program": f"cmbdetector {__version__}",
        "written": utc_now(),
        "reader": _clean(review.reader),
        "scan": review.detection.scan,
        "model": review.detection.model,
        "settings": review.detection.settings,
        "summary": {**summary.counts(), "text": _clean(summary.as_text())},
        "findings": findings,
    }
    write_json(path, data)


def review_row(review: Review, finding: Finding) -> dict[str, Any]:
    """Return one line of the table, a value for each of :data:`COLUMNS`; positions in RAS mm of the scan."""
    detected = finding.detected_ras_mm or (None, None, None)
    model = review.detection.model
    cells = (
        review.number(finding.id),
        finding.id,
        finding.state.value,
        finding.certainty.value if finding.certainty else None,
        finding.mimic_class,
        *(_rounded(v, 3) for v in (*finding.ras_mm, *detected)),
        _rounded(finding.score, 4),
        _rounded(finding.stage1_score, 4),
        _rounded(finding.diameter_mm, 2),
        size_class(finding.diameter_mm),
        "yes" if finding.is_added else "no",
        _clean(finding.comment) or None,
        _clean(review.reader) or None,
        finding.judged_at,
        *(model.get(entry) for entry in ("name", "version", "checksum")),
    )
    return dict(zip(COLUMNS, cells, strict=True))


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _verdict(finding: Finding) -> str:
    detail = finding.certainty.value if finding.certainty else finding.mimic_class
    return f"{finding.state.value} ({detail})" if detail else finding.state.value


def _description(finding: Finding) -> str:
    parts = [finding.state.value]
    if finding.certainty:
        parts.append(finding.certainty.value)
    if finding.mimic_class:
        parts.append(MIMIC_CLASSES[finding.mimic_class].lower())
    if finding.score is not None:
        parts.append(f"score {finding.score:.3f}")
    parts.append("added by the reader" if finding.is_added else "moved by the reader" if finding.is_moved else "")
    if finding.diameter_mm is not None:
        parts.append(f"diameter {finding.diameter_mm:.1f} mm")
    parts.append(finding.comment)
    return ", ".join(part for part in parts if part)


def _clean(text: str) -> str:
    """Replace what UTF-8 cannot hold (half a surrogate pair, from a clipboard)."""
    return text.encode("utf-8", "replace").decode("utf-8")
