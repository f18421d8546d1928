"""The candidate under review at one glance: number, score, size, verdict and four small pictures."""

from __future__ import annotations

import math
from typing import Any

import qt
from slicer.i18n import tr as _

from CMBDetectorLib.gui.state_style import is_dark, state_text, text_colour, verdict_text
from CMBDetectorLib.report.thumbnails import FIELD_OF_VIEW_MM, SLAB_MM, Picture, encode_png, grey_window, pictures
from CMBDetectorLib.review.finding import Finding
from CMBDetectorLib.volume import Volume

_SIDE_PX = 96
_KEPT = 4
_TICK_PX = 9
_INK = "#ffe680"
_SHADOW = "#202020"


class CandidateCard:
    """A card in ``widget``; :meth:`set_scan` gives the scan its pictures are taken from."""

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        self._scan: Volume | None = None
        self._window = (0.0, 1.0)
        self._kept: dict[tuple[str, tuple[float, ...]], list[qt.QPixmap]] = {}
        self._soon: Finding | None = None
        self.widget = qt.QWidget(parent)
        self.widget.objectName = "candidateCard"
        self._build()
        self.timer = qt.QTimer(self.widget)
        self.timer.setSingleShot(True)
        self.timer.setInterval(0)
        self.timer.connect("timeout()", self._prepare)
        self.show(None)

    def set_scan(self, scan: Volume | None, window: tuple[float, float] | None = None) -> None:
        """Take the pictures from ``scan`` (RAS mm of it), black to white over ``window`` (None: found from it)."""
        self._scan = scan
        self._kept.clear()
        if scan is not None:
            self._window = window or grey_window(scan)

    def show(
        self, finding: Finding | None, number: int = 0, note: str = "", next_finding: Finding | None = None
    ) -> None:
        """Show ``finding`` (positions in RAS mm of the scan) with its ``number``.

        ``note`` is one more line, for instance how far the next one is. The pictures of ``next_finding`` are made
        when there is nothing else to do, so that going there takes no time.
        """
        self.number_label.text = str(number) if finding is not None else ""
        dark = is_dark(self.widget)
        if finding is None:
            self.state_label.text = _("No candidate selected")
            self.state_label.setStyleSheet("")
            self.fact_label.text = self.place_label.text = self.note_label.text = ""
        else:
            self.state_label.text = "  ".join(
                part for part in (state_text(finding.state), verdict_text(finding)) if part
            )
            self.state_label.setStyleSheet(f"font-weight: bold; color: {text_colour(finding.state, dark)};")
            self.fact_label.text = facts_text(finding)
            self.place_label.text = place_text(finding)
            self.note_label.text = " \u00b7 ".join(part for part in (note, finding.comment) if part)
        self.note_label.setVisible(bool(self.note_label.text))
        self._show_pictures(finding)
        self._soon = next_finding
        if next_finding is not None:
            self.timer.start()

    # Pictures

    def _show_pictures(self, finding: Finding | None) -> None:
        shown = self._pixmaps(finding) if finding is not None and self._scan is not None else []
        for index, label in enumerate(self.picture_labels):
            if shown:
                label.setPixmap(shown[index])
            else:
                label.clear()

    def _pixmaps(self, finding: Finding) -> list[qt.QPixmap]:
        """Return the pictures of ``finding``; those of the last few places are kept."""
        key = (finding.id, finding.ras_mm)
        made = self._kept.pop(key, None)
        if made is None:
            made = [_pixmap(picture) for picture in pictures(self._scan, finding.ras_mm, self._window)]
        self._kept[key] = made
        while len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]
        return made

    def _prepare(self) -> None:
        if self._soon is not None and self._scan is not None:
            self._pixmaps(self._soon)
        self._soon = None

    # How it is made

    def _build(self) -> None:
        layout = qt.QVBoxLayout(self.widget)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        top = qt.QHBoxLayout()
        top.setSpacing(10)
        layout.addLayout(top)
        self.number_label = qt.QLabel()
        self.number_label.objectName = "cardNumber"
        self.number_label.toolTip = _("The number of the candidate, as in table and slice views.")
        self.number_label.setStyleSheet("font-size: 26pt; font-weight: bold;")
        self.number_label.setMinimumWidth(48)
        top.addWidget(self.number_label)
        lines = qt.QVBoxLayout()
        lines.setSpacing(1)
        top.addLayout(lines, 1)
        self.state_label = self._line(lines, "cardState", _("What was decided about it."))
        self.fact_label = self._line(lines, "cardFacts", _("The detector's score and the diameter it estimates."))
        self.place_label = self._line(lines, "cardPlace", _("Where it is, in mm of the scan, and what the reader did."))
        row = qt.QHBoxLayout()
        row.setSpacing(4)
        layout.addLayout(row)
        self.picture_labels = [self._picture(row, name, text) for name, text in _picture_texts().items()]
        row.addStretch(1)
        self.note_label = self._line(layout, "cardNote", _("Remarks."))
        self.note_label.wordWrap = True

    def _line(self, layout: Any, name: str, tip: str) -> qt.QLabel:
        label = qt.QLabel()
        label.objectName = name
        label.toolTip = tip
        layout.addWidget(label)
        return label

    def _picture(self, layout: Any, name: str, tip: str) -> qt.QLabel:
        label = qt.QLabel()
        label.objectName = f"cardPicture{name}"
        label.toolTip = tip
        label.setFixedSize(_SIDE_PX, _SIDE_PX)
        label.scaledContents = True
        label.setStyleSheet("background: black;")
        layout.addWidget(label)
        return label


