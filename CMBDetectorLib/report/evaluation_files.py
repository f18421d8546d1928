"""All files of an evaluation: numbers for programs, tables, plot and page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from CMBDetectorLib.evaluation.by_dataset import DATASET_COLUMNS, dataset_rows
from CMBDetectorLib.evaluation.evaluate import Evaluation, ScanSummary
from CMBDetectorLib.evaluation.groups import GROUP_COLUMNS, group_rows
from CMBDetectorLib.files import write_json, write_table
from CMBDetectorLib.report.evaluation_html import write_evaluation_report
from CMBDetectorLib.report.froc_plot import write_froc_plot

FILES = ("froc.json", "froc.png", "groups.tsv", "datasets.tsv", "scans.tsv", "missed.tsv", "report.html")


def write_evaluation(
    folder: Path | str, evaluation: Evaluation, title: str = "Evaluation", notes: Sequence[str] = ()
) -> None:
    """Write :data:`FILES` into the folder ``folder``, ``datasets.tsv`` only where there are several.

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
            "groups": [group.to_json() for group in evaluation.groups],
            "datasets": [dataset.to_json() for dataset in evaluation.datasets],
        },
    )
    write_table(folder / "groups.tsv", GROUP_COLUMNS, group_rows(evaluation.groups))
    if evaluation.datasets:
        write_table(folder / "datasets.tsv", DATASET_COLUMNS, dataset_rows(evaluation.datasets))
    write_table(folder / "scans.tsv", list(ScanSummary.__annotations__), [vars(scan) for scan in evaluation.scans])
    write_table(
        folder / "missed.tsv",
        ["case_id", "x", "y", "z", "stage1_score", "score"],
        [{**vars(m), **dict(zip("xyz", m.ras_mm, strict=True))} for m in evaluation.missed],
    )
    write_froc_plot(folder / "froc.png", evaluation.final, evaluation.stage1)
    write_evaluation_report(folder / "report.html", evaluation, title, notes, folder / "froc.png")
