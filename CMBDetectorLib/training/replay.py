"""Windows of the scans that a model was made from, kept in it: learnt from again beside local scans, they keep what
few local scans would wash away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from CMBDetectorLib.detection.patches import cut_windows
from CMBDetectorLib.files import atomic_path, sha256, write_json, write_text
from CMBDetectorLib.models.bundle import CARD, Bundle, card_text
from CMBDetectorLib.models.companions import REPLAY, SCALE, WINDOW, read_replay
from CMBDetectorLib.training.augmentation import flip_and_rotate, random_shifts, vary_scanner
from CMBDetectorLib.training.cases import PreparedCase
from CMBDetectorLib.training.fitting import Sampler
from CMBDetectorLib.training.patches import centre_map, target_sigma

SHARE = 0.3
"""Part of each batch that is replayed."""


@dataclass(frozen=True)
class Replay:
    """``windows`` (n, 64, 64, 24) uint8 (:data:`~CMBDetectorLib.models.companions.SCALE` times the intensity).

    ``labels`` (n,) is 1 where the middle voxel is that of a microbleed and 0 for a mimic; ``lesions`` are for each
    window the microbleeds in and around it (m, 3), fractional voxels of the window, and ``stored_mm`` (n, 3) the voxels
    of its scan.
    """

    windows: np.ndarray
    labels: np.ndarray
    lesions: list[np.ndarray]
    stored_mm: np.ndarray

    def cut(self, number: int, shift: np.ndarray, size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the part of window ``number`` of ``size`` voxels (float32 intensities) that is moved from the middle
        by ``shift`` as far as there is room, and the microbleeds as voxels of it."""
        room = (np.array(WINDOW) - size) // 2
        start = room + np.clip(shift, -room, room)
        box = tuple(slice(int(a), int(a) + n) for a, n in zip(start, size, strict=True))
        return self.windows[number][box].astype(np.float32) / SCALE, self.lesions[number] - start


