"""The registry of model versions: whole or unchanged, whatever is installed, whoever is killed."""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
from fake_bundles import assert_clean, fake, members_of, own
from hypothesis import given, settings
from hypothesis import strategies as st

from CMBDetectorLib import user_data
from CMBDetectorLib.errors import BadInputError, ModelError, OutputError
from CMBDetectorLib.files import sha256, write_json
from CMBDetectorLib.models import versions
from CMBDetectorLib.models.activation import ACTIVE, HISTORY, read_state
from CMBDetectorLib.models.bundle import DEFAULT_MODEL, RESOURCES
from CMBDetectorLib.models.registry import Registry, default_bundle, register
from CMBDetectorLib.models.versions import load_bundle
from CMBDetectorLib.worker.commands import models as command

BUNDLED = RESOURCES / "Models" / DEFAULT_MODEL


@pytest.fixture
def registry(tmp_path, monkeypatch) -> Registry:
    """An empty registry that is also the one of the environment, at an awkward path."""
    folder = tmp_path / "Modelle für Ärzte" / "レジストリ (1)"
    monkeypatch.setenv(versions.VARIABLE, str(folder))
    return Registry()


@pytest.fixture
def three(registry, tmp_path) -> Registry:
    """With the versions 1 to 3 of "local", installed from the folders three-1 to three-3."""
    for number in (1, 2, 3):
        source = fake(tmp_path / f"three-{number}", version=str(number), number=float(number))
        shutil.copytree(source, registry.folder / f"local-{number}")
    return registry


def child(code: str, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[2])


# --- names, default, activation ---------------------------------------------------------------------------------


def test_an_absent_registry_holds_nothing_and_reading_does_not_make_it(registry):
    assert own(registry) == []
    assert registry.load().folder == default_bundle().folder == BUNDLED
    assert registry.active_reference() == "default@1"
    assert not registry.folder.exists()


def test_installed_models_are_found_by_name_and_used_once_activated(registry, tmp_path):
    bundle, is_new = registry.install(fake(tmp_path / "ein Ordner ü"))
    assert is_new
    assert bundle.folder == registry.folder / "local-1"
    assert load_bundle("local").folder == load_bundle("local@1").folder == bundle.folder
    assert default_bundle().name == DEFAULT_MODEL
    assert registry.activate("local") == (bundle, True)
    assert registry.activate("local@1") == (bundle, False)
    assert default_bundle().provenance()["checksum"] == bundle.checksum
    assert load_bundle(DEFAULT_MODEL).folder == load_bundle().folder == BUNDLED
    assert_clean(registry, "local@1")


