"""A whole detection in a DICOM series of a conspicuous patient: who is named where, what goes out, what lies about."""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from grids import phantom, write_dicom

from CMBDetectorLib import pseudonyms, user_data
from CMBDetectorLib.candidate import read_detection
from CMBDetectorLib.dicom import patient
from CMBDetectorLib.doctor.phantom import write_phantom
from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.models.bundle import RESOURCES
from CMBDetectorLib.pseudonyms import neutral_name, pseudonym
from CMBDetectorLib.report.html import write_detection_report
from CMBDetectorLib.volume import read_volume
from CMBDetectorLib.worker.commands import detect

IDENTITIES = ("musterfrau", "pat-0815-4711", "19640812", "1964-08-12", "12.08.1964", "klinik nord")
FOLDER = "MUSTERFRAU^ERIKA_19640812"
# Loaded by every Python that is started with it on its path: notes what goes out and which folders are made.
SPY = """
import json, os, sys
_log = os.open(os.environ["CMBDETECTOR_TEST_SPY"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
_socket = ("connect", "bind", "sendto", "sendmsg", "getaddrinfo", "gethostbyname", "gethostbyaddr")
_watched = {f"socket.{name}" for name in _socket} | {"os.mkdir", "os.chmod", "urllib.Request", "os.system"}
def _hook(event, arguments):
    if event in _watched:
        line = json.dumps([event, [str(a) for a in arguments], os.getpid()]) + "\\n"
        os.write(_log, line.encode())
        if event.startswith("socket.") and event != "socket.bind":
            os._exit(99)
sys.addaudithook(_hook)
os.write(_log, (json.dumps(["start", sys.argv[:1], os.getpid()]) + "\\n").encode())
"""


def identify(number, data):
    data.PatientName, data.PatientID, data.PatientBirthDate = "Musterfrau^Erika", "PAT-0815-4711", "19640812"
    data.InstitutionName, data.AccessionNumber, data.StudyID = "Klinik Nord", "PAT-0815-4711", "PAT-0815-4711"
    data.SeriesDescription = "SWI Musterfrau"
    data.PatientComments = "Frau Musterfrau, geb. 12.08.1964"


def named_in(data: bytes) -> list[str]:
    text = data.lower()
    return [word for word in IDENTITIES if word.encode() in text]


@pytest.fixture(scope="module")
def spied(tmp_path_factory):
    """An environment in which the spy is loaded, and the file that it writes."""
    folder = tmp_path_factory.mktemp("spied")
    for name in ("spy", "tmp", "data", "home"):
        (folder / name).mkdir(mode=0o700)
    (folder / "spy" / "sitecustomize.py").write_text(SPY)
    notes = folder / "notes.jsonl"
    env = {
        "CMBDETECTOR_TEST_SPY": str(notes), "PYTHONPATH": str(folder / "spy"), "TMPDIR": str(folder / "tmp"),
        "CMBDETECTOR_DATA": str(folder / "data"), "HOME": str(folder / "home"),
    }  # fmt: skip
    return folder, notes, {**os.environ, **env}


def noted(notes: Path) -> list[tuple[str, list[str]]]:
    return [tuple(json.loads(line)[:2]) for line in notes.read_text().splitlines()]


def without_network() -> list[str]:
    """Return what starts a program in a network of its own, without a way out, where that can be had."""
    command = ["unshare", "--net"]
    able = shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True).returncode == 0
    return command if able else []


@pytest.fixture(scope="module")
def searched(spied):
    """A detection in the DICOM series of the patient: the process that has ended, and the folder of all of it."""
    if not (RESOURCES / "Models" / "default").is_dir():
        pytest.skip("no model is bundled")
    folder, _, env = spied
    write_phantom(folder / "phantom.nii.gz", (0.45, 0.45, 1.0))
    volume = read_volume(folder / "phantom.nii.gz")
    series = folder / "in" / FOLDER
    write_dicom(series, volume.with_array(np.round(volume.array * 20)), change=identify, prefix="MUSTERFRAU_ERIKA_")
    worker = [sys.executable, "-m", "CMBDetectorLib", "detect", str(series), "--output", str(folder / "out")]
    options = ["--brain-mask", "none", "--keep", "preprocessed,likelihood,brain-mask", "--model", "default", "--events"]
    # With this umask whatever is not made private on purpose can be read by everybody.
    start = [*without_network(), "sh", "-c", 'umask 022; exec "$@"', "sh"]
    done = subprocess.run([*start, *worker, *options], capture_output=True, env=env, timeout=1800)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return done, folder


