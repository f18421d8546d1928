"""A single self-contained HTML page: style, banner, tables. No scripts, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

NOT_CLINICAL = "Not for clinical use."

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --faint: #59636e; --line: #d1d9e0; --panel: #f6f8fa;
  --warn-ink: #6b4400; --warn-paper: #fff4d6; --warn-line: #e0a92b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0f1318; --faint: #9aa5b1; --line: #333c46;
  --panel: #181d24; --warn-ink: #ffdf9a; --warn-paper: #3a2c0a; --warn-line: #a87b16; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1080px; margin: 0 auto; padding: 24px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; } h2 { font-size: 19px; margin: 32px 0 10px; }
p { margin: 6px 0; } a { color: inherit; } .faint { color: var(--faint); } .lead { font-size: 18px; }
.banner { color: var(--warn-ink); background: var(--warn-paper); border: 1px solid var(--warn-line);
  border-left-width: 6px; border-radius: 6px; padding: 10px 14px; margin: 16px 0; font-weight: 600; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 4px 12px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--faint); font-weight: 600; vertical-align: bottom; }
th.text, td.text { text-align: left; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; margin: 0; }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
.card { border: 1px solid var(--line); background: var(--panel); border-radius: 8px; padding: 12px 14px; margin: 14px 0;
  break-inside: avoid; }
.card h3 { font-size: 16px; margin: 0 0 8px; }
.card h3 span { font-weight: 400; color: var(--faint); margin-left: 14px; }
.pictures { display: grid; grid-template-columns: repeat(4, 1fr); gap: 10px; }
figure { margin: 0; } figcaption { color: var(--faint); font-size: 13px; text-align: center; }
svg, figure img { display: block; width: 100%; height: auto; border-radius: 4px; background: #000; }
.wide img { background: #fff; }
@media (max-width: 640px) { .pictures { grid-template-columns: repeat(2, 1fr); } }
@media print { :root { --ink: #000; --paper: #fff; --faint: #444; --line: #bbb; --panel: #fff; --warn-ink: #000;
  --warn-paper: #fff; --warn-line: #000; color-scheme: light; }
  body { max-width: none; padding: 0; font-size: 11pt; } svg, img, .banner { print-color-adjust: exact; }
  h2 { break-after: avoid; } tr { break-inside: avoid; } }
"""


def page(title: str, body: Iterable[str]) -> str:
    """Return a whole HTML document; ``body`` holds finished HTML, ``title`` is text."""
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
            *body,
            "</body>\n</html>\n",
        ]
    )


def paragraph(text: str, kind: str = "") -> str:
    """Return ``text`` as a paragraph of the style class ``kind``."""
    return f'<p class="{escape(kind)}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def banner(models: Sequence[dict[str, Any]]) -> str:
    """Return what the reader must not overlook: what ``models`` were trained on, and that this is research."""
    named = dict.fromkeys(str(model.get("training_data") or "").strip() for model in models)
    sentences = [s if s.endswith((".", "!")) else f"{s}." for s in named if s]
    if len(sentences) > 2:
        # A cross-validation has a model for each fold; the page lists them all at its end.
        sentences[1:] = [f"{len(sentences) - 1} more models were trained on other scans, see Models."]
    text = " ".join(sentences)
    if NOT_CLINICAL not in text:
        text = f"{text} {NOT_CLINICAL}".strip()
    return f'<div class="banner" role="note">{escape(text)}</div>'


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], text_columns: Sequence[int] = ()) -> str:
    """Return a table; cells are text, save for finished HTML given as :class:`Html`. ``text_columns`` align left."""

    def cells(tag: str, values: Sequence[Any]) -> str:
        marked = (
            f"<{tag}{' class=text' if number in text_columns else ''}>{_html(value)}</{tag}>"
            for number, value in enumerate(values)
        )
        return f"<tr>{''.join(marked)}</tr>"

    body = "\n".join(cells("td", row) for row in rows)
    return (
        f'<div class="scroll"><table>\n<thead>{cells("th", columns)}</thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'
    )


def definitions(items: Iterable[tuple[str, Any]]) -> str:
    """Return a list of names and values; values of ``None`` or "" are left out."""
    rows = "\n".join(
        f"<dt>{escape(name)}</dt><dd>{_html(value)}</dd>" for name, value in items if value not in (None, "")
    )
    return f"<dl>\n{rows}\n</dl>"


def data_uri(png: bytes) -> str:
    """Return PNG bytes as an address that an image can hold in itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


class Html(str):
    """Finished HTML, to be put into a page as it is."""


def _html(value: Any) -> str:
    return value if isinstance(value, Html) else escape(str(value))
