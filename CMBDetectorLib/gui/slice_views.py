"""The slice views: jump to a place, keep a field of view, minimum-intensity slabs, a layout for reviewing."""

from __future__ import annotations

import slicer

REVIEW_LAYOUT = 47110
SLAB_VIEW = "CMBSlab"
SLAB_MM = 16.0
_MAIN_GROUP = 0


def _view_xml(name: str, orientation: str, label: str, colour: str) -> str:
    return (
        f'<item><view class="vtkMRMLSliceNode" singletontag="{name}">'
        f'<property name="orientation" action="default">{orientation}</property>'
        f'<property name="viewlabel" action="default">{label}</property>'
        f'<property name="viewcolor" action="default">{colour}</property></view></item>'
    )


_LAYOUT = (
    '<layout type="vertical" split="true"><item><layout type="horizontal" split="true">'
    + _view_xml("Red", "Axial", "R", "#F34A33")
    + _view_xml(SLAB_VIEW, "Axial", "m", "#9A9A9A")
    + '</layout></item><item><layout type="horizontal" split="true">'
    + _view_xml("Yellow", "Sagittal", "Y", "#EDD54C")
    + _view_xml("Green", "Coronal", "G", "#6EB04B")
    + "</layout></item></layout>"
)


def jump(world_mm: tuple[float, float, float], field_of_view_mm: float | None) -> None:
    """Centre all slice views on a place (RAS mm of the world), each ``field_of_view_mm`` wide (None: as it is)."""
    if field_of_view_mm:
        for node in _slice_nodes():
            if node.GetViewGroup() == _MAIN_GROUP:
                _set_width(node, field_of_view_mm)
    slicer.vtkMRMLSliceNode.JumpAllSlices(
        slicer.mrmlScene, *world_mm, slicer.vtkMRMLSliceNode.CenteredJumpSlice, _MAIN_GROUP
    )


def show_slab(on: bool, thickness_mm: float = SLAB_MM, view: str = "Red") -> None:
    """Let a view show the minimum over a slab, in which vessels are lines and microbleeds stay dots."""
    node = _slice_node(view)
    if node is None:
        return
    was = node.StartModify()
    node.SetSlabReconstructionType(node.GetSlabReconstructionTypeFromString("Min"))
    node.SetSlabReconstructionThickness(thickness_mm)
    node.SetSlabReconstructionEnabled(on)
    node.EndModify(was)


def slab_is_shown(view: str = "Red") -> bool:
    """Tell whether the view shows a slab."""
    node = _slice_node(view)
    return bool(node and node.GetSlabReconstructionEnabled())


def register_review_layout() -> None:
    """Make the layout for reviewing known to the application: before a scene that was saved with it is loaded."""
    layouts = slicer.app.layoutManager().layoutLogic().GetLayoutNode()
    if not layouts.IsLayoutDescription(REVIEW_LAYOUT):
        layouts.AddLayoutDescription(REVIEW_LAYOUT, _LAYOUT)


def open_review_layout() -> int:
    """Show axial, axial slab, sagittal and coronal views; returns the layout that was there, to go back to it."""
    manager = slicer.app.layoutManager()
    before = manager.layout
    register_review_layout()
    background = background_volume()
    manager.setLayout(REVIEW_LAYOUT)
    if background is not None:
        composite = _composite(SLAB_VIEW)
        if composite is not None:
            composite.SetBackgroundVolumeID(background.GetID())
    show_slab(True, view=SLAB_VIEW)
    return before


def close_review_layout(before: int) -> None:
    """Go back to the layout ``before``, as :func:`open_review_layout` returned it."""
    slicer.app.layoutManager().setLayout(before)


def review_layout_is_open() -> bool:
    """Tell whether the layout for reviewing is shown."""
    manager = slicer.app.layoutManager()
    return manager is not None and manager.layout == REVIEW_LAYOUT


def background_volume() -> slicer.vtkMRMLScalarVolumeNode | None:
    """Return the scalar volume in the background of the slice views (the red one first), else the active one."""
    for view in ("Red", "Yellow", "Green"):
        composite = _composite(view)
        node = slicer.mrmlScene.GetNodeByID(composite.GetBackgroundVolumeID() or "") if composite else None
        if _is_scan(node):
            return node
    selection = slicer.app.applicationLogic().GetSelectionNode()
    node = slicer.mrmlScene.GetNodeByID(selection.GetActiveVolumeID() or "") if selection else None
    return node if _is_scan(node) else None


def show_volume(volume: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Put ``volume`` into the background of the slice views, unless some view shows it already."""
    seen: set[str] = set()
    for view in ("Red", "Yellow", "Green"):
        composite = _composite(view)
        if composite is not None:
            seen |= {composite.GetBackgroundVolumeID() or "", composite.GetForegroundVolumeID() or ""}
    if volume.GetID() not in seen:
        slicer.util.setSliceViewerLayers(background=volume, fit=True)


def _is_scan(node: slicer.vtkMRMLNode | None) -> bool:
    # Label maps, colour and diffusion volumes are kinds of scalar volumes, too.
    return node is not None and node.GetClassName() == "vtkMRMLScalarVolumeNode"


def _slice_nodes() -> list[slicer.vtkMRMLSliceNode]:
    manager = slicer.app.layoutManager()
    return [manager.sliceWidget(name).mrmlSliceNode() for name in manager.sliceViewNames()]


def _slice_node(view: str) -> slicer.vtkMRMLSliceNode | None:
    widget = slicer.app.layoutManager().sliceWidget(view)
    return widget.mrmlSliceNode() if widget is not None else None


def _composite(view: str) -> slicer.vtkMRMLSliceCompositeNode | None:
    widget = slicer.app.layoutManager().sliceWidget(view)
    return widget.sliceLogic().GetSliceCompositeNode() if widget is not None else None


def _set_width(node: slicer.vtkMRMLSliceNode, width_mm: float) -> None:
    """Let the shorter side of the view measure ``width_mm``, so that the place is never cut off."""
    dimensions = node.GetDimensions()
    columns, rows = max(1, dimensions[0]), max(1, dimensions[1])
    pixel = width_mm / min(columns, rows)
    depth = node.GetFieldOfView()[2]
    node.SetFieldOfView(pixel * columns, pixel * rows, depth)
