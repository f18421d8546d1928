"""All files of an evaluation: numbers for programs, tables, plot and page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from CMBDetectorLib.evaluation.evaluate import Evaluation, ScanSummary
from CMBDetectorLib.files import write_json, write_table
from CMBDetectorLib.report.evaluation_html import write_evaluation_report
from CMBDetectorLib.report.froc_plot import write_froc_plot

FILES = ("froc.json", "froc.png", "scans.tsv", "missed.tsv", "report.html")


def write_evaluation(
    folder: Path | str, evaluation: Evaluation, title: str = "Evaluation", notes: Sequence[str] = ()
) -> None:
    """Write ``froc.json``, ``froc.png``, ``scans.tsv``, ``missed.tsv`` and ``report.html`` into the folder ``folder``.

    ``title`` heads the report and ``notes`` (one sentence each) say what was evaluated on what.

    Raises:
        OutputError: a file cannot be written.
    """
    folder = Path(folder)
    write_json(
        folder / "froc.json",
        {
            "title": title,
            "notes": list(notes),
            "models": evaluation.models,
            "final": evaluation.final.to_json(),
            "stage1": evaluation.stage1.to_json(),
        },
    )
    write_table(folder / "scans.tsv", list(ScanSummary.__annotations__), [vars(scan) for scan in evaluation.scans])
    write_table(
        folder / "missed.tsv",
        ["case_id", "x", "y", "z", "stage1_score", "score"],
        [{**vars(m), **dict(zip("xyz", m.ras_mm, strict=True))} for m in evaluation.missed],
    )
    write_froc_plot(folder / "froc.png", evaluation.final, evaluation.stage1)
    write_evaluation_report(folder / "report.html", evaluation, title, notes, folder / "froc.png")