def facts_text(finding: Finding) -> str:
    """Return score and size in words."""
    parts = []
    if finding.score is not None:
        parts.append(_("score {score:.2f}").format(score=finding.score))
    if finding.diameter_mm is not None:
        parts.append(_("{size:.1f} mm").format(size=finding.diameter_mm))
    if finding.is_added:
        parts.append(_("added by reader"))
    elif finding.is_moved:
        distance = math.dist(finding.ras_mm, finding.detected_ras_mm)
        parts.append(_("moved {distance:.1f} mm").format(distance=distance))
    return ", ".join(parts)


def place_text(finding: Finding) -> str:
    """Return the position (RAS mm of the scan) as Slicer writes it: "R 12.3, P 4.0, S 31.5 mm"."""
    letters = ("RL", "AP", "SI")
    return (
        ", ".join(f"{pair[int(v < 0)]} {abs(v):.1f}" for pair, v in zip(letters, finding.ras_mm, strict=True)) + " mm"
    )


def _picture_texts() -> dict[str, str]:
    size = _("{mm:g} mm wide; the marks at the edges point to the centre.").format(mm=FIELD_OF_VIEW_MM)
    return {
        "Axial": _("Axial") + ", " + size,
        "Sagittal": _("Sagittal") + ", " + size,
        "Coronal": _("Coronal") + ", " + size,
        "Slab": _("The darkest of {mm:g} mm, axial: vessels show as lines").format(mm=SLAB_MM) + ", " + size,
    }


def _pixmap(picture: Picture) -> qt.QPixmap:
    """Return a picture with letters at its edges and marks that point to its centre, which stays free."""
    pixmap = qt.QPixmap()
    # PNG bytes are what PythonQt takes without a copy pixel by pixel; its QByteArray(bytes) ends at the first zero.
    pixmap.loadFromData(encode_png(picture.pixels))
    width, height = pixmap.width(), pixmap.height()
    painter = qt.QPainter()
    painter.begin(pixmap)
    font = painter.font()
    font.setPixelSize(16)
    font.setBold(True)
    painter.setFont(font)
    # A dark shadow below, so that marks and letters are seen on white matter as on background.
    for shift, ink in ((1, _SHADOW), (0, _INK)):
        painter.setPen(qt.QColor(ink))
        _draw_marks(painter, picture.edges, width, height, shift)
    painter.end()
    return pixmap


def _draw_marks(painter: qt.QPainter, edges: str, width: int, height: int, shift: int) -> None:
    """Draw short lines at the edges that point to the centre, and beside them the letters of the directions."""
    x, y = width // 2 + shift, height // 2 + shift
    last_x, last_y = width - 1 + shift, height - 1 + shift
    for line in (
        (x, shift, x, _TICK_PX),
        (x, last_y - _TICK_PX, x, last_y),
        (shift, y, _TICK_PX, y),
        (last_x - _TICK_PX, y, last_x, y),
    ):
        painter.drawLine(*line)
    left, right, top, bottom = edges
    painter.drawText(2 + shift, y - 4, left)
    painter.drawText(last_x - 13, y - 4, right)
    painter.drawText(x + 5, 15 + shift, top)
    painter.drawText(x + 5, last_y - 3, bottom)
