"""The report of one detection: what was found, where, what it looks like, and what made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from CMBDetectorLib.candidate import Candidate, Detection
from CMBDetectorLib.files import write_text
from CMBDetectorLib.report.page import Html, banner, data_uri, definitions, page, paragraph, table
from CMBDetectorLib.report.tables import ranked
from CMBDetectorLib.report.thumbnails import FIELD_OF_VIEW_MM, SLAB_MM, Thumbnail, grey_window, thumbnails
from CMBDetectorLib.volume import Volume

MOST_CARDS = 200


def write_detection_report(
    path: Path | str,
    detection: Detection,
    scan: Volume,
    notes: Sequence[str] = (),
    provenance: str = "",
    names: Mapping[str, str] | None = None,
) -> None:
    """Write ``detection`` as one self-contained HTML file with pictures of each shown candidate.

    Args:
        path: file to write.
        detection: candidates with their model, settings and times.
        scan: the scan as stored (pictures are taken from it, positions are RAS mm of it).
        notes: sentences the reader should know, for instance that the scan was resampled.
        provenance: one sentence naming program and date.
        names: of patient or file, by what they are; nothing else in the report names either.

    Raises:
        OutputError: it cannot be written.
    """
    name = str(detection.scan.get("name") or "scan")
    body = [
        "<h1>Microbleed candidates</h1>",
        paragraph(name, "faint"),
        *([definitions(names.items())] if names else []),
        banner([detection.model]),
        paragraph(_found(detection), "lead"),
        *[paragraph(note) for note in notes],
        *_candidates(detection, scan),
        *_making(detection),
    ]
    if provenance:
        body.append(paragraph(provenance, "faint"))
    write_text(path, page(f"Microbleed candidates: {name}", body))


def _found(detection: Detection) -> str:
    shown, everything = len(detection.shown()), len(detection.candidates)
    threshold = float(detection.settings["threshold"])
    if not everything:
        return "No candidates were found."
    found = f"{shown or 'No'} candidate{'s' * (shown != 1)} with a score of {threshold:g} or more"
    others = everything - shown
    if not others:
        return f"{found}."
    return f"{found}; {others} more that stage 1 proposed scored lower and {'is' if others == 1 else 'are'} not shown."


def _candidates(detection: Detection, scan: Volume) -> list[str]:
    shown = [(rank, candidate) for rank, candidate, is_shown in ranked(detection) if is_shown]
    if not shown:
        return []
    pictured = {candidate.id for _, candidate in shown[:MOST_CARDS]}
    rows = []
    for rank, c in shown:
        link = Html(f'<a href="#{escape(c.id)}">{rank}</a>') if c.id in pictured else rank
        places = [f"{v:.1f}" for v in c.ras_mm]
        rows.append([link, f"{c.score:.3f}", f"{c.stage1_score:.3f}", f"{c.diameter_mm:.1f}", *places, c.id])
    columns = ["rank", "score", "stage 1", "diameter (mm)", "R (mm)", "A (mm)", "S (mm)", "id"]
    body = ["<h2>List</h2>", table(columns, rows, text_columns=(7,))]
    body.append(paragraph("Positions are RAS millimetres of the scan as stored; the diameter is an estimate.", "faint"))
    body.append("<h2>Pictures</h2>")
    size = f"{FIELD_OF_VIEW_MM:g}"
    legend = (
        f"{size} x {size} mm around each candidate, in radiological convention (right of the patient on the left); "
        f"the last picture is the darkest of {SLAB_MM:g} mm, where vessels show as lines. The ring is 8 mm wide."
    )
    body.append(paragraph(legend, "faint"))
    if len(shown) > MOST_CARDS:
        body.append(
            paragraph(f"Pictures of the first {MOST_CARDS} of {len(shown)} candidates; the list above is complete.")
        )
    window = grey_window(scan)
    body.extend(
        _card(rank, candidate, thumbnails(scan, candidate.ras_mm, window)) for rank, candidate in shown[:MOST_CARDS]
    )
    return body


def _card(rank: int, candidate: Candidate, pictures: Sequence[Thumbnail]) -> str:
    figures = "\n".join(
        f"<figure>{_picture(picture, rank)}<figcaption>{escape(picture.name)}</figcaption></figure>"
        for picture in pictures
    )
    r, a, s = candidate.ras_mm
    return (
        f'<section class="card" id="{escape(candidate.id)}">\n<h3>{rank}'
        f"<span>score {candidate.score:.3f}</span><span>{candidate.diameter_mm:.1f} mm</span>"
        f"<span>R {r:.1f}, A {a:.1f}, S {s:.1f}</span></h3>\n"
        f'<div class="pictures">\n{figures}\n</div>\n</section>'
    )


def _picture(picture: Thumbnail, rank: int) -> str:
    size, middle = f"{FIELD_OF_VIEW_MM:g}", FIELD_OF_VIEW_MM / 2
    places = (
        (1.0, middle + 1, "start"),
        (FIELD_OF_VIEW_MM - 1, middle + 1, "end"),
        (middle, 3.2, "middle"),
        (middle, FIELD_OF_VIEW_MM - 1, "middle"),
    )
    letters = "".join(
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(letter)}</text>'
        for letter, (x, y, anchor) in zip(picture.edges, places, strict=True)
    )
    # The ring leaves the lesion free: drawn into the pixels it would hide what is to be judged.
    return (
        f'<svg viewBox="0 0 {size} {size}" role="img" aria-label="candidate {rank}, {escape(picture.name)}">'
        f'<image href="{data_uri(picture.png)}" width="{size}" height="{size}"/>'
        f'<circle cx="{middle:g}" cy="{middle:g}" r="4" fill="none" stroke="#ffd33d" stroke-width="0.35"/>'
        f'<g font-size="2.6" fill="#ffd33d">{letters}</g></svg>'
    )


def _making(detection: Detection) -> list[str]:
    model = detection.model
    sections = [
        (
            "Model",
            [
                ("name", model.get("name")),
                ("version", model.get("version")),
                ("trained on", model.get("training_data")),
                ("licence", model.get("licence")),
                ("checksum (SHA-256)", model.get("checksum")),
            ],
        ),
        ("Scan", _readable(detection.scan)),
        ("Settings", _readable(detection.settings)),
        ("Time", [(name, f"{seconds:.1f} s") for name, seconds in detection.seconds.items()]),
    ]
    body = []
    for title, items in sections:
        if items:
            body += [f"<h2>{title}</h2>", definitions(items)]
    return body


def _readable(values: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name.replace("_", " "), _value(value)) for name, value in values.items()]


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(_value(entry) for entry in value)
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_value(entry)}" for key, entry in value.items())
    return str(value)