def test_no_result_event_or_log_names_the_patient(searched):
    done, folder = searched
    detection = read_detection(folder / "out" / "candidates.json")
    assert len(detection.candidates) == 4, "the phantom's balls were not found"
    assert re.fullmatch(r"series-[0-9a-f]{12}", detection.scan["name"])
    assert named_in(done.stdout) == []
    assert named_in(done.stderr) == []
    seen = 0
    for path in [p for p in folder.rglob("*") if p.is_file() and folder / "in" not in p.parents]:
        data = path.read_bytes()
        seen += path.parent == folder / "out"
        data = gzip.decompress(data) if path.name.endswith(".gz") else data
        assert named_in(data) == [], path.name
        assert named_in(str(path.relative_to(folder)).encode()) == []
    assert seen == 7
    # The input does name her: the search would notice.
    assert set(named_in(next((folder / "in" / FOLDER).iterdir()).read_bytes())) >= {"musterfrau", "19640812"}


def test_a_whole_detection_reaches_for_no_network(searched, spied):
    _, notes, env = spied
    told = noted(notes)
    # A package of TensorFlow looks whether there is IPv6 by opening a port of this computer for this computer.
    bound = [arguments[-1] for event, arguments in told if event == "socket.bind"]
    assert set(bound) <= {"('::1', 0)"}
    assert [entry for entry in told if entry[0].startswith(("socket", "urllib")) and entry[0] != "socket.bind"] == []
    assert [entry for entry in told if entry[0] == "start"]
    # The spy does see what goes out, and stops it.
    code = "import socket; socket.create_connection(('127.0.0.1', 9), 1)"
    done = subprocess.run([sys.executable, "-c", code], env={**env, "CMBDETECTOR_TEST_SPY": f"{notes}.2"})
    assert done.returncode == 99
    assert [entry for entry in noted(Path(f"{notes}.2")) if entry[0].startswith("socket.")]


def test_folders_for_the_time_of_the_work_are_private(searched, spied):
    folder, notes, _ = spied
    made: dict[str, int] = {}
    for event, arguments in noted(notes):
        if event == "os.mkdir":
            # The first makes it; later ones only make sure that it is there.
            made.setdefault(arguments[0], int(arguments[1]))
    temporary = {
        path: mode for path, mode in made.items() if path.startswith(str(folder / "tmp")) or ".partial-" in path
    }
    assert any(".partial-" in path for path in temporary)
    assert set(temporary.values()) == {0o700}, temporary
    # The result, when it is whole, is what the user's umask says.
    assert stat.S_IMODE((folder / "out").stat().st_mode) == 0o755
    changed = [arguments[0] for event, arguments in noted(notes) if event == "os.chmod"]
    assert ".partial-" in changed[-1]
    assert changed[-1] in temporary, "others could look into it before it was whole"
    opened = {arguments[0]: int(arguments[1]) for event, arguments in noted(notes) if event == "os.chmod"}
    assert {mode for path, mode in opened.items() if path.startswith(str(folder / "tmp"))} <= {0o700, 0o600}
    assert list((folder / "tmp").iterdir()) == []


def test_the_salt_is_private_and_makes_the_id_this_computers_own(searched, spied, tmp_path, monkeypatch):
    _, folder = searched
    salt = folder / "data" / pseudonyms.SALT
    assert stat.S_IMODE(salt.stat().st_mode) == 0o600
    import pydicom

    uid = str(pydicom.dcmread(next((folder / "in" / FOLDER).iterdir()), stop_before_pixels=True).SeriesInstanceUID)
    name = read_detection(folder / "out" / "candidates.json").scan["name"]
    monkeypatch.setenv(user_data.VARIABLE, str(folder / "data"))
    series = folder / "in" / FOLDER
    assert read_volume(series).source == {"kind": "dicom", "name": name}
    monkeypatch.setenv(user_data.VARIABLE, str(tmp_path / "another computer"))
    assert read_volume(series).source["name"] != name
    plain = {hashlib.new(kind, uid.encode()).hexdigest()[:12] for kind in ("md5", "sha1", "sha256", "sha512")}
    assert name.removeprefix("series-") not in plain


