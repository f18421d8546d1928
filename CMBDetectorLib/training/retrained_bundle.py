"""The bundle that a retraining leaves: networks, what they learnt from, and how they compare with their parent's."""

from __future__ import annotations

import datetime
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import CMBDetectorLib
from CMBDetectorLib.candidate import threshold_at
from CMBDetectorLib.datasets.local import LocalScan
from CMBDetectorLib.evaluation.comparison import Comparison
from CMBDetectorLib.evaluation.froc import Froc
from CMBDetectorLib.files import sha256, write_json
from CMBDetectorLib.models.bundle import Bundle, write_bundle
from CMBDetectorLib.models.companions import COMPARISON, PLOT, REPLAY
from CMBDetectorLib.networks.catalogue import window
from CMBDetectorLib.report.comparison_plot import write_comparison_plot
from CMBDetectorLib.training.cases import PreparedCase, coarsest
from CMBDetectorLib.training.retraining import Network, Plan, Retrained, save_networks

SCHEMA = 1
_MEASURED = "local scans, left out"
_CARD_RATES = (1.0, 4.1, 14.5)


@dataclass(frozen=True)
class LocalData:
    """The scans that were learnt from; ``is_simulated``: nobody was scanned. ``checksums`` are those of their files,
    ``coarsest_mm`` their coarsest voxels along R, A, S."""

    scans: Sequence[LocalScan]
    is_simulated: bool
    checksums: dict[str, str]
    coarsest_mm: list[float]

    def manifest(self) -> list[dict[str, Any]]:
        """Return what each scan was: its id, its file's and its verdicts' SHA-256 and counts; no names of readers."""
        return [
            {
                "id": scan.id,
                "scan_sha256": self.checksums[scan.id],
                "verdicts_sha256": scan.checksum,
                "microbleeds": scan.microbleeds,
                "mimics": scan.mimics,
            }
            for scan in self.scans
        ]


def local_data(scans: Sequence[LocalScan], simulated: bool, cases: Sequence[PreparedCase]) -> LocalData:
    """Return ``scans``, which were preprocessed as ``cases``, with the checksums of their files."""
    return LocalData(
        scans, simulated, {scan.id: sha256(scan.scan) for scan in scans}, coarsest([c.stored_mm for c in cases])
    )


def seen_by(bundle: Bundle, data: LocalData) -> list[str]:
    """Return the ids of the scans that ``bundle``, or a model it was made from, has learnt from already."""
    training = bundle.card.get("training", {})
    # A model that was trained and not retrained knows the names of its scans alone.
    names = set() if "seen" in training else set(training.get("scans", []))
    known = set(training.get("seen", []))
    return [scan.id for scan in data.scans if data.checksums[scan.id] in known or scan.id in names]


def comparison_content(
    comparison: Comparison, folds: Sequence[Sequence[str]], start: Bundle, name: str, plan: Plan, seen: Sequence[str]
) -> dict[str, Any]:
    """Return the content of ``comparison.json``."""
    content = comparison.to_json()
    if seen:
        known = f"{len(seen)} of these {comparison.old.scans} scans"
        content["verdict"] += f" The old model had learnt from {known} before, which flatters it."
    return {
        "schema": SCHEMA,
        "old": {"reference": start.reference, "checksum": start.checksum, "seen": list(seen)},
        "new": {"name": name, "depth": plan.depth, "parent": start.reference},
        "folds": [list(fold) for fold in folds],
        **content,
    }


