"""The module's panel as a whole: puts the panels together and follows scene, parameters and jobs."""

from __future__ import annotations

import logging
import weakref
from typing import Any

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from CMBDetectorLib.errors import CMBDetectorError
from CMBDetectorLib.gui import scene, slice_views
from CMBDetectorLib.gui.candidates_node import CandidatesNode
from CMBDetectorLib.gui.detect_panel import NEEDS_SET_UP, DetectPanel
from CMBDetectorLib.gui.detection import DetectionLogic, Outcome, worker_interpreter
from CMBDetectorLib.gui.doctor_panel import DoctorPanel
from CMBDetectorLib.gui.export_panel import ExportPanel
from CMBDetectorLib.gui.learning import Learning, LearningContext
from CMBDetectorLib.gui.review_panel import ReviewPanel
from CMBDetectorLib.gui.scan_node import key_of, scan_volume
from CMBDetectorLib.gui.set_up_panel import SetUpPanel
from CMBDetectorLib.volume import Volume

LATER_SECTIONS = ("retrain", "models", "doctor", "set up")
"""Sections that nobody needs in order to read a scan: closed at first."""
_TICK_MS = 100
_MASK_LATER_MS = 300
_LOGGER = logging.getLogger("CMBDetector")


class ModulePanels:
    """Detect, review, export and learn, in the ``layout`` of the module.

    ``parameters`` is a function that returns the module's parameter node, made anew for each scene.
    """

    def __init__(self, layout: qt.QLayout, parameters: Any) -> None:
        self._make_parameters = parameters
        self._parameters: Any = None
        self._parameter_tag: int | None = None
        self._scan_id: str | None = None
        self._is_choosing = False
        self._observed: list[tuple[Any, int]] = []
        self._notes: list[str] = []
        self.logic = DetectionLogic()
        self.detect = DetectPanel(self.logic)
        # The panels hold each other loosely: a reload must be able to let go of the old ones.
        me = weakref.proxy(self)
        self.review = ReviewPanel(slicer.util.mainWindow() or layout.parentWidget(), lambda: me._on_review_changed())
        self.export = ExportPanel(
            lambda: me.review.session, lambda: me._on_dataset(), take_typed=lambda: me.review.take_typed()
        )
        self.learning = Learning(
            self.logic,
            LearningContext(
                scan=lambda: me.detect.scan,
                choose_scan=lambda scan: me._choose_scan(scan),
                reader=lambda: me.review.reader,
                on_folder=lambda: me.export.follow_folder(),
                on_model=lambda is_active_new: me.detect.refresh_models(choose_active=is_active_new),
                open_models=lambda: me._open(me.sections["models"]),
            ),
        )
        self.retrain, self.models = self.learning.retrain, self.learning.models
        self.doctor = DoctorPanel()
        self.set_up = SetUpPanel(lambda: me._on_set_up())
        self._make_sections(layout, me)
        self.logic.on_busy = self._start_timer
        self.logic.on_progress = self.detect.show_progress
        self.logic.on_end = self._on_end
        self.logic.on_note = self._notes.append
        self.logic.on_idle = self._on_idle
        self._timer = qt.QTimer()
        self._timer.setInterval(_TICK_MS)
        self._timer.connect("timeout()", self._on_tick)
        self._take_parameters()
        # Last: what fails above leaves nothing behind that would be called later.
        for event, slot in (
            (slicer.mrmlScene.StartCloseEvent, self._on_close_start),
            (slicer.mrmlScene.EndCloseEvent, self._on_close_end),
            (slicer.mrmlScene.EndImportEvent, self._on_import_end),
            (slicer.mrmlScene.NodeAddedEvent, self._on_node_added),
            (slicer.mrmlScene.NodeRemovedEvent, self._on_node_removed),
        ):
            self._observed.append((slicer.mrmlScene, slicer.mrmlScene.AddObserver(event, slot)))

    def _make_sections(self, layout: qt.QLayout, me: ModulePanels) -> None:
        """Put the panels into sections; ``me`` is a weak reference to this object, for what the sections call."""
        self.sections = {
            "detect": self._section(layout, _("Detect"), "detectSection", self.detect.widget),
            "review": self._section(layout, _("Review"), "reviewSection", self.review.widget),
            "export": self._section(layout, _("Export"), "exportSection", self.export.widget),
            "retrain": self._section(layout, _("Retrain on local data"), "retrainSection", self.retrain.widget),
            "models": self._section(layout, _("Models"), "modelSection", self.models.widget),
            "doctor": self._section(layout, _("Check the installation"), "doctorSection", self.doctor.widget),
            "set up": self._section(layout, _("Set up"), "setUpSection", self.set_up.widget),
        }
        for name in LATER_SECTIONS:
            # What asks the worker is not asked before somebody wants to see it.
            self.sections[name].collapsed = True
        changed = "contentsCollapsed(bool)"
        self.sections["retrain"].connect(changed, lambda closed: closed or me.retrain.refresh())
        self.sections["models"].connect(changed, lambda closed: closed or me.models.refresh())
        self.sections["set up"].connect(changed, lambda closed: closed or me.set_up.update())
        self.detect.on_set_up = lambda: me._open(me.sections["set up"])
        layout.addStretch(1)

    # From the module

    def enter(self) -> None:
        """The module is shown."""
        self._take_parameters()
        self._choose_shown_scan()
        self.review.enter()
        self._follow()
        self._refresh_learning()
        self._offer_set_up()

    def exit(self) -> None:
        """Another module is shown."""
        self.review.exit()

    def close(self) -> None:
        """The module or the application goes: nothing may be left behind."""
        self._timer.stop()
        self._timer.disconnect("timeout()", self._on_tick)
        self._drop_parameters()
        for thing, tag in self._observed:
            thing.RemoveObserver(tag)
        self._observed = []
        self.review.close()
        self.export.close()
        self.learning.close()
        self.doctor.close()
        self.set_up.close()
        self.logic.close()

    def load_sample(self) -> None:
        """Make a simulated scan in the background and load it."""
        self.detect.load_sample()

    # The scene

    def _on_close_start(self, caller: Any, event: str) -> None:
        self.logic.cancel_all()
        self.review.open_scan(None)
        self._drop_parameters()

    def _on_close_end(self, caller: Any, event: str) -> None:
        self._take_parameters()
        self._follow()

    def _on_import_end(self, caller: Any, event: str) -> None:
        # A loaded scene brings a parameter node of its own.
        self._drop_parameters()
        self._take_parameters()
        self._scan_id = None
        self._follow()
        self.review.show_layout_button()

    def _on_node_added(self, caller: Any, event: str) -> None:
        if self._parameters is not None and self._parameters.inputVolume is None and not self._is_choosing:
            # The volume is shown only after it was added.
            self._is_choosing = True
            qt.QTimer.singleShot(0, self._choose_shown_scan)

    def _choose_shown_scan(self) -> None:
        """Choose the scan in the slice views where none is chosen yet."""
        self._is_choosing = False
        if self._parameters is not None and self._parameters.inputVolume is None:
            shown = slice_views.background_volume()
            if shown is not None:
                self._parameters.inputVolume = shown

    def _on_node_removed(self, caller: Any, event: str) -> None:
        session = self.review.session
        if session is not None and (session.nodes.node is None or session.nodes.scan is None):
            self._scan_id = None
            self.review.open_scan(None)
            # Not inside the removal itself, when references still point to what goes.
            qt.QTimer.singleShot(0, self._follow)

    def _take_parameters(self) -> None:
        if self._parameters is not None and self._parameters.parameterNode.GetScene() is not None:
            return
        self._drop_parameters()
        self._parameters = self._make_parameters()
        self._parameter_tag = self._parameters.AddObserver("ModifiedEvent", self._on_parameters)
        self.detect.set_parameters(self._parameters)
        self.review.set_parameters(self._parameters)

    def _drop_parameters(self) -> None:
        if self._parameters is None:
            return
        if self._parameter_tag is not None:
            self._parameters.RemoveObserver(self._parameter_tag)
        self.detect.set_parameters(None)
        self.review.set_parameters(None)
        self._parameters = None

    def _on_parameters(self, caller: Any, event: str) -> None:
        before = self._scan_id
        self._follow()
        scan = self._parameters.inputVolume if self._parameters is not None else None
        if scan is not None and scan.GetID() != before:
            # Its places must not be looked at in another scan.
            slice_views.show_volume(scan)

    def _follow(self) -> None:
        """Show the review of the chosen scan."""
        if self._parameters is None:
            return
        scan = self._parameters.inputVolume
        scan_id = scan.GetID() if scan is not None else None
        if scan_id != self._scan_id or (scan is not None and self.review.session is None):
            self._scan_id = scan_id
            self.review.open_scan(scan)
        self.detect.update()
        self.retrain.importing.update()

    def _choose_scan(self, scan: slicer.vtkMRMLScalarVolumeNode) -> None:
        if self._parameters is not None:
            self._parameters.inputVolume = scan

    # The local dataset

    def _on_dataset(self) -> None:
        self.retrain.follow_folder()
        self._refresh_learning()

    def _refresh_learning(self) -> None:
        """Look at dataset and models again where they are shown."""
        for section, panel in (("retrain", self.retrain), ("models", self.models)):
            if not self.sections[section].collapsed:
                panel.refresh()

    # What computes

    def _offer_set_up(self) -> None:
        """Open the section *Set up* where nothing can compute yet."""
        try:
            worker_interpreter()
        except CMBDetectorError:
            self._open(self.sections["set up"])

    def _on_set_up(self) -> None:
        self.detect.say("")
        self._refresh_learning()

    @staticmethod
    def _open(section: Any) -> None:
        section.collapsed = False

    # The jobs

    def _start_timer(self) -> None:
        if not self._timer.isActive():
            self._timer.start()
            qt.QTimer.singleShot(0, self._on_tick)

    def _on_tick(self) -> None:
        before = self.logic.waiting(), self.logic.runs_other
        self.logic.tick()
        if not self.logic.is_busy:
            self._timer.stop()
        if before != (self.logic.waiting(), self.logic.runs_other):
            self.detect.update()

    def _on_idle(self) -> None:
        self.detect.show_idle()

    def _on_end(self, outcome: Outcome) -> None:
        notes, self._notes[:] = list(self._notes), []
        if outcome.error is not None:
            self._tell_failure(outcome)
        elif outcome.sample is not None:
            self._load_sample_file(outcome)
        else:
            self._show_detection(outcome, notes)
        self.detect.update()

    def _tell_failure(self, outcome: Outcome) -> None:
        if outcome.is_cancelled:
            self.detect.say(_("{title}: cancelled, nothing was written.").format(title=outcome.title))
            return
        # The title may be the name of a patient, which the application's log must not hold.
        _LOGGER.error("%s: %s\n%s", outcome.key, outcome.error.message, outcome.log)
        self.detect.say(
            f"{outcome.title}: {outcome.error.message} {outcome.error.hint}",
            details=outcome.log,
            needs_set_up=outcome.error.code in NEEDS_SET_UP,
        )

    def _load_sample_file(self, outcome: Outcome) -> None:
        try:
            node = scene.load_scan(outcome.sample, _("Simulated SWI"))
        except CMBDetectorError as error:
            self.detect.say(f"{error.message} {error.hint}")
            return
        if self._parameters is not None:
            self._parameters.inputVolume = node
        self.detect.say(_("A simulated scan was loaded: press Detect."))

    def _show_detection(self, outcome: Outcome, notes: list[str]) -> None:
        scan = slicer.mrmlScene.GetNodeByID(outcome.key)
        if scan is None:
            self.detect.say(_("{title} was removed from the scene: its result is dropped.").format(title=outcome.title))
            return
        if key_of(scan) != outcome.scan_key:
            words = _("{title} was changed while it was searched: its result is dropped. Detect again.")
            self.detect.say(words.format(title=outcome.title))
            return
        chosen = self._parameters is not None and self._parameters.inputVolume is not None
        is_current = chosen and self._parameters.inputVolume.GetID() == scan.GetID()
        nodes = self.review.show_detection(scan, outcome.detection, select_first=is_current)
        if outcome.mask is not None and outcome.mask.same_grid(scan_volume(scan)):
            # Later, so that neither is felt.
            qt.QTimer.singleShot(_MASK_LATER_MS, lambda: self._show_mask(nodes, outcome.mask))
        shown = len(outcome.detection.shown())
        below = len(outcome.detection.candidates) - shown
        none = _("{title}: no candidate reaches the score, {below} lie below it.")
        one = _("{title}: one candidate to judge, {below} below the score.")
        many = _("{title}: {shown} candidates to judge, {below} below the score.")
        words = (none, one, many)[min(shown, 2)].format(title=outcome.title, shown=shown, below=below)
        told = list(dict.fromkeys([*outcome.detection.settings.get("notes", []), *notes]))
        self.detect.say(" ".join([words, *told]), report=True)

    def _show_mask(self, nodes: CandidatesNode, mask: Volume) -> None:
        if nodes.node is not None and nodes.scan is not None:
            scene.show_brain_mask(nodes, mask)
            self.detect.update()

    def _on_review_changed(self) -> None:
        export = getattr(self, "export", None)
        if export is not None:
            export.update()

    def _section(self, layout: qt.QLayout, title: str, name: str, content: qt.QWidget) -> Any:
        button = ctk.ctkCollapsibleButton()
        button.text = title
        button.objectName = name
        inner = qt.QVBoxLayout(button)
        inner.addWidget(content)
        layout.addWidget(button)
        return button