def test_pseudonyms(tmp_path, monkeypatch):
    monkeypatch.setenv(user_data.VARIABLE, str(tmp_path / "data"))
    first = pseudonym("scan", "Musterfrau.nii")
    assert re.fullmatch(r"scan-[0-9a-f]{12}", first)
    assert pseudonym("scan", "Musterfrau.nii") == first != pseudonym("scan", "Mustermann.nii")
    pseudonyms._salt.cache_clear()
    assert pseudonym("scan", "Musterfrau.nii") == first, "another process has another salt"
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [pseudonyms.SALT]
    # A damaged salt is replaced; a folder that cannot be written gives a salt for this process.
    (tmp_path / "data" / pseudonyms.SALT).write_bytes(b"short")
    pseudonyms._salt.cache_clear()
    assert pseudonym("scan", "Musterfrau.nii") != first
    assert len((tmp_path / "data" / pseudonyms.SALT).read_bytes()) == 32
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(user_data.VARIABLE, str(tmp_path / "file" / "data"))
    assert pseudonym("scan", "x") == pseudonym("scan", "x")
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", "from CMBDetectorLib.pseudonyms import pseudonym; print(pseudonym('scan', 'x'))"],
            env={**os.environ, user_data.VARIABLE: str(tmp_path / "race")}, stdout=subprocess.PIPE,
        )
        for _ in range(4)
    ]  # fmt: skip
    assert len({program.communicate(timeout=600)[0] for program in programs}) == 1


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ({"kind": "file", "name": "sub-01_swi.nii.gz"}, "sub-01_swi.nii.gz"),
        ({"kind": "file", "name": "sub-01_ses-02_acq-3mm_T2starw.nii"}, "sub-01_ses-02_acq-3mm_T2starw.nii"),
        ({"kind": "file", "name": "Musterfrau_Erika.nii.gz"}, None),
        ({"kind": "file", "name": "sub-01_Musterfrau.Erika.nii.gz"}, None),
        ({"kind": "file", "name": "sub-01_Musterfrau.nii.gz"}, None),
        ({"kind": "dicom", "name": "series-0123456789ab"}, "series-0123456789ab"),
    ],
)
def test_files_that_may_be_called_after_patients_get_other_names(source, name):
    assert re.fullmatch(re.escape(name) if name else r"scan-[0-9a-f]{12}", neutral_name(source))


def test_the_report_names_the_patient_only_if_asked(searched):
    _, folder = searched
    series = folder / "in" / FOLDER
    assert patient(series) == {"name": "Musterfrau^Erika", "id": "PAT-0815-4711", "birth date": "19640812"}
    assert patient(folder / "out") == {}
    parser = argparse.ArgumentParser()
    detect.add_parser(parser.add_subparsers(), argparse.ArgumentParser(add_help=False))
    asked = [parser.parse_args(["detect", "x", "--output", "y", *more]).show_names for more in ([], ["--show-names"])]
    assert asked == [False, True]
    detection = read_detection(folder / "out" / "candidates.json")
    evil = {**detect._names(series), "id": "<script>alert(1)</script>"}
    for names, words in ((evil, ["musterfrau", "19640812"]), ({}, []), (None, [])):
        write_detection_report(folder / "named.html", detection, read_volume(series), names=names)
        page = (folder / "named.html").read_bytes()
        (folder / "named.html").unlink()
        assert named_in(page) == words
        assert b"<script" not in page
    assert detect._names(folder / "phantom.nii.gz") == {"file": "phantom.nii.gz"}


def test_letters_of_names_are_those_of_the_file(tmp_path):
    def name(number, data):
        data.SpecificCharacterSet = "ISO_IR 100"
        data.PatientName = "Müller^Jörg"

    write_dicom(tmp_path / "a", phantom(spacing=(2.0, 2.0, 3.0)), change=name)
    assert patient(tmp_path / "a")["name"] == "Müller^Jörg"


@pytest.mark.parametrize("fault", ["two series", "no pixels", "lacks slices", "no images"])
def test_what_is_said_of_a_bad_series_names_nobody(tmp_path, capfd, fault):
    series = tmp_path / FOLDER
    volume = phantom(spacing=(2.0, 2.0, 3.0))
    skip = (volume.shape[2] // 2,) if fault == "lacks slices" else ()
    if fault == "no images":
        series.mkdir()
    else:
        write_dicom(series, volume, skip=skip, change=identify, prefix="MUSTERFRAU_")
    if fault == "two series":
        write_dicom(series, volume, prefix="other")
    if fault == "no pixels":
        for path in series.iterdir():
            path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BadInputError) as caught:
        read_volume(series)
    told = f"{caught.value.message} {caught.value.hint}"
    assert named_in(told.encode()) == []
    assert str(tmp_path) not in told
    if fault == "two series":
        assert "SWI: " in told
        assert "unnamed: " in told
    printed = capfd.readouterr()
    assert named_in((printed.out + printed.err).encode()) == []
