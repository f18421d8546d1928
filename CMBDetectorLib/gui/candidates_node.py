"""The candidates of one scan in the scene: one locked point list, which says everything about each point.

A markups list has one glyph and one colour for all of its points. So the list shows what is left to judge, and for
each other state a hidden helper list repeats its points in the glyph and colour of that state; the helpers are made
when the state first occurs. Points are found by the id of their finding, which stands in their description.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import slicer
import vtk

from CMBDetectorLib.candidate import Detection
from CMBDetectorLib.gui import scan_node
from CMBDetectorLib.gui.state_style import STATE_STYLES
from CMBDetectorLib.review.finding import Finding, Position, State
from CMBDetectorLib.review.review import Review
from CMBDetectorLib.review.scan_key import is_scan_key
from CMBDetectorLib.volume import Volume

SCAN_ROLE = "CMBDetector.Scan"
MASK_ROLE = "CMBDetector.BrainMask"
_DETECTION = "CMBDetector.Detection"
_GRID = "CMBDetector.Grid"
_REVIEW = "CMBDetector.Review"
_THRESHOLD = "CMBDetector.Threshold"
_LAYER_ROLE = "CMBDetector.Layer."
_LAYERS = (State.ACCEPTED, State.REJECTED, State.UNSURE)
_GLYPH_MM = 7.0
_RING_RADIUS_MM = 5.5
_RING_ROLE = _LAYER_ROLE + "current"


class CandidatesNode:
    """The point list ``node_id`` of the scene, with what hangs on it.

    Holds ids, not nodes: closing the scene leaves nothing behind that would keep a node alive.
    """

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self._current: str | None = None
        self._ring_at: Position | None = None

    @classmethod
    def create(cls, scan: slicer.vtkMRMLScalarVolumeNode, detection: Detection, key: str) -> CandidatesNode:
        """Add the list of ``detection`` for ``scan`` to the scene, or renew the one that is there."""
        found = cls.of_scan(scan)
        if found is None:
            name = f"{scan.GetName()} CMB candidates"
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
            node.SetNodeReferenceID(SCAN_ROLE, scan.GetID())
            node.SetLocked(True)
            found = cls(node.GetID())
            _dress(node, State.UNREVIEWED)
            place_beside(node, scan)
        found.node.RemoveAttribute(_THRESHOLD)
        found._store(detection, {"key": key, "readers": {}, "reader": ""})
        return found

    @classmethod
    def of_scan(cls, scan: slicer.vtkMRMLScalarVolumeNode | None) -> CandidatesNode | None:
        """Return the list of ``scan`` that the scene holds, if any."""
        if scan is None:
            return None
        nodes = slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")
        for node in nodes:
            if node.GetNodeReferenceID(SCAN_ROLE) == scan.GetID() and node.GetAttribute(_REVIEW):
                return cls(node.GetID())
        return None

    @staticmethod
    def is_one(node: slicer.vtkMRMLNode) -> bool:
        """Tell whether ``node`` is such a list."""
        return node.GetAttribute(_DETECTION) is not None

    @property
    def node(self) -> slicer.vtkMRMLMarkupsFiducialNode | None:
        """The node, ``None`` once it was deleted."""
        return slicer.mrmlScene.GetNodeByID(self.node_id)

    @property
    def scan(self) -> slicer.vtkMRMLScalarVolumeNode | None:
        """The scan's node, ``None`` once either was deleted."""
        node = self.node
        return node.GetNodeReference(SCAN_ROLE) if node is not None else None

    @property
    def key(self) -> str:
        """The key of the scan the candidates were found in, "" where it is damaged."""
        key = str(self._read().get("key", ""))
        return key if is_scan_key(key) else ""

    @property
    def searched_ijk_to_ras(self) -> np.ndarray | None:
        """The affine (4x4, mm) of the scan when it was searched, ``None`` in scenes that do not know it."""
        node = self.node
        try:
            affine = np.array(json.loads(node.GetAttribute(_GRID)), float)
        except (TypeError, ValueError, AttributeError):
            return None
        return affine if affine.shape == (4, 4) and np.isfinite(affine).all() else None

    @property
    def is_elsewhere(self) -> bool:
        """Whether the scan's own grid is not the one that was searched, for instance since its transform was hardened;
        quick enough for every click."""
        scan, searched = scan_node.scan_volume(self.scan), self.searched_ijk_to_ras
        return scan is not None and searched is not None and not Volume(scan.array, searched).same_grid(scan)

    def detection(self) -> Detection | None:
        """Return the detection as it was stored in the scene, ``None`` where that is damaged."""
        try:
            return Detection.from_json(json.loads(self.node.GetAttribute(_DETECTION)))
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    @property
    def threshold(self) -> float | None:
        """The score from which unreviewed candidates were shown last, ``None`` where nobody has changed it."""
        node = self.node
        try:
            return float(node.GetAttribute(_THRESHOLD)) if node is not None else None
        except (TypeError, ValueError):
            return None

    def readers(self) -> list[str]:
        """Return who has reviewed in this scene."""
        readers = self._read().get("readers", {})
        return list(readers) if isinstance(readers, dict) else []

    def findings(self, reader: str) -> list[Finding]:
        """Return what ``reader`` said, as it was stored in the scene."""
        entries = self._read().get("readers", {}).get(reader, [])
        found = []
        for entry in entries:
            try:
                found.append(Finding.from_json(entry))
            except (KeyError, TypeError, ValueError):
                continue
        return found

    def last_change(self, reader: str) -> str:
        """Return when ``reader`` changed the review that the scene holds (ISO 8601, UTC; "" where unknown)."""
        times = self._read().get("changed", {})
        return str(times.get(reader, "")) if isinstance(times, dict) else ""

    def keep(self, review: Review, changed_at: str | None = None) -> None:
        """Store the review in the scene, so that it is saved and loaded with it; ``changed_at``: it was changed then
        (ISO 8601, UTC)."""
        data = self._read()
        data.setdefault("readers", {})[review.reader] = review.as_json()
        data["reader"] = review.reader
        if changed_at is not None:
            data.setdefault("changed", {})[review.reader] = changed_at
        self._write(data)

    def replace(self, detection: Detection, key: str, findings: Mapping[str, Sequence[Finding]]) -> None:
        """Store the same candidates at other positions, those of the scan ``key`` as it is now, with what each reader
        said of them."""
        data = self._read()
        data["key"] = key
        data["readers"] = {reader: Review(detection, reader, said).as_json() for reader, said in findings.items()}
        self._store(detection, data)

    # What is seen

    def show(self, review: Review, threshold: float, second_look: bool) -> None:
        """Make all points anew from ``review``."""
        node = self.node
        if node is None:
            return
        self._follow_transform()
        with slicer.util.NodeModify(node):
            node.RemoveAllControlPoints()
            for finding in review.findings:
                self._add_point(node, finding, review)
            self._show_only(node, review, threshold)
        for state in _LAYERS:
            self._fill_layer(state, review, second_look)

    def update(self, finding: Finding, before: State | None, review: Review, threshold: float) -> None:
        """Show one changed finding; ``before`` is the state it was in (``None``: there was no point)."""
        node = self.node
        if node is None:
            return
        with slicer.util.NodeModify(node):
            index = self._index(node, finding.id)
            if finding.removed:
                if index >= 0:
                    node.RemoveNthControlPoint(index)
            elif index < 0:
                index = self._add_point(node, finding, review)
            if index >= 0 and not finding.removed:
                node.SetNthControlPointPosition(index, *finding.ras_mm)
                self._describe_point(node, index, finding)
                node.SetNthControlPointVisibility(index, self._in_list(finding, review, threshold))
        for state in {finding.state, before} & set(_LAYERS):
            self._fill_layer(state, review, None)

    def show_threshold(self, review: Review, threshold: float) -> None:
        """Show the unreviewed candidates with a score of at least ``threshold``."""
        node = self.node
        if node is not None:
            node.SetAttribute(_THRESHOLD, f"{threshold:.4f}")
            with slicer.util.NodeModify(node):
                self._show_only(node, review, threshold)

    def show_rejected(self, on: bool) -> None:
        """Show or hide the rejected ones."""
        layer = self._layer(State.REJECTED, make=False)
        if layer is not None:
            _display(layer).SetVisibility(on)

    def show_markers(self, on: bool, second_look: bool) -> None:
        """Show or hide all markers."""
        node = self.node
        if node is None:
            return
        _display(node).SetVisibility(on)
        for state in _LAYERS:
            layer = self._layer(state, make=False)
            if layer is not None:
                _display(layer).SetVisibility(on and (state is not State.REJECTED or second_look))
        ring = node.GetNodeReference(_RING_ROLE)
        if ring is not None:
            _display(ring).SetVisibility(on and self._current is not None)

    def show_current(self, finding: Finding | None, review: Review, threshold: float) -> None:
        """Put a ring around the finding under review; its own marker is taken away, it would cover the lesion."""
        node = self.node
        if node is None:
            return
        self._follow_transform()
        before = review[self._current] if self._current is not None and self._current in review else None
        self._current = finding.id if finding is not None else None
        with slicer.util.NodeModify(node):
            for other in (before, finding):
                index = self._index(node, other.id) if other is not None else -1
                if index >= 0:
                    node.SetNthControlPointVisibility(index, self._in_list(other, review, threshold))
        for state in {other.state for other in (before, finding) if other is not None} & set(_LAYERS):
            self._fill_layer(state, review, None)
        self._draw_ring(finding)

    def hide(self) -> None:
        """Take all markers off the screen: another scan is under review."""
        self._current = None
        self.show_markers(False, second_look=False)

    def world(self, finding: Finding) -> Position:
        """Return where the finding is in RAS mm of the world."""
        # By the list itself: it lies where the scan lies, also while the scan is being changed.
        return scan_node.to_world(self.node, finding.ras_mm)

    def from_world(self, world_mm: Position) -> Position:
        """Return the RAS mm of the scan as stored for a place in RAS mm of the world."""
        self._follow_transform()
        return scan_node.from_world(self.node, world_mm)

    def _follow_transform(self) -> None:
        """Lie under the transform that the scan lies under now, so that points stay on their lesions."""
        node, scan = self.node, self.scan
        if scan is None or self.is_elsewhere:
            # What the list lies under must stay until its positions are those of the new grid.
            return
        for member in [node, node.GetNodeReference(_RING_ROLE), *(self._layer(state, make=False) for state in _LAYERS)]:
            if member is not None and member.GetTransformNodeID() != scan.GetTransformNodeID():
                member.SetAndObserveTransformNodeID(scan.GetTransformNodeID())

    # Points

    def _add_point(self, node: slicer.vtkMRMLMarkupsFiducialNode, finding: Finding, review: Review) -> int:
        index = node.AddControlPoint(list(finding.ras_mm), str(review.number(finding.id)))
        self._describe_point(node, index, finding)
        node.SetNthControlPointLocked(index, True)
        return index

    def _describe_point(self, node: slicer.vtkMRMLMarkupsFiducialNode, index: int, finding: Finding) -> None:
        node.SetNthControlPointDescription(index, _description(finding))
        # Slicer's own point table shows the tick: what counts as a microbleed.
        node.SetNthControlPointSelected(index, finding.state is State.ACCEPTED)

    def _show_only(self, node: slicer.vtkMRMLMarkupsFiducialNode, review: Review, threshold: float) -> None:
        for index in range(node.GetNumberOfControlPoints()):
            key = _id_of(node, index)
            if key not in review:
                # Somebody placed a point of their own in the list.
                continue
            visible = self._in_list(review[key], review, threshold)
            if bool(node.GetNthControlPointVisibility(index)) != visible:
                node.SetNthControlPointVisibility(index, visible)

    def _in_list(self, finding: Finding, review: Review, threshold: float) -> bool:
        """Tell whether the main list itself draws the point: judged ones are drawn by the helper lists."""
        return not finding.is_reviewed and finding.id != self._current and review.is_visible(finding, threshold)

    def _index(self, node: slicer.vtkMRMLMarkupsFiducialNode, key: str) -> int:
        for index in range(node.GetNumberOfControlPoints()):
            if _id_of(node, index) == key:
                return index
        return -1

    # Helper lists

    def _layer(self, state: State, make: bool) -> slicer.vtkMRMLMarkupsFiducialNode | None:
        node = self.node
        layer = node.GetNodeReference(_LAYER_ROLE + state.value)
        if layer is None and make:
            layer = add_hidden("vtkMRMLMarkupsFiducialNode", f"{node.GetName()} ({state.value})")
            layer.SetLocked(True)
            layer.SetAndObserveTransformNodeID(node.GetTransformNodeID())
            node.SetNodeReferenceID(_LAYER_ROLE + state.value, layer.GetID())
            _dress(layer, state)
            _display(layer).SetVisibility(_display(node).GetVisibility())
        return layer

    def _draw_ring(self, finding: Finding | None) -> None:
        """Draw a sphere, of which each slice view shows the outline."""
        node = self.node
        ring = node.GetNodeReference(_RING_ROLE)
        if ring is None:
            if finding is None:
                return
            self._ring_at = None
            ring = add_hidden("vtkMRMLModelNode", f"{node.GetName()} (current)")
            ring.SetSaveWithScene(False)
            display = _display(ring)
            display.SetSaveWithScene(False)
            display.SetVisibility2D(True)
            display.SetVisibility3D(False)
            display.SetSliceIntersectionThickness(2)
            ring.SetAndObserveTransformNodeID(node.GetTransformNodeID())
            node.SetNodeReferenceID(_RING_ROLE, ring.GetID())
        display = _display(ring)
        if finding is None:
            display.SetVisibility(False)
            return
        if self._ring_at != finding.ras_mm:
            sphere = vtk.vtkSphereSource()
            sphere.SetCenter(*finding.ras_mm)
            sphere.SetRadius(_RING_RADIUS_MM)
            sphere.SetThetaResolution(32)
            sphere.SetPhiResolution(32)
            sphere.Update()
            ring.SetAndObservePolyData(sphere.GetOutput())
            self._ring_at = finding.ras_mm
        display.SetColor(*STATE_STYLES[finding.state].rgb)
        display.SetVisibility(bool(_display(node).GetVisibility()))

    def _fill_layer(self, state: State, review: Review, second_look: bool | None) -> None:
        findings = [f for f in review.findings if f.state is state and f.id != self._current]
        layer = self._layer(state, make=bool(findings))
        if layer is None:
            return
        with slicer.util.NodeModify(layer):
            layer.RemoveAllControlPoints()
            for finding in findings:
                index = layer.AddControlPoint(list(finding.ras_mm), str(review.number(finding.id)))
                layer.SetNthControlPointLocked(index, True)
                layer.SetNthControlPointSelected(index, False)
        if state is State.REJECTED and second_look is not None:
            _display(layer).SetVisibility(second_look)

    def _store(self, detection: Detection, data: dict[str, Any]) -> None:
        self.node.SetAttribute(_DETECTION, json.dumps(detection.as_json()))
        self.node.SetAttribute(_GRID, json.dumps(scan_node.ijk_to_ras(self.scan).tolist()))
        self._write(data)

    def _read(self) -> dict[str, Any]:
        node = self.node
        try:
            data = json.loads((node.GetAttribute(_REVIEW) if node is not None else None) or "{}")
        except ValueError:
            return {}
        return data if isinstance(data, dict) else {}

    def _write(self, data: dict[str, Any]) -> None:
        node = self.node
        if node is not None:
            node.SetAttribute(_REVIEW, json.dumps(data, ensure_ascii=True))


