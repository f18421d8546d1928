"""Model bundles: found, verified, refused."""

from __future__ import annotations

import json
import shutil

import pytest

from CMBDetectorLib.errors import ModelError
from CMBDetectorLib.models.bundle import DEFAULT_MODEL
from CMBDetectorLib.models.versions import bundled_versions, load_bundle


@pytest.fixture
def copy(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "copy")


def test_a_trained_bundle_can_be_loaded(tiny_model):
    bundle = load_bundle(tiny_model)
    assert bundle.name == "tiny"
    assert len(bundle.networks("unets")) == len(bundle.networks("cnns")) == 2
    assert bundle.spacing_mm == bundle.coarsest_mm == (0.45, 0.45, 1.0)
    assert len(bundle.provenance()["checksum"]) == 64
    assert "simulated" in bundle.card["training_data"]
    assert "Not for clinical use" in (tiny_model / "README.md").read_text(encoding="utf-8")


def test_the_bundled_model_is_whole_and_says_what_it_learnt_from():
    assert DEFAULT_MODEL in [version.name for version in bundled_versions()]
    bundle = load_bundle()
    assert "simulated" in bundle.card["training_data"]
    assert sum(path.stat().st_size for path in bundle.folder.iterdir()) < 20e6
    # Thick slices are nothing to warn of.
    assert all(known >= stored for known, stored in zip(bundle.coarsest_mm, (1, 1, 5), strict=True))


def test_a_card_that_does_not_tell_knows_voxels_up_to_twice_the_networks(copy):
    card = json.loads((copy / "model.json").read_text())
    del card["coarsest_mm"]
    (copy / "model.json").write_text(json.dumps(card))
    assert load_bundle(copy).coarsest_mm == (0.9, 0.9, 2.0)


def test_a_changed_file_is_refused(copy):
    file = next(copy.glob("*.keras"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(ModelError, match="wrong checksum"):
        load_bundle(copy)


def test_a_missing_file_is_refused(copy):
    next(copy.glob("cnn*.keras")).unlink()
    with pytest.raises(ModelError, match="lacks its file cnn"):
        load_bundle(copy)


@pytest.mark.parametrize(
    "damage",
    [
        lambda card: card.pop("thresholds"),
        lambda card: card["networks"].update(unets=[]),
        lambda card: card["files"].update({"../evil.keras": "0"}),
        lambda card: card.update(spacing_mm=[0, 1, 1]),
        lambda card: card.update(coarsest_mm=[1, 1]),
        lambda card: card.update(schema=99),
        lambda card: card["networks"].update(cnns=[{"file": "other.keras", "architecture": {"kind": "cnn"}}]),
    ],
)
def test_a_damaged_card_is_refused(copy, damage):
    card = json.loads((copy / "model.json").read_text())
    damage(card)
    (copy / "model.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="card of the model copy is damaged"):
        load_bundle(copy)


@pytest.mark.parametrize("name", ["nothing", "../../etc", ""])
def test_an_unknown_model_names_the_known_ones(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as caught:
        load_bundle(name or tmp_path / "absent")
    assert DEFAULT_MODEL in caught.value.hint


def test_a_folder_without_a_card_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"holds no model\.json"):
        load_bundle(tmp_path)
