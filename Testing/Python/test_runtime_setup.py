"""Setting the runtime up, and everything that may go wrong meanwhile: what was there before still is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

import pytest
from small_runtime import ROOT, make_small_runtime, make_wheel

from CMBDetectorLib.doctor import runtime as doctor
from CMBDetectorLib.doctor.findings import OK, PROBLEM, WARNING
from CMBDetectorLib.errors import OutputError
from CMBDetectorLib.locking import FileLock
from CMBDetectorLib.runtime import installing, wheels
from CMBDetectorLib.runtime.locks import DETECTOR, HD_BET, PARTS
from CMBDetectorLib.runtime.place import Place, size_on_disk
from CMBDetectorLib.runtime.platforms import platform_of, this_python
from CMBDetectorLib.runtime.removal import remove
from CMBDetectorLib.runtime.using import in_use

pytestmark = pytest.mark.skipif(platform_of(sysconfig.get_platform()) is None, reason="nothing is locked for it")
posix = pytest.mark.skipif(os.name == "nt", reason="signals as on POSIX")
LEFT = {"current.json"}


@pytest.fixture
def small(tmp_path):
    return make_small_runtime(tmp_path)


@pytest.fixture
def ready(small):
    """One whose detector is set up."""
    assert small.run("setup", "--from", small.wheels)[0] == 0
    assert small.value() == "1"
    return small


def left_over(small) -> list[str]:
    """What lies in the runtime folder beside what is used."""
    used = {folder.name for folder in small.place().packages()}
    return sorted({path.name for path in small.folder.iterdir()} - used - LEFT)


def test_from_a_folder_of_wheels_and_away_again(small):
    code, told = small.run("setup", "--from", small.wheels)
    assert code == 0, told
    part = told["parts"][DETECTOR]["set_up"]
    assert (part["whole"], part["up_to_date"]) == (True, True)
    assert part["versions"] == {"probe-detector": "1", "probe-plain": "2.0"}
    folder = small.place().packages()[0]
    # Programs are for environments.
    assert not list(folder.rglob("program*"))
    assert (folder / "probe_more.py").is_file()
    assert small.value() == "1"
    assert left_over(small) == []
    assert small.run("setup", "--part", "hd-bet", "--from", small.wheels)[0] == 0
    assert [path.name.rpartition("-")[0] for path in small.place().packages()] == ["detector", "hd-bet"]
    there = size_on_disk(small.folder)
    code, told = small.run("remove")
    assert code == 0
    assert told["freed_bytes"] == pytest.approx(there, abs=2000)
    assert not small.folder.exists()
    assert small.value() is None
    assert small.run("remove")[1]["freed_bytes"] == 0


def test_a_python_with_nothing_but_pip_sets_up_and_then_computes(small, tmp_path):
    """Slicer's Python before the set-up: without rich, without psutil."""
    bare = tmp_path / "bare"
    venv.create(bare, with_pip=True)
    python = bare / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, text=True)
    assert {entry["name"] for entry in json.loads(listed.stdout)} <= {"pip", "setuptools"}
    # Through pip, as with a network; and with lines for people.
    command = [str(python), "-m", "CMBDetectorLib", "runtime", "setup", "--folder", str(small.folder)]
    done = subprocess.run(command, env=small.environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "detector: 2 packages" in done.stdout
    assert "fetching 100 %" in done.stderr
    assert left_over(small) == []
    # A Python without TensorFlow finds what is set up by itself.
    code = "from CMBDetectorLib.runtime.using import *\nprefer_packages()\nimport probe_more, sys\nprint(sys.path[0])"
    done = subprocess.run([python, "-c", code], env=small.environment, capture_output=True, text=True)
    assert Path(done.stdout.strip()) == small.place().packages()[0], done.stderr


def test_download_fills_a_folder_and_takes_up_where_it_was_stopped(small, tmp_path):
    download = "download", "--python", this_python(), tmp_path / "usb"
    code, told = small.run(*download)
    assert (code, told.get("files")) == (0, 2), told
    files = sorted((tmp_path / "usb").iterdir())
    assert [path.name for path in files] == ["probe_detector-1-py3-none-any.whl", "probe_plain-2.0-py3-none-any.whl"]
    kept = files[0].stat().st_mtime_ns
    files[1].write_bytes(files[1].read_bytes()[:100])
    assert small.run(*download)[0] == 0
    assert files[0].stat().st_mtime_ns == kept
    assert small.run("setup", "--from", tmp_path / "usb", PIP_FIND_LINKS="nowhere")[0] == 0
    assert small.value() == "1"


@pytest.fixture
def two_builds(ready):
    """One whose HD-BET is locked twice: with a large helper, or with a small build of itself alone."""
    large = make_wheel(ready.wheels, "probe-bet", "1.0", {"probe_bet.py": "build = 'large'\n"})
    helper = make_wheel(ready.wheels, "probe-nvidia", "1.0", {"probe_nvidia.py": "0" * 100_000})
    small_build = make_wheel(ready.wheels, "probe-bet", "0.9+cpu", {"probe_bet.py": "build = 'small'\n"})
    ready.write_lock(HD_BET, [large, helper])
    ready.write_lock(HD_BET, [small_build], lean=True)
    return ready


@pytest.mark.parametrize("source", ["folder", "index"])
def test_the_small_build_is_taken_where_it_can_be_had(two_builds, source):
    setup = ["setup", "--part", "hd-bet", *(["--from", two_builds.wheels] if source == "folder" else [])]
    code, told = two_builds.run(*setup)
    assert code == 0, told
    assert told["parts"][HD_BET]["set_up"]["versions"] == {"probe-bet": "0.9+cpu"}
    assert told["parts"][HD_BET]["set_up"]["up_to_date"] is True
    first = two_builds.place().packages()
    # Whoever loses the index later keeps what is there, and the other build is none that is newer.
    next(two_builds.wheels.glob("probe_bet-0.9*")).unlink()
    assert two_builds.run(*setup)[0] == 0
    assert two_builds.place().packages() == first
    code, told = two_builds.run(*setup, "--again")
    assert code == 0, told
    assert told["parts"][HD_BET]["set_up"]["versions"] == {"probe-bet": "1.0", "probe-nvidia": "1.0"}
    assert told["parts"][HD_BET]["set_up"]["up_to_date"] is True
    assert left_over(two_builds) == []


def test_a_folder_is_filled_with_the_build_that_the_index_has(two_builds, tmp_path):
    download = "download", "--part", "hd-bet", "--python", this_python()
    assert two_builds.run(*download, tmp_path / "a")[1]["files"] == 1
    next(two_builds.wheels.glob("probe_bet-0.9*")).unlink()
    assert two_builds.run(*download, tmp_path / "b")[1]["files"] == 2
    there = sorted(path.name.partition("-py3")[0] for path in tmp_path.glob("?/*"))
    assert there == ["probe_bet-0.9+cpu", "probe_bet-1.0", "probe_nvidia-1.0"]


def test_a_small_build_that_is_not_what_was_locked_is_refused(two_builds):
    make_wheel(two_builds.wheels, "probe-bet", "0.9+cpu", {"probe_bet.py": "build = 'evil'\n"})
    code, told = two_builds.run("setup", "--part", "hd-bet")
    assert code == 3
    assert "wrong checksum" in told["message"]
    assert len(two_builds.place().packages()) == 1


@pytest.mark.parametrize("how", ["cut", "changed", "absent", "nowhere", "does not load", "other python", "wrong lock"])
def test_a_set_up_that_fails_leaves_the_old_one(ready, how):
    before = ready.place().packages()
    plain = make_wheel(ready.wheels, "probe-plain", "2.0", {"probe_plain.py": "", "probe_more.py": ""})
    ready.lock_detector("2", plain)
    new = ready.wheels / "probe_detector-2-py3-none-any.whl"
    source, words = ready.wheels, "wrong checksum: probe_detector-2"
    whole = new.read_bytes()
    if how == "cut":
        new.write_bytes(whole[:-1000])
    elif how == "changed":
        new.write_bytes(whole.replace(b"value = '2'", b"value = '3'"))
    elif how == "absent":
        new.unlink()
        words = "1 of 2 packages are missing"
    elif how == "nowhere":
        source, words = ready.wheels / "none", "cannot be read"
    elif how == "does not load":
        broken = make_wheel(ready.wheels, "probe-detector", "2", {"probe_detector.py": "raise ImportError('old libc')"})
        ready.write_lock(DETECTOR, [broken, plain])
        words = "probe_detector cannot be loaded"
    elif how == "other python":
        for path in ready.locks.glob("*.txt"):
            path.rename(path.with_name(path.name.replace(f"py{sys.version_info[0]}.", "py2.")))
        words = "cannot be set up for Python"
    else:
        next(ready.locks.glob("detector-*")).write_text("numpy>=2\n")
        words = "is damaged"
    code, told = ready.run("setup", "--from", source)
    assert code in (2, 3)
    assert words in told["message"], told
    assert told["hint"]
    if how not in ("other python", "wrong lock"):
        assert ready.place().packages() == before
        assert left_over(ready) == []
        assert ready.value() == "1"


def test_a_new_version_takes_the_place_of_the_old_one_but_not_from_under_a_computation(ready):
    old = ready.place().packages()[0]
    mark = FileLock(old / ".used-1")
    assert mark.acquire()
    plain = make_wheel(ready.wheels, "probe-plain", "2.0", {"probe_plain.py": "", "probe_more.py": ""})
    ready.lock_detector("2", plain)
    assert ready.run("status")[1]["parts"][DETECTOR]["set_up"]["up_to_date"] is False
    assert ready.run("setup", "--from", ready.wheels)[0] == 0
    assert ready.value() == "2"
    assert in_use(old)
    code, told = ready.run("remove")
    assert code == 2
    assert "computation uses" in told["message"]
    assert ready.value() == "2"
    mark.release()
    # The next set-up takes it away, even one that has nothing to do.
    assert ready.run("setup", "--from", ready.wheels)[0] == 0
    assert not old.exists()
    assert ready.value() == "2"


def test_who_computes_says_so_until_the_end(ready):
    folder = ready.place().packages()[0]
    (folder / ".used-99999999").write_text("killed")
    code = (
        "from CMBDetectorLib.runtime.using import prefer_packages\nprefer_packages()\nprint('on', flush=True)\ninput()"
    )
    environment = {**ready.environment, "CMBDETECTOR_PACKAGES": str(folder)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes) as process:
        assert process.stdout.readline() == b"on\n"
        assert [mark.name for mark in folder.glob(".used-*")] == [f".used-{process.pid}"]
        assert in_use(folder)
        assert ready.run("remove")[0] == 2
        process.communicate(b"\n", timeout=20)
    assert not in_use(folder)
    assert not list(folder.glob(".used-*"))
    assert ready.run("remove")[0] == 0


def test_what_lost_files_is_set_up_again(ready):
    folder = ready.place().packages()[0]
    (folder / "probe_detector" / "data.bin").unlink()
    assert ready.run("status")[1]["parts"][DETECTOR]["set_up"]["whole"] is False
    assert ready.run("setup", "--from", ready.wheels)[0] == 0
    assert ready.run("status")[1]["parts"][DETECTOR]["set_up"]["whole"] is True
    assert left_over(ready) == []


@posix
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_anywhere_it_leaves_the_old_one_and_goes_on_next_time(ready, number):
    before = ready.place().packages()
    many = {f"probe_detector/m{n}.py": f"# {n}\n" * 50 for n in range(1500)}
    many["probe_detector/__init__.py"] = "value = '2'\n"
    plain = make_wheel(ready.wheels, "probe-plain", "2.0", {"probe_plain.py": "", "probe_more.py": ""})
    ready.write_lock(DETECTOR, [make_wheel(ready.wheels, "probe-detector", "2", many), plain])
    stages = set()
    for wanted in ("fetching", "unpacking", "trying"):
        process = subprocess.Popen(ready.command("setup"), env=ready.environment, stdout=subprocess.PIPE)
        for line in process.stdout:
            event = json.loads(line)
            if event.get("stage") == wanted:
                stages.add(wanted)
                process.send_signal(number)
                break
        process.stdout.close()
        process.wait(20)
        assert process.returncode == (-9 if number == signal.SIGKILL else 6)
        assert ready.place().packages() == before
        assert ready.value() == "1"
        if number == signal.SIGTERM:
            assert set(left_over(ready)) <= {"wheels"}
        # No pip goes on without its parent.
        end = time.monotonic() + 10
        while still_running(ready) and time.monotonic() < end:
            time.sleep(0.1)
        assert still_running(ready) == []
    assert stages == {"fetching", "unpacking", "trying"}
    # The last one had fetched everything: nothing is left to fetch.
    assert ready.run("setup", PIP_FIND_LINKS="nowhere")[0] == 0
    assert ready.value() == "2"
    assert left_over(ready) == []


def still_running(small) -> list[str]:
    import psutil

    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(small.folder) in line and process.pid != os.getpid():
            found.append(line)
    return found


def test_two_at_once(ready):
    lock = FileLock(ready.folder / "setup.lock")
    assert lock.acquire()
    for action in (["setup", "--from", ready.wheels], ["remove"], ["use", "--own"]):
        code, told = ready.run(*action)
        assert (code, "already, by process" in told["message"]) == (2, True), told
    lock.release()
    assert ready.value() == "1"


@posix
def test_on_a_full_disk_or_one_that_may_not_be_written(ready, monkeypatch, tmp_path):
    before = ready.place().packages()
    monkeypatch.setenv("CMBDETECTOR_LOCKS", str(ready.locks))
    monkeypatch.setattr(installing.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1, 1, 0))
    lock = installing.locks_for([DETECTOR])[0]
    from CMBDetectorLib.progress import Progress

    for source in (ready.wheels, None):
        with pytest.raises(OutputError, match="GB are needed"):
            installing.set_up(ready.place(), lock, source, Progress(), again=True)
    monkeypatch.undo()
    monkeypatch.setenv("CMBDETECTOR_LOCKS", str(ready.locks))

    # It fills up in the middle of a file.
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(wheels.Path, "chmod", full)
    monkeypatch.setattr(wheels, "_write", full)
    with pytest.raises(OutputError, match="disk is full"):
        installing.set_up(ready.place(), lock, ready.wheels, Progress(), again=True)
    monkeypatch.undo()
    assert ready.place().packages() == before
    assert left_over(ready) == []
    # A file in the place of the folder, for whom root may write everywhere.
    (tmp_path / "file").write_text("")
    other = make_small_runtime(tmp_path / "second", tmp_path / "file" / "runtime")
    code, told = other.run("setup", "--from", other.wheels)
    assert (code, "cannot be written" in told["message"]) == (2, True)