@pytest.mark.parametrize("name", ["default", "default@1"])
def test_a_folder_called_like_a_bundled_model_is_not_taken_for_it(name, tmp_path, monkeypatch):
    fake(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert load_bundle(name).folder == BUNDLED
    assert load_bundle(f"./{name}").folder.resolve() == tmp_path / name


def test_several_versions_must_be_told_apart(three):
    assert own(three) == ["local@1", "local@2", "local@3"]
    for act in (three.load, three.activate, three.remove, load_bundle):
        with pytest.raises(BadInputError, match="3 versions of the model local") as caught:
            act("local")
        assert "local@3" in caught.value.hint
    with pytest.raises(ModelError, match="no model local@4") as caught:
        three.load("local@4")
    assert "local@2" in caught.value.hint


def test_versions_are_sorted_as_numbers(registry, tmp_path):
    for number in (10, 9, 1):
        registry.install(fake(tmp_path / f"v{number}", version=str(number), number=float(number)))
    assert own(registry) == ["local@1", "local@9", "local@10"]


def test_going_back_goes_back_through_all_and_ends_at_the_default(three):
    for number in (1, 2, 3, 1):
        three.activate(f"local@{number}")
    back = [three.rollback().reference for _ in range(4)]
    assert back == ["local@3", "local@2", "local@1", "default@1"]
    with pytest.raises(BadInputError, match="No other model was active before"):
        three.rollback()
    lines = [json.loads(line) for line in (three.folder / HISTORY).read_text().splitlines()]
    assert [line["action"] for line in lines] == ["activate"] * 4 + ["rollback"] * 4
    assert [line["version"] for line in lines] == ["1", "2", "3", "1", "3", "2", "1", None]


def test_going_back_passes_over_a_removed_one(three):
    for number in (1, 2, 3):
        three.activate(f"local@{number}")
    assert three.remove("local@2") == "local@2"
    assert three.rollback().reference == "local@1"
    assert_clean(three, "local@1", "local@3")


@pytest.fixture(scope="module")
def letters(tmp_path_factory) -> Path:
    """The folder of a registry with the models a, b and c; nobody writes into it."""
    folder = tmp_path_factory.mktemp("letters")
    for number, name in enumerate("abc"):
        fake(folder / f"{name}-1", name, number=float(number))
    return folder


@settings(max_examples=10, deadline=None)
@given(steps=st.lists(st.sampled_from(["a", "b", "c", "back", "remove a", "remove b"]), max_size=8))
def test_any_order_of_changes_does_what_a_stack_does(letters, steps):
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(shutil.copytree(letters, Path(folder) / "r"))
        present = ["a", "b", "c"]
        stack = [DEFAULT_MODEL]
        for step in steps:
            name = step.split()[-1]
            if step == "back":
                usable = [n for n in range(len(stack) - 1) if stack[n] in (*present, DEFAULT_MODEL)]
                stack = stack[: usable[-1] + 1] if usable else stack
                act = registry.rollback
                fails = not usable
            else:
                act = functools.partial(registry.remove if "remove" in step else registry.activate, name)
                fails = name not in present or ("remove" in step and stack[-1] == name)
                if not fails and "remove" in step:
                    present.remove(name)
                elif not fails and stack[-1] != name:
                    stack.append(name)
            try:
                act()
                assert not fails
            except (BadInputError, ModelError):
                assert fails
            assert registry.load().name == stack[-1]
        assert_clean(registry, *(f"{name}@1" for name in present))


def test_a_damaged_model_is_not_activated_and_no_other_is_used_in_its_place(three):
    three.activate("local@1")
    (three.folder / "local-2" / "cnn.keras").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="wrong checksum"):
        three.activate("local@2")
    assert three.load().reference == "local@1"
    (three.folder / "local-1" / "cnn.keras").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="wrong checksum"):
        default_bundle()
    os.rename(three.folder / "local-1", three.folder / ".gone")
    with pytest.raises(ModelError, match=r"local@1 is not there any more") as caught:
        default_bundle()
    assert "models activate" in caught.value.hint


def test_other_networks_under_the_name_of_the_active_model_are_noticed(three, tmp_path):
    three.activate("local@1")
    folder = three.folder / "local-1"
    os.rename(folder, tmp_path / "away")
    fake(folder, version="1", number=99.0)
    with pytest.raises(ModelError, match="not those activated"):
        three.load()
    assert three.activate("local@1")[1]
    assert three.load().reference == "local@1"


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", '{"schema": 9}', '{"schema": 1, "active": {"time": 1}, "before": []}',
        '{"schema": 1, "active": null, "before": []}', "[" * 5000,
    ],
)  # fmt: skip
def test_a_damaged_record_of_the_active_model_is_told_and_mended(three, text):
    three.activate("local@1")
    (three.folder / ACTIVE).write_text(text)
    for act in (default_bundle, three.rollback, lambda: three.remove("local@2")):
        with pytest.raises(ModelError, match="not known which model is active"):
            act()
    data, shown = command.run_list(argparse.Namespace(registry=None), None)
    assert "not known" in data["problem"]
    assert "not known" in shown
    three.activate("local@2")
    assert three.load().reference == "local@2"
    assert three.rollback().reference == "default@1"


def test_the_history_gets_what_a_crash_kept_from_it(three):
    three.activate("local@1")
    three.activate("local@2")
    path = three.folder / HISTORY
    first = path.read_text().splitlines()[0]
    path.write_text(first + "\n" + '{"time": "2026-1')
    three.activate("local@3")
    lines = path.read_text().splitlines()
    assert [json.loads(line)["version"] for line in lines if line.endswith("}")] == ["1", "2", "3"]
    assert [record.version for record in read_state(three.folder).before] == [None, "1", "2"]


# --- removing ---------------------------------------------------------------------------------------------------


def test_neither_the_active_nor_a_bundled_model_can_be_removed(three):
    three.activate("local@1")
    with pytest.raises(BadInputError, match="local@1 is active"):
        three.remove("local@1")
    with pytest.raises(BadInputError, match="came with the program"):
        three.remove(DEFAULT_MODEL)
    three.remove("local@3")
    assert_clean(three, "local@1", "local@2")


