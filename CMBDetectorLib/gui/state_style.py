"""How each verdict looks, in the table, on the card and in the slice views: one symbol, one colour, one glyph.

The hues are those of Okabe and Ito, told apart by readers with any common colour blindness; the symbols say the same
without colour. Text needs a darker or lighter shade of them to be read on a light or dark panel.
"""

from __future__ import annotations

from dataclasses import dataclass

import qt
from slicer.i18n import tr as _

from CMBDetectorLib.review.finding import MIMIC_CLASSES, Certainty, Finding, State


@dataclass(frozen=True)
class StateStyle:
    """The looks of one state.

    ``rgb`` (0..1) and ``glyph`` (name of a markups glyph type) are for the slice views, ``on_light`` and ``on_dark``
    (``#rrggbb``) for text, ``symbol`` and ``text`` for table, card and buttons.
    """

    symbol: str
    text: str
    rgb: tuple[float, float, float]
    glyph: str
    on_light: str
    on_dark: str


STATE_STYLES = {
    State.UNREVIEWED: StateStyle("\u25cb", _("To judge"), (0.94, 0.89, 0.26), "Cross2D", "#6b5900", "#f0e442"),
    State.ACCEPTED: StateStyle("\u2713", _("Accepted"), (0.0, 0.75, 0.58), "StarBurst2D", "#00664b", "#33c9a0"),
    State.REJECTED: StateStyle("\u2717", _("Rejected"), (0.84, 0.37, 0.0), "Dash2D", "#a33f00", "#ff9248"),
    State.UNSURE: StateStyle("?", _("Unsure"), (0.8, 0.47, 0.65), "CrossDot2D", "#8a2f67", "#e7a3cb"),
}
"""Looks by state. The glyphs leave their middle open, where the lesion is.

The accepted green is lighter than Okabe and Ito's, which is lost on a dark brain.
"""

SHORT_MIMIC_CLASSES = {
    "cavernoma": _("Cavernoma"),
    "partial-volume": _("Partial vol."),
    "iron": _("Iron"),
    "haemorrhage": _("Haemorrhage"),
}
"""Words for narrow places, where those of ``MIMIC_CLASSES`` are too long."""


def is_dark(widget: qt.QWidget) -> bool:
    """Tell whether ``widget`` is drawn light on dark."""
    return widget.palette.color(qt.QPalette.Window).lightness() < 128


def text_colour(state: State, dark: bool) -> str:
    """Return the colour (``#rrggbb``) for words about ``state`` on a ``dark`` or light background."""
    style = STATE_STYLES[state]
    return style.on_dark if dark else style.on_light


def state_text(state: State) -> str:
    """Return symbol and word, for instance "✓ Accepted"."""
    return f"{STATE_STYLES[state].symbol} {STATE_STYLES[state].text}"


def mimic_text(mimic_class: str, short: bool = False) -> str:
    """Return the words for a mimic class of ``MIMIC_CLASSES``; ``short`` ones fit on a small button."""
    return (short and SHORT_MIMIC_CLASSES.get(mimic_class)) or _(MIMIC_CLASSES[mimic_class])


def certainty_text(certainty: Certainty) -> str:
    """Return the word for how sure the reader is."""
    return _("Definite") if certainty is Certainty.DEFINITE else _("Possible")


def verdict_text(finding: Finding) -> str:
    """Return what the verdict adds to the state: certainty or mimic class; empty where there is neither."""
    if finding.certainty is not None:
        return certainty_text(finding.certainty)
    return mimic_text(finding.mimic_class) if finding.mimic_class is not None else ""