def write_retrained(
    folder: Path,
    retrained: Retrained,
    start: Bundle,
    name: str,
    data: LocalData,
    plan: Plan,
    comparison: Comparison | None,
    content: dict[str, Any] | None,
) -> Bundle:
    """Write the bundle into ``folder``, all or nothing; ``content`` is that of ``comparison.json``.

    Raises:
        OutputError: it cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="cmbdetector-") as temporary:
        place = Path(temporary)
        files = save_networks(retrained, start, place)
        if start.replay is not None:
            files[REPLAY] = place / REPLAY
            shutil.copyfile(start.replay, files[REPLAY])
        if comparison is not None:
            files |= {COMPARISON: place / COMPARISON, PLOT: place / PLOT}
            write_json(files[COMPARISON], content)
            write_comparison_plot(files[PLOT], comparison, (start.reference, name))
        return write_bundle(folder, _card(retrained, start, name, data, plan, comparison), files)


def _card(
    retrained: Retrained, start: Bundle, name: str, data: LocalData, plan: Plan, comparison: Comparison | None
) -> dict[str, Any]:
    microbleeds = sum(scan.microbleeds for scan in data.scans)
    scans = f"{len(data.scans)} {'simulated' if data.is_simulated else 'local'} scans"
    anew = plan.depth == "from-scratch"
    told = f"Trained on {scans}." if anew else f"{start.card['training_data']} Trained further on {scans}."
    seen = set() if anew else set(start.card.get("training", {}).get("seen", []))
    how = "from random weights" if anew else f"from {start.reference} on"
    card: dict[str, Any] = {
        "name": name,
        "version": "1",
        "parent": start.reference,
        "created": datetime.date.today().isoformat(),
        "program": f"cmbdetector {CMBDetectorLib.__version__}",
        "description": f"Retrained ({plan.depth}, {how}) on {len(data.scans)} scans with {microbleeds} microbleeds and "
        f"{retrained.mimics} mimics.",
        "training_data": told,
        "licence": start.card["licence"],
        "spacing_mm": list(start.card["spacing_mm"]),
        "coarsest_mm": coarsest([data.coarsest_mm] if anew else [data.coarsest_mm, start.coarsest_mm]),
        "window": list(window(retrained.cnns[0].architecture)),
        "thresholds": {
            "stage1": plan.settings.stage1_threshold,
            "mimics": plan.settings.mimic_threshold,
            "shown": _shown(start, comparison),
        },
        "training": {
            "scans": [scan.id for scan in data.scans],
            "microbleeds": microbleeds,
            "mimics": retrained.mimics,
            "settings": plan.to_json(),
            "manifest": data.manifest(),
            "seen": sorted(seen | set(data.checksums.values())),
            "unchanged": [n.name for n in (*retrained.unets, *retrained.cnns) if not n.is_new],
        },
        # The parent's figures are not those of other networks.
        "metrics": {},
        "networks": {kind: _entries(getattr(retrained, kind), start, kind) for kind in ("unets", "cnns")},
    }
    if start.replay is not None:
        card["replay"] = start.card.get("replay", {})
    if comparison is not None:
        card["metrics"] = {
            _MEASURED: _figures(comparison.new),
            f"{_MEASURED}, by {start.reference}": _figures(comparison.old),
        }
        points = {f"{p.fp_allowed:g}": p.threshold for p in comparison.new.operating_points}
        wanted = {key: round(points[key], 4) for key in map("{:g}".format, _CARD_RATES) if points[key] is not None}
        card["operating_points"] = {_MEASURED: wanted}
    return card


def _entries(networks: Sequence[Network], start: Bundle, kind: str) -> list[dict[str, Any]]:
    known = {entry["file"]: entry for entry in start.card["networks"][kind]}
    entries = []
    for network in networks:
        file = f"{network.name}.keras"
        batch = known.get(file, {}).get("batch_size")
        entries.append({"file": file, "batch_size": batch, "architecture": network.architecture})
    return entries


def _shown(start: Bundle, comparison: Comparison | None) -> float:
    """Return the score from which on candidates are shown: where it was measured that of 4.1 false positives a scan."""
    threshold = None if comparison is None else comparison.judged.new.threshold
    return start.thresholds["shown"] if threshold is None else threshold_at(min(0.999, max(0.001, threshold)))


def _figures(curve: Froc) -> str:
    points = "; ".join(
        f"{p.fp_allowed:g} FP/scan {p.sensitivity:.1%}" for p in curve.operating_points if p.fp_allowed in _CARD_RATES
    )
    return f"sensitivity pooled at {points}; {curve.microbleeds} microbleeds in {curve.scans} scans"
