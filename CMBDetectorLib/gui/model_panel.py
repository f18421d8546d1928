"""The panel of the models: which versions there are, what they learnt from, how they compare; one click changes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from CMBDetectorLib.errors import CMBDetectorError
from CMBDetectorLib.gui import preferences
from CMBDetectorLib.gui.commands import Commands, sentence
from CMBDetectorLib.gui.comparison_view import ComparisonView, OnPlace
from CMBDetectorLib.gui.endings import JobError
from CMBDetectorLib.gui.plain_text import plain_tip
from CMBDetectorLib.models.bundle import RESOURCES
from CMBDetectorLib.models.companions import COMPARISON, read_comparison

_FILTER = "Model (*.zip)"
_ACTIVE, _MODEL, _PARENT, _MADE, _TRAINED = range(5)


class ModelPanel:
    """Lists and changes the installed models through the worker, which verifies them.

    ``on_changed(is_active_new)`` is called after every change; ``on_place`` as in :class:`ComparisonView`.
    """

    def __init__(self, commands: Commands, on_place: OnPlace, on_changed: Callable[[bool], None]) -> None:
        self._commands = commands
        self._on_changed = on_changed
        self._wanted: str | None = None
        self._is_showing = False
        self._is_sure = False
        self._other: Mapping[str, Any] | None = None
        self.models: list[Mapping[str, Any]] = []
        self.widget = slicer.util.loadUI(str(RESOURCES / "UI" / "ModelPanel.ui"))
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self.comparison = ComparisonView(on_place)
        layout = qt.QVBoxLayout(self.ui.comparisonPlace)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.comparison.widget)
        self._prepare_table()
        self.ui.modelTable.connect("itemSelectionChanged()", self._on_selected)
        self.ui.activateButton.connect("clicked()", self._on_activate)
        self.ui.rollbackButton.connect("clicked()", self._on_rollback)
        self.ui.removeButton.connect("clicked()", self._on_remove)
        self.ui.exportButton.connect("clicked()", self._on_export)
        self.ui.installButton.connect("clicked()", self._on_install)
        self.ui.refreshButton.connect("clicked()", lambda: self.refresh())
        self.say("")
        self.update()

    @property
    def selected(self) -> Mapping[str, Any] | None:
        """The model whose row is selected, as ``cmbdetector models list`` describes it."""
        row = self.ui.modelTable.currentRow()
        return self.models[row] if 0 <= row < len(self.models) else None

    def refresh(self, select: str | None = None) -> None:
        """Read the list of models in the background; ``select`` (NAME@VERSION) is the row to show then."""
        self._wanted = select or self._wanted
        self._commands.run("models", ["models", "list"], self._on_list, self._on_error)
        self.update()

    def say(self, message: str) -> None:
        """Show a sentence, or take it away."""
        self.ui.messageLabel.text = message
        self.ui.messageLabel.setVisible(bool(message))

    def update(self) -> None:
        """Enable what can be done with the selected model."""
        model, busy = self.selected, self._commands.is_asked("model change")
        whole = model is not None and not model["problem"]
        why = _("It is being done.") if busy else "" if model is not None else _("Choose a model in the table.")
        damaged = "" if whole else _("This model is damaged: install it again.")
        active = _("This model is active already.") if model is not None and model["active"] else ""
        bundled = _("This model came with the program.") if model is not None and model["bundled"] else ""
        in_use = _("This model is active: activate another one before.") if active else ""
        texts = (
            (self.ui.activateButton, why or damaged or active, _("Use this model from now on.")),
            (self.ui.removeButton, why or bundled or in_use, _("Remove this model from this computer.")),
            (self.ui.exportButton, why or damaged, _("Write this model as one file, to install it elsewhere.")),
        )
        for button, reason, tip in texts:
            button.enabled = not reason
            button.toolTip = reason or tip
        self.ui.rollbackButton.enabled = self.ui.installButton.enabled = not busy
        if not self.ui.removeButton.enabled:
            self._is_sure = False
        self.ui.removeButton.text = _("Remove for good") if self._is_sure else _("Remove")

    def show_comparison(self, comparison: Mapping[str, Any] | None) -> None:
        """Show a comparison that belongs to no version, until a row is chosen."""
        self._other = comparison
        self._show_comparison(self.selected)

    def install(self, path: Path) -> None:
        """Install the file or folder ``path``."""
        self._change(["models", "install", str(path)], _("{reference} is installed. To use it: Activate."))

    def export(self, path: Path) -> None:
        """Write the selected model to the new file ``path``."""
        model = self.selected
        if model is not None:
            arguments = ["models", "export", str(model["reference"]), str(path)]
            self._change(arguments, _("{reference} was written as {file}."))

    # What is clicked

    def _on_activate(self) -> None:
        model = self.selected
        if model is not None:
            arguments = ["models", "activate", str(model["reference"])]
            self._change(arguments, _("{reference} is active: detections use it from now on."), is_activation=True)

    def _on_rollback(self) -> None:
        self._change(["models", "rollback"], _("{reference} is active again."), is_activation=True)

    def _on_remove(self) -> None:
        model = self.selected
        if model is None:
            return
        if not self._is_sure:
            self._is_sure = True
            self.say(_("Press again to remove {model} from this computer.").format(model=model["reference"]))
            self.update()
            return
        self._is_sure = False
        self._change(["models", "remove", str(model["reference"])], _("{removed} was removed."))

    def _on_export(self) -> None:
        model = self.selected
        if model is None:
            return
        start = Path(preferences.text("ExportFolder") or Path.home()) / f"{model['name']}-{model['version']}.zip"
        path = _path(qt.QFileDialog.getSaveFileName(self.widget, _("Export the model"), str(start), _FILTER))
        if path is not None:
            self.export(path)

    def _on_install(self) -> None:
        start = preferences.text("ExportFolder") or str(Path.home())
        path = _path(qt.QFileDialog.getOpenFileName(self.widget, _("Install a model"), start, _FILTER))
        if path is not None:
            self.install(path)

    def _change(self, arguments: Sequence[str], words: str, is_activation: bool = False) -> None:
        def done(result: dict[str, Any]) -> None:
            self.say(words.format(**result))
            self._on_changed(is_activation)
            self.refresh(str(result.get("reference") or "") or None)

        self.say("")
        self._commands.run("model change", arguments, done, self._on_error)
        self.update()

    def _on_error(self, error: JobError) -> None:
        self.say(sentence(error))
        self.update()

    # The list

    def _on_list(self, result: dict[str, Any]) -> None:
        before = self._wanted or (str(self.selected["reference"]) if self.selected is not None else None)
        self._wanted = None
        self.models = list(result["models"])
        self._is_showing = True
        table = self.ui.modelTable
        table.setRowCount(0)
        table.setRowCount(len(self.models))
        for row, model in enumerate(self.models):
            for column, text in enumerate(_texts(model)):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(plain_tip(text))
                table.setItem(row, column, item)
        line = table.fontMetrics().height() + 6
        table.setFixedHeight(line * (min(max(len(self.models), 2), 8) + 1) + 12)
        references = [model["reference"] for model in self.models]
        active = next((model["reference"] for model in self.models if model["active"]), None)
        row = references.index(before) if before in references else references.index(active) if active else 0
        table.setCurrentCell(row, _MODEL)
        self._is_showing = False
        if result.get("problem"):
            self.say(str(result["problem"]))
        self._show_selected()

    def _on_selected(self) -> None:
        if not self._is_showing:
            self._other = None
            self._show_selected()

    def _show_selected(self) -> None:
        self._is_sure = False
        model = self.selected
        self.ui.detailsLabel.text = _details(model) if model is not None else ""
        self._show_comparison(model)
        self.update()

    def _show_comparison(self, model: Mapping[str, Any] | None) -> None:
        file = Path(str(model["folder"])) / COMPARISON if model is not None and not model["problem"] else None
        try:
            if self._other is not None:
                self.comparison.show(self._other)
            elif file is not None and file.is_file():
                self.comparison.show(read_comparison(file), str(model["reference"]))
            else:
                self.comparison.show(None)
        except CMBDetectorError as error:
            self.comparison.show(None)
            self.say(error.message)
        except (KeyError, TypeError, ValueError, AttributeError):
            # A stranger's model may bring anything.
            self.comparison.show(None)
            self.say(_("What this model says of its comparison cannot be shown."))

    def _prepare_table(self) -> None:
        table = self.ui.modelTable
        titles = ["", _("Model"), _("Made from"), _("Date"), _("Learnt from")]
        table.setColumnCount(len(titles))
        table.setHorizontalHeaderLabels(titles)
        table.verticalHeader().setVisible(False)
        table.horizontalHeader().setHighlightSections(False)
        table.verticalHeader().setDefaultSectionSize(table.fontMetrics().height() + 6)
        ems = table.fontMetrics().height()
        for column, width in ((_ACTIVE, 1.6), (_MODEL, 5.5), (_PARENT, 5.5), (_MADE, 5.7)):
            table.setColumnWidth(column, int(width * ems))
        table.horizontalHeader().setSectionResizeMode(_TRAINED, qt.QHeaderView.Stretch)
        table.setFixedHeight(4 * (table.fontMetrics().height() + 6))


def _texts(model: Mapping[str, Any]) -> tuple[str, ...]:
    trained = _("damaged") if model["problem"] else str(model.get("training_data") or "")
    made_from = str(model.get("parent") or (_("bundled") if model["bundled"] else ""))
    mark = "\u25cf" if model["active"] else ""
    return mark, str(model["reference"]), made_from, str(model.get("created") or ""), trained


def _details(model: Mapping[str, Any]) -> str:
    if model["problem"]:
        return str(model["problem"])
    lines = [str(model.get("description") or ""), str(model.get("training_data") or "")]
    lines += [f"{name}: {figures}" for name, figures in (model.get("metrics") or {}).items()]
    lines.append(_("Checksum of the networks: {checksum}").format(checksum=str(model.get("checksum") or "?")[:12]))
    return "\n".join(line for line in lines if line)


def _path(chosen: Any) -> Path | None:
    """Return what a file dialog gave: PythonQt gives the path, other bindings the path and the filter."""
    path = chosen[0] if isinstance(chosen, tuple | list) else chosen
    return Path(str(path)) if path else None
