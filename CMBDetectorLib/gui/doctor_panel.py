"""The panel that checks the installation: ``cmbdetector doctor`` in the background, its findings, its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from CMBDetectorLib import __version__
from CMBDetectorLib.doctor.findings import OK, PROBLEM, WARNING
from CMBDetectorLib.doctor.privacy import without_person
from CMBDetectorLib.gui import preferences
from CMBDetectorLib.gui.commands import Commands, sentence
from CMBDetectorLib.gui.endings import JobError
from CMBDetectorLib.gui.export_panel import default_dataset
from CMBDetectorLib.models.bundle import RESOURCES

_KIND = "doctor"
_STATES = {OK: "\u2713", WARNING: "!", PROBLEM: "\u2717"}
_STATE, _NAME, _TEXT = range(3)


class DoctorPanel:
    """Checks this computer when asked to; ``report`` is what *Copy report* copies, without personal data."""

    def __init__(self) -> None:
        # A queue of its own: lists of models do not wait for the self-test.
        self.commands = Commands()
        self.findings: list[Mapping[str, Any]] = []
        self.report = ""
        self.widget = slicer.util.loadUI(str(RESOURCES / "UI" / "DoctorPanel.ui"))
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self._prepare_table()
        self.ui.checkButton.connect("clicked()", self._on_check)
        self.ui.copyButton.connect("clicked()", self._on_copy)
        self.ui.findingTable.connect("itemSelectionChanged()", self._on_selected)
        self._say(
            _("Checks interpreter, packages, memory, disk, models and HD-BET, and searches a phantom: 20 seconds.")
        )
        self._on_selected()
        self.update()

    def check(self) -> None:
        """Make all checks in the background."""
        self.findings, self.report = [], ""
        self._show([])
        self._say(_("Checking: about 20 seconds…"))
        folders = {_("Reviews"): preferences.reviews_folder(), _("Local dataset"): default_dataset()}
        # A setting lets the tests leave out the self-test.
        arguments = ["doctor", *preferences.text("DoctorOptions").split()]
        for name, folder in folders.items():
            arguments += ["--folder", f"{name}={folder}"]
        self.commands.run(_KIND, arguments, self._on_result, self._on_error)
        self.update()

    def update(self) -> None:
        """Bring the buttons up to date."""
        running = self.commands.is_asked(_KIND)
        self.ui.checkButton.text = _("Cancel") if running else _("Check this computer")
        self.ui.checkButton.toolTip = (
            _("Stop checking.") if running else _("Look whether everything works that a detection needs.")
        )
        self.ui.copyButton.enabled = bool(self.report)
        self.ui.copyButton.toolTip = (
            _("Copy the report, to put it into a question or an issue. It names no person and no scan.")
            if self.report
            else _("There is no report before the computer was checked.")
        )

    def close(self) -> None:
        """The module or the application goes."""
        self.commands.close()

    def _on_check(self) -> None:
        if self.commands.is_asked(_KIND):
            self.commands.drop(_KIND)
            self._say(_("Cancelled."))
            self.update()
        else:
            self.check()

    def _on_result(self, result: dict[str, Any]) -> None:
        self.findings = list(result["findings"])
        self.report = str(result["report"])
        self._show(self.findings)
        wrong = [finding for finding in self.findings if finding["state"] != OK]
        self._say(self.report.splitlines()[0])
        if wrong:
            gravest = next((f for f in wrong if f["state"] == PROBLEM), wrong[0])
            self.ui.findingTable.setCurrentCell(self.findings.index(gravest), _NAME)
        self.update()

    def _on_error(self, error: JobError) -> None:
        # Without an interpreter there is nobody to examine anything; that is the finding.
        self.report = without_person(f"CMBDetector {__version__}: {sentence(error)}")
        self._say(sentence(error))
        self.update()

    def _on_copy(self) -> None:
        qt.QApplication.clipboard().setText(self.report)
        self._say(_("The report is on the clipboard."))

    def _on_selected(self) -> None:
        row = self.ui.findingTable.currentRow()
        finding = self.findings[row] if 0 <= row < len(self.findings) else None
        lines = [finding["text"], finding["hint"]] if finding is not None else []
        self.ui.detailsLabel.text = "\n".join(line for line in lines if line)

    def _say(self, message: str) -> None:
        self.ui.messageLabel.text = message

    def _show(self, findings: Sequence[Mapping[str, Any]]) -> None:
        table = self.ui.findingTable
        table.setRowCount(0)
        table.setRowCount(len(findings))
        for row, finding in enumerate(findings):
            texts = (_STATES.get(finding["state"], "?"), str(finding["name"]), str(finding["text"]))
            for column, text in enumerate(texts):
                table.setItem(row, column, qt.QTableWidgetItem(text))
        table.setVisible(bool(findings))
        table.setFixedHeight((table.fontMetrics().height() + 6) * (min(len(findings), 14) + 1) + 12)

    def _prepare_table(self) -> None:
        table = self.ui.findingTable
        table.setColumnCount(_TEXT + 1)
        table.setHorizontalHeaderLabels(["", _("Check"), _("Found")])
        table.verticalHeader().setVisible(False)
        table.horizontalHeader().setHighlightSections(False)
        table.verticalHeader().setDefaultSectionSize(table.fontMetrics().height() + 6)
        ems = table.fontMetrics().height()
        for column, width in ((_STATE, 1.6), (_NAME, 8)):
            table.setColumnWidth(column, int(width * ems))
        table.horizontalHeader().setSectionResizeMode(_TEXT, qt.QHeaderView.Stretch)
        table.setVisible(False)