def test_a_damaged_model_is_listed_with_its_sentence_and_can_be_removed_or_mended(three, tmp_path):
    (three.folder / "local-1" / "model.json").write_text("{")
    (three.folder / "local-2" / "unet.keras").unlink()
    os.rename(three.folder / "local-3", three.folder / "other-7")
    for name in (".partial-x", "notes"):
        (three.folder / name).mkdir()
    data, text = command.run_list(argparse.Namespace(registry=None), None)
    assert [model["reference"] for model in data["models"]] == ["default@1", "local@1", "local@2", "other@7"]
    problems = {model["reference"]: model["problem"] or "" for model in data["models"]}
    assert "card of the model local-1 is damaged" in problems["local@1"]
    assert "lacks its file unet.keras" in problems["local@2"]
    assert "holds the model local 3" in problems["other@7"]
    assert all(problem in text for problem in problems.values())
    assert "*  default" in text
    with pytest.raises(BadInputError, match="share a folder"):
        three.install(fake(tmp_path / "clash", "other", "7"))
    assert three.install(tmp_path / "three-1")[1]
    assert three.install(tmp_path / "three-2")[1]
    three.remove("other@7")
    assert_clean(three, "local@1", "local@2")


# --- installing, exporting, registering -------------------------------------------------------------------------


def test_export_and_install_in_another_registry_give_the_same_bytes(registry, tmp_path):
    source = fake(tmp_path / "source", metrics={"held out": "sensitivity 4.1 FP/scan 73.3% (1%)"}, description="Größe")
    (source / "README.md").write_text("said by somebody")
    first = registry.install(source)[0]
    registry.export("local", tmp_path / "eins ü.zip")
    other = Registry(tmp_path / "another registry")
    second, is_new = other.install(tmp_path / "eins ü.zip")
    assert is_new
    assert members_of(first.folder) == members_of(second.folder)
    assert members_of(second.folder)["model.json"] == (source / "model.json").read_bytes()
    assert "said by somebody" not in (second.folder / "README.md").read_text(encoding="utf-8")
    os.utime(second.folder / "cnn.keras", (0, 0))
    other.export("local@1", tmp_path / "zwei.zip")
    assert (tmp_path / "eins ü.zip").read_bytes() == (tmp_path / "zwei.zip").read_bytes()
    assert other.install(tmp_path / "zwei.zip") == (second, False)
    with pytest.raises(OutputError, match="exists already"):
        other.export("local", tmp_path / "zwei.zip")


def test_the_bundled_model_travels_too_but_keeps_its_name(registry, tmp_path):
    registry.export(DEFAULT_MODEL, tmp_path / "p.zip")
    before = {path: sha256(path) for path in BUNDLED.iterdir()}
    bundle, is_new = registry.install(tmp_path / "p.zip")
    assert (bundle.folder, is_new) == (BUNDLED, False)
    for source in (fake(tmp_path / "a", DEFAULT_MODEL), fake(tmp_path / "b", DEFAULT_MODEL.upper(), "2")):
        with pytest.raises(BadInputError, match="belongs to a model of this program"):
            registry.install(source)
    # Networks that Keras wrote pass the checks.
    assert registry.install(tmp_path / "p.zip", name="mine")[0].reference == "mine@1"
    assert_clean(registry, "mine@1")
    assert {path: sha256(path) for path in BUNDLED.iterdir()} == before


def test_a_name_is_given_once(registry, tmp_path):
    registry.install(fake(tmp_path / "a", "a-1", "2"))
    for name, version in (("a", "1-2"), ("A-1", "2")):
        with pytest.raises(BadInputError, match="would share a folder"):
            registry.install(fake(tmp_path / f"{name}{version}", name, version))
    with pytest.raises(BadInputError, match="Another model is installed as a-1@2"):
        registry.install(fake(tmp_path / "b", "a-1", "2", number=1.0))
    assert registry.install(tmp_path / "b", name="b")[0].card["name"] == "b"
    assert_clean(registry, "a-1@2", "b@2")


@pytest.mark.parametrize(
    "name", ["", "..", "a/b", "a\\b", ".hidden", "mein Modell", "für", "a.", "NUL", "com1.x", "x" * 99]
)
def test_names_that_are_no_folder_names_are_refused(registry, tmp_path, name):
    source = fake(tmp_path / "source", "fine")
    with pytest.raises(BadInputError, match="cannot be installed with the name"):
        registry.install(source, name=name)
    write_json(source / "model.json", {**json.loads((source / "model.json").read_text()), "version": name})
    with pytest.raises(BadInputError, match="cannot be installed with the version"):
        registry.install(source)
    assert_clean(registry)


