"""The panel that starts a detection: scan, brain mask, model, one button, progress."""

from __future__ import annotations

import logging
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from CMBDetectorLib.errors import CMBDetectorError, MissingPackageError
from CMBDetectorLib.gui.candidates_node import MASK_ROLE, CandidatesNode
from CMBDetectorLib.gui.detection import Progress, Settings
from CMBDetectorLib.gui.plain_text import plain_tip
from CMBDetectorLib.models.bundle import DEFAULT_MODEL, RESOURCES, read_card
from CMBDetectorLib.models.registry import Registry
from CMBDetectorLib.models.versions import Version, all_versions, bundled_versions, find_version
from CMBDetectorLib.runtime.interpreter import InterpreterError

if TYPE_CHECKING:
    from CMBDetectorLib.gui.detection import DetectionLogic

_LOGGER = logging.getLogger("CMBDetector")
NEEDS_SET_UP = (InterpreterError.code, MissingPackageError.code)
"""Codes of errors that setting the packages up may mend."""
MASKS = {
    "auto": "Automatic (HD-BET where it is set up)",
    "hd-bet": "HD-BET",
    "simple": "Simple (needs no weights)",
    "none": "None (the scan holds brain only)",
    "node": "Segmentation or label map:",
}


class DetectPanel:
    """Shows and changes ``parameters``; starts and follows the jobs of ``logic``.

    ``widget`` goes into the module's layout.
    """

    def __init__(self, logic: DetectionLogic) -> None:
        self.logic = logic
        self.on_set_up: Callable[[], None] = lambda: None
        self.parameters: Any = None
        self._is_showing = False
        self._details = ""
        self.widget = slicer.util.loadUI(str(RESOURCES / "UI" / "DetectPanel.ui"))
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self.widget.setMRMLScene(slicer.mrmlScene)
        for key, text in MASKS.items():
            self.ui.maskCombo.addItem(_(text), key)
        self._fill_models()
        self._connect()
        self.show_idle()

    def set_parameters(self, parameters: Any) -> None:
        """Follow another parameter node (``None`` while a scene is closed)."""
        # Bound by hand: connectGui() leaves an observer behind that cannot be removed. It calls into what the garbage
        # collector has cleared, and the application crashes, once nothing but the observer holds the parameters.
        self.parameters = parameters
        if parameters is not None:
            self._show_choices()
        self.update()

    def update(self) -> None:
        """Bring buttons and texts up to date with what can be done now."""
        self._show_nodes()
        scan = self.scan
        running, waits = self.logic.is_running, self.logic.runs_other
        scan_is_busy = scan is not None and self.logic.is_waiting_or_running(scan.GetID())
        self.ui.detectButton.text = _("Cancel") if running else _("Detect")
        self.ui.detectButton.enabled = running or scan is not None
        if running:
            self.ui.detectButton.toolTip = _("Stop the detection. Nothing is written.")
        elif scan is None:
            self.ui.detectButton.toolTip = _("Load a scan and choose it above.")
        elif waits:
            self.ui.detectButton.toolTip = _("Search the scan for microbleeds once the retraining is done.")
        else:
            self.ui.detectButton.toolTip = _("Search the scan for microbleeds, in the background.")
        self.ui.queueButton.enabled = running and scan is not None and not scan_is_busy
        self.ui.queueButton.toolTip = (
            _("This scan is being searched or waits already.")
            if scan_is_busy
            else _("Search this scan when the others are done.")
            if running
            else _("Nothing is running: press Detect.")
        )
        self.ui.sampleButton.enabled = not self.logic.is_waiting_or_running("sample")
        self.ui.maskSelector.setVisible(self._mask() == "node")
        self._update_queue()
        self._update_mask_box()

    def show_progress(self, progress: Progress) -> None:
        """Show how far the running job is."""
        self.ui.progressBar.setVisible(True)
        self.ui.stageLabel.setVisible(True)
        self.ui.progressBar.value = round(1000 * progress.fraction)
        self.ui.stageLabel.text = progress.sentence()

    def show_idle(self) -> None:
        """Take the progress away."""
        self.ui.progressBar.setVisible(False)
        self.ui.stageLabel.setVisible(False)
        self.ui.progressBar.value = 0
        self.update()

    def say(self, message: str, details: str = "", report: bool = False, needs_set_up: bool = False) -> None:
        """Show one sentence; ``details`` stay behind a button, ``needs_set_up`` offers to set packages up."""
        self._details = details
        self.ui.messageLabel.text = message
        self.ui.messageLabel.setVisible(bool(message))
        self.ui.detailsButton.setVisible(bool(details))
        self.ui.reportButton.setVisible(report)
        self.ui.setUpButton.setVisible(needs_set_up)

    def refresh_models(self, choose_active: bool = False) -> None:
        """Offer the models as they are installed now; ``choose_active`` takes the active one."""
        if self.parameters is None:
            return
        chosen = "" if choose_active else self.parameters.model
        blocked = self.ui.modelCombo.blockSignals(True)
        self.ui.modelCombo.clear()
        self._fill_models()
        self.ui.modelCombo.blockSignals(blocked)
        if chosen and self.ui.modelCombo.findData(chosen) < 0 and not Path(chosen).is_dir():
            # It was removed.
            chosen = ""
        self.parameters.model = chosen
        self._show_choices()

    @property
    def scan(self) -> slicer.vtkMRMLScalarVolumeNode | None:
        """The chosen scan."""
        return self.parameters.inputVolume if self.parameters is not None else None

    def settings(self) -> Settings:
        """Return what is chosen."""
        mask_node = self.parameters.maskNode
        return Settings(
            brain_mask=self._mask(),
            mask_node_id=mask_node.GetID() if mask_node is not None and self._mask() == "node" else None,
            model=self.parameters.model or default_model(),
        )

    def detect(self) -> None:
        """Start, or cancel what runs: the big button."""
        if self.logic.is_running:
            self.logic.cancel()
        elif self.scan is not None:
            self._start()
        self.update()

    def load_sample(self) -> None:
        """Make a simulated scan in the background and load it."""
        self.say("")
        try:
            self.logic.add_sample()
        except CMBDetectorError as error:
            self._tell(error)
        self.update()

    def _start(self) -> None:
        self.say("")
        if self._mask() == "node" and self.parameters.maskNode is None:
            self.say(_("Choose the segmentation or label map of the brain, or another brain mask."))
            return
        try:
            self.logic.add(self.scan, self.settings())
        except CMBDetectorError as error:
            self._tell(error)

    def _tell(self, error: CMBDetectorError) -> None:
        self.say(f"{error.message} {error.hint}", needs_set_up=error.code in NEEDS_SET_UP)

    def _connect(self) -> None:
        ui = self.ui
        ui.detectButton.connect("clicked()", self.detect)
        ui.queueButton.connect("clicked()", self._on_queue)
        ui.sampleButton.connect("clicked()", self.load_sample)
        ui.modelFolderButton.connect("clicked()", self._on_model_folder)
        ui.setUpButton.connect("clicked()", lambda: self.on_set_up())
        ui.detailsButton.connect("clicked()", self._on_details)
        ui.reportButton.connect("clicked()", self._on_report)
        ui.maskCombo.connect("currentIndexChanged(int)", self._on_mask)
        ui.modelCombo.connect("currentIndexChanged(int)", self._on_model)
        ui.inputSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._on_scan)
        ui.maskSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._on_mask_node)
        ui.showMaskBox.connect("toggled(bool)", self._on_show_mask)
        ui.queueList.connect("itemDoubleClicked(QListWidgetItem*)", self._on_unqueue)
        self.say("")

    def _on_queue(self) -> None:
        self._start()
        self.update()

    def _on_scan(self, node: Any) -> None:
        if self.parameters is not None and not self._is_showing:
            self.parameters.inputVolume = node
        self.update()

    def _on_mask(self, index: int) -> None:
        if self.parameters is not None:
            self.parameters.brainMask = self._mask()
        self.update()

    def _on_mask_node(self, node: Any) -> None:
        if self.parameters is not None and not self._is_showing:
            self.parameters.maskNode = node

    def _on_model(self, index: int) -> None:
        if self.parameters is not None and index >= 0:
            self.parameters.model = str(self.ui.modelCombo.itemData(index))
        self._show_notice()

    def _on_model_folder(self) -> None:
        folder = qt.QFileDialog.getExistingDirectory(self.widget, _("Folder of a model"))
        if folder and self.parameters is not None:
            self.parameters.model = str(folder)
            self._show_choices()

    def _on_details(self) -> None:
        slicer.util.infoDisplay(_("What the program wrote to its log:"), detailedText=self._details)

    def _on_report(self) -> None:
        path = self.logic.last_report
        if path is not None and path.is_file():
            qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(path)))

    def _on_show_mask(self, on: bool) -> None:
        mask = self._mask_node()
        if mask is not None:
            # Somebody may have deleted how it is displayed.
            mask.CreateDefaultDisplayNodes()
            mask.GetDisplayNode().SetVisibility(on)

    def _on_unqueue(self, item: Any) -> None:
        key = item.data(qt.Qt.UserRole)
        self.logic.take_out(str(key))
        self.update()

    def _mask(self) -> str:
        return str(self.ui.maskCombo.itemData(self.ui.maskCombo.currentIndex))

    def _mask_node(self) -> slicer.vtkMRMLSegmentationNode | None:
        nodes = CandidatesNode.of_scan(self.scan)
        return nodes.node.GetNodeReference(MASK_ROLE) if nodes is not None else None

    def _update_mask_box(self) -> None:
        mask = self._mask_node()
        box = self.ui.showMaskBox
        box.enabled = mask is not None
        box.toolTip = (
            _("Show the brain mask of the last detection in the slice views.")
            if mask is not None
            else _("There is a mask to look at once the scan was searched.")
        )
        blocked = box.blockSignals(True)
        box.checked = bool(mask is not None and mask.GetDisplayNode() and mask.GetDisplayNode().GetVisibility())
        box.blockSignals(blocked)

    def _update_queue(self) -> None:
        waiting = self.logic.waiting()
        self.ui.queueList.clear()
        for key, title in waiting:
            item = qt.QListWidgetItem(title)
            item.setData(qt.Qt.UserRole, key)
            self.ui.queueList.addItem(item)
        self.ui.queueList.setVisible(bool(waiting))

    def _fill_models(self) -> None:
        """Offer the bundled models and those that are installed; a damaged one is left out, with a word in the log."""
        active = default_model()
        for version in known_models():
            text = f"{version.name} {version.version}"
            self.ui.modelCombo.addItem(
                _("{model} (active)").format(model=text) if version.reference == active else text, version.reference
            )

    def _show_nodes(self) -> None:
        """Let the selectors show what the parameters say."""
        if self.parameters is None or self._is_showing:
            return
        self._is_showing = True
        for selector, node in (
            (self.ui.inputSelector, self.parameters.inputVolume),
            (self.ui.maskSelector, self.parameters.maskNode),
        ):
            if selector.currentNode() is not node:
                selector.setCurrentNode(node)
        self._is_showing = False

    def _show_choices(self) -> None:
        """Let the combo boxes show what the parameters say."""
        index = self.ui.maskCombo.findData(self.parameters.brainMask)
        self.ui.maskCombo.setCurrentIndex(max(0, index))
        model = self.parameters.model or default_model()
        if self.ui.modelCombo.findData(model) < 0:
            self.ui.modelCombo.addItem(Path(model).name, model)
        self.ui.modelCombo.setCurrentIndex(self.ui.modelCombo.findData(model))
        self._show_notice()

    def _show_notice(self) -> None:
        """Say what the chosen model learnt from and that it is no medical product."""
        model = str(self.ui.modelCombo.itemData(self.ui.modelCombo.currentIndex) or default_model())
        try:
            folder = Path(model) if Path(model).is_absolute() else find_version(model).folder
            card = read_card(folder)
            told = f"{card['training_data']} "
            self.ui.modelCombo.toolTip = plain_tip(f"{card['name']} {card['version']}: {card['description']}")
        except CMBDetectorError as error:
            told = f"{error.message} "
            self.ui.modelCombo.toolTip = plain_tip(f"{error.message} {error.hint}")
        # A stranger's card may hold anything, also what would hide the words after it.
        self.ui.noticeLabel.text = f"<small>{escape(told)}<b>{_('Not for clinical use.')}</b></small>"


def known_models() -> list[Version]:
    """Return the models that can be chosen; what is damaged goes to the log."""
    try:
        versions = all_versions()
    except CMBDetectorError as error:
        _LOGGER.warning("installed models: %s", error.message)
        versions = bundled_versions()
    for version in versions:
        if version.problem is not None:
            _LOGGER.warning("model %s: %s", version.reference, version.problem)
    return [version for version in versions if version.problem is None]


def default_model() -> str:
    """Return the model that is used where none is chosen: the active one (NAME@VERSION)."""
    try:
        return Registry().active_reference()
    except CMBDetectorError as error:
        _LOGGER.warning("active model: %s", error.message)
        return DEFAULT_MODEL
