"""The report of an evaluation: FROC, operating points, each scan, each missed microbleed."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from CMBDetectorLib.evaluation.by_dataset import DATASET_NOTE, dataset_words
from CMBDetectorLib.evaluation.froc import NOTES, Froc
from CMBDetectorLib.evaluation.groups import GROUP_NOTES, group_words
from CMBDetectorLib.evaluation.matching import HIT_RADIUS_MM
from CMBDetectorLib.files import write_text
from CMBDetectorLib.report.page import Html, banner, data_uri, definitions, page, paragraph, table

if TYPE_CHECKING:
    from CMBDetectorLib.evaluation.evaluate import Evaluation


def write_evaluation_report(
    path: Path | str, evaluation: Evaluation, title: str, notes: Sequence[str], plot: Path | str
) -> None:
    """Write ``evaluation`` as one self-contained HTML file; ``plot`` is the PNG of its FROC, which is put into it.

    ``title`` and ``notes`` (one sentence each) say what was evaluated on what.

    Raises:
        OutputError: it cannot be written.
    """
    final = evaluation.final
    body = [
        f"<h1>{escape(title)}</h1>",
        banner(evaluation.models),
        paragraph(_summary(final), "lead"),
        *[paragraph(note) for note in notes],
        "<h2>FROC</h2>",
        f'<figure class="wide"><img alt="Sensitivity against false positives per scan" '
        f'src="{data_uri(Path(plot).read_bytes())}"></figure>',
        "<h2>Operating points</h2>",
        _operating_points(final),
        *[paragraph(note, "faint") for note in NOTES.splitlines()],
        *_groups(evaluation),
        *_datasets(evaluation),
        "<h2>Stage 1 alone</h2>",
        _operating_points(evaluation.stage1),
        *_scans(evaluation),
        *_missed(evaluation),
        "<h2>Models</h2>",
        *[definitions(_model(model)) for model in evaluation.models],
    ]
    write_text(path, page(title, body))


def _summary(final: Froc) -> str:
    if not final.microbleeds:
        return f"None of the {final.scans} scans has a microbleed: only false positives can be counted."
    point = next(p for p in final.operating_points if p.fp_allowed == 4.1)
    return (
        f"{_percent(point.sensitivity)} of {final.microbleeds} microbleeds in {final.scans} scans are found at "
        f"{point.fp_per_scan:.2f} false positives per scan (mean of scans {_percent(point.mean_sensitivity)})."
    )


def _operating_points(curve: Froc) -> str:
    heading, *rows = curve.rows()
    return table(heading, rows, text_columns=(0,))


def _groups(evaluation: Evaluation) -> list[str]:
    if not evaluation.groups:
        return []
    heading, *rows = group_words(evaluation.groups)
    notes = [paragraph(note, "faint") for note in GROUP_NOTES.splitlines()]
    return ["<h2>Sensitivity by group (95 %)</h2>", table(heading, rows, text_columns=(0,)), *notes]


def _datasets(evaluation: Evaluation) -> list[str]:
    if not evaluation.datasets:
        return []
    heading, *rows = dataset_words(evaluation.datasets)
    title = "<h2>Sensitivity by dataset (false positives per scan)</h2>"
    return [title, table(heading, rows, text_columns=(0,)), paragraph(DATASET_NOTE, "faint")]


def _scans(evaluation: Evaluation) -> list[str]:
    columns = ["scan", "microbleeds", "found", "false positives", "shown", "candidates", "found by any candidate"]
    rows = [
        [s.case_id, s.microbleeds, s.found, s.false_positives, s.shown, s.candidates, s.found_by_any]
        for s in evaluation.scans
    ]
    totals = [sum(row[column] for row in rows) for column in range(1, len(columns))]
    rows.append([Html("<strong>all</strong>"), *totals])
    text = "Found and false positives are those of the candidates shown, that is at the threshold of each detection."
    return ["<h2>Scans</h2>", table(columns, rows, text_columns=(0,)), paragraph(text, "faint")]


def _missed(evaluation: Evaluation) -> list[str]:
    body = ["<h2>Missed microbleeds</h2>"]
    if not evaluation.missed:
        return [*body, paragraph("None at the threshold of the detections.")]
    rows = []
    for m in evaluation.missed:
        why = "no candidate" if m.score is None else "its candidate scored below the threshold"
        places = [f"{v:.1f}" for v in m.ras_mm]
        rows.append([m.case_id, *places, _decimal(m.stage1_score), _decimal(m.score), why])
    columns = ["scan", "R (mm)", "A (mm)", "S (mm)", "stage 1", "score", "why"]
    note = f"No candidate: none within {HIT_RADIUS_MM:g} mm, or those there were taken by other microbleeds."
    return [*body, table(columns, rows, text_columns=(0, 6)), paragraph(note, "faint")]


def _model(model: dict[str, object]) -> list[tuple[str, object]]:
    keys = ("name", "version", "training_data", "licence", "checksum")
    return [(key.replace("_", " "), model.get(key)) for key in keys]


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
