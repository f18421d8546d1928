"""A small chart of lines for a panel: drawn by Qt into a picture, so that it needs no view of the scene."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import qt

from CMBDetectorLib.gui.state_style import is_dark

OLD, NEW = "#8c959f", "#1f7ae0"
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 20, 34
_HEIGHT = 190
_LEAST_WIDTH = 300


@dataclass(frozen=True)
class Line:
    """Points (x, y) joined in their order; ``is_stepped``: y holds until the next x."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]
    is_stepped: bool = False
    is_dashed: bool = False


@dataclass(frozen=True)
class Axes:
    """What is written at the axes, and their ranges (``None``: those of the lines); ``is_counted``: x is whole."""

    x_title: str
    y_title: str
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    is_percent: bool = False
    is_counted: bool = False


class LineChart:
    """A chart in ``widget``, a label."""

    def __init__(self, name: str, tip: str) -> None:
        self.widget = qt.QLabel()
        self.widget.objectName = name
        self.widget.toolTip = tip
        self.widget.setMinimumSize(_LEAST_WIDTH, 0)
        # A picture must not hold the panel open at its own width.
        self.widget.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)
        self.lines: list[Line] = []

    def show(self, lines: Sequence[Line], axes: Axes) -> None:
        """Draw ``lines``; without any point the chart goes away."""
        self.lines = [line for line in lines if line.points]
        self.widget.setVisible(bool(self.lines))
        if self.lines:
            width = max(_LEAST_WIDTH, self.widget.width)
            self.widget.setPixmap(_Drawing(self.lines, axes, (width, _HEIGHT), is_dark(self.widget)).pixmap())


class _Drawing:
    """One picture of a chart."""

    def __init__(self, lines: Sequence[Line], axes: Axes, size: tuple[int, int], dark: bool) -> None:
        self._lines, self._axes, self._size = lines, axes, size
        self._ink, self._faint = ("#e6e6e6", "#5a5a5a") if dark else ("#303030", "#d4d4d4")
        places = [point for line in lines for point in line.points if all(map(math.isfinite, point))] or [(0.0, 0.0)]
        self._x = axes.x_range or _range([x for x, _ in places], from_zero=False)
        self._y = axes.y_range or _range([y for _, y in places], from_zero=True)

    def pixmap(self) -> qt.QPixmap:
        """Return it, transparent where nothing is drawn."""
        pixmap = qt.QPixmap(*self._size)
        pixmap.fill(qt.QColor(0, 0, 0, 0))
        painter = qt.QPainter()
        painter.begin(pixmap)
        painter.setRenderHint(qt.QPainter.Antialiasing, True)
        font = painter.font()
        font.setPixelSize(11)
        painter.setFont(font)
        self._draw_axes(painter)
        for line in self._lines:
            self._draw_line(painter, line)
        self._draw_legend(painter)
        painter.end()
        return pixmap

    def _place(self, x: float, y: float) -> tuple[int, int]:
        width, height = self._size
        across = (x - self._x[0]) / (self._x[1] - self._x[0])
        up = (y - self._y[0]) / (self._y[1] - self._y[0])
        across, up = min(max(across, 0.0), 1.0), min(max(up, 0.0), 1.0)
        return (
            round(_LEFT + across * (width - _LEFT - _RIGHT)),
            round(height - _BOTTOM - up * (height - _TOP - _BOTTOM)),
        )

    def _draw_axes(self, painter: qt.QPainter) -> None:
        width, height = self._size
        for value in ticks(*self._y):
            x, y = self._place(self._x[0], value)
            painter.setPen(qt.QColor(self._faint))
            painter.drawLine(x, y, width - _RIGHT, y)
            painter.setPen(qt.QColor(self._ink))
            text = f"{100 * value:.0f} %" if self._axes.is_percent else f"{value:g}"
            painter.drawText(_LEFT - 8 - 6 * len(text), y + 4, text)
        for value in ticks(*self._x):
            if self._axes.is_counted and value != round(value):
                continue
            x, y = self._place(value, self._y[0])
            painter.setPen(qt.QColor(self._ink))
            painter.drawLine(x, y, x, y + 3)
            painter.drawText(x - 3 * len(f"{value:g}"), y + 15, f"{value:g}")
        painter.setPen(qt.QColor(self._ink))
        painter.drawText(4, 12, self._axes.y_title)
        painter.drawText(width - _RIGHT - 6 * len(self._axes.x_title), height - 5, self._axes.x_title)

    def _draw_line(self, painter: qt.QPainter, line: Line) -> None:
        pen = qt.QPen(qt.QColor(line.colour))
        pen.setWidth(2)
        if line.is_dashed:
            pen.setStyle(qt.Qt.DashLine)
        painter.setPen(pen)
        places = [self._place(*point) for point in line.points if all(map(math.isfinite, point))]
        if len(places) == 1:
            painter.drawEllipse(places[0][0] - 2, places[0][1] - 2, 4, 4)
        for (x, y), (next_x, next_y) in pairwise(places):
            if line.is_stepped:
                painter.drawLine(x, y, next_x, y)
                painter.drawLine(next_x, y, next_x, next_y)
            else:
                painter.drawLine(x, y, next_x, next_y)

    def _draw_legend(self, painter: qt.QPainter) -> None:
        # From the right, in the free strip above the axes.
        x = self._size[0] - _RIGHT
        for line in reversed(self._lines):
            x -= 7 * len(line.name)
            painter.setPen(qt.QColor(self._ink))
            painter.drawText(x, 12, line.name)
            pen = qt.QPen(qt.QColor(line.colour))
            pen.setWidth(2)
            if line.is_dashed:
                pen.setStyle(qt.Qt.DashLine)
            painter.setPen(pen)
            painter.drawLine(x - 22, 8, x - 5, 8)
            x -= 32


def ticks(low: float, high: float) -> list[float]:
    """Return some round numbers from ``low`` to ``high``."""
    raw = (high - low) / 4
    scale = 10 ** math.floor(math.log10(raw))
    step = next(scale * factor for factor in (1, 2, 2.5, 5, 10) if scale * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _range(values: Sequence[float], from_zero: bool) -> tuple[float, float]:
    low, high = (0.0 if from_zero else min(values)), max(values)
    return (low, high) if high > low else (low, low + 1.0)
