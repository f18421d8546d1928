"""Batches of windows for the two stages, drawn anew for each epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.spatial import cKDTree

from CMBDetectorLib.detection.patches import cut_windows
from CMBDetectorLib.evaluation.matching import HIT_RADIUS_MM
from CMBDetectorLib.networks.unet import WINDOW
from CMBDetectorLib.training.augmentation import flip_and_rotate, random_shifts, vary_scanner
from CMBDetectorLib.training.cases import PreparedCase
from CMBDetectorLib.training.transplants import Transplants

_DARK_SHARE = 0.6
"""Part of stage 1's windows without a chosen microbleed that is centred on a dark spot; the rest is anywhere."""
_LEAST_WEIGHT = 0.03
"""What a mimic that deceives nobody any more weighs beside 1 for one that is taken for a microbleed."""
_EASY_SHARE = 0.2
"""Part of stage 2's negatives that are dark spots instead of mimics: it must also know what stage 1 never proposes."""


class Stage1Sampler:
    """Windows and centre maps for the U-Nets: half around a microbleed, half elsewhere in the brain."""

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        spacing_mm: Sequence[float],
        shift: tuple[int, int, int],
        sigma_mm: float,
        window: Sequence[int] = WINDOW,
        scanners: bool = False,
    ) -> None:
        """``window``: voxels of a window; ``scanners``: intensities vary, too."""
        self._window, self._scanners = tuple(window), scanners
        self._cases = list(cases)
        self._spacing = np.array(spacing_mm)
        self._shift = shift
        self._sigma = sigma_mm
        self._lesions = [(number, ijk) for number, case in enumerate(cases) for ijk in case.microbleeds]

    def __call__(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return windows and targets, both (count, *window, 1) float32, in random order."""
        places = [self._lesion_place(rng) for _ in range(count // 2)]
        places += [self._other_place(rng) for _ in range(count - len(places))]
        images = np.zeros((count, *self._window), np.float32)
        targets = np.zeros((count, *self._window), np.float32)
        for target_row, (number, centre) in zip(rng.permutation(count), places, strict=True):
            case = self._cases[number]
            image = cut_windows(case.image, centre[None], self._window)[0]
            if self._scanners:
                image = vary_scanner(rng, image)
            around = case.microbleeds - (centre - np.array(self._window) // 2)
            target = centre_map(around, self._spacing, target_sigma(self._sigma, case.stored_mm), self._window)
            images[target_row], targets[target_row] = flip_and_rotate(rng, image, target)
        return images[..., None], targets[..., None]

    def _lesion_place(self, rng: np.random.Generator) -> tuple[int, np.ndarray]:
        number, ijk = self._lesions[rng.integers(len(self._lesions))]
        return number, np.round(ijk).astype(int) + random_shifts(rng, 1, self._shift)[0]

    def _other_place(self, rng: np.random.Generator) -> tuple[int, np.ndarray]:
        number = int(rng.integers(len(self._cases)))
        case = self._cases[number]
        if len(case.dark_spots) and rng.random() < _DARK_SHARE:
            spot = case.dark_spots[rng.integers(len(case.dark_spots))].astype(int)
            return number, spot + random_shifts(rng, 1, self._shift)[0]
        return number, _random_brain_voxel(rng, case.mask)


class Stage2Sampler:
    """Windows and labels for the CNNs: half microbleeds, half mimics."""

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        mimics: Sequence[np.ndarray],
        spacing_mm: Sequence[float],
        shift: tuple[int, int, int],
        window: Sequence[int] = WINDOW,
        scanners: bool = False,
        hits: Sequence[np.ndarray] = (),
        transplants: int = 0,
    ) -> None:
        """``mimics`` and ``hits`` are voxel positions (n, 3) in the image of each case: what stage 1 proposes falsely,
        and what it proposes for microbleeds, to learn beside their true centres. ``transplants``: transplanted ones are
        drawn as often as so many more microbleeds would be. The others are as for stage 1."""
        self._cases = list(cases)
        self._window, self._scanners = tuple(window), scanners
        self._lesions = [(number, ijk) for number, case in enumerate(cases) for ijk in case.microbleeds]
        self._transplants = Transplants(cases, spacing_mm, transplants)
        self._lesions += [(number, ijk) for number, found in enumerate(hits) for ijk in found]
        self._mimics = [(number, ijk) for number, found in enumerate(mimics) for ijk in found]
        self._chance: np.ndarray | None = None
        self._easy = [
            (number, ijk)
            for number, case in enumerate(cases)
            for ijk in away_from(case.dark_spots, case.microbleeds, spacing_mm, case.stored_mm)
        ]
        self._shifts = [slice_shift(shift, case.stored_mm, spacing_mm) for case in cases]

    def __call__(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return windows (count, *window, 1) and labels (count, 1), 1 for a microbleed, in random order."""
        images = np.zeros((count, *self._window), np.float32)
        labels = np.zeros((count, 1), np.float32)
        for row, index in enumerate(rng.permutation(count)):
            positive = row < count // 2
            transplant = self._transplants.draw(rng) if positive else None
            number, ijk = self._draw(rng, positive) if transplant is None else (transplant.case, transplant.ijk)
            centre = np.round(ijk).astype(int) + random_shifts(rng, 1, self._shifts[number])[0]
            image = cut_windows(self._cases[number].image, centre[None], self._window)[0]
            if transplant is not None:
                transplant.darken(image, centre - np.array(self._window) // 2)
            if self._scanners:
                image = vary_scanner(rng, image)
            (images[index],) = flip_and_rotate(rng, image)
            labels[index] = positive
        return images[..., None], labels

    def mimic_windows(self, batch: int) -> Iterator[np.ndarray]:
        """Yield the windows (n, *window, 1) of all mimics in order, ``batch`` at a time."""
        for first in range(0, len(self._mimics), batch):
            part = self._mimics[first : first + batch]
            yield np.concatenate(
                [cut_windows(self._cases[number].image, ijk[None], self._window) for number, ijk in part]
            )[..., None]

    def weigh_mimics(self, scores: np.ndarray | None) -> None:
        """Draw mimics from now on by how far they deceive: ``scores`` (one a mimic, 0 to 1); ``None``: all alike."""
        self._chance = None
        if scores is not None and len(scores):
            weight = scores.astype(float) + _LEAST_WEIGHT
            self._chance = np.cumsum(weight / weight.sum())

    def _draw(self, rng: np.random.Generator, positive: bool) -> tuple[int, np.ndarray]:
        pool = self._lesions
        if not positive:
            easy = not self._mimics or (self._easy and rng.random() < _EASY_SHARE)
            if not easy and self._chance is not None:
                return self._mimics[min(int(np.searchsorted(self._chance, rng.random())), len(self._mimics) - 1)]
            pool = self._easy if easy else self._mimics
        return pool[rng.integers(len(pool))]


def centre_map(
    centres: np.ndarray, spacing_mm: np.ndarray, sigma_mm: float | np.ndarray, window: Sequence[int] = WINDOW
) -> np.ndarray:
    """Return the map (*window) that is 1 at each of ``centres`` (n, 3; voxels of the window) and falls off around
    it as a Gaussian of ``sigma_mm`` (one, or one an axis); where two overlap the larger counts, so that near neighbours
    keep two peaks."""
    target = np.zeros(tuple(window), np.float32)
    sigma_mm = np.broadcast_to(sigma_mm, 3)
    reach = 3 * sigma_mm / spacing_mm
    for centre in centres[((centres > -reach) & (centres < np.array(window) + reach)).all(1)]:
        axes = [
            np.exp(-0.5 * ((np.arange(n) - c) * s / sigma) ** 2)
            for n, c, s, sigma in zip(window, centre, spacing_mm, sigma_mm, strict=True)
        ]
        np.maximum(target, np.einsum("i,j,k->ijk", *axes), out=target)
    return target


def target_sigma(sigma_mm: float, stored_mm: Sequence[float]) -> np.ndarray:
    """Return the widths (3,), mm, of the centre map in a scan with voxels of ``stored_mm`` (i, j, k).

    At least half a voxel: nothing in a slice of 5 mm tells where in it the centre lies, and a network that has to know
    answers with a low likelihood everywhere.
    """
    return np.maximum(sigma_mm, np.array(stored_mm) / 2)


def slice_shift(shift: Sequence[int], stored_mm: Sequence[float], spacing_mm: Sequence[float]) -> tuple[int, int, int]:
    """Return ``shift`` (voxels of ``spacing_mm``), at least half a voxel of ``stored_mm``: as far off as stage 1."""
    i, j, k = (max(n, int(s / 2 / v)) for n, s, v in zip(shift, stored_mm, spacing_mm, strict=True))
    return i, j, k


def away_from(
    ijk: np.ndarray, microbleeds: np.ndarray, spacing_mm: Sequence[float], stored_mm: Sequence[float] | None = None
) -> np.ndarray:
    """Return the voxel positions of ``ijk`` (n, 3) that hit none of ``microbleeds``: :func:`relative_distance`."""
    return ijk[relative_distance(ijk, microbleeds, spacing_mm, stored_mm) > 1]


def relative_distance(
    ijk: np.ndarray,
    microbleeds: np.ndarray,
    spacing_mm: Sequence[float],
    stored_mm: Sequence[float] | None = None,
    radius_mm: float = HIT_RADIUS_MM,
) -> np.ndarray:
    """Return how far each of the voxel positions ``ijk`` (n, 3) is from the nearest of ``microbleeds`` (m, 3): 1 is at
    ``radius_mm``.

    With the scan's own voxels ``stored_mm`` (i, j, k) it is on no axis less than two of them: a large microbleed still
    shows in the next slice, and to learn as a mimic what is a microbleed teaches nothing.
    """
    if not len(microbleeds) or not len(ijk):
        return np.full(len(ijk), np.inf)
    reach = np.maximum(radius_mm, 2 * np.array(spacing_mm if stored_mm is None else stored_mm))
    scale = np.array(spacing_mm) / reach
    return cKDTree(microbleeds * scale).query(ijk * scale)[0]


def _random_brain_voxel(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    for _ in range(200):
        voxel = rng.integers(0, mask.shape)
        if mask[tuple(voxel)]:
            return voxel
    return np.array(mask.shape) // 2
