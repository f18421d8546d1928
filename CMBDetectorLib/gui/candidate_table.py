"""The list of candidates: sorted by any column, filtered, one row changed without touching the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import qt
from slicer.i18n import tr as _

from CMBDetectorLib.gui.keys import leave_with_escape
from CMBDetectorLib.gui.state_style import is_dark, state_text, text_colour, verdict_text
from CMBDetectorLib.review.finding import MIMIC_CLASSES, Certainty, Finding, State

_NUMBER, _SCORE, _SIZE, _STATE, _VERDICT = range(5)
# A hidden column holds the numbers the rows are sorted by: text would put 10 before 9, and numbers in the shown cells
# could not be written with two decimals.
_RANK = 5
_STATE_RANK = {State.UNREVIEWED: 0, State.UNSURE: 1, State.ACCEPTED: 2, State.REJECTED: 3}
_FILTERS: dict[str, frozenset[State]] = {
    "all": frozenset(State),
    "to-judge": frozenset({State.UNREVIEWED}),
    "accepted": frozenset({State.ACCEPTED}),
    "rejected": frozenset({State.REJECTED}),
    "unsure": frozenset({State.UNSURE}),
}


class CandidateTable:
    """A table of findings in ``widget``; ``on_selected`` is called with the id of the row the user selects.

    Unreviewed candidates below the threshold are hidden; what was judged or added stays. Positions do not occur here.
    """

    def __init__(self, on_selected: Callable[[str], None], parent: qt.QWidget | None = None) -> None:
        self._on_selected = on_selected
        self._findings: dict[str, Finding] = {}
        self._number_of: Callable[[str], int] = lambda _key: 0
        self._ids: list[str] = []
        self._rows: dict[str, int] = {}
        self._hidden: list[bool] = []
        self._threshold = 0.0
        self._selected: str | None = None
        self._sorted_by = (_SCORE, True)
        self._is_quiet = False
        self._colours: dict[State, Any] = {}
        self._right = qt.Qt.AlignRight | qt.Qt.AlignVCenter
        self.widget = qt.QWidget(parent)
        self._build()

    # What there is

    def show(self, findings: Sequence[Finding], number_of: Callable[[str], int]) -> None:
        """Build the rows for ``findings``; ``number_of`` gives the number of an id."""
        self._number_of = number_of
        self._findings = {finding.id: finding for finding in findings}
        self._learn_colours()
        was_quiet, self._is_quiet = self._is_quiet, True
        self.table.setUpdatesEnabled(False)
        self.table.setRowCount(0)
        self.table.setRowCount(len(findings))
        self._ids = list(self._findings)
        for row, finding in enumerate(self._findings.values()):
            self._make_row(row, finding)
        self._sort()
        self.table.setUpdatesEnabled(True)
        self._is_quiet = was_quiet
        if self._selected not in self._findings:
            self._selected = None
        self.select(self._selected)

    def update(self, finding: Finding) -> None:
        """Show a changed finding in its row; a new one gets a row at the end, a removed one loses its own."""
        if finding.removed:
            if finding.id in self._rows:
                self._remove_row(finding.id)
            return
        self._findings[finding.id] = finding
        if finding.id not in self._rows:
            row = len(self._ids)
            self.table.setRowCount(row + 1)
            self._ids.append(finding.id)
            self._rows[finding.id] = row
            self._hidden.append(False)
            self._make_row(row, finding)
        else:
            self._fill_row(self._rows[finding.id], finding)
        self._hide_row(self._rows[finding.id])

    def set_threshold(self, threshold: float) -> None:
        """Hide the unreviewed candidates with a score below ``threshold``."""
        self._threshold = threshold
        self._hide_rows()

    def order(self) -> list[str]:
        """Return the ids of the rows that are seen, from top to bottom."""
        return [key for key, hidden in zip(self._ids, self._hidden, strict=True) if not hidden]

    @property
    def selected(self) -> str | None:
        """The id of the selected row."""
        return self._selected

    def select(self, key: str | None) -> None:
        """Select the row of ``key`` and scroll to it, without calling ``on_selected``; a filter does not hide it."""
        before, self._selected = self._selected, key if key in self._rows else None
        was_quiet, self._is_quiet = self._is_quiet, True
        if before in self._rows:
            self._hide_row(self._rows[before])
        if self._selected is None:
            self.table.clearSelection()
        else:
            row = self._rows[self._selected]
            self._hide_row(row)
            self.table.setCurrentCell(row, _NUMBER)
            self.table.scrollToItem(self.table.item(row, _NUMBER))
        self._is_quiet = was_quiet

    def set_filter(self, name: str) -> None:
        """Show "all", "to-judge", "accepted", "rejected" or "unsure" rows."""
        self.filter_box.setCurrentIndex(list(_FILTERS).index(name))

    def show_everything(self) -> None:
        """Take the filters away."""
        self.set_filter("all")
        self.filter_edit.text = ""

    # How it is made

    def _build(self) -> None:
        layout = qt.QVBoxLayout(self.widget)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        line = qt.QHBoxLayout()
        layout.addLayout(line)
        self.filter_box = qt.QComboBox()
        self.filter_box.objectName = "candidateFilter"
        texts = (_("All"), _("To judge"), _("Accepted"), _("Rejected"), _("Unsure"))
        for name, text in zip(_FILTERS, texts, strict=True):
            self.filter_box.addItem(text, name)
        self.filter_box.toolTip = _("Show only the candidates with this verdict.")
        self.filter_box.connect("currentIndexChanged(int)", self._on_filter)
        self.filter_edit = qt.QLineEdit()
        self.filter_edit.objectName = "candidateFilterText"
        self.filter_edit.placeholderText = _("Number, verdict or remark")
        self.filter_edit.clearButtonEnabled = True
        self.filter_edit.toolTip = _("Show only the candidates with this in number, verdict or remark. Esc leaves it.")
        self.filter_edit.connect("textChanged(QString)", self._on_filter)
        self.filter_edit.connect("returnPressed()", self.filter_edit.clearFocus)
        leave_with_escape(self.filter_edit)
        line.addWidget(self.filter_box)
        line.addWidget(self.filter_edit, 1)
        self._build_table()
        self._learn_colours()
        layout.addWidget(self.table)

    def _build_table(self) -> None:
        table = self.table = qt.QTableWidget(0, _RANK + 1)
        table.objectName = "candidateTable"
        table.toolTip = _("Click a row to go there; click a heading to sort.")
        table.setHorizontalHeaderLabels([_("No."), _("Score"), _("mm"), _("State"), _("Verdict")])
        table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        table.setVerticalScrollMode(qt.QAbstractItemView.ScrollPerPixel)
        table.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
        table.alternatingRowColors = True
        table.showGrid = False
        table.tabKeyNavigation = False
        table.verticalHeader().setVisible(False)
        table.verticalHeader().setDefaultSectionSize(table.fontMetrics().height() + 6)
        table.setColumnHidden(_RANK, True)
        header = table.horizontalHeader()
        header.setHighlightSections(False)
        header.setSectionsClickable(True)
        header.setSortIndicatorShown(True)
        width = table.fontMetrics().height()
        for column, ems in ((_NUMBER, 3.2), (_SCORE, 3.8), (_SIZE, 3.4), (_STATE, 6.5)):
            table.setColumnWidth(column, int(width * ems))
        header.setSectionResizeMode(_VERDICT, qt.QHeaderView.Stretch)
        header.connect("sectionClicked(int)", self._on_header)
        table.connect("itemSelectionChanged()", self._on_selection)

    # Rows

    def _learn_colours(self) -> None:
        dark = is_dark(self.table)
        self._colours = {state: qt.QBrush(qt.QColor(text_colour(state, dark))) for state in State}

    def _make_row(self, row: int, finding: Finding) -> None:
        # Looked up once: this runs for hundreds of rows.
        new_item, set_item = qt.QTableWidgetItem, self.table.setItem
        for column, text in enumerate(self._texts(finding)):
            item = new_item(text)
            if column <= _SIZE:
                item.setTextAlignment(self._right)
            else:
                item.setForeground(self._colours[finding.state])
            if column == _NUMBER:
                item.setData(qt.Qt.UserRole, finding.id)
            elif column == _VERDICT and finding.comment:
                item.setToolTip(finding.comment)
            set_item(row, column, item)
        set_item(row, _RANK, new_item())

    def _fill_row(self, row: int, finding: Finding) -> None:
        for column, text in enumerate(self._texts(finding)):
            item = self.table.item(row, column)
            item.setText(text)
            if column > _SIZE:
                item.setForeground(self._colours[finding.state])
            if column == _VERDICT:
                item.setToolTip(finding.comment)

    def _texts(self, finding: Finding) -> tuple[str, str, str, str, str]:
        return (
            str(self._number_of(finding.id)),
            "" if finding.score is None else f"{finding.score:.2f}",
            "" if finding.diameter_mm is None else f"{finding.diameter_mm:.1f}",
            state_text(finding.state),
            _verdict(finding),
        )

    def _rank(self, finding: Finding, column: int) -> float:
        if column == _NUMBER:
            return float(self._number_of(finding.id))
        if column == _SCORE:
            return -1.0 if finding.score is None else float(finding.score)
        if column == _SIZE:
            return -1.0 if finding.diameter_mm is None else float(finding.diameter_mm)
        return float(_STATE_RANK[finding.state] if column == _STATE else _verdict_rank(finding))

    def _remove_row(self, key: str) -> None:
        was_quiet, self._is_quiet = self._is_quiet, True
        self.table.removeRow(self._rows[key])
        del self._findings[key]
        if self._selected == key:
            self._selected = None
            self.table.clearSelection()
        self._read_order()
        self._is_quiet = was_quiet

    def _sort(self) -> None:
        column, falling = self._sorted_by
        order = qt.Qt.DescendingOrder if falling else qt.Qt.AscendingOrder
        item, role = self.table.item, qt.Qt.DisplayRole
        for row, key in enumerate(self._ids):
            item(row, _RANK).setData(role, self._rank(self._findings[key], column))
        self.table.sortItems(_RANK, order)
        self.table.horizontalHeader().setSortIndicator(column, order)
        self._read_order()

    def _read_order(self) -> None:
        """Learn which id stands in which row, and hide anew: a row's hiding stays where it was when items move."""
        item, role, is_hidden = self.table.item, qt.Qt.UserRole, self.table.isRowHidden
        self._ids = [str(item(row, _NUMBER).data(role)) for row in range(self.table.rowCount)]
        self._rows = {key: row for row, key in enumerate(self._ids)}
        self._hidden = [is_hidden(row) for row in range(len(self._ids))]
        self._hide_rows()

    # What is seen

    def _is_wanted(self, finding: Finding, states: frozenset[State], text: str) -> bool:
        if finding.id == self._selected:
            # What was just judged must not vanish from under the reader, nor from the order "next" goes by.
            return True
        if not (finding.is_reviewed or finding.score is None or finding.score >= self._threshold):
            return False
        if finding.state not in states:
            return False
        return not text or text in self._words(finding)

    def _words(self, finding: Finding) -> str:
        number = self._number_of(finding.id)
        return f"{number} {state_text(finding.state)} {_verdict(finding)} {finding.comment}".lower()

    def _wanted(self) -> tuple[frozenset[State], str]:
        name = list(_FILTERS)[max(self.filter_box.currentIndex, 0)]
        return _FILTERS[name], self.filter_edit.text.strip().lower()

    def _hide_rows(self) -> None:
        states, text = self._wanted()
        changes = []
        for row, key in enumerate(self._ids):
            hidden = not self._is_wanted(self._findings[key], states, text)
            if hidden != self._hidden[row]:
                changes.append((row, hidden))
        if not changes:
            return
        self.table.setUpdatesEnabled(False)
        for row, hidden in changes:
            self.table.setRowHidden(row, hidden)
            self._hidden[row] = hidden
        self.table.setUpdatesEnabled(True)

    def _hide_row(self, row: int) -> None:
        states, text = self._wanted()
        hidden = not self._is_wanted(self._findings[self._ids[row]], states, text)
        if hidden != self._hidden[row]:
            self.table.setRowHidden(row, hidden)
            self._hidden[row] = hidden

    # What the user does

    def _on_filter(self, *_arguments: Any) -> None:
        self._hide_rows()

    def _on_header(self, column: int) -> None:
        by, falling = self._sorted_by
        # Scores and sizes are asked for from the top, the others from the beginning.
        self._sorted_by = (column, not falling if column == by else column in (_SCORE, _SIZE))
        was_quiet, self._is_quiet = self._is_quiet, True
        self._sort()
        self._is_quiet = was_quiet
        self.select(self._selected)

    def _on_selection(self) -> None:
        if self._is_quiet:
            return
        row = self.table.currentRow()
        if not 0 <= row < len(self._ids) or self._ids[row] == self._selected:
            return
        self.select(self._ids[row])
        self._on_selected(self._ids[row])


def _verdict(finding: Finding) -> str:
    """Return certainty or mimic class, and what else sets the finding apart."""
    parts = [verdict_text(finding)]
    if finding.is_added:
        parts.append(_("added"))
    elif finding.is_moved:
        parts.append(_("moved"))
    if finding.comment:
        parts.append("\u270e")
    return ", ".join(part for part in parts if part)


def _verdict_rank(finding: Finding) -> int:
    if finding.certainty is not None:
        return list(Certainty).index(finding.certainty)
    if finding.mimic_class is not None:
        return len(Certainty) + list(MIMIC_CLASSES).index(finding.mimic_class)
    return len(Certainty) + len(MIMIC_CLASSES)
