"""A stage 2 with more channels begins as the same function."""

from __future__ import annotations

import numpy as np
import pytest
from random_networks import as_trained

from CMBDetectorLib.errors import ModelError
from CMBDetectorLib.networks.cnn import DEFAULT_CNN
from CMBDetectorLib.networks.widening import widened, widened_architecture

_SMALL = {
    "kind": "context",
    "window": [32, 32, 16],
    "near": [16, 16, 8],
    "channels": [4, 6, 8],
    "dense": [7],
    "dropout": 0.4,
}


@pytest.fixture(scope="module")
def narrow() -> object:
    """A small CNN whose weights and running means are random, as after a training."""
    return as_trained(_SMALL, "cnn-2", 5)


@pytest.mark.parametrize("channels", [[4, 6, 8], [4, 9, 14], [6, 6, 10]])
def test_it_answers_as_before(narrow: object, channels: list[int]) -> None:
    wide = widened(narrow, widened_architecture(_SMALL, channels))
    assert wide.name == "cnn-2"
    windows = np.random.default_rng(1).random((5, 32, 32, 16, 1), np.float32)
    before, after = (np.asarray(model.predict_on_batch(windows)) for model in (narrow, wide))
    assert before.std() > 1e-4
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_its_new_features_can_learn(narrow: object) -> None:
    wide = widened(narrow, widened_architecture(_SMALL, [4, 9, 14]))
    kernel = wide.get_layer("near1a_conv").get_weights()[0]
    assert kernel.shape[-1] == 9
    assert (kernel[..., 6:].std((0, 1, 2, 3)) > 1e-3).all()


@pytest.mark.parametrize("channels", [[4, 6, 7], [4, 6]])
def test_it_never_becomes_narrower(channels: list[int]) -> None:
    with pytest.raises(ModelError, match="cannot become"):
        widened_architecture(_SMALL, channels)


def test_the_paper_s_cnn_stays_as_it_is() -> None:
    with pytest.raises(ModelError, match="recipe context"):
        widened_architecture(DEFAULT_CNN, [64, 64])
