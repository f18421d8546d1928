"""Whether annotated places lie in a scan, and a sentence where they do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.volume import Volume, ras_to_lps

# The smallest microbleeds measure 2 mm: two of them have no centres this close.
_SAME_PLACE_MM = 0.5


def lies_inside(grid: Volume, ras_mm: Any) -> np.ndarray:
    """Tell for each of the positions (n, 3) in RAS mm whether it lies in a voxel of ``grid``; returns bool (n,)."""
    ijk = grid.to_ijk(np.asarray(ras_mm, dtype=float).reshape(-1, 3))
    return ((ijk >= -0.5) & (ijk <= np.array(grid.shape) - 0.5)).all(axis=1)


def check_inside(grid: Volume, ras_mm: Sequence[Any], name: str, space: str, is_stated: bool) -> None:
    """Refuse positions (n, 3; RAS mm) outside ``grid``; the file ``name`` gave them in ``space`` ("RAS" or "LPS").

    ``is_stated`` tells whether the file itself says which of the two it is.

    Raises:
        BadInputError: some lie outside; the sentence says so where they would lie inside in the other space.
    """
    places = np.asarray(ras_mm, dtype=float).reshape(-1, 3)
    outside = ~lies_inside(grid, places)
    if not outside.any():
        return
    worst = np.round(ras_to_lps(places[outside][0]) if space == "LPS" else places[outside][0], 1)
    told = f"{int(outside.sum())} of the {len(places)} places in {name} lie outside the scan"
    first = f"the first is {', '.join(f'{v:g}' for v in worst)} mm"
    other = "RAS" if space == "LPS" else "LPS"
    if lies_inside(grid, ras_to_lps(places)).all():
        raise BadInputError(
            f"{told} when read as {space}, and all lie inside when read as {other} ({first}).",
            f"The file says {space}: correct it there." if is_stated else f"Say so: --space {other}.",
        )
    raise BadInputError(f"{told} ({first}).", "Check that the file belongs to this scan and is in its millimetres.")


def check_distinct(ras_mm: Sequence[Any], name: str) -> None:
    """Refuse a list that names one place (RAS mm) twice.

    Raises:
        BadInputError: two positions lie within 0.5 mm of each other.
    """
    places = np.asarray(ras_mm, dtype=float).reshape(-1, 3)
    if len(places) < 2:
        return
    pairs = KDTree(places).query_pairs(_SAME_PLACE_MM, output_type="ndarray")
    if len(pairs):
        first, second = sorted(int(n) + 1 for n in pairs[np.lexsort(pairs.T[::-1])[0]])
        raise BadInputError(
            f"{name} names one place twice: points {first} and {second} lie within {_SAME_PLACE_MM} mm.",
            "Remove one of them.",
        )


def check_apart(microbleeds: Sequence[Any], mimics: Sequence[Any]) -> None:
    """Refuse a place (RAS mm) that is called both a microbleed and a mimic.

    Raises:
        BadInputError: there is one.
    """
    if not len(microbleeds) or not len(mimics):
        return
    places = np.asarray(microbleeds, dtype=float).reshape(-1, 3)
    distance, _ = KDTree(np.asarray(mimics, dtype=float).reshape(-1, 3)).query(places)
    both = places[distance < _SAME_PLACE_MM]
    if len(both):
        where = ", ".join(f"{v:.1f}" for v in both[0])
        raise BadInputError(
            f"{len(both)} places are called microbleed and mimic at once; the first lies at {where} mm (RAS).",
            "Remove each from one of the two files.",
        )