def test_a_retrained_model_gets_a_parent_and_the_next_version(registry, tmp_path):
    sources = [fake(tmp_path / f"r{number}", "tuned", number=float(number)) for number in range(3)]
    made = [register(source, parent="default@1") for source in sources]
    assert [bundle.reference for bundle in made] == ["tuned@1", "tuned@2", "tuned@3"]
    assert load_bundle("tuned@2").card["parent"] == "default@1"
    assert "parent: default@1" in (made[1].folder / "README.md").read_text()
    assert register(sources[1], parent="default@1").reference == "tuned@2"
    assert register(sources[1], name="renamed").reference == "renamed@1"
    assert registry.active_reference() == "default@1"
    assert_clean(registry, "renamed@1", "tuned@1", "tuned@2", "tuned@3")


# --- kills, crowds, drives --------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["models.package.check_network", "files._swap"])
def test_a_kill_in_the_middle_of_an_install_leaves_what_was_there(three, tmp_path, moment):
    source = fake(tmp_path / "four", version="4", number=4.0)
    code = f"""
        import sys, time
        from pathlib import Path
        from unittest import mock
        from CMBDetectorLib.models.registry import Registry
        def wait(*_):
            print("here", flush=True)
            time.sleep(60)
        with mock.patch("CMBDetectorLib.{moment}", wait):
            Registry().install(Path(sys.argv[1]))
    """
    process = child(code, source)
    assert process.stdout.readline() == "here\n"
    process.kill()
    process.wait()
    process.stdout.close()
    assert list(three.folder.glob(".partial-*"))
    assert own(three) == ["local@1", "local@2", "local@3"]
    assert three.install(source)[1]
    assert_clean(three, "local@1", "local@2", "local@3", "local@4")


