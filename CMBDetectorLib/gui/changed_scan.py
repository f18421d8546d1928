"""A scan that was changed after it was searched: where it was only moved, its candidates go along with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from CMBDetectorLib.gui.candidates_node import CandidatesNode
from CMBDetectorLib.gui.scan_node import scan_volume
from CMBDetectorLib.review.finding import Finding, Position
from CMBDetectorLib.review.scan_key import scan_key
from CMBDetectorLib.volume import Volume


def follow(nodes: CandidatesNode) -> bool:
    """Bring the candidates, and what all readers said of them, to where the scan is now.

    Its voxels at another place - a transform was hardened, it was centred - take their positions (RAS mm of the scan)
    along. Returns whether candidates and scan belong together: not where the voxels are other ones; then positions
    stay as they are.
    """
    scan = scan_volume(nodes.scan)
    if scan is None:
        return True
    key = scan_key(scan.array, scan.ijk_to_ras)
    if key == nodes.key:
        return True
    searched, detection = nodes.searched_ijk_to_ras, nodes.detection()
    if searched is None or detection is None or scan_key(scan.array, searched) != nodes.key:
        return False
    before = Volume(scan.array, searched)

    def moved(ras_mm: Position) -> Position:
        x, y, z = (round(float(v), 4) for v in scan.to_ras(before.to_ijk(np.array(ras_mm))))
        return x, y, z

    def moved_finding(finding: Finding) -> Finding:
        seen = finding.detected_ras_mm
        return replace(finding, ras_mm=moved(finding.ras_mm), detected_ras_mm=moved(seen) if seen else None)

    said = {reader: [moved_finding(f) for f in nodes.findings(reader)] for reader in nodes.readers()}
    candidates = [replace(candidate, ras_mm=moved(candidate.ras_mm)) for candidate in detection.candidates]
    nodes.replace(replace(detection, candidates=candidates), key, said)
    return True