@pytest.mark.parametrize("name", ["ünï cødé 脳 with blanks", "a" * 200])
def test_folders_of_any_name(tmp_path, name):
    small = make_small_runtime(tmp_path, tmp_path / name / ("b" * 60) / "runtime")
    # pip takes blanks in some of its settings for the end of a path.
    code, told = small.run("setup")
    assert code == 0, told
    assert small.value() == "1"
    elsewhere = tmp_path / name / "wheels ö"
    shutil.move(small.wheels, elsewhere)
    code, told = small.run("setup", "--again", "--from", elsewhere)
    assert code == 0, told
    assert small.value() == "1"
    assert small.run("remove")[0] == 0


def test_a_folder_that_python_cannot_have_on_its_path_is_refused(tmp_path):
    small = make_small_runtime(tmp_path / "x", tmp_path / f"a{os.pathsep}b" / "runtime")
    code, told = small.run("setup", "--from", small.wheels)
    assert (code, "cannot load packages from a folder" in told["message"]) == (2, True)


def test_another_python_is_tried_before_it_is_chosen(ready, tmp_path):
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "python3").chmod(0o755)
    for wrong, words in ((tmp_path / "python3", "Loading the packages failed"), (tmp_path / "none", "no Python")):
        code, told = ready.run("use", wrong)
        assert (code, words in told["message"]) == (3, True), told
    assert ready.run("use")[0] == 2
    code, told = ready.run("use", sys.executable)
    assert (code, told.get("interpreter")) == (0, sys.executable), told
    assert ready.place().chosen_python() == sys.executable
    # The choice is the user's and stays; what was downloaded goes.
    assert ready.run("remove")[0] == 0
    assert ready.place().chosen_python() == sys.executable
    assert ready.run("use", "--own")[1]["interpreter"] is None


