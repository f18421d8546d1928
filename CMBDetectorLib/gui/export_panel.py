"""The panel that takes the review out: summary, files, a table in the scene, the local dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from CMBDetectorLib.errors import BadInputError, CMBDetectorError
from CMBDetectorLib.gui import preferences, scene
from CMBDetectorLib.gui.candidates_node import place_beside
from CMBDetectorLib.gui.dataset_export import DatasetExport, Exported, Target
from CMBDetectorLib.gui.review_session import ReviewSession
from CMBDetectorLib.gui.scan_node import file_of
from CMBDetectorLib.models.bundle import RESOURCES
from CMBDetectorLib.review.export import (
    COLUMNS,
    review_row,
    write_review,
    write_review_markups,
    write_review_table,
)
from CMBDetectorLib.review.export_dataset import OtherReaderError
from CMBDetectorLib.review.summary import summarise

_FILTERS = "Table (*.csv);;Table (*.tsv);;Markups (*.mrk.json);;Whole review (*.json)"


class ExportPanel:
    """Exports the review that ``session()`` gives; ``on_dataset`` is called when the local dataset is another one, or
    has changed, and ``take_typed`` before each export: what stands in a field of the review must be in it."""

    def __init__(
        self,
        session: Callable[[], ReviewSession | None],
        on_dataset: Callable[[], None] = lambda: None,
        take_typed: Callable[[], None] = lambda: None,
    ) -> None:
        self._session = session
        self._on_dataset_changed = on_dataset
        self._take_typed = take_typed
        self._refused: Exported | None = None
        self.exporter = DatasetExport(self._on_exported)
        self.widget = slicer.util.loadUI(str(RESOURCES / "UI" / "ExportPanel.ui"))
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self.ui.folderEdit.text = str(default_dataset())
        self.ui.copyButton.connect("clicked()", self._on_copy)
        self.ui.tableButton.connect("clicked()", self._on_table)
        self.ui.saveButton.connect("clicked()", self._on_save)
        self.ui.datasetButton.connect("clicked()", self._on_dataset)
        self.ui.replaceButton.connect("clicked()", self._on_replace)
        self.ui.folderButton.connect("clicked()", self._on_folder)
        self.ui.folderEdit.connect("editingFinished()", self._on_folder_edited)
        self._say("")
        self.update()

    def update(self) -> None:
        """Show the summary of the review as it is now."""
        session = self._session()
        self._show_replace()
        text = summarise(session.review, session.shown.threshold).as_text() if session is not None else ""
        self.ui.summaryText.plainText = text
        for button, tip in (
            (self.ui.copyButton, _("Copy the summary to the clipboard.")),
            (self.ui.tableButton, _("Put all findings into a table node.")),
            (
                self.ui.saveButton,
                _("Write the findings as a table (.csv, .tsv), as markups (.mrk.json) or whole (.json)."),
            ),
            (
                self.ui.datasetButton,
                _("Accepted and added places become microbleeds, rejected ones mimics, for training on local data."),
            ),
        ):
            button.enabled = session is not None
            button.toolTip = tip if session is not None else _("There is nothing to export before a scan was searched.")

    def save(self, path: Path | str) -> None:
        """Write the review to ``path`` in the format of its ending (.csv, .tsv, .mrk.json, .json).

        Raises:
            CMBDetectorError: it cannot be written.
        """
        session, path = self._session(), Path(path)
        review, threshold = session.review, session.shown.threshold
        name = path.name.lower()
        if name.endswith((".csv", ".tsv")):
            write_review_table(path, review)
        elif name.endswith(".mrk.json"):
            write_review_markups(path, review, threshold=threshold)
        else:
            write_review(path, review, threshold=threshold)

    def follow_folder(self) -> None:
        """Show the folder of the local dataset that was chosen elsewhere."""
        self.ui.folderEdit.text = str(default_dataset())

    def add_to_dataset(self, folder: Path, replace: bool = False) -> None:
        """Add the scan and what the reader said of it to a local dataset, in the background.

        Raises:
            CMBDetectorError: it could not be started.
        """
        session = self._session()
        link = file_of(session.nodes.scan) if self.ui.referenceBox.checked else None
        if self.ui.referenceBox.checked and link is None:
            raise BadInputError(_("This scan has no file to refer to."), _("Save it first, or let it be copied."))
        self.exporter.add(session, Target(folder, link, replace))
        self._say(_("Adding the scan to the local dataset…"))

    def close(self) -> None:
        """End what is under way."""
        self.exporter.close()

    def _on_copy(self) -> None:
        self._take_typed()
        qt.QApplication.clipboard().setText(self.ui.summaryText.plainText)
        self._say(_("The summary is on the clipboard."))

    def _on_table(self) -> None:
        self._take_typed()
        session = self._session()
        rows = [review_row(session.review, finding) for finding in session.review.findings]
        name = f"{session.nodes.scan.GetName()} CMB review ({session.review.reader})"
        node = scene.show_table(name, COLUMNS, rows, session.nodes.scan)
        place_beside(node, session.nodes.scan)
        self._say(_("The table “{name}” is in the scene.").format(name=node.GetName()))

    def _on_save(self) -> None:
        self._take_typed()
        start = Path(preferences.text("ExportFolder") or Path.home()) / "microbleeds.csv"
        chosen = qt.QFileDialog.getSaveFileName(self.widget, _("Save the review"), str(start), _FILTERS)
        # PythonQt gives the path, other bindings the path and the filter.
        path = chosen[0] if isinstance(chosen, (tuple, list)) else chosen
        if path:
            self._try(lambda: self._save(Path(str(path))))

    def _save(self, path: Path) -> None:
        self.save(path)
        preferences.store("ExportFolder", str(path.parent))
        self._say(_("Written: {path}").format(path=path))

    def _on_dataset(self) -> None:
        self._take_typed()
        folder = self._folder()
        self._try(lambda: self.add_to_dataset(folder))

    def _on_replace(self) -> None:
        self._take_typed()
        # The scan that was refused, not whatever is under review by now.
        if self._refused is not None and self._refused == self._present():
            folder = self._folder()
            self._try(lambda: self.add_to_dataset(folder, replace=True))

    def _on_exported(self, exported: Exported, sentence: str, code: str) -> None:
        other = exported != self._present()
        scan = slicer.mrmlScene.GetNodeByID(exported.scan_id) if other else None
        self._say(f"{scan.GetName()}: {sentence}" if scan is not None else sentence)
        self._refused = exported if code == OtherReaderError.code else None
        self._show_replace()
        if not code:
            self._on_dataset_changed()

    def _folder(self) -> Path:
        return Path(str(self.ui.folderEdit.text))

    def _present(self) -> Exported | None:
        """Return what an export would be of now."""
        session = self._session()
        if session is None or session.nodes.scan is None:
            return None
        return Exported(session.nodes.scan.GetID(), session.review.reader, self._folder())

    def _show_replace(self) -> None:
        self.ui.replaceButton.setVisible(self._refused is not None and self._refused == self._present())

    def _on_folder(self) -> None:
        folder = qt.QFileDialog.getExistingDirectory(self.widget, _("Folder of the local dataset"))
        if folder:
            self.ui.folderEdit.text = str(folder)
            self._on_folder_edited()

    def _on_folder_edited(self) -> None:
        preferences.store("LocalDataset", str(self.ui.folderEdit.text))
        self._show_replace()
        self._on_dataset_changed()

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except CMBDetectorError as error:
            self._say(f"{error.message} {error.hint}")

    def _say(self, message: str) -> None:
        self._refused = None
        self._show_replace()
        self.ui.messageLabel.text = message
        self.ui.messageLabel.setVisible(bool(message))


def default_dataset() -> Path:
    """Return the folder of the local dataset that was used last, or the extension's own."""
    chosen = preferences.text("LocalDataset")
    return Path(chosen) if chosen else preferences.data_folder() / "local-data"
