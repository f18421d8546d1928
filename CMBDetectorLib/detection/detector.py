"""The trained two-stage detector: a preprocessed scan goes in, ranked candidates come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from CMBDetectorLib.candidate import Candidate, candidate_id
from CMBDetectorLib.detection.candidates import Peaks, find_peaks
from CMBDetectorLib.detection.likelihood import dense_map, exact_map
from CMBDetectorLib.detection.patches import cut_windows
from CMBDetectorLib.detection.size import apparent_diameter
from CMBDetectorLib.models.bundle import Bundle
from CMBDetectorLib.networks import backend, unet
from CMBDetectorLib.networks.catalogue import window
from CMBDetectorLib.networks.cnn import DEFAULT_CNN
from CMBDetectorLib.progress import Progress
from CMBDetectorLib.volume import Volume

Inference = Literal["dense", "exact"]
_PATCHES_PER_BATCH = 64
_MIRRORS: tuple[tuple[int, ...], ...] = ((), (1,), (2,), (1, 2))  # axes of a batch of windows: left-right, front-back


@dataclass(frozen=True)
class Found:
    """What :meth:`Detector.detect` finds: ``candidates`` by falling score and the combined ``likelihood`` map."""

    candidates: list[Candidate]
    likelihood: Volume


class Detector:
    """Stage 1 (U-Nets) and stage 2 (CNNs) of one bundle.

    ``unets`` and ``cnns`` are Keras models, followed by the architecture of each kind. Batch normalisation is folded
    into the convolutions once, here.
    """

    def __init__(
        self,
        unets: Sequence[Any],
        cnns: Sequence[Any],
        architecture: dict[str, Any],
        cnn_architecture: dict[str, Any] | None = None,
    ) -> None:
        self._unets = list(unets)
        self._cnns = list(cnns)
        self._architecture = architecture
        self._cnn_architecture = cnn_architecture or DEFAULT_CNN

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> Detector:
        """Load the networks of ``bundle``.

        Raises:
            MissingPackageError: Keras or its back end is not installed.
            ModelError: a network cannot be loaded.
        """
        unets = bundle.networks("unets")
        cnns = bundle.networks("cnns")
        load = backend.load
        return cls([load(p) for p, _ in unets], [load(p) for p, _ in cnns], unets[0][1], cnns[0][1])

    @cached_property
    def _folded(self) -> list[Any]:
        return [unet.fold(model, self._architecture) for model in self._unets]

    def likelihood(
        self, image: Volume, mask: Volume, inference: Inference = "dense", progress: Progress | None = None
    ) -> Volume:
        """Return the likelihood map of stage 1 on the grid of ``image`` (normalised, canonical), 0 outside ``mask``."""
        progress = progress or Progress()

        def report(step: int, steps: int) -> None:
            progress.report("stage 1", step, steps)

        if inference == "exact":
            array = exact_map(self._folded, image.array, mask.array, report, window=window(self._architecture))
        else:
            array = dense_map(self._folded, self._architecture, image.array, mask.array, report)
        return image.with_array(array)

    def discriminate(self, image: np.ndarray, ijk: np.ndarray) -> np.ndarray:
        """Return the mean probability (n,) that the CNNs give to the positions ``ijk`` (n, 3) of ``image``.

        With ``flips`` in their architecture it is also the mean over the window's mirror images.
        """
        scores = np.zeros(len(ijk), np.float32)
        size = window(self._cnn_architecture)
        mirrors = _MIRRORS if self._cnn_architecture.get("flips") else _MIRRORS[:1]
        for first in range(0, len(ijk), _PATCHES_PER_BATCH):
            part = slice(first, first + _PATCHES_PER_BATCH)
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
        """
        progress = progress or Progress()
        likelihood = self.likelihood(image, mask, inference, progress)
        progress.report("stage 2")
        peaks = find_peaks(likelihood.array, image.spacing, stage1_threshold)
        scores = self.discriminate(image.array, peaks.ijk)
        candidates = [
            _candidate(image, mask, peaks, number, float(scores[number])) for number in range(len(peaks.likelihood))
        ]
        progress.report("stage 2", 1, 1)
        return Found(sorted(candidates, key=lambda c: (-c.score, -c.stage1_score)), likelihood)


def _candidate(image: Volume, mask: Volume, peaks: Peaks, number: int, score: float) -> Candidate:
    ijk = peaks.ijk[number]
    ras = tuple(round(float(v), 3) for v in image.to_ras(ijk))
    diameter = apparent_diameter(image.array, mask.array, ijk, image.spacing)
    return Candidate(candidate_id(ras), ras, float(peaks.likelihood[number]), score, diameter)  # type: ignore[arg-type]
