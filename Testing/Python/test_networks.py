"""Architecture of the two stages."""

from __future__ import annotations

import numpy as np
import pytest
from random_networks import as_trained

from CMBDetectorLib.errors import Cancelled, ModelError
from CMBDetectorLib.networks import backend, cnn, unet


@pytest.fixture(scope="module")
def trained_like() -> object:
    """A small U-Net whose weights and running means are random, as after a training."""
    return as_trained(SMALL, "unet-2", 3)


SMALL = {"kind": "unet", "stem": 8, "channels": [8, 16]}


def test_unet_maps_a_window_to_a_likelihood_map_of_the_same_size(trained_like):
    windows = np.random.default_rng(0).random((3, *unet.WINDOW, 1), np.float32)
    maps = np.asarray(trained_like.predict_on_batch(windows))
    assert maps.shape == windows.shape
    assert maps.min() >= 0
    assert maps.max() <= 1


def test_folding_batch_normalisation_changes_nothing(trained_like):
    folded = unet.fold(trained_like, SMALL)
    windows = np.random.default_rng(1).random((2, 24, 28, 18, 1), np.float32)
    before, after = (np.asarray(m.predict_on_batch(windows)) for m in (trained_like, folded))
    assert not [layer for layer in folded.layers if layer.name.endswith("_norm")]
    np.testing.assert_allclose(after, before, atol=1e-5)
    assert before.std() > 1e-4


def test_lowering_the_likelihood_shifts_its_logarithm_of_the_odds():
    backend.set_seed(4)
    model = unet.build_unet(SMALL)
    windows = np.random.default_rng(2).random((2, *unet.WINDOW, 1), np.float32)

    def log_odds():
        answer = np.asarray(model.predict_on_batch(windows), float)
        return np.log(answer / (1 - answer))

    before = log_odds()
    unet.lower_likelihood(model, 1.5)
    np.testing.assert_allclose(log_odds(), before - 1.5, atol=1e-4)


def test_margin_bounds_how_far_a_voxel_looks(trained_like):
    image = np.full((1, 96, 96, 48, 1), 0.5, np.float32)
    before = np.asarray(trained_like.predict_on_batch(image))
    image[0, 48, 48, 24] = 5
    changed = np.argwhere(np.asarray(trained_like.predict_on_batch(image))[0, ..., 0] != before[0, ..., 0])
    reach = np.abs(changed - [48, 48, 24]).max(0)
    assert (reach <= unet.margin(SMALL)).all()
    assert (reach >= np.array(unet.margin(SMALL)) // 2).all()


def test_default_unet_takes_the_papers_window():
    assert all(n % s == 0 for n, s in zip(unet.WINDOW, unet.stride(unet.DEFAULT_UNET), strict=True))


def test_cnn_has_the_layers_of_dou():
    model = cnn.build_cnn()
    assert model.get_layer("flatten").output.shape[-1] == 2304
    assert 1.3e6 < model.count_params() < 1.4e6
    answers = np.asarray(model.predict_on_batch(np.zeros((4, *unet.WINDOW, 1), np.float32)))
    assert answers.shape == (4, 1)
    assert ((answers >= 0) & (answers <= 1)).all()


def test_the_unfolded_cnn_is_the_same_network():
    architecture = {"kind": "cnn", "channels": [4, 8], "dense": [16, 8], "dropout": 0.3}
    backend.set_seed(2)
    unfolded = cnn.build_cnn(architecture, unfolded=True)
    windows = np.random.default_rng(0).random((3, *unet.WINDOW, 1), np.float32)
    ordinary = cnn.refold(unfolded, architecture)
    expected = np.asarray(unfolded.predict_on_batch(cnn.unfold(windows)))
    np.testing.assert_allclose(np.asarray(ordinary.predict_on_batch(windows)), expected, atol=1e-5)
    assert np.ptp(expected) > 1e-5


def test_a_network_with_code_in_it_is_refused(tmp_path):
    import keras

    inputs = keras.Input((2,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs)).save(tmp_path / "evil.keras")
    with pytest.raises(ModelError, match=r"evil\.keras holds a Lambda layer"):
        backend.load(tmp_path / "evil.keras")


def test_a_damaged_network_is_refused(tmp_path):
    (tmp_path / "unet.keras").write_bytes(b"no zip")
    with pytest.raises(ModelError, match=r"unet\.keras is not a complete zip"):
        backend.load(tmp_path / "unet.keras")


def test_a_wish_to_stop_while_networks_load_is_no_damaged_model(tmp_path, monkeypatch):
    import keras

    unet.build_unet({"kind": "unet", "stem": 8, "channels": [8, 8]}).save(tmp_path / "small.keras")

    def stopped(*_, **__):
        raise Cancelled

    monkeypatch.setattr(keras.saving, "load_model", stopped)
    with pytest.raises(Cancelled):
        backend.load(tmp_path / "small.keras")