def test_a_damaged_note_of_what_is_set_up_counts_as_nothing(ready, tmp_path):
    whole = (ready.folder / "current.json").read_text()
    for text in ("", "[]", '{"parts": 3}', whole[:-20], whole.replace("detector-", "../detector-"), "[" * 100_000):
        (ready.folder / "current.json").write_text(text)
        assert Place(ready.folder).packages() == ()
        assert Place(ready.folder).chosen_python() is None
    assert ready.run("setup", "--from", ready.wheels)[0] == 0
    assert ready.value() == "1"


def test_the_doctor_tells_what_is_set_up(ready, monkeypatch, tmp_path):
    monkeypatch.setenv("CMBDETECTOR_LOCKS", str(ready.locks))
    found = doctor.set_up(ready.place())
    assert (found.state, found.values["parts"][DETECTOR]["whole"]) == (OK, True)
    assert found.values["parts"][DETECTOR]["digest"] in found.text
    packages = ready.place().packages()[0]
    monkeypatch.setenv("CMBDETECTOR_PACKAGES", str(packages))
    assert doctor.set_up() == found
    ready.lock_detector("2")
    assert doctor.set_up().state == WARNING
    assert "newer versions" in doctor.set_up().text
    (packages / "probe_plain.py").unlink()
    assert (doctor.set_up().state, doctor.set_up().exit_code) == (PROBLEM, 3)
    assert "lost files" in doctor.set_up().text
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    nothing = doctor.set_up(Place(tmp_path / "nothing"))
    assert (nothing.state, "runtime setup" in nothing.hint) == (WARNING, True)


