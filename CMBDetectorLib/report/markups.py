"""Point lists that 3D Slicer opens (``.mrk.json``), and the shown candidates as one of them.

Format: Slicer's markups schema 1.0.3, which every Slicer 5 reads. Its positions are LPS, as Slicer itself writes them;
``positionStatus`` is given since Slicer 5.0 does not draw points that leave it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from CMBDetectorLib.candidate import Detection
from CMBDetectorLib.files import write_json
from CMBDetectorLib.report.tables import ranked
from CMBDetectorLib.volume import ras_to_lps

_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)


@dataclass(frozen=True)
class MarkupPoint:
    """One point: ``ras_mm`` is its place (RAS mm), ``label`` stands beside it, ``description`` in Slicer's table.

    ``selected`` points have Slicer's bright colour, those not ``visible`` are in the table only.
    """

    id: str
    label: str
    description: str
    ras_mm: Sequence[float]
    selected: bool = True
    visible: bool = True


def write_markups(path: Path | str, detection: Detection, name: str = "Microbleed candidates") -> None:
    """Write one locked point list called ``name`` with a point for each shown candidate, in the order of rank.

    Raises:
        OutputError: it cannot be written.
    """
    points = [
        MarkupPoint(
            candidate.id,
            f"CMB {rank}",
            f"score {candidate.score:.3f}, stage 1 {candidate.stage1_score:.3f}, "
            f"diameter {candidate.diameter_mm:.1f} mm",
            candidate.ras_mm,
        )
        for rank, candidate, shown in ranked(detection)
        if shown
    ]
    write_point_list(path, points, name)


def write_point_list(path: Path | str, points: Sequence[MarkupPoint], name: str) -> None:
    """Write ``points`` as one locked point list called ``name``.

    Raises:
        OutputError: it cannot be written.
    """
    node = {
        "type": "Fiducial",
        "name": name,
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": True,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": len(points),
        "controlPoints": [_control_point(point) for point in points],
        "measurements": [],
    }
    write_json(path, {"@schema": _SCHEMA, "markups": [node]})


def _control_point(point: MarkupPoint) -> dict[str, Any]:
    return {
        "id": point.id,
        "label": point.label,
        "description": point.description,
        "associatedNodeID": "",
        "position": [round(float(v), 3) + 0.0 for v in ras_to_lps(point.ras_mm)],
        "orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
        "selected": point.selected,
        "locked": True,
        "visibility": point.visible,
        "positionStatus": "defined",
    }