def add_hidden(kind: str, name: str) -> slicer.vtkMRMLDisplayableNode:
    """Add a node that lists and trees do not show, not even for a moment."""
    node = slicer.mrmlScene.CreateNodeByClass(kind)
    node.UnRegister(None)
    node.SetName(name)
    node.SetHideFromEditors(True)
    return slicer.mrmlScene.AddNode(node)


def place_beside(node: slicer.vtkMRMLNode, scan: slicer.vtkMRMLNode) -> None:
    """Put ``node`` under the study (or folder) of ``scan`` in the subject hierarchy."""
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    if tree is None:
        return
    item, of_scan = tree.GetItemByDataNode(node), tree.GetItemByDataNode(scan)
    if item and of_scan:
        tree.SetItemParent(item, tree.GetItemParent(of_scan))


def _id_of(node: slicer.vtkMRMLMarkupsFiducialNode, index: int) -> str:
    try:
        return str(json.loads(node.GetNthControlPointDescription(index))["id"])
    except (ValueError, KeyError, TypeError):
        return ""


def _display(node: slicer.vtkMRMLDisplayableNode) -> slicer.vtkMRMLDisplayNode:
    """Return how ``node`` is displayed; somebody may have deleted that."""
    node.CreateDefaultDisplayNodes()
    return node.GetDisplayNode()