def make_replay(cases: Sequence[PreparedCase], mimics: Sequence[np.ndarray], count: int, seed: int = 0) -> Replay:
    """Return up to ``count`` windows of ``cases``, half around microbleeds and half around ``mimics`` (one array (n, 3)
    of voxel positions a case), drawn with ``seed`` and at most once each."""
    rng = np.random.default_rng(seed)
    pools = [
        [(number, ijk) for number, case in enumerate(cases) for ijk in case.microbleeds],
        [(number, ijk) for number, found in enumerate(mimics) for ijk in found],
    ]
    places = []
    for label, pool in ((1, pools[0]), (0, pools[1])):
        chosen = rng.permutation(len(pool))[: count // 2]
        places += [(label, *pool[index]) for index in chosen]
    windows, lesions = np.zeros((len(places), *WINDOW), np.uint8), []
    for row, (_, number, ijk) in enumerate(places):
        case = cases[number]
        window = cut_windows(case.image, np.array([ijk]), WINDOW)[0]
        scaled = np.clip(np.round(window * SCALE), 0, 255)
        # A dark voxel of the brain must not become one outside it.
        windows[row] = np.where(window > 0, np.maximum(scaled, 1), 0)
        around = case.microbleeds - (np.floor(ijk + 0.5) - np.array(WINDOW) // 2)
        lesions.append(around[((around > -8) & (around < np.array(WINDOW) + 8)).all(1)])
    stored = np.array([cases[number].stored_mm for _, number, _ in places], np.float32).reshape(-1, 3)
    return Replay(windows, np.array([label for label, _, _ in places], np.uint8), lesions, stored)


def write_replay(path: Path, replay: Replay) -> None:
    """Write ``replay`` as the file that :func:`load_replay` reads.

    Raises:
        OutputError: it cannot be written.
    """
    centres = np.concatenate([np.reshape(c, (-1, 3)) for c in replay.lesions]) if replay.lesions else np.zeros((0, 3))
    counts = np.array([len(c) for c in replay.lesions], np.int32)
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(
            stream,
            windows=replay.windows,
            labels=replay.labels,
            centres=centres.astype(np.float32),
            counts=counts,
            stored_mm=replay.stored_mm.astype(np.float32),
        )


def load_replay(path: Path) -> Replay:
    """Return what :func:`write_replay` wrote.

    Raises:
        ModelError: it is damaged.
    """
    arrays = read_replay(path)
    lesions = np.split(arrays["centres"].astype(float), np.cumsum(arrays["counts"])[:-1])
    return Replay(arrays["windows"], arrays["labels"], lesions, arrays["stored_mm"].astype(float))


def add_replay(bundle: Bundle, replay: Replay) -> Bundle:
    """Put ``replay`` into the folder and the card of ``bundle``; its networks and their checksum stay.

    Raises:
        OutputError: the folder cannot be written.
    """
    write_replay(bundle.folder / REPLAY, replay)
    described = {"windows": len(replay.labels), "microbleeds": int(replay.labels.sum())}
    files = {**bundle.card["files"], REPLAY: sha256(bundle.folder / REPLAY)}
    card = {**bundle.card, "files": files, "replay": described}
    write_json(bundle.folder / CARD, card)
    write_text(bundle.folder / "README.md", card_text(card))
    return Bundle(bundle.folder, card)


class ReplayedCandidates:
    """Draws windows and labels for stage 2, half of them microbleeds where there are both."""

    def __init__(
        self, replay: Replay, window: Sequence[int], shift: tuple[int, int, int], scanners: bool = False
    ) -> None:
        """``shift``: the largest from the middle, in voxels (i, j, k); ``scanners``: intensities vary, too."""
        self._replay, self._window, self._shift, self._scanners = replay, tuple(window), shift, scanners
        self._pools = [np.flatnonzero(replay.labels == label) for label in (0, 1)]

    def __call__(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return windows (count, *window, 1) and labels (count, 1), float32."""
        images = np.zeros((count, *self._window), np.float32)
        labels = np.zeros((count, 1), np.float32)
        for row in range(count):
            pool = self._pools[row % 2] if len(self._pools[row % 2]) else self._pools[1 - row % 2]
            number = int(pool[rng.integers(len(pool))])
            image, _ = self._replay.cut(number, random_shifts(rng, 1, self._shift)[0], self._window)
            if self._scanners:
                image = vary_scanner(rng, image)
            (images[row],) = flip_and_rotate(rng, image)
            labels[row] = self._replay.labels[number]
        return images[..., None], labels


class ReplayedMaps:
    """Draws windows and centre maps for stage 1."""

    def __init__(
        self,
        replay: Replay,
        spacing_mm: Sequence[float],
        window: Sequence[int],
        shift: tuple[int, int, int],
        sigma_mm: float,
        scanners: bool = False,
    ) -> None:
        """``sigma_mm``: width of the Gaussian of a centre map; the others as for stage 2."""
        self._replay, self._spacing, self._sigma = replay, np.array(spacing_mm), sigma_mm
        self._window, self._shift, self._scanners = tuple(window), shift, scanners

    def __call__(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return windows and targets, both (count, *window, 1) float32."""
        images = np.zeros((count, *self._window), np.float32)
        targets = np.zeros((count, *self._window), np.float32)
        for row in range(count):
            number = int(rng.integers(len(self._replay.labels)))
            image, lesions = self._replay.cut(number, random_shifts(rng, 1, self._shift)[0], self._window)
            if self._scanners:
                image = vary_scanner(rng, image)
            sigma = target_sigma(self._sigma, self._replay.stored_mm[number])
            target = centre_map(lesions, self._spacing, sigma, self._window)
            images[row], targets[row] = flip_and_rotate(rng, image, target)
        return images[..., None], targets[..., None]


def mixed(local: Sampler, replayed: Sampler | None, share: float = SHARE) -> Sampler:
    """Return a sampler that draws ``share`` of each batch from ``replayed`` and the rest from ``local``."""
    if replayed is None:
        return local

    def sample(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        few = round(share * count)
        parts = zip(local(rng, count - few), replayed(rng, few), strict=True)
        images, targets = (np.concatenate(both) for both in parts)
        return images, targets

    return sample
