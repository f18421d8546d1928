"""What the registry must not let in: archives, networks and cards made to do harm, or damaged."""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import stat
import tempfile
import zipfile
from pathlib import Path

import pytest
from fake_bundles import assert_clean, fake, keras_bytes, layer, members_of, network_config, weights, zip_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from CMBDetectorLib.errors import CMBDetectorError, ModelError
from CMBDetectorLib.models import versions
from CMBDetectorLib.models.archives import LARGEST_BYTES
from CMBDetectorLib.models.registry import Registry
from CMBDetectorLib.models.versions import load_bundle
from CMBDetectorLib.worker.commands import models as command

h5py = pytest.importorskip("h5py")


@pytest.fixture
def registry(tmp_path, monkeypatch) -> Registry:
    """An empty registry that is also the one of the environment, at an awkward path."""
    folder = tmp_path / "Modelle für Ärzte" / "レジストリ (1)"
    monkeypatch.setenv(versions.VARIABLE, str(folder))
    return Registry()


def _special(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (mode | 0o777) << 16
    return info


def _claiming(data: bytes, size: int) -> bytes:
    """Return the archive ``data`` with another size claimed for its first entry, in both places."""
    out = bytearray(data)
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = out.index(signature) + offset
        out[at : at + 4] = size.to_bytes(4, "little")
    return bytes(out)


BAD_ARCHIVES = {
    "up": (lambda m: zip_bytes([*m, ("../evil.keras", b"x")]), "outside its folder"),
    "up on Windows": (lambda m: zip_bytes([*m, ("..\\evil.keras", b"x")]), "outside its folder"),
    "absolute": (lambda m: zip_bytes([*m, ("/tmp/evil.keras", b"x")]), "outside its folder"),
    "drive": (lambda m: zip_bytes([*m, ("C:evil.keras", b"x")]), "outside its folder"),
    "folder": (lambda m: zip_bytes([*m, ("sub/cnn.keras", b"x")]), "belongs to no model"),
    "link": (lambda m: zip_bytes([*m, (_special("x.keras", stat.S_IFLNK), "/etc/passwd")]), "holds a link"),
    "device": (lambda m: zip_bytes([*m, (_special("x.keras", stat.S_IFCHR), "")]), "holds a link"),
    "pickle": (lambda m: zip_bytes([*m, ("weights.pkl", b"\x80\x04.")]), "belongs to no model"),
    "code": (lambda m: zip_bytes([*m, ("setup.py", b"")]), "belongs to no model"),
    "device name": (lambda m: zip_bytes([*m, ("nul.keras", b"x")]), "belongs to no model"),
    "twice": (lambda m: zip_bytes([*m, m[-1]]), "twice"),
    "twice in capitals": (lambda m: zip_bytes([*m, ("CNN.keras", b"x")]), "twice"),
    "uncounted": (lambda m: zip_bytes([*m, ("more.keras", keras_bytes())]), "has no checksum"),
    "no card": (lambda m: zip_bytes([x for x in m if x[0] != "model.json"]), "no model"),
    "missing": (lambda m: zip_bytes([x for x in m if x[0] != "cnn.keras"]), "lacks its file"),
    "changed": (lambda m: zip_bytes([(n, d + b"x" if n == "cnn.keras" else d) for n, d in m]), "wrong checksum"),
    "truncated": (lambda m: zip_bytes(m)[:-200], "not a complete zip"),
    "no archive": (lambda m: b"\x80\x04\x95 a pickle", "not a complete zip"),
    "empty": (lambda m: b"", "not a complete zip"),
    "bomb": (lambda m: _claiming(zip_bytes(m, zipfile.ZIP_DEFLATED), LARGEST_BYTES), "larger than any model"),
    "bomb of a card": (
        lambda m: zip_bytes([("model.json", b" " * (5 << 20)), *m[1:]], zipfile.ZIP_DEFLATED),
        "larger than any model",
    ),
    "lying": (lambda m: _claiming(zip_bytes(m, zipfile.ZIP_DEFLATED), 10), "damaged"),
    "many": (lambda m: zip_bytes([*m, *((f"{n}.keras", b"") for n in range(99))]), "larger than any model"),
    "packed oddly": (lambda m: zip_bytes(m, zipfile.ZIP_LZMA), "unusual way"),
    "deep card": (lambda m: zip_bytes([("model.json", b"[" * 100_000), *m[1:]]), "card of the model .* is damaged"),
}


@pytest.mark.parametrize("kind", BAD_ARCHIVES)
def test_a_bad_archive_is_refused_and_leaves_nothing(registry, tmp_path, kind):
    make, message = BAD_ARCHIVES[kind]
    members = sorted(members_of(fake(tmp_path / "source")).items(), key=lambda m: (m[0] != "model.json", m[0]))
    file = tmp_path / "bad.zip"
    file.write_bytes(make(members))
    with pytest.raises(ModelError, match=message) as caught:
        registry.install(file)
    assert caught.value.hint
    assert ".partial" not in caught.value.message
    assert_clean(registry)
    assert {path.name for path in tmp_path.iterdir()} == {"source", "bad.zip", "Modelle für Ärzte"}


BAD_NETWORKS = {
    "Lambda": (network_config(layer(class_name="Lambda", config={"function": "x"})), "Lambda"),
    "hidden Lambda": (network_config(layer(config={"a": [{"class_name": "__lambda__"}]})), "Lambda"),
    "custom": (network_config(layer(module=None, class_name="Evil", registered_name="Package>Evil")), "Package>Evil"),
    "disguised": (network_config(layer(registered_name="Package>Dense")), "Package>Dense"),
    "module": (network_config(layer(module="os", class_name="system")), "no part of"),
    "module of Keras": (network_config(layer(module="keras.src.utils.file_utils", class_name="Dense")), "no part of"),
    "function": (
        network_config(layer(config={"activation": {"module": "builtins", "class_name": "function"}})),
        "no part of",
    ),
    "pickling layer": (network_config(layer(class_name="TorchModuleWrapper")), "no part of"),
    "file reader": (network_config(layer(class_name="StringLookup", config={"vocabulary": "/a"})), "no part of"),
    "activation": (network_config(layer(config={"activation": "Package>evil"})), "unknown activation"),
    "list as class": (network_config(layer(class_name=["Dense"])), "no part of"),
    "no network": ({"class_name": "Dense", "config": {}}, "no network of this program"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_NETWORKS)
def test_a_network_that_is_more_than_layers_is_refused(registry, tmp_path, kind):
    config, message = BAD_NETWORKS[kind]
    source = fake(tmp_path / "source", unet=keras_bytes(config))
    with pytest.raises(ModelError, match=message):
        registry.install(source)
    assert_clean(registry)


def _hdf5(fill) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        fill(file)
    return buffer.getvalue()


def _circle(file) -> None:
    file["a/b"] = [1.0]
    file["a/c"] = file["a"]


BAD_FILES = {
    "pickle": lambda: b"\x80\x04\x95 a pickle",
    "torn": lambda: keras_bytes()[:-30],
    "pickle inside": lambda: keras_bytes(more={"assets/x.pkl": b"\x80\x04."}),
    "pickled weights": lambda: keras_bytes(data=b"\x80\x04\x95 a pickle"),
    "no weights": lambda: zip_bytes({"config.json": json.dumps(network_config()), "metadata.json": "{}"}),
    "two configs": lambda: zip_bytes([(n, "{}") for n in ("config.json", "config.json", "metadata.json")]),
    "config no JSON": lambda: zip_bytes({"config.json": "{", "metadata.json": "{}", "model.weights.h5": weights()}),
    "deep config": lambda: zip_bytes(
        {"config.json": "[" * 99_999, "metadata.json": "{}", "model.weights.h5": weights()}
    ),
    "torn weights": lambda: keras_bytes(data=weights()[:900]),
    "external link": lambda: keras_bytes(
        data=_hdf5(lambda f: f.__setitem__("x", h5py.ExternalLink("/etc/passwd", "/a")))
    ),
    "soft link": lambda: keras_bytes(data=_hdf5(lambda f: f.__setitem__("x", h5py.SoftLink("/y")))),
    "external data": lambda: keras_bytes(
        data=_hdf5(lambda f: f.create_dataset("x", (4,), "u1", external=[("/etc/passwd", 0, 4)]))
    ),
    "circle": lambda: keras_bytes(data=_hdf5(_circle)),
    "texts": lambda: keras_bytes(data=_hdf5(lambda f: f.__setitem__("x", "text"))),
    "bomb": lambda: keras_bytes(
        data=_hdf5(lambda f: f.create_dataset("x", (1 << 30,), "f4", chunks=(1 << 20,), compression="gzip"))
    ),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_file_that_is_no_keras_file_is_refused(registry, tmp_path, kind):
    source = fake(tmp_path / "source", unet=BAD_FILES[kind]())
    with pytest.raises(ModelError):
        registry.install(source)
    # Nor is one activated that was put there by hand.
    registry.folder.mkdir(parents=True, exist_ok=True)
    os.rename(source, registry.folder / "local-1")
    with pytest.raises(ModelError):
        registry.activate("local")


@pytest.mark.parametrize(
    "changes",
    [
        {"description": 7}, {"metrics": {"a": 1}}, {"parent": ["x"]}, {"created": {}}, {"licence": "\ud800"},
        {"operating_points": {"a": {"4.1": "high"}}}, {"operating_points": []}, {"more": float("nan")},
    ],
)  # fmt: skip
def test_a_card_that_could_not_be_shown_is_refused_and_listed_as_damaged(registry, tmp_path, changes):
    source = fake(tmp_path / "source")
    card = {**json.loads((source / "model.json").read_text()), **changes}
    (source / "model.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="card of the model source is damaged"):
        registry.install(source)
    os.rename(source, registry.folder / "local-1")
    data, _ = command.run_list(argparse.Namespace(registry=None), None)
    assert "is damaged" in data["models"][-1]["problem"]


def test_a_folder_with_other_things_in_it_is_refused(registry, tmp_path):
    source = fake(tmp_path / "source")
    (source / ".DS_Store").write_bytes(b"")
    (source / "sub").mkdir()
    with pytest.raises(ModelError, match="no file: sub"):
        registry.install(source)
    (source / "sub").rmdir()
    os.rename(source / "cnn.keras", tmp_path / "real.keras")
    (source / "cnn.keras").symlink_to(tmp_path / "real.keras")
    with pytest.raises(ModelError, match="holds a link"):
        registry.install(source)
    for absent in (tmp_path / "absent", Path("/dev/null")):
        with pytest.raises(ModelError, match="no file or folder"):
            registry.install(absent)
    assert_clean(registry)


def test_texts_of_a_card_cannot_steer_the_terminal(registry, tmp_path):
    registry.install(fake(tmp_path / "source", training_data="\x1b[2J\u202eevil\nline", created="\x07"))
    for run, model in ((command.run_list, None), (command.run_show, "local")):
        text = run(argparse.Namespace(registry=None, model=model), None)[1]
        assert all(c.isprintable() or c == "\n" for c in text)
        assert "evil" in text


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_damaged_bytes_never_install_another_model(data):
    with tempfile.TemporaryDirectory() as folder:
        registry, file = Registry(Path(folder) / "r"), Path(folder) / "x.zip"
        whole = _package()
        cut = data.draw(st.integers(len(whole) // 2, len(whole)))
        damaged = bytearray(whole[:cut])
        # The end holds the directory, where there is most to break.
        places = st.one_of(st.integers(0, cut - 1), st.integers(max(0, cut - 400), cut - 1))
        for at in data.draw(st.lists(places, max_size=3)):
            damaged[at] ^= data.draw(st.integers(1, 255))
        file.write_bytes(damaged)
        try:
            bundle = registry.install(file)[0]
        except CMBDetectorError as error:
            assert error.exit_code in (2, 4)  # noqa: PT017
            assert_clean(registry)
        else:
            assert bundle.checksum == registry.load(bundle.reference).checksum == _checksum()
            assert_clean(registry, bundle.reference)


@functools.cache
def _package() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(Path(folder) / "r")
        registry.install(fake(Path(folder) / "source"))
        registry.export("local", Path(folder) / "p.zip")
        return (Path(folder) / "p.zip").read_bytes()


@functools.cache
def _checksum() -> str:
    with tempfile.TemporaryDirectory() as folder:
        return load_bundle(fake(Path(folder) / "source")).checksum