def _description(finding: Finding) -> str:
    data: dict[str, Any] = {"id": finding.id, "state": finding.state.value}
    if finding.score is not None:
        data["score"] = round(finding.score, 4)
    if finding.diameter_mm is not None:
        data["diameter_mm"] = round(finding.diameter_mm, 2)
    if finding.certainty is not None:
        data["certainty"] = finding.certainty.value
    if finding.mimic_class is not None:
        data["mimic_class"] = finding.mimic_class
    if finding.is_moved:
        data["detected_ras_mm"] = [round(v, 3) for v in finding.detected_ras_mm]
    return json.dumps(data)


def _dress(node: slicer.vtkMRMLMarkupsFiducialNode, state: State) -> None:
    """Give the list the glyph and colour of ``state``."""
    style = STATE_STYLES[state]
    display = _display(node)
    was = display.StartModify()
    for set_colour in (display.SetColor, display.SetSelectedColor, display.SetActiveColor):
        set_colour(*style.rgb)
    display.SetGlyphTypeFromString(style.glyph)
    display.SetUseGlyphScale(False)
    display.SetGlyphSize(_GLYPH_MM)
    display.SetTextScale(2.5)
    display.SetPropertiesLabelVisibility(False)
    display.SetPointLabelsVisibility(True)
    display.SetOpacity(0.7)
    display.EndModify(was)
