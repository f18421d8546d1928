"""Whether a local dataset is enough to retrain on, what is missing, and how long it will take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from CMBDetectorLib.datasets.local import LocalScan
from CMBDetectorLib.training.retraining import Depth

NEEDED: dict[Depth, tuple[int, int, int]] = {
    "second-stage": (3, 3, 5),
    "both-stages": (4, 3, 10),
    "from-scratch": (8, 5, 20),
}
"""Complete scans, those of them with microbleeds, and microbleeds in all that each depth needs at least: the new
networks learn from some, are watched on others and compared on a third part."""

# Seconds on two cores, of scans of 512x512x150 voxels (README, retraining).
_PREPARE_S, _SEARCH_S = 10.0, 15.0
# Of one training: a fixed part and one for each scan, of the U-Nets (and of searching with them anew) and of the CNNs.
_UNETS_S: dict[Depth, tuple[float, float]] = {
    "second-stage": (0.0, 0.0),
    "both-stages": (120.0, _SEARCH_S),
    "from-scratch": (1500.0, _SEARCH_S),
}
_CNNS_S: dict[Depth, tuple[float, float]] = {
    "second-stage": (100.0, 1.0),
    "both-stages": (100.0, 1.0),
    "from-scratch": (1200.0, 1.0),
}


def missing(scans: Sequence[LocalScan], depth: Depth) -> list[str]:
    """Return what ``scans``, those that train, lack for ``depth``, one phrase each; an empty list: they are enough."""
    least, least_bleeding, least_microbleeds = NEEDED[depth]
    bleeding = sum(scan.microbleeds > 0 for scan in scans)
    microbleeds = sum(scan.microbleeds for scan in scans)
    lacks = (
        (least - len(scans), "completely reviewed scan"),
        (least_bleeding - bleeding, "scan with microbleeds"),
        (least_microbleeds - microbleeds, "microbleed"),
    )
    return [f"{number} more {_plural(what, number)}" for number, what in lacks if number > 0]


def missing_sentence(scans: Sequence[LocalScan], depth: Depth) -> str:
    """Return the sentence that says what there is and what is missing."""
    microbleeds = sum(scan.microbleeds for scan in scans)
    have = f"{len(scans)} complete {_plural('scan', len(scans))} with {microbleeds} " + _plural(
        "microbleed", microbleeds
    )
    return f"There are {have}: too few to learn from; missing: {', '.join(missing(scans, depth))}."


def stage_seconds(scans: int, prepared: int, depth: Depth, folds: int) -> list[tuple[str, float]]:
    """Return the stages of a retraining on ``scans`` and about how long each takes; ``prepared`` of them are kept from
    an earlier one."""
    unets, cnns = (fixed + each * scans for fixed, each in (_UNETS_S[depth], _CNNS_S[depth]))
    new = scans - prepared
    stages = [("preprocessing", 1 + new * _PREPARE_S), ("mimics", 1 + new * _SEARCH_S), ("U-Nets", unets)]
    return [*(stage for stage in stages if stage[1]), ("CNNs", cnns), ("comparison", folds * (unets + cnns))]


def expected_minutes(scans: int, prepared: int, depth: Depth, folds: int) -> float:
    """Return about how many minutes that is."""
    return round(sum(seconds for _, seconds in stage_seconds(scans, prepared, depth, folds)) / 60, 1)


def described(scans: Sequence[LocalScan], depth: Depth) -> dict[str, Any]:
    """Return the counts and what is missing as plain JSON values; ``scans`` are all that are listed."""
    train = [scan for scan in scans if scan.trains]
    lacks = missing(train, depth)
    return {
        "enough": not lacks,
        "missing": lacks,
        "scans": len(train),
        "scans_with_microbleeds": sum(scan.microbleeds > 0 for scan in train),
        "microbleeds": sum(scan.microbleeds for scan in train),
        "mimics": sum(scan.mimics for scan in train),
        "left_out": [{"id": scan.id, "reason": scan.reason} for scan in scans if not scan.trains],
    }


def _plural(what: str, number: int) -> str:
    if number == 1:
        return what
    first, _, rest = what.partition(" with ")
    return f"{first}s with {rest}" if rest else f"{what}s"
