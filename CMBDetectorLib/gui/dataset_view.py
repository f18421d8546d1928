"""The scans of the local dataset as a table: what each holds, who reviewed it, and why it does not train."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import qt
from slicer.i18n import tr as _

_SCAN, _MICROBLEEDS, _MIMICS, _READER, _STATE = range(5)
_HEIGHT = 170


class DatasetView:
    """A table in ``widget``; ``on_opened`` gets the file of the scan whose row is double-clicked."""

    def __init__(self, on_opened: Callable[[str], None]) -> None:
        self._on_opened = on_opened
        self.scans: list[Mapping[str, Any]] = []
        table = self.widget = qt.QTableWidget(0, _STATE + 1)
        table.objectName = "datasetTable"
        table.toolTip = _("The scans of the local dataset. Double-click one to load it.")
        table.setHorizontalHeaderLabels([_("Scan"), _("CMB"), _("Mimics"), _("Reviewed by"), _("Learnt from")])
        table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        table.alternatingRowColors = True
        table.showGrid = False
        table.verticalHeader().setVisible(False)
        table.horizontalHeader().setHighlightSections(False)
        table.verticalHeader().setDefaultSectionSize(table.fontMetrics().height() + 6)
        ems = table.fontMetrics().height()
        for column, width in ((_SCAN, 8), (_MICROBLEEDS, 3.4), (_MIMICS, 4), (_READER, 6.5)):
            table.setColumnWidth(column, int(width * ems))
        table.horizontalHeader().setSectionResizeMode(_STATE, qt.QHeaderView.Stretch)
        table.setMinimumHeight(_HEIGHT)
        table.connect("cellDoubleClicked(int,int)", self._on_double_click)

    def show(self, scans: Sequence[Mapping[str, Any]]) -> None:
        """Show ``scans`` as ``cmbdetector dataset list`` describes them."""
        self.scans = list(scans)
        table = self.widget
        table.setUpdatesEnabled(False)
        table.setRowCount(0)
        table.setRowCount(len(self.scans))
        for row, scan in enumerate(self.scans):
            for column, text in enumerate(_texts(scan)):
                item = qt.QTableWidgetItem(text)
                if column in (_MICROBLEEDS, _MIMICS):
                    item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
                # The column is narrow: the whole sentence is under the pointer.
                item.setToolTip(str(scan.get("reason") or _("It is learnt from.")))
                table.setItem(row, column, item)
        table.setUpdatesEnabled(True)

    def file_of(self, scan_id: str) -> str | None:
        """Return the file of the scan ``scan_id``, ``None`` where it is not listed."""
        return next((str(scan["scan"]) for scan in self.scans if scan["id"] == scan_id), None)

    def _on_double_click(self, row: int, column: int) -> None:
        if 0 <= row < len(self.scans):
            self._on_opened(str(self.scans[row]["scan"]))


def _texts(scan: Mapping[str, Any]) -> tuple[str, ...]:
    reader = scan.get("reader") or ("" if not scan.get("complete") else _("(elsewhere)"))
    state = _("\u2713 yes") if scan.get("trains") else _("\u2717 no: {why}").format(why=scan.get("reason", ""))
    return str(scan["id"]), str(scan["microbleeds"]), str(scan["mimics"]), str(reader), state


def summary_text(summary: Mapping[str, Any]) -> str:
    """Return the counts of those that train as one sentence."""
    if not summary.get("listed"):
        return _("The dataset holds no scans yet: review a scan and add it (section Export).")
    return _("{scans} of {listed} scans are learnt from: {microbleeds} microbleeds, {mimics} mimics.").format(**summary)
