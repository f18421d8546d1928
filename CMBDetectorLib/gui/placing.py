"""Waiting for one click in a slice view, by the application's own way of placing points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer

from CMBDetectorLib.gui.candidates_node import add_hidden

World = tuple[float, float, float]


class PointPlacer:
    """Takes one place from the user: :meth:`start` asks for it, a click in any view gives it (RAS mm of the world).

    Esc, another mouse mode or :meth:`stop` ends the waiting without a place. ``say`` shows what is asked for.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._placed: Callable[[World], None] | None = None
        self._node_id: str | None = None
        self._observed: list[tuple[Any, int]] = []

    @property
    def is_waiting(self) -> bool:
        """Whether a click is awaited."""
        return self._placed is not None

    def start(self, question: str, placed: Callable[[World], None]) -> None:
        """Ask for a place; ``placed`` is called with it."""
        self.stop()
        self._placed = placed
        node = add_hidden("vtkMRMLMarkupsFiducialNode", "CMBDetector place")
        node.SetSaveWithScene(False)
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().SetPointLabelsVisibility(False)
        node.GetDisplayNode().SetSaveWithScene(False)
        self._node_id = node.GetID()
        logic = slicer.app.applicationLogic()
        selection, interaction = logic.GetSelectionNode(), logic.GetInteractionNode()
        selection.SetReferenceActivePlaceNodeClassName("vtkMRMLMarkupsFiducialNode")
        selection.SetActivePlaceNodeID(node.GetID())
        interaction.SetPlaceModePersistence(0)
        interaction.SetCurrentInteractionMode(interaction.Place)
        self._observe(node, slicer.vtkMRMLMarkupsNode.PointPositionDefinedEvent, self._on_placed)
        self._observe(interaction, interaction.InteractionModeChangedEvent, self._on_mode)
        self._say(question)

    def stop(self) -> None:
        """Wait no longer."""
        if self._placed is None:
            return
        self._placed = None
        for thing, tag in self._observed:
            thing.RemoveObserver(tag)
        self._observed = []
        interaction = slicer.app.applicationLogic().GetInteractionNode()
        if interaction is not None and interaction.GetCurrentInteractionMode() == interaction.Place:
            interaction.SetCurrentInteractionMode(interaction.ViewTransform)
        node = slicer.mrmlScene.GetNodeByID(self._node_id) if self._node_id else None
        if node is not None:
            slicer.mrmlScene.RemoveNode(node)
        self._node_id = None
        self._say("")

    def _observe(self, thing: Any, event: Any, slot: Callable[..., None]) -> None:
        self._observed.append((thing, thing.AddObserver(event, slot)))

    def _on_placed(self, node: Any, event: Any) -> None:
        if self._placed is None or node.GetNumberOfControlPoints() == 0:
            return
        placed, world = self._placed, [0.0, 0.0, 0.0]
        node.GetNthControlPointPositionWorld(0, world)

        # The node is in the middle of its own event: it is taken away when that is over.
        def finish() -> None:
            self.stop()
            placed((world[0], world[1], world[2]))

        qt.QTimer.singleShot(0, finish)

    def _on_mode(self, interaction: Any, event: Any) -> None:
        if self._placed is None or interaction.GetCurrentInteractionMode() == interaction.Place:
            return
        # After a click the mode ends, too; then the place is there already.
        node = slicer.mrmlScene.GetNodeByID(self._node_id) if self._node_id else None
        if node is None or node.GetNumberOfDefinedControlPoints() == 0:
            self.stop()
