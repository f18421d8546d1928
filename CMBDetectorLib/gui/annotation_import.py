"""Annotations made elsewhere into the local dataset: points of the scene, or a file, for the chosen scan."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from CMBDetectorLib.errors import BadInputError, CMBDetectorError, OutputError
from CMBDetectorLib.gui import preferences
from CMBDetectorLib.gui.candidates_node import CandidatesNode
from CMBDetectorLib.gui.commands import Commands, sentence
from CMBDetectorLib.gui.endings import JobError
from CMBDetectorLib.gui.job import WorkerJob
from CMBDetectorLib.gui.scan_job import SCAN_FILE, ScanJob
from CMBDetectorLib.gui.scan_node import file_of, from_world, scan_volume
from CMBDetectorLib.runtime.interpreter import Interpreter

_FILTERS = "Annotations (*.tsv *.csv *.mrk.json *.fcsv *.nii *.nii.gz *.nrrd);;All files (*)"
_OTHER_READER = "other-reader"
_POINTS_FILE = "points.tsv"


@dataclass(frozen=True)
class ImportContext:
    """What an import needs to know when a button is pressed: scan, reader, folder of the dataset."""

    scan: Callable[[], slicer.vtkMRMLScalarVolumeNode | None]
    reader: Callable[[], str]
    dataset: Callable[[], Path]


class AnnotationImport:
    """The part of the panel with the widgets ``ui``; ``on_added`` is called when the dataset has changed."""

    def __init__(self, ui: Any, commands: Commands, context: ImportContext, on_added: Callable[[], None]) -> None:
        self.ui = ui
        self._commands, self._context, self._on_added = commands, context, on_added
        self._last: Callable[[], None] | None = None
        self._refused: tuple[str, str, Path] | None = None
        self._folder: Path | None = None
        for text, space in ((_("Table or label map"), ""), (_("Table in RAS"), "RAS"), (_("Table in LPS"), "LPS")):
            ui.spaceCombo.addItem(text, space)
        ui.importToggle.connect("toggled(bool)", self._on_toggled)
        ui.pointsButton.connect("clicked()", self._on_points)
        ui.fileButton.connect("clicked()", self._on_file)
        ui.replaceButton.connect("clicked()", self._on_replace)
        ui.pointsSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._on_node)
        ui.importFrame.setVisible(False)
        self.say("")
        self.update()

    @property
    def is_running(self) -> bool:
        """Whether something is being added."""
        return self._commands.is_asked("import")

    def update(self) -> None:
        """Enable what can be done now."""
        self._show_replace()
        scan, running = self._context.scan(), self.is_running
        why = _("It is being added.") if running else "" if scan is not None else _("Choose a scan (section Detect).")
        points = self.ui.pointsSelector.currentNode()
        no_points = "" if points is not None else _("Choose a list of points.")
        self.ui.pointsButton.enabled = not (why or no_points)
        self.ui.pointsButton.toolTip = why or no_points or _("Add the chosen scan with these points as microbleeds.")
        self.ui.fileButton.enabled = not why
        self.ui.fileButton.toolTip = why or _(
            "Add the chosen scan with a table (.tsv, .csv), points of 3D Slicer (.mrk.json, .fcsv) or a label map."
        )

    def close(self) -> None:
        """Delete what was written for an import that goes on: it shows a patient."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def say(self, message: str, refused: tuple[str, str, Path] | None = None) -> None:
        """Show a sentence, or take it away; ``refused``: scan (node id), reader and dataset of an import that would
        have replaced another reader's annotations."""
        self.ui.importLabel.text = message
        self.ui.importLabel.setVisible(bool(message))
        self._refused = refused
        self._show_replace()

    def add_points(self, node: slicer.vtkMRMLMarkupsFiducialNode, replace: bool = False) -> None:
        """Add the chosen scan with the points of ``node``."""
        try:
            text = _points_text(node, self._context.scan())
            folder = preferences.temporary_folder("import")
            (folder / _POINTS_FILE).write_text(text, encoding="ascii")
        except CMBDetectorError as error:
            self.say(f"{error.message} {error.hint}")
            return
        except OSError as error:
            failure = OutputError(f"The points could not be handed over: {error.strerror}.", "Free some space.")
            self.say(f"{failure.message} {failure.hint}")
            return
        node_id = node.GetID()
        self._last = lambda: self._again(node_id)
        self._add(folder, folder / _POINTS_FILE, "RAS", replace)

    def add_file(self, path: Path, replace: bool = False) -> None:
        """Add the chosen scan with the annotations in the file ``path``."""
        self._last = lambda: self.add_file(path, replace=True)
        space = str(self.ui.spaceCombo.itemData(self.ui.spaceCombo.currentIndex))
        self._add(preferences.temporary_folder("import"), path, space, replace)

    def _add(self, folder: Path, annotations: Path, space: str, replace: bool) -> None:
        scan, dataset = self._context.scan(), self._context.dataset()
        if scan is None or scan_volume(scan) is None:
            shutil.rmtree(folder, ignore_errors=True)
            self.say(_("This volume holds no 3D image. Choose the scan that was annotated."))
            return
        own = _file_in(dataset, scan)
        arguments = ["dataset", "import", str(own or folder / SCAN_FILE), "--annotations", str(annotations)]
        arguments += ["--dataset", str(dataset), "--reader", self._context.reader()]
        arguments += ["--space", space] if space else []
        arguments += ["--complete"] if self.ui.completeBox.checked else []
        arguments += ["--replace"] if replace else []
        scan_id, about = scan.GetID(), self._present()

        def make(interpreter: Interpreter) -> WorkerJob:
            if own is not None:
                return WorkerJob(arguments, interpreter)
            return ScanJob(scan_id, None, folder, arguments, interpreter)

        def done(result: dict[str, Any]) -> None:
            self.close()
            added = result["added"]
            words = _("Added: {microbleeds} microbleeds, {mimics} mimics. {reason}")
            self.say(words.format(**{key: added[key] for key in ("microbleeds", "mimics", "reason")}))
            self.update()
            self._on_added()

        def failed(error: JobError) -> None:
            self.close()
            self.say(sentence(error), refused=about if error.code == _OTHER_READER else None)
            self.update()

        self._folder = folder
        self.say(_("Adding the scan to the local dataset…"))
        self._commands.run("import", arguments, done, failed, make)
        self.update()

    def _again(self, node_id: str) -> None:
        node = slicer.mrmlScene.GetNodeByID(node_id)
        if node is not None:
            self.add_points(node, replace=True)

    def _on_toggled(self, on: bool) -> None:
        self.ui.importFrame.setVisible(on)
        self.update()

    def _on_node(self, node: Any) -> None:
        self.update()

    def _on_points(self) -> None:
        node = self.ui.pointsSelector.currentNode()
        if node is not None:
            self.add_points(node)

    def _on_file(self) -> None:
        start = preferences.text("ImportFolder") or str(Path.home())
        chosen = qt.QFileDialog.getOpenFileName(self.ui.importFrame, _("Annotations of the scan"), start, _FILTERS)
        # PythonQt gives the path, other bindings the path and the filter.
        path = chosen[0] if isinstance(chosen, tuple | list) else chosen
        if path:
            preferences.store("ImportFolder", str(Path(str(path)).parent))
            self.add_file(Path(str(path)))

    def _on_replace(self) -> None:
        # For the scan that was refused, not for whatever is chosen by now.
        if self._last is not None and self._refused is not None and self._refused == self._present():
            self._last()
        self._show_replace()

    def _present(self) -> tuple[str, str, Path] | None:
        scan = self._context.scan()
        return (scan.GetID(), self._context.reader(), self._context.dataset()) if scan is not None else None

    def _show_replace(self) -> None:
        self.ui.replaceButton.setVisible(self._refused is not None and self._refused == self._present())


