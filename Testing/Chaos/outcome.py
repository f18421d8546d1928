"""What a fault did: how often it was tried, what was lost, and what there is to say."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

_MOST_TOLD = 5


@dataclass
class Outcome:
    """One row of the table; ``losses`` are sentences, none is wanted."""

    fault: str
    tries: int = 0
    losses: list[str] = field(default_factory=list)
    note: str = ""

    def check(self, holds: bool, loss: str) -> None:
        """Count a loss unless ``holds``."""
        if not holds:
            self.losses.append(loss)

    def told(self) -> list[str]:
        """Return the first losses, for a terminal."""
        more = len(self.losses) - _MOST_TOLD
        return self.losses[:_MOST_TOLD] + ([f"… and {more} more"] if more > 0 else [])


@dataclass
class Chaos:
    """What every fault gets: a seed of its own, an empty folder, how much of the full suite is to be run.

    ``model`` is a bundle of tiny networks and ``scan`` a small scan for real detections, ``None`` where these faults
    are left out.
    """

    seed: int
    folder: Path
    scale: float = 1.0
    model: Path | None = None
    scan: Path | None = None

    def random(self, name: str) -> random.Random:
        """Return the random numbers of the part ``name``: the same in every run with this seed."""
        return random.Random(f"{self.seed} {name}")

    def times(self, full: int) -> int:
        """Return how often to try what the full suite tries ``full`` times."""
        return max(1, round(full * self.scale))

    def place(self, name: str) -> Path:
        """Return a new empty folder."""
        folder = self.folder / name
        folder.mkdir(parents=True)
        return folder
