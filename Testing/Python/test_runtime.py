"""Parts of the isolated runtime: lock files, names in wheels, what pip says."""

from __future__ import annotations

import json
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_runtime import make_wheel

from CMBDetectorLib.errors import BadInputError, SetUpError
from CMBDetectorLib.runtime import pip, wheels
from CMBDetectorLib.runtime.locks import DETECTOR, FOLDER, HD_BET, PARTS, lock_file, platform_named, read_lock, versions
from CMBDetectorLib.runtime.platforms import PLATFORMS, PYTHON, platform_of

LOCKS = [(part, name) for part in PARTS for name in PLATFORMS]


@pytest.mark.parametrize(("part", "name"), LOCKS)
def test_every_line_is_pinned_and_hashed_and_names_no_place(part, name):
    path = lock_file(part, PLATFORMS[name], PYTHON)
    text = path.read_text(encoding="ascii")
    assert "//" not in text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(
        re.match(r"[a-z0-9-]+==\S+ --hash=sha256:[0-9a-f]{64}  # \d+ \d+ (wheel|source)$", line) for line in lines
    )
    lock = read_lock(part, PLATFORMS[name], PYTHON)
    assert [package.line for package in lock.packages] == lines
    assert len({package.name for package in lock.packages}) == len(lines)
    needed = json.loads((FOLDER / "needs.json").read_text(encoding="utf-8"))[part][name]
    names = {re.split(r"[<=]", need)[0].lower() for need in needed}
    other = read_lock(DETECTOR, PLATFORMS[name], PYTHON).packages if part == HD_BET else ()
    assert names <= {package.name for package in (*lock.packages, *other)}
    assert lock.installed_bytes > lock.bytes > 100e6


def test_intel_macs_get_the_last_tensorflow_made_for_them():
    found = {p.name: p.version for p in read_lock(DETECTOR, PLATFORMS["macos-x86_64"], PYTHON).packages}
    assert found["tensorflow"].startswith("2.16.")
    assert found["numpy"].startswith("1.")
    assert "tensorflow-cpu" in {p.name for p in read_lock(DETECTOR, PLATFORMS["linux"], PYTHON).packages}


@pytest.mark.parametrize("name", PLATFORMS)
def test_hd_bet_shares_the_packages_of_the_detector(name):
    both = [{p.name for p in read_lock(part, PLATFORMS[name], PYTHON).packages} for part in PARTS]
    assert not both[0] & both[1]


@pytest.mark.parametrize(("part", "name"), LOCKS)
def test_a_lean_lock_is_the_other_one_without_nvidia(part, name):
    lock = read_lock(part, PLATFORMS[name], PYTHON)
    if lock.lean is None:
        # Elsewhere PyTorch is made for processors anyway.
        assert not any(package.name.startswith("nvidia-") for package in lock.packages)
        return
    assert (lock.lean.name, lock.lean.part) == (lock.name, lock.part)
    # Another build of PyTorch, and the torchvision that was made for that version.
    assert [package.name for package in lock.only_lean] == ["torch", "torchvision"]
    assert lock.only_lean[0].version.endswith("+cpu")
    gone = {package.name for package in lock.packages} - {package.name for package in lock.lean.packages}
    assert all(name.startswith(("nvidia-", "cuda-", "triton")) for name in gone)
    assert not any(package.name.startswith("nvidia-") for package in lock.lean.packages)
    assert lock.lean.bytes < lock.bytes / 5
    assert lock.fits(lock.digest)
    assert lock.fits(lock.lean.digest)
    assert not lock.fits("00000000")


def test_platforms_are_told_by_what_an_interpreter_says():
    known = {
        "linux-x86_64": "linux", "win-amd64": "windows", "macosx-11.0-arm64": "macos-arm64",
        "macosx-10.15-x86_64": "macos-x86_64",
    }  # fmt: skip
    assert {tag: platform_of(tag).name for tag in known} == known
    assert platform_of("linux-aarch64") is None
    assert platform_of("win32") is None
    with pytest.raises(BadInputError, match="no platform beos"):
        platform_named("beos")


def test_damaged_and_absent_locks_end_in_a_sentence(tmp_path):
    linux = PLATFORMS["linux"]
    whole = lock_file(DETECTOR, linux, PYTHON).read_text(encoding="ascii")
    for text in ("", "numpy>=2\n", whole.replace("--hash=sha256:", "--hash=md5:", 1)):
        lock_file(DETECTOR, linux, PYTHON, tmp_path).write_text(text)
        with pytest.raises(BadInputError, match="is damaged"):
            read_lock(DETECTOR, linux, PYTHON, tmp_path)
    assert versions(DETECTOR, linux, tmp_path) == [PYTHON]
    with pytest.raises(BadInputError, match=r"cannot be set up for Python 3\.8") as raised:
        read_lock(DETECTOR, linux, "3.8", tmp_path)
    assert PYTHON in raised.value.hint


@given(st.text(max_size=40))
def test_no_member_of_a_wheel_leaves_the_folder(name):
    try:
        place = wheels.destination(name)
    except ValueError:
        return
    if place is not None:
        inside = os.path.normpath(os.path.join("/top", place))
        assert inside.startswith("/top/") or inside == "/top"


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", "C:\\a", "x-1.data/purelib/../../../a"])
def test_members_that_would_leave_the_folder_are_refused(name, tmp_path):
    package = make_wheel(tmp_path, "evil", "1", {name: "x"})
    with pytest.raises(SetUpError, match="damaged"):
        wheels.unpack([tmp_path / "evil-1-py3-none-any.whl"], tmp_path / "in")
    assert package.name == "evil"


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("/usr/bin/python3: No module named pip", "pip is missing"),
        ("ERROR: Could not install: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "wrong checksum"),
        ("ProxyError('Cannot connect to proxy.', OSError('Tunnel connection failed: 407", "proxy"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "prove who it is"),
        ("NewConnectionError: Temporary failure in name resolution\nERROR: No matching distribution found for a==1",
         "no connection"),
        ("ERROR: No matching distribution found for keras==3.15.1", "does not offer keras 3.15.1"),
        ("ERROR: strange things at https://user:secret@index.example/simple", "strange things"),
        ("", "exit code 1"),
    ],
)  # fmt: skip
def test_what_pip_says_becomes_a_sentence(log, words):
    error = pip.explained(log, 1)
    assert words in error.message
    assert error.hint
    assert "secret" not in error.message