def _points_text(node: slicer.vtkMRMLMarkupsFiducialNode, scan: slicer.vtkMRMLScalarVolumeNode | None) -> str:
    """Return the points as a table in RAS mm of the scan.

    Raises:
        BadInputError: they are the detector's candidates, or there are none.
    """
    if scan is None:
        raise BadInputError(_("No scan is chosen."), _("Choose the scan that the points lie in (section Detect)."))
    if CandidatesNode.is_one(node):
        raise BadInputError(
            _("These are the candidates of the detector, not a reader's points."),
            _("Judge them and add the review (section Export)."),
        )
    lines = ["x\ty\tz"]
    for index in range(node.GetNumberOfControlPoints()):
        if node.GetNthControlPointPositionStatus(index) != node.PositionDefined:
            continue
        world = [0.0, 0.0, 0.0]
        node.GetNthControlPointPositionWorld(index, world)
        lines.append("\t".join(f"{value:.4f}" for value in from_world(scan, tuple(world))))
    if len(lines) == 1:
        raise BadInputError(
            _("The list holds no points."), _("Place one on each microbleed, or review the scan if it has none.")
        )
    return "\n".join(lines) + "\n"


def _file_in(dataset: Path, scan: slicer.vtkMRMLScalarVolumeNode) -> Path | None:
    """Return the file of ``scan`` where it is part of the dataset: it is annotated where it lies."""
    path = file_of(scan)
    if path is None or not path.is_file():
        return None
    inside = os.path.realpath(path).startswith(os.path.realpath(dataset) + os.sep)
    return path if inside else None
