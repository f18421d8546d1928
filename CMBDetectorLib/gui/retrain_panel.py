"""The panel *Retrain on local data*: what the local dataset holds, how deep to retrain, one button, how it goes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from CMBDetectorLib.errors import CMBDetectorError
from CMBDetectorLib.gui import preferences
from CMBDetectorLib.gui.annotation_import import AnnotationImport, ImportContext
from CMBDetectorLib.gui.commands import Commands, sentence
from CMBDetectorLib.gui.dataset_view import DatasetView, summary_text
from CMBDetectorLib.gui.detection import Progress
from CMBDetectorLib.gui.endings import JobError
from CMBDetectorLib.gui.export_panel import default_dataset
from CMBDetectorLib.gui.line_chart import NEW, OLD, Axes, Line, LineChart
from CMBDetectorLib.gui.retrain_job import DEPTHS, Ended, Epoch, RetrainLogic, check_arguments
from CMBDetectorLib.models.bundle import RESOURCES

_LOGGER = logging.getLogger("CMBDetector")
_DEPTH_TEXTS = {
    "second-stage": (
        _("Second stage: the networks that judge candidates"),
        _("For fewer false positives after the first reviews: it takes minutes."),
    ),
    "both-stages": (
        _("Both stages: also those that search"),
        _("Where microbleeds of your scanner are missed altogether: it takes longer and wants more scans."),
    ),
    "from-scratch": (
        _("From scratch: forget the model"),
        _("The whole training as published: it takes hours and wants many scans."),
    ),
}


@dataclass(frozen=True)
class RetrainContext:
    """What the panel asks of the module and tells it.

    ``scan`` is the chosen one, ``reader`` who reviews, ``open_scan`` gets the file of a scan to look at,
    ``on_folder`` is told that another dataset was chosen, ``on_made`` gets the result of a retraining.
    """

    scan: Callable[[], slicer.vtkMRMLScalarVolumeNode | None]
    reader: Callable[[], str]
    open_scan: Callable[[str], None]
    on_folder: Callable[[], None]
    on_made: Callable[[Mapping[str, Any]], None]


class RetrainPanel:
    """Shows the local dataset and runs ``logic``; short commands go through ``commands``."""

    def __init__(self, logic: RetrainLogic, commands: Commands, context: RetrainContext) -> None:
        self.logic, self._commands, self._context = logic, commands, context
        self._check: Mapping[str, Any] | None = None
        self._trouble = ""
        self._details = ""
        self._is_stopping = False
        self.widget = slicer.util.loadUI(str(RESOURCES / "UI" / "RetrainPanel.ui"))
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self.widget.setMRMLScene(slicer.mrmlScene)
        self.table = DatasetView(context.open_scan)
        self.chart = LineChart("lossChart", _("The loss on what a network learns from, and on scans kept apart."))
        for place, part in ((self.ui.tablePlace, self.table), (self.ui.chartPlace, self.chart)):
            layout = qt.QVBoxLayout(place)
            layout.setContentsMargins(0, 0, 0, 0)
            layout.addWidget(part.widget)
        self.importing = AnnotationImport(
            self.ui, commands, ImportContext(context.scan, context.reader, lambda: self.dataset), self.refresh
        )
        for depth in DEPTHS:
            self.ui.depthCombo.addItem(_DEPTH_TEXTS[depth][0], depth)
        self.ui.depthCombo.setCurrentIndex(max(0, self.ui.depthCombo.findData(preferences.text("RetrainDepth"))))
        self.ui.folderEdit.text = str(default_dataset())
        self._connect()
        self.say("")
        self._show_idle()

    def _connect(self) -> None:
        ui, logic = self.ui, self.logic
        ui.folderEdit.connect("editingFinished()", self._on_folder_edited)
        ui.folderButton.connect("clicked()", self._on_folder)
        ui.refreshButton.connect("clicked()", self.refresh)
        ui.depthCombo.connect("currentIndexChanged(int)", self._on_depth)
        ui.retrainButton.connect("clicked()", self._on_retrain)
        ui.resumeButton.connect("clicked()", self._on_resume)
        ui.detailsButton.connect("clicked()", self._on_details)
        logic.on_change = self.update
        logic.on_progress = self._on_progress
        logic.on_epoch = self._on_epoch
        logic.on_note = self._on_note
        logic.on_end = self._on_end

    # From the module

    @property
    def dataset(self) -> Path:
        """The folder of the local dataset."""
        return Path(str(self.ui.folderEdit.text))

    @property
    def depth(self) -> str:
        """What learns."""
        return str(self.ui.depthCombo.itemData(self.ui.depthCombo.currentIndex))

    def follow_folder(self) -> None:
        """Show the folder of the local dataset that was chosen elsewhere."""
        self.ui.folderEdit.text = str(default_dataset())

    def refresh(self) -> None:
        """Look in the background what the dataset holds and whether it is enough."""
        if not self.dataset.is_dir():
            self._commands.drop("dataset list")
            self._on_list({"scans": [], "summary": {"listed": 0}})
        else:
            arguments = ["dataset", "list", str(self.dataset)]
            self._commands.run("dataset list", arguments, self._on_list, self._on_list_error)
        self.look_again()

    def update(self) -> None:
        """Bring buttons and texts up to date with what can be done now."""
        ui, running = self.ui, self.logic.is_waiting_or_running
        why = self._why_not()
        ui.retrainButton.text = _("Cancel") if running else _("Retrain on local data")
        ui.retrainButton.enabled = not self._is_stopping if running else not why
        if running:
            ui.retrainButton.toolTip = _("Stop the retraining. The active model stays as it is; you can go on later.")
        else:
            ui.retrainButton.toolTip = why or _("Make a new version of the active model. It is not made active.")
        resumable = bool(self._check and self._check.get("resumable"))
        if resumable and not running:
            ui.retrainButton.toolTip = _("Begin anew; “Go on” continues what was interrupted instead.")
        ui.resumeButton.setVisible(resumable and not running)
        for widget in (ui.folderEdit, ui.folderButton, ui.depthCombo):
            widget.enabled = not running
        if self.logic.is_waiting:
            ui.stageLabel.text = _("The retraining waits until the detection is done.")
        ui.stageLabel.setVisible(running)
        ui.progressBar.setVisible(running)
        ui.depthLabel.text = self._depth_text(why)
        self.importing.update()

    def say(self, message: str, details: str = "") -> None:
        """Show a sentence; ``details`` stay behind a button."""
        self._details = details
        self.ui.messageLabel.text = message
        self.ui.messageLabel.setVisible(bool(message))
        self.ui.detailsButton.setVisible(bool(details))

    def close(self) -> None:
        """Let go of what is under way."""
        self.importing.close()

    # What the worker says of the dataset

    def look_again(self) -> None:
        """Ask in the background whether the dataset is enough, and whether an interrupted retraining can go on."""
        self._check, self._trouble = None, ""
        if not self.dataset.is_dir():
            self._commands.drop("retrain check")
            self._trouble = _("The local dataset holds no scans yet: review a scan and add it (section Export).")
        else:
            arguments = [*check_arguments(self.dataset, self.depth), "--check"]
            self._commands.run("retrain check", arguments, self._on_check, self._on_check_error)
        self.update()

    def _on_list(self, result: Mapping[str, Any]) -> None:
        self.table.show(result["scans"])
        self.ui.summaryLabel.text = summary_text(result["summary"])

    def _on_list_error(self, error: JobError) -> None:
        self.table.show([])
        self.ui.summaryLabel.text = sentence(error)

    def _on_check(self, result: Mapping[str, Any]) -> None:
        self._check = result
        self.update()

    def _on_check_error(self, error: JobError) -> None:
        self._trouble = sentence(error)
        self.update()

    def _why_not(self) -> str:
        """Return why retraining is not possible now, "" where it is."""
        if self._trouble:
            return self._trouble
        if self._check is None:
            return _("The local dataset is being looked at.")
        if not self._check.get("enough"):
            missing = ", ".join(str(part) for part in self._check.get("missing") or ())
            return _("There is too little to learn from; missing: {missing}.").format(missing=missing)
        return ""

    def _depth_text(self, why: str) -> str:
        words = [_DEPTH_TEXTS[self.depth][1]]
        if why and not self.logic.is_waiting_or_running:
            words.append(why)
        elif self._check and isinstance(self._check.get("minutes"), int | float):
            words.append(
                _("Starts from {model}; about {minutes} on two processor cores.").format(
                    model=self._check.get("model", "?"), minutes=_duration(self._check["minutes"])
                )
            )
        if self._check and self._check.get("resumable") and not self.logic.is_waiting_or_running:
            words.append(_("A retraining was interrupted: it can go on."))
        return " ".join(words)

    # How it goes

    def _on_progress(self, progress: Progress) -> None:
        self.ui.progressBar.value = round(1000 * progress.fraction)
        if not self._is_stopping:
            self.ui.stageLabel.text = progress.sentence()

    def _on_epoch(self, epoch: Epoch) -> None:
        known = self.logic.curves.last_network()
        lines = [
            Line(_("loss"), NEW, [(e.epoch, e.loss) for e in known if e.loss is not None]),
            Line(
                _("other scans"), OLD, [(e.epoch, e.validation) for e in known if e.validation is not None],
                is_dashed=True,
            ),
        ]  # fmt: skip
        axes = Axes(_("epoch"), epoch.network, x_range=(1.0, float(max(2, epoch.epochs))), is_counted=True)
        self.chart.show(lines, axes)
        self._on_said(epoch.sentence())

    def _on_note(self, note: str) -> None:
        # Epochs are told as numbers, too.
        if ": epoch " not in note:
            self._on_said(note)

    def _on_said(self, text: str) -> None:
        self.ui.noteLabel.text = text
        self.ui.noteLabel.setVisible(True)

    def _on_end(self, ended: Ended) -> None:
        self._is_stopping = False
        self._show_idle()
        if ended.is_cancelled:
            self.say(_("Cancelled: the active model is as it was. You can go on later, from where it was."))
        elif ended.error is not None:
            _LOGGER.error("Retraining: %s\n%s", ended.error.message, ended.log)
            words = _("{why} The active model is as it was.").format(why=sentence(ended.error))
            self.say(words, details=ended.log)
        else:
            self._tell_result(ended.result)
        self.refresh()

    def _tell_result(self, result: Mapping[str, Any]) -> None:
        if result.get("reference"):
            words = _("{reference} was made from {parent}. It is not active yet: compare them below, then activate it.")
        else:
            words = _("Nothing got better on the scans kept apart: {parent} stays as it is, no version was made.")
        self.say(words.format(reference=result.get("reference"), parent=result.get("parent", "?")))
        self._context.on_made(result)

    def _show_idle(self) -> None:
        self.ui.progressBar.value = 0
        self.ui.stageLabel.text = ""
        self.ui.noteLabel.setVisible(False)
        self.chart.show([], Axes("", ""))
        self.update()

    # What is clicked

    def _on_retrain(self) -> None:
        if self.logic.is_waiting_or_running:
            self._is_stopping = True
            self.ui.stageLabel.text = _("The retraining is being stopped.")
            self.logic.cancel()
            self.update()
        else:
            self._start(resume=False)

    def _on_resume(self) -> None:
        self._start(resume=True)

    def _start(self, resume: bool) -> None:
        self.say("")
        preferences.store("RetrainDepth", self.depth)
        try:
            self.logic.start(self.dataset, self.depth, resume)
        except CMBDetectorError as error:
            self.say(f"{error.message} {error.hint}")
        self.update()

    def _on_depth(self, index: int) -> None:
        self.look_again()

    def _on_folder(self) -> None:
        folder = qt.QFileDialog.getExistingDirectory(self.widget, _("Folder of the local dataset"))
        if folder:
            self.ui.folderEdit.text = str(folder)
            self._on_folder_edited()

    def _on_folder_edited(self) -> None:
        if str(self.dataset) == str(default_dataset()):
            return
        preferences.store("LocalDataset", str(self.ui.folderEdit.text))
        self._context.on_folder()
        self.refresh()

    def _on_details(self) -> None:
        slicer.util.infoDisplay(_("What the program wrote to its log:"), detailedText=self._details)


def _duration(minutes: float) -> str:
    if minutes < 90:
        return _("{minutes} minutes").format(minutes=max(1, round(minutes)))
    return _("{hours:.1f} hours").format(hours=minutes / 60)
