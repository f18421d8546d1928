"""The shown candidates as a point list that 3D Slicer opens (``candidates.mrk.json``).

Format: Slicer's markups schema 1.0.3, which every Slicer 5 reads. Its positions are LPS, as Slicer itself writes them;
``positionStatus`` is given since Slicer 5.0 does not draw points that leave it out.
"""

from __future__ import annotations

from pathlib import Path

from CMBDetectorLib.candidate import Detection
from CMBDetectorLib.files import write_json
from CMBDetectorLib.report.tables import ranked
from CMBDetectorLib.volume import ras_to_lps

_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)


def write_markups(path: Path | str, detection: Detection, name: str = "Microbleed candidates") -> None:
    """Write one locked point list called ``name`` with a point for each shown candidate, in the order of rank.

    Raises:
        OutputError: it cannot be written.
    """
    points = [
        {
            "id": candidate.id,
            "label": f"CMB {rank}",
            "description": f"score {candidate.score:.3f}, stage 1 {candidate.stage1_score:.3f}, "
            f"diameter {candidate.diameter_mm:.1f} mm",
            "associatedNodeID": "",
            "position": [round(float(v), 3) + 0.0 for v in ras_to_lps(candidate.ras_mm)],
            "orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
            "selected": True,
            "locked": True,
            "visibility": True,
            "positionStatus": "defined",
        }
        for rank, candidate, shown in ranked(detection)
        if shown
    ]
    node = {
        "type": "Fiducial",
        "name": name,
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": True,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": len(points),
        "controlPoints": points,
        "measurements": [],
    }
    write_json(path, {"@schema": _SCHEMA, "markups": [node]})
