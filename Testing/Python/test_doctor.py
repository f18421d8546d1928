"""The doctor: what it finds, that it finds it where it is, and that its report names nobody."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fake_bundles import fake

from CMBDetectorLib.candidate import Candidate
from CMBDetectorLib.doctor import computer, folders, installed, packages, privacy, self_test
from CMBDetectorLib.doctor.examination import made
from CMBDetectorLib.doctor.findings import OK, PROBLEM, WARNING, Finding, result
from CMBDetectorLib.doctor.phantom import BALLS_RAS_MM, judge
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.models import hd_bet
from CMBDetectorLib.models.activation import ACTIVE
from CMBDetectorLib.models.bundle import RESOURCES
from CMBDetectorLib.models.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = RESOURCES / "Models" / "default"


@pytest.fixture
def somebody(tmp_path) -> dict[str, str]:
    """The environment of a user whose name is everywhere."""
    home = tmp_path / "home" / "Anna Musterfrau"
    for name in ("tmp", "data"):
        (home / name).mkdir(parents=True)
    return {
        "HOME": str(home), "USER": "amusterfrau", "LOGNAME": "amusterfrau", "TMPDIR": str(home / "tmp"),
        "CMBDETECTOR_DATA": str(home / "data"),
    }  # fmt: skip


def test_a_sound_installation_finds_the_phantom_and_the_report_names_nobody(worker, somebody):
    if not BUNDLED.is_dir():
        pytest.skip("no model is bundled")
    run = worker("doctor", "--folder", f"Reviews={somebody['HOME']}/amusterfrau/reviews", env=somebody)
    told = run.last("result")
    found = {finding["name"]: finding for finding in told["findings"]}
    assert run.code == told["exit_code"] == 0, told["report"]
    assert found["Self-test"]["state"] == OK, told["report"]
    values = found["Self-test"]["values"]
    assert (values["found"], values["elsewhere"]) == (4, 0)
    assert 0 < values["farthest_mm"] < 1
    assert values["candidates"] >= len(values["scores"]) == 4
    assert {"Python", "Packages", "Memory", "Processors", "Graphics card", "Clock", "Models", "HD-BET", "Reviews",
            "Temporary folder", "Data folder", "Path lengths"} <= set(found)  # fmt: skip
    assert "not made yet" in found["Reviews"]["text"]
    for words in (f"numpy {np.__version__}", "4 of 4 microbleeds", "default@1", "Python 3"):
        assert words in told["report"]
    everything = run.stdout + run.stderr
    assert "usterfrau" not in everything
    assert str(Path(somebody["HOME"])) not in everything
    if len(platform.node()) > 2:
        assert platform.node() not in everything
    # Nothing is left behind.
    assert [path for name in ("tmp", "data") for path in (Path(somebody["HOME"]) / name).iterdir()] == []


def test_the_answer_of_the_phantom_can_be_wrong():
    def candidates(places, score=0.99):
        return [Candidate(f"c{n}", tuple(map(float, place)), 0.9, score, 3.0) for n, place in enumerate(places)]

    right = judge(candidates(BALLS_RAS_MM + 0.4), 0.5)
    assert right.is_right
    assert right.farthest_mm == pytest.approx(0.4 * 3**0.5, abs=0.01)
    assert not judge(candidates(BALLS_RAS_MM, 0.4), 0.5).is_right
    assert not judge(candidates(BALLS_RAS_MM[:3]), 0.5).is_right
    assert not judge(candidates([*BALLS_RAS_MM, (0, 0, 0)]), 0.5).is_right
    assert not judge([], 0.5).is_right
    # Whatever goes wrong between LPS, RAS and IJK: no other arrangement of axes fits.
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        for signs in np.ndindex(2, 2, 2):
            turned = BALLS_RAS_MM[:, order] * (1 - 2 * np.array(signs))
            assert judge(candidates(turned), 0.5).is_right == (order == (0, 1, 2) and not any(signs))


def test_a_self_test_that_cannot_run_says_why(tmp_path, monkeypatch):
    registry = Registry(tmp_path / "registry")
    registry.install(fake(tmp_path / "source"))
    registry.activate("local@1")
    finding = self_test.self_test(registry.folder)
    # Its networks are made up: they pass the checks of the registry, and cannot be loaded.
    assert (finding.state, finding.exit_code) == (PROBLEM, 4)
    assert "cannot be loaded" in finding.text
    beats = []
    slow = self_test.self_test(registry.folder, lambda: beats.append(time.monotonic()), longest_s=0.3)
    assert (slow.state, len(beats) >= 1) == (PROBLEM, True)
    assert "did not end" in slow.text
    for code, words, exit_code in (
        (-4, "processor cannot run", 3), (-9, "not enough memory", 5), (1, "exit code 1): E: x", 1), (0, "no word", 1),
    ):  # fmt: skip
        told = self_test._explained(code, "noise\nE: x\n" if code == 1 else "")
        assert words in told["error"]
        assert told["exit_code"] == exit_code


def test_a_model_that_is_no_judge_of_phantoms_is_told_from_a_broken_computer(monkeypatch):
    def answers(*of):
        left = list(of)
        monkeypatch.setattr(self_test, "_searched", lambda registry, model, alive, longest: left.pop(0))

    right = {"model": "default@1", "found": 4, "elsewhere": 0, "farthest_mm": 0.3}
    answers({**right, "model": "local@1", "found": 1}, right)
    assert self_test.self_test().state == WARNING
    answers({**right, "model": "local@1", "found": 1}, {**right, "found": 2})
    assert self_test.self_test().state == PROBLEM
    answers({**right, "found": 3})
    assert self_test.self_test().state == PROBLEM


def test_damaged_and_absent_models_are_found(tmp_path):
    registry = Registry(tmp_path / "registry")
    registry.install(fake(tmp_path / "one"))
    registry.install(fake(tmp_path / "two", version="2", number=2.0))
    registry.activate("local@1")
    whole, *others = installed.models(registry.folder)
    assert (whole.state, others, whole.values["active"]) == (OK, [], "local@1")
    assert {"local@1", "local@2"} <= set(whole.values["checksums"])
    (registry.folder / "local-2" / "unet.keras").write_bytes(b"x")
    _, other = installed.models(registry.folder)
    assert (other.state, "wrong checksum" in other.text) == (WARNING, True)
    shutil.rmtree(registry.folder / "local-1")
    states = {f.name: f.state for f in installed.models(registry.folder)}
    assert states["Active model"] == PROBLEM
    (registry.folder / ACTIVE).write_text("{")
    assert {f.name: f.state for f in installed.models(registry.folder)}["Active model"] == PROBLEM


def test_weights_of_hd_bet_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setenv(hd_bet.WEIGHTS_VARIABLE, str(tmp_path))
    monkeypatch.setattr(hd_bet, "package_version", lambda: None)
    assert (installed.brain_mask().state, installed.brain_mask().text) == (WARNING, "not installed")
    monkeypatch.setattr(hd_bet, "package_version", lambda: "1")
    assert "version 2 is needed" in installed.brain_mask().text
    monkeypatch.setattr(hd_bet, "package_version", lambda: "2.0.1")
    assert "weights are not installed" in installed.brain_mask().text
    (tmp_path / "fold_all").mkdir()
    for name in hd_bet.REQUIRED[:2]:
        (tmp_path / name).write_text("{}")
    import zipfile

    with zipfile.ZipFile(tmp_path / hd_bet.CHECKPOINT, "w") as archive:
        archive.writestr("a/data.pkl", bytes(5000))
    assert installed.brain_mask().state == OK
    data = bytearray((tmp_path / hd_bet.CHECKPOINT).read_bytes())
    data[2000] ^= 1
    (tmp_path / hd_bet.CHECKPOINT).write_bytes(data)
    damaged = installed.brain_mask()
    assert (damaged.state, damaged.exit_code, "checkpoint" in damaged.text) == (PROBLEM, 4, True)


def test_folders(tmp_path, monkeypatch):
    assert folders.folder("x", tmp_path).state == OK
    assert "not made yet" in folders.folder("x", tmp_path / "a" / "b").text
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "a"):
        assert (folders.folder("x", path).state, folders.folder("x", path).exit_code) == (PROBLEM, 2)
    if Path("/proc/self").exists():
        # Not even a superuser can write there.
        assert "cannot be written" in folders.folder("x", Path("/proc/self")).text
    usage = shutil.disk_usage(tmp_path)
    for free, state in ((0, PROBLEM), (2 << 30, WARNING)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage._replace(free=free))
        assert folders.folder("x", tmp_path).state == state
    monkeypatch.undo()
    monkeypatch.setattr(time, "time", lambda real=time.time: real() - 7200)
    skewed = folders.folder("x", tmp_path)
    assert (skewed.state, "+7200 s" in skewed.text) == (WARNING, True)


def test_memory_limits_count(monkeypatch):
    assert computer.memory().values["total_bytes"] > 1e8
    for limit, state in ((1_000_000_000, PROBLEM), (3_000_000_000, WARNING), (None, OK)):
        monkeypatch.setattr(computer, "_memory_bytes", lambda: (64_000_000_000, 60_000_000_000))
        monkeypatch.setattr(computer, "_memory_limit", lambda limit=limit: limit)
        found = computer.memory()
        assert found.state == state
        assert bool(found.hint) == (state != OK)
    monkeypatch.undo()
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
    code += "from CMBDetectorLib.doctor import computer; print(computer.memory().values['limit_bytes'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) <= 3 << 30


def test_windows_paths_clock_and_graphics_card(tmp_path, monkeypatch):
    long = Path("C:/" + "x" * 150)
    assert computer.path_lengths(long, "Windows", long_paths=False).state == PROBLEM
    assert computer.path_lengths(long, "Windows", long_paths=True).state == OK
    assert computer.path_lengths(Path("C:/short"), "Windows", long_paths=False).state == OK
    assert computer.path_lengths(long, "Linux").state == OK
    assert computer.clock().state == OK
    assert computer.clock(datetime.date(2020, 1, 1)).state == PROBLEM
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert computer.graphics_card().values == {"cards": []}
    for body, state in (("echo 'NVIDIA Z, 8 MiB, 4 MiB, 1.0'", OK), ("exit 9", WARNING)):
        tool.write_text(f"#!/bin/sh\n{body}\n")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        assert computer.graphics_card().state == state


def test_packages_are_those_of_the_project(monkeypatch):
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    wanted = dict(re.findall(r'^    "([\w-]+)>=([\d.]+)', text.split("optional-dependencies")[0], re.MULTILINE))
    known = {name: oldest for names, _, oldest in packages.REQUIRED for name in names}
    assert known == wanted
    assert packages.packages().state in (OK, WARNING)
    real = packages._version
    monkeypatch.setattr(packages, "_version", lambda names, module: None if module == "scipy" else real(names, module))
    missing = packages.packages()
    assert (missing.state, missing.exit_code) == (PROBLEM, 3)
    assert missing.text.startswith("scipy is missing")
    monkeypatch.setattr(
        packages, "_version", lambda names, module: "1.9.9" if module == "numpy" else real(names, module)
    )
    assert "numpy 1.9.9 is older than 1.26" in packages.packages().text


def test_a_computer_without_packages_can_still_be_examined(tmp_path, worker):
    (tmp_path / "SimpleITK.py").write_text("raise ImportError('a library is missing', name='SimpleITK')")
    env = {"PYTHONPATH": str(tmp_path)}
    run = worker("doctor", env=env)
    told = run.last("result")
    assert run.code == told["exit_code"] == 3
    assert "SimpleITK cannot be loaded" in told["report"]
    assert "ok       Memory" in told["report"]
    text = worker("doctor", "--json", events=False, env=env)
    assert (text.code, json.loads(text.stdout)["state"]) == (3, PROBLEM)
    other = worker("detect", "x", "--output", tmp_path / "o", env=env)
    assert (other.code, other.last("error")["code"]) == (3, "missing-package")
    assert other.last("error")["message"] == "The package SimpleITK is not installed or damaged."
    shown = worker("models", "list", events=False, env=env)
    assert (shown.code, shown.stdout, "Traceback" in shown.stderr) == (3, "", False)


def test_one_check_that_fails_leaves_the_others():
    def broken():
        raise ZeroDivisionError("7 / 0")

    def refused():
        raise BadInputError("It is a file.", "Choose a folder.")

    (finding,) = made("Odd", broken)
    assert (finding.state, "ZeroDivisionError: 7 / 0" in finding.text) == (PROBLEM, True)
    (finding,) = made("Odd", refused)
    assert (finding.text, finding.hint, finding.exit_code) == ("It is a file.", "Choose a folder.", 2)
    data = result([Finding("A", OK, "fine"), Finding("B", WARNING, "odd", "Look."), finding])
    assert (data["state"], data["exit_code"]) == (PROBLEM, 2)
    assert "1 problem, 1 warning." in data["report"]
    assert "-> Look." in data["report"]


@pytest.mark.parametrize(
    "text",
    [
        "/home/amuster/scans", "/Users/amuster/Library", r"C:\Users\amuster\AppData", r"c:\\Users\\Anna Muster\\x",
        "/home/Anna Muster/x", "x is in /home/amuster, and full", "'/home/amuster'", "/data/amuster/x",
        "by amuster on ws12", "WS12.clinic.example", "/scratch/AMUSTER",
    ],
)  # fmt: skip
def test_persons_are_taken_out(monkeypatch, text):
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, "amuster")
    monkeypatch.setattr(platform, "node", lambda: "ws12.clinic.example")
    privacy._names.cache_clear()
    shown = privacy.without_person({"a": [text, 7, None]})["a"][0]
    privacy._names.cache_clear()
    assert "muster" not in shown.lower()
    assert "ws12" not in shown.lower()
    assert os.sep.join(["", "home", "x"]) not in shown
