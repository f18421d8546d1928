"""The trained two-stage detector: a preprocessed scan goes in, ranked candidates come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
from scipy.special import expit, logit

from CMBDetectorLib.candidate import Candidate, candidate_id
from CMBDetectorLib.detection.candidates import Peaks, find_peaks
from CMBDetectorLib.detection.likelihood import WINDOWS_PER_BATCH, dense_map, exact_map
from CMBDetectorLib.detection.patches import cut_windows
from CMBDetectorLib.detection.size import apparent_diameter
from CMBDetectorLib.detection.tiles import LOW_MEMORY_VOXELS, MOST_VOXELS
from CMBDetectorLib.errors import OutOfMemoryError
from CMBDetectorLib.models.bundle import Bundle
from CMBDetectorLib.networks import backend, unet
from CMBDetectorLib.networks.catalogue import window
from CMBDetectorLib.networks.cnn import DEFAULT_CNN
from CMBDetectorLib.progress import Progress
from CMBDetectorLib.volume import Volume, stored_spacing

Inference = Literal["dense", "exact"]
_PATCHES_PER_BATCH = 64
_LOW_MEMORY_BATCH = 8
_MIRRORS: tuple[tuple[int, ...], ...] = ((), (1,), (2,), (1, 2))  # axes of a batch of windows: left-right, front-back
T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """What :meth:`Detector.detect` finds: ``candidates`` by falling score and the combined ``likelihood`` map."""

    candidates: list[Candidate]
    likelihood: Volume


class Detector:
    """Stage 1 (U-Nets) and stage 2 (CNNs) of one bundle.

    ``unets`` and ``cnns`` are Keras models, followed by the architecture of each kind. Batch normalisation is folded
    into the convolutions once, here.

    With ``low_memory`` tiles and batches are small. A detector turns to that by itself, once, when memory runs out.
    """

    def __init__(
        self,
        unets: Sequence[Any],
        cnns: Sequence[Any],
        architecture: dict[str, Any],
        cnn_architecture: dict[str, Any] | None = None,
        low_memory: bool = False,
    ) -> None:
        self._unets = list(unets)
        self._cnns = list(cnns)
        self._architecture = architecture
        self._cnn_architecture = cnn_architecture or DEFAULT_CNN
        self._low_memory = low_memory

    @classmethod
    def from_bundle(cls, bundle: Bundle, low_memory: bool = False) -> Detector:
        """Load the networks of ``bundle``.

        Raises:
            MissingPackageError: Keras or its back end is not installed.
            ModelError: a network cannot be loaded.
            OutOfMemoryError: there is no memory even for that.
        """
        unets = bundle.networks("unets")
        cnns = bundle.networks("cnns")
        load = backend.load
        return cls([load(p) for p, _ in unets], [load(p) for p, _ in cnns], unets[0][1], cnns[0][1], low_memory)

    @cached_property
    def _folded(self) -> list[Any]:
        return [unet.fold(model, self._architecture) for model in self._unets]

    def likelihood(
        self, image: Volume, mask: Volume, inference: Inference = "dense", progress: Progress | None = None
    ) -> Volume:
        """Return the likelihood map of stage 1 on the grid of ``image`` (normalised, canonical), 0 outside ``mask``.

        Raises:
            OutOfMemoryError: memory ran out, also with small tiles.
        """
        progress = progress or Progress()

        def report(step: int, steps: int) -> None:
            progress.report("stage 1", step, steps)

        def compute() -> np.ndarray:
            if inference == "exact":
                size, batch = window(self._architecture), _LOW_MEMORY_BATCH if self._low_memory else WINDOWS_PER_BATCH
                return exact_map(self._folded, image.array, mask.array, report, window=size, per_batch=batch)
            most = LOW_MEMORY_VOXELS if self._low_memory else MOST_VOXELS
            return dense_map(self._folded, self._architecture, image.array, mask.array, report, most)

        return image.with_array(self._sparing_memory(compute, progress))

    def _sparing_memory(self, compute: Callable[[], T], progress: Progress) -> T:
        """Return what ``compute`` returns; where memory runs out it is called once more, with small tiles and batches.

        Raises:
            OutOfMemoryError: memory ran out with these, too.
        """
        try:
            return compute()
        except OutOfMemoryError:
            if self._low_memory:
                raise
        # Outside the handler, whose traceback would keep the arrays of the first attempt.
        self._low_memory = True
        progress.log("Memory ran short: the search goes on in smaller pieces, which takes longer.")
        return compute()

    def discriminate(
        self, image: np.ndarray, ijk: np.ndarray, likelihood: np.ndarray, progress: Progress | None = None
    ) -> np.ndarray:
        """Return the score (n,) of the positions ``ijk`` (n, 3) of ``image``: the mean probability that the CNNs give.

        With ``flips`` in their architecture it is also the mean over the window's mirror images, and with
        ``stage1_weight`` its log-odds are raised by so many of those of stage 1's ``likelihood`` (n,): the U-Nets learn
        from every voxel of a scan, and where the CNNs waver they are often right.

        Raises:
            OutOfMemoryError: memory ran out, also with small batches.
        """
        scores = self._sparing_memory(lambda: self._scores(image, ijk), progress or Progress())
        weight = float(self._cnn_architecture.get("stage1_weight", 0))
        if not weight:
            return scores
        return expit(_log_odds(scores) + weight * _log_odds(likelihood)).astype(np.float32)

    def _scores(self, image: np.ndarray, ijk: np.ndarray) -> np.ndarray:
        scores = np.zeros(len(ijk), np.float32)
        size = window(self._cnn_architecture)
        mirrors = _MIRRORS if self._cnn_architecture.get("flips") else _MIRRORS[:1]
        batch = _LOW_MEMORY_BATCH if self._low_memory else _PATCHES_PER_BATCH
        for first in range(0, len(ijk), batch):
            part = slice(first, first + batch)
            windows = cut_windows(image, ijk[part], size)[..., None]
            with backend.memory_guard():
                for model in self._cnns:
                    for axes in mirrors:
                        scores[part] += np.asarray(model.predict_on_batch(np.flip(windows, axes)))[:, 0]
        return scores / (len(self._cnns) * len(mirrors))

    def detect(
        self,
        image: Volume,
        mask: Volume,
        stage1_threshold: float,
        inference: Inference = "dense",
        progress: Progress | None = None,
    ) -> Found:
        """Return all candidates above ``stage1_threshold`` with both scores, by falling score.

        ``image`` is a preprocessed scan (normalised, canonical axes, the bundle's voxel size, 0 outside the brain)
        and ``mask`` (bool) its brain. Positions are RAS mm.

        Raises:
            OutOfMemoryError: memory ran out, also with small tiles and batches.
        """
        progress = progress or Progress()
        likelihood = self.likelihood(image, mask, inference, progress)
        progress.report("stage 2")
        peaks = find_peaks(likelihood.array, image.spacing, stage1_threshold, stored_spacing(image))
        scores = self.discriminate(image.array, peaks.ijk, peaks.likelihood, progress)
        candidates = [
            _candidate(image, mask, peaks, number, float(scores[number])) for number in range(len(peaks.likelihood))
        ]
        progress.report("stage 2", 1, 1)
        return Found(sorted(candidates, key=lambda c: c.rank), likelihood)


def _log_odds(probability: np.ndarray) -> np.ndarray:
    return logit(np.clip(np.asarray(probability, float), 1e-6, 1 - 1e-6))


def _candidate(image: Volume, mask: Volume, peaks: Peaks, number: int, score: float) -> Candidate:
    ijk = peaks.ijk[number]
    ras = tuple(round(float(v), 3) for v in image.to_ras(ijk))
    diameter = apparent_diameter(image.array, mask.array, ijk, image.spacing)
    return Candidate(candidate_id(ras), ras, float(peaks.likelihood[number]), score, diameter)  # type: ignore[arg-type]