def test_programs_at_once_do_no_damage(three, tmp_path):
    source = fake(tmp_path / "four", version="4", number=4.0)
    code = """
        import sys
        from pathlib import Path
        from CMBDetectorLib.models.registry import Registry
        registry, number = Registry(), int(sys.argv[2])
        print("ready", flush=True)
        sys.stdin.readline()
        print(registry.install(Path(sys.argv[1]))[1])
        for turn in range(3):
            registry.activate(f"local@{1 + (number + turn) % 4}")
            registry.register(Path(sys.argv[1]), name=f"own{number}")
            registry.remove(f"own{number}@4")
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    crowd = [subprocess.Popen([*command, str(source), str(number)], **pipes) for number in range(3)]
    for process in crowd:
        assert process.stdout.readline() == "ready\n"
    answers = [process.stdin.write("\n") and process.stdin.flush() for process in crowd]
    answers = [process.communicate(timeout=60)[0].strip() for process in crowd]
    assert [process.returncode for process in crowd] == [0, 0, 0]
    assert sorted(answers) == ["False", "False", "True"]
    assert_clean(three, "local@1", "local@2", "local@3", "local@4")
    lines = [json.loads(line) for line in (three.folder / HISTORY).read_text().splitlines()]
    state = read_state(three.folder)
    records = [*state.before[1:], state.last]
    assert [record.time for record in records] == [line["time"] for line in lines]
    assert 3 <= len(records) <= 9


def test_a_registry_that_is_in_use_says_by_whom(three, monkeypatch):
    monkeypatch.setattr("CMBDetectorLib.models.registry._WAIT_S", 0.1)
    with three._changing(), pytest.raises(OutputError, match=f"being changed by process {os.getpid()}"):
        Registry().activate("local@1")


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_a_read_only_registry_can_be_read_and_says_so():
    # Root may write anywhere, until it gives that up; as another user it might not be able to read this checkout.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        registry = Registry(Path(folder) / "registry")
        for number in (1, 2):
            registry.install(fake(Path(folder) / str(number), version=str(number), number=float(number)))
        registry.activate("local@1")
        registry.folder.chmod(0o555)
        code = """
            import os, sys
            from pathlib import Path
            from CMBDetectorLib.errors import OutputError
            from CMBDetectorLib.models.registry import Registry
            if os.geteuid() == 0:
                import ctypes
                libc, header, sets = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
                assert libc.capget(header, sets) == 0
                sets[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
                assert libc.capset(header, sets) == 0
            registry = Registry(Path(sys.argv[1]))
            print(registry.load().reference, len(registry.versions()))
            acts = {registry.activate: ["local@2"], registry.rollback: [], registry.remove: ["local@2"],
                    registry.install: [Path(sys.argv[2])], registry.export: ["local@1", registry.folder / "x.zip"]}
            for act, arguments in acts.items():
                try:
                    act(*arguments)
                except OutputError as error:
                    print(error.message)
        """
        lines = child(code, registry.folder, Path(folder) / "1").communicate()[0].splitlines()
        registry.folder.chmod(0o755)
        assert lines[0] == "local@1 3"
        assert ["permission denied" in line for line in lines[1:]] == [True] * 5
        assert_clean(registry, "local@1", "local@2")


def test_a_registry_that_is_a_file_is_refused_but_keeps_nobody_from_the_bundled_model(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(versions.VARIABLE, str(tmp_path / "file"))
    registry = Registry()
    assert registry.load().folder == load_bundle(DEFAULT_MODEL).folder == load_bundle("default@1").folder == BUNDLED
    with pytest.raises(BadInputError, match="is a file"):
        registry.versions()
    with pytest.raises(OutputError):
        registry.install(fake(tmp_path / "source"))


@pytest.mark.parametrize(
    ("platform", "variable", "ends"),
    [
        ("linux", {"XDG_DATA_HOME": "relative"}, ".local/share/cmbdetector/models"),
        ("linux", {"XDG_DATA_HOME": "/data"}, "/data/cmbdetector/models"),
        ("darwin", {}, "Library/Application Support/CMBDetector/models"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/CMBDetector/models"),
        ("win32", {}, "AppData/Local/CMBDetector/models"),
    ],
)
def test_the_folder_of_the_user_is_that_of_the_platform(monkeypatch, platform, variable, ends):
    for name in (versions.VARIABLE, user_data.VARIABLE, "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variable.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(user_data.sys, "platform", platform)
    assert versions.registry_folder().as_posix().endswith(ends)
    assert versions.registry_folder(Path("given")) == Path("given")


def test_a_user_without_a_home_can_still_use_the_bundled_model(monkeypatch):
    monkeypatch.delenv(versions.VARIABLE, raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert Registry().load().folder == BUNDLED


# --- the command line -------------------------------------------------------------------------------------------


def test_the_command_line(tmp_path):
    source = fake(tmp_path / "ein Modell ü", metrics={"held-out": "at 1 FP/scan 60.0% (1%); 4.1 FP/scan 73.3% (2%)"})
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers(), argparse.ArgumentParser(add_help=False))

    def run(*arguments):
        options = parser.parse_args(["models", *map(str, arguments), "--registry", str(tmp_path / "registry ü")])
        return options.run(options, None)

    assert "models activate local@1" in run("install", source)[1]
    assert "already installed" in run("install", source)[1]
    assert run("activate", "local")[0]["changed"]
    data, text = run("list")
    assert data["active"] == "local@1"
    assert [(m["name"], m["bundled"], m["active"]) for m in data["models"]] == [
        ("default", True, False), ("local", False, True)
    ]  # fmt: skip
    assert " ".join(text.splitlines()[2].split()) == "* local 1 - 2026-11-22 73.3% held-out Trained on nothing."
    assert run("show", "default")[0]["card"]["name"] == "default"
    assert run("export", "local", tmp_path / "out.zip")[0]["checksum"] == data["models"][1]["checksum"]
    assert run("rollback")[1] == "default@1 is active again."
    assert run("remove", "local")[0] == {"removed": "local@1"}
    for arguments in (["install"], ["install", source, "--hd-bet", source]):
        with pytest.raises(BadInputError, match="not clear what to install"):
            run(*arguments)


def test_the_real_process_gives_sentences_and_exit_codes(worker, registry, tmp_path):
    (tmp_path / "bad ü.zip").write_bytes(b"")
    failed = worker("models", "install", tmp_path / "bad ü.zip")
    assert failed.code == 4
    assert failed.last("error")["message"] == "bad ü.zip is not a complete zip archive."


def test_detection_takes_the_active_model(worker, registry, tmp_path):
    # Damaged on purpose: which model was meant shows in the sentence, long before networks are loaded.
    registry.install(fake(tmp_path / "source"))
    registry.activate("local")
    (registry.folder / "local-1" / "cnn.keras").unlink()
    scan = tmp_path / "scan.nii.gz"
    scan.write_bytes(b"")
    failed = worker("detect", scan, "--output", tmp_path / "out")
    assert failed.code == 4
    assert "The model local lacks its file cnn.keras" in failed.last("error")["message"]
