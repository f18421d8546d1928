"""Learning from local data as a whole: dataset, retraining, models and comparison, put together for the module."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from CMBDetectorLib.errors import CMBDetectorError
from CMBDetectorLib.gui import preferences, scene, slice_views
from CMBDetectorLib.gui.commands import Commands
from CMBDetectorLib.gui.detection import DetectionLogic
from CMBDetectorLib.gui.model_panel import ModelPanel
from CMBDetectorLib.gui.retrain_job import RetrainLogic
from CMBDetectorLib.gui.retrain_panel import RetrainContext, RetrainPanel
from CMBDetectorLib.gui.scan_node import file_of, scan_volume, to_world

Scan = slicer.vtkMRMLScalarVolumeNode
_ENDINGS = (".nii.gz", ".nii", ".nrrd")


@dataclass(frozen=True)
class LearningContext:
    """What the module gives and is told: the chosen ``scan`` and how to choose another, the ``reader``;
    ``on_folder``: another local dataset was chosen; ``on_model(is_active_new)``: models have changed;
    ``open_models``: show the section of the models.
    """

    scan: Callable[[], Scan | None]
    choose_scan: Callable[[Scan], None]
    reader: Callable[[], str]
    on_folder: Callable[[], None]
    on_model: Callable[[bool], None]
    open_models: Callable[[], None]


class Learning:
    """The two panels ``retrain`` and ``models``; ``jobs`` are those of the module."""

    def __init__(self, jobs: DetectionLogic, context: LearningContext) -> None:
        self._context = context
        self.commands = Commands()
        self.logic = RetrainLogic(jobs)
        # Loosely: a reload must be able to let go of the old panels.
        me = weakref.proxy(self)
        self.retrain = RetrainPanel(
            self.logic,
            self.commands,
            RetrainContext(
                scan=context.scan,
                reader=context.reader,
                open_scan=lambda path: me.open_scan(Path(path)),
                on_folder=context.on_folder,
                on_made=lambda result: me._on_made(result),
            ),
        )
        self.models = ModelPanel(
            self.commands,
            lambda scan_id, ras_mm: me.show_place(scan_id, ras_mm),
            lambda is_active_new: me._on_models(is_active_new),
        )

    def open_scan(self, path: Path) -> Scan | None:
        """Choose the scan in the file ``path`` and show it in the slice views, loaded where it is not in the scene."""
        node = _loaded(path)
        if node is None:
            try:
                node = scene.load_scan(path, _name(path))
            except CMBDetectorError as error:
                self.retrain.say(f"{error.message} {error.hint}")
                return None
        elif slice_views.background_volume() is not node:
            slicer.util.setSliceViewerLayers(background=node, fit=True)
        self._context.choose_scan(node)
        return node

    def show_place(self, scan_id: str, ras_mm: tuple[float, float, float]) -> None:
        """Show a place (RAS mm) of the scan ``scan_id`` of the local dataset in the slice views."""
        path = self.retrain.table.file_of(scan_id)
        if path is None:
            self.models.say(_("The scan {scan} is not in the local dataset that is chosen above.").format(scan=scan_id))
            return
        node = self.open_scan(Path(path))
        volume = scan_volume(node)
        if volume is None:
            return
        ijk = volume.to_ijk(np.array([ras_mm]))[0]
        if not ((ijk >= -0.5) & (ijk <= np.array(volume.shape) - 0.5)).all():
            words = _("This place lies outside the scan {scan}: the model was compared on another dataset.")
            self.models.say(words.format(scan=scan_id))
        else:
            slice_views.jump(to_world(node, ras_mm), preferences.number("FieldOfView", 80) or None)

    def close(self) -> None:
        """The module or the application goes."""
        self.retrain.close()
        self.commands.close()

    def _on_made(self, result: Mapping[str, Any]) -> None:
        self._context.open_models()
        if result.get("reference"):
            self.models.refresh(str(result["reference"]))
            self._context.on_model(False)
        else:
            self.models.show_comparison(result.get("comparison"))

    def _on_models(self, is_active_new: bool) -> None:
        self._context.on_model(is_active_new)
        # Whether a retraining can go on depends on the model that it starts from.
        self.retrain.look_again()


def _loaded(path: Path) -> Scan | None:
    wanted = os.path.realpath(path)
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        known = file_of(node)
        if known is not None and os.path.realpath(known) == wanted and node.GetImageData() is not None:
            return node
    return None


def _name(path: Path) -> str:
    ending = next((ending for ending in _ENDINGS if path.name.lower().endswith(ending)), "")
    return path.name[: len(path.name) - len(ending)]