def test_a_python_that_nothing_is_locked_for_can_still_be_looked_at(small, monkeypatch):
    for path in small.locks.glob("*.txt"):
        path.unlink()
    monkeypatch.setenv("CMBDETECTOR_LOCKS", str(small.locks))
    assert small.run("status")[1]["parts"] == {}
    assert small.run("use", "--own")[0] == 0
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert doctor.set_up(small.place()).state == OK


def test_removal_spares_what_is_not_the_programs(ready, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "sub").mkdir(parents=True)
    (ready.folder / "detector-00000000").symlink_to(elsewhere)
    (ready.folder / "notes.txt").write_text("mine")
    remove(ready.place(), list(PARTS))
    assert (elsewhere / "sub").is_dir()
    assert (ready.folder / "notes.txt").read_text() == "mine"


def test_no_package_hides_a_module_of_python_itself(ready):
    """HD-BET's packages ask for argparse 1.4, of 2015: the command line of the worker could not start any more."""
    hiding = {"argparse.py": "raise ImportError('old')", "json/__init__.py": "", "x-1.data/platlib/enum.py": ""}
    old = make_wheel(ready.wheels, "argparse", "1.4.0", {**hiding, "probe_old.py": "import argparse, enum, json"})
    bet = make_wheel(ready.wheels, "probe-bet", "1.0", {"probe_bet.py": "import probe_old"})
    ready.write_lock(HD_BET, [bet, old])
    assert ready.run("setup", "--part", "hd-bet", "--from", ready.wheels)[0] == 0
    folders = os.pathsep.join(map(str, ready.place().packages()))
    environment = {**ready.environment, "CMBDETECTOR_PACKAGES": folders}
    done = subprocess.run([sys.executable, "-m", "CMBDetectorLib", "--version"], env=environment, capture_output=True)
    assert (done.returncode, done.stdout[:12]) == (0, b"cmbdetector "), done.stderr
    assert sorted(path.name for path in ready.place().packages()[1].iterdir() if not path.name.startswith(".")) == [
        "argparse-1.4.0.dist-info", "probe_bet-1.0.dist-info", "probe_bet.py", "probe_old.py",
    ]  # fmt: skip


def test_nothing_outside_the_standard_library_is_needed():
    code = (
        "import json, sys, CMBDetectorLib.worker.runtime_command, CMBDetectorLib.worker.cli\n"
        "print(json.dumps(sorted({m.split('.')[0] for m in sys.modules} - set(sys.stdlib_module_names))))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-S", "-c", code], env=environment, capture_output=True, text=True)
    assert set(json.loads(done.stdout)) <= {"CMBDetectorLib", "__main__"}, done.stderr
