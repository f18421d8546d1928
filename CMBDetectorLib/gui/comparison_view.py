"""Before and after in a panel: a sentence, both curves, figures with their intervals, what was won and lost."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from typing import Any

import qt
from slicer.i18n import tr as _

from CMBDetectorLib.gui.comparison_plot import LARGEST_FP, curve_points, show_comparison_plot
from CMBDetectorLib.gui.line_chart import NEW, OLD, Axes, Line, LineChart

_WON, _LOST = "\u25b2", "\u25bc"
OnPlace = Callable[[str, tuple[float, float, float]], None]


class ComparisonView:
    """Shows a ``comparison.json`` in ``widget``; ``on_place`` gets scan and RAS mm of a microbleed that is clicked."""

    def __init__(self, on_place: OnPlace) -> None:
        self._on_place = on_place
        self._comparison: Mapping[str, Any] | None = None
        self._names = {"old": "", "new": ""}
        self._places: list[tuple[str, tuple[float, float, float]]] = []
        self.widget = qt.QWidget()
        self.widget.objectName = "comparisonView"
        layout = qt.QVBoxLayout(self.widget)
        layout.setContentsMargins(0, 4, 0, 0)
        self.verdict_label = qt.QLabel()
        self.verdict_label.objectName = "verdictLabel"
        self.verdict_label.wordWrap = True
        layout.addWidget(self.verdict_label)
        tip = _("Sensitivity against false positives a scan, on scans that the new model did not learn from.")
        self.chart = LineChart("comparisonChart", tip)
        layout.addWidget(self.chart.widget)
        self.plot_button = qt.QPushButton(_("Show in a plot view"))
        self.plot_button.objectName = "plotButton"
        self.plot_button.toolTip = _("Put the curves into the scene and show them large, beside the slices.")
        self.plot_button.connect("clicked()", self.show_plot)
        layout.addWidget(self.plot_button)
        self.rates = _table("ratesTable", [_("FP a scan"), _("Before"), _("After"), _("Difference")])
        self.rates.toolTip = _("Microbleeds found at no more than so many false positives a scan; 95 % intervals.")
        _widen(self.rates, (4.8, 6.8, 6.8), 3)
        layout.addWidget(self.rates)
        self.changed_label = qt.QLabel()
        self.changed_label.wordWrap = True
        layout.addWidget(self.changed_label)
        self.changed = _table("changedTable", ["", _("Scan"), _("Place (RAS mm)"), _("Before"), _("After")])
        self.changed.toolTip = _("Click a microbleed to look at it; its scan is loaded where it is not yet.")
        _widen(self.changed, (1.6, 6.0, 0.0, 4.0, 4.0), 2)
        self.changed.connect("cellClicked(int,int)", self._on_clicked)
        layout.addWidget(self.changed)
        self.show(None)

    @property
    def comparison(self) -> Mapping[str, Any] | None:
        """What is shown."""
        return self._comparison

    def show(self, comparison: Mapping[str, Any] | None, new: str = "") -> None:
        """Show a comparison, or with ``None`` nothing; ``new`` is the reference of the new model."""
        self._comparison = comparison
        self.widget.setVisible(comparison is not None)
        if comparison is None:
            return
        self._names = {
            "old": str(comparison.get("old", {}).get("reference") or _("before")),
            "new": new or str(comparison.get("new", {}).get("name") or _("after")),
        }
        self.verdict_label.text = f"<b>{html.escape(str(comparison['verdict']))}</b>"
        self._show_chart(comparison)
        self._show_rates(comparison)
        self._show_changed(comparison)

    def show_plot(self) -> None:
        """Put the curves into the scene."""
        if self._comparison is not None:
            show_comparison_plot(self._comparison, self._names)

    def _show_chart(self, comparison: Mapping[str, Any]) -> None:
        curves = comparison["curves"]
        lines = [
            Line(self._names["old"], OLD, curve_points(curves["old"]), is_stepped=True, is_dashed=True),
            Line(self._names["new"], NEW, curve_points(curves["new"]), is_stepped=True),
        ]
        axes = Axes(_("False positives a scan"), _("Sensitivity"), (0.0, LARGEST_FP), (0.0, 1.0), is_percent=True)
        self.chart.show(lines, axes)

    def _show_rates(self, comparison: Mapping[str, Any]) -> None:
        rows = [
            (f"\u2264 {rate['fp']:g}", _sensitivity(rate["old"]), _sensitivity(rate["new"]), _difference(rate))
            for rate in comparison["rates"]
        ]
        _fill(self.rates, rows)

    def _show_changed(self, comparison: Mapping[str, Any]) -> None:
        rows, self._places = [], []
        for symbol, key in ((_WON, "won"), (_LOST, "lost")):
            for changed in comparison[key]:
                x, y, z = (float(v) for v in changed["ras_mm"])
                scores = (_score(changed.get("old_score")), _score(changed.get("new_score")))
                rows.append((symbol, str(changed["scan"]), f"{x:.1f}, {y:.1f}, {z:.1f}", *scores))
                self._places.append((str(changed["scan"]), (x, y, z)))
        won, lost = len(comparison["won"]), len(comparison["lost"])
        self.changed_label.text = (
            _("At 4.1 false positives a scan both find the same microbleeds.")
            if not rows
            else _("At 4.1 false positives a scan: {won} won ({up}), {lost} lost ({down}). Click one to look at it.")
        ).format(won=won, lost=lost, up=_WON, down=_LOST)
        _fill(self.changed, rows)
        self.changed.setVisible(bool(rows))

    def _on_clicked(self, row: int, column: int) -> None:
        if 0 <= row < len(self._places):
            self._on_place(*self._places[row])


def _table(name: str, titles: list[str]) -> qt.QTableWidget:
    table = qt.QTableWidget(0, len(titles))
    table.objectName = name
    table.setHorizontalHeaderLabels(titles)
    table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
    table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
    table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
    table.alternatingRowColors = True
    table.showGrid = False
    table.verticalHeader().setVisible(False)
    table.verticalHeader().setDefaultSectionSize(table.fontMetrics().height() + 6)
    table.horizontalHeader().setHighlightSections(False)
    return table


def _widen(table: qt.QTableWidget, ems: tuple[float, ...], stretched: int) -> None:
    """Give the columns their widths in heights of a line; the column ``stretched`` takes what is left."""
    for column, width in enumerate(ems):
        if width:
            table.setColumnWidth(column, int(width * table.fontMetrics().height()))
    table.horizontalHeader().setSectionResizeMode(stretched, qt.QHeaderView.Stretch)


def _fill(table: qt.QTableWidget, rows: list[tuple[str, ...]]) -> None:
    table.setRowCount(0)
    table.setRowCount(len(rows))
    for row, texts in enumerate(rows):
        for column, text in enumerate(texts):
            table.setItem(row, column, qt.QTableWidgetItem(text))
    line = table.fontMetrics().height() + 6
    table.setFixedHeight(line * (min(len(rows), 8) + 1) + 12)


def _sensitivity(point: Mapping[str, Any]) -> str:
    low, high = _pair(point.get("ci"))
    return f"{_percent(point.get('sensitivity'))} ({low}\u2013{high})"


def _difference(rate: Mapping[str, Any]) -> str:
    low, high = _pair(rate.get("difference_ci"), signed=True)
    return _("{all} ({low} to {high})").format(all=_percent(rate.get("difference"), signed=True), low=low, high=high)


def _pair(interval: Any, signed: bool = False) -> tuple[str, str]:
    low, high = interval if isinstance(interval, list | tuple) and len(interval) == 2 else (None, None)
    return _percent(low, signed, unit=""), _percent(high, signed, unit="")


def _percent(value: Any, signed: bool = False, unit: str = " %") -> str:
    if not isinstance(value, int | float):
        return "?"
    return f"{100 * value:{'+' if signed else ''}.0f}{unit}"


def _score(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, int | float) else _("not seen")
