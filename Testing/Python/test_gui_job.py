"""The background job as the module uses it: real worker processes, cancelled and killed in every way."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from jobs import OWN, at_stage, family, follow, gone, program

from CMBDetectorLib.gui.endings import explain
from CMBDetectorLib.gui.job import WorkerJob
from CMBDetectorLib.gui.job_queue import JobQueue
from CMBDetectorLib.models.versions import bundled_versions
from CMBDetectorLib.runtime.interpreter import LIBRARY, Interpreter
from CMBDetectorLib.volume import Volume, read_volume, write_volume
from CMBDetectorLib.worker.commands import simulate
from CMBDetectorLib.worker.listeners import Listener

posix = pytest.mark.skipif(os.name == "nt", reason="scripts as programs, and signals, are POSIX")

# A worker in whose main thread a library works that never looks up, with a result half written and a child.
STUCK = """
import subprocess, sys, time
from pathlib import Path
from CMBDetectorLib.files import output_folder
from CMBDetectorLib.worker.cli import _catch_signals
from CMBDetectorLib.worker.listeners import EventStream
from CMBDetectorLib.worker.stopping import follow_stdin

_catch_signals()
follow_stdin()
stream = EventStream(1)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdout=subprocess.DEVNULL)
with output_folder(Path(sys.argv[3]), ["*"]) as folder:
    (folder / "half.txt").write_text("half")
    stream.report("stuck")
    while True:
        try:
            time.sleep(1)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
"""


@pytest.fixture(autouse=True)
def _no_leftovers():
    """A test that fails in the middle must not leave its worker to the next."""
    yield
    for process in family():
        process.kill()


@pytest.fixture
def temporary_files(tmp_path, monkeypatch) -> Path:
    """The folder of temporary files of this process and the workers it starts; every test must leave it empty."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Path:
    """A small scan, in a folder with blanks and umlauts."""
    return _noise(tmp_path_factory.mktemp("Bilder für Dr Ü") / "große Aufnahme.nii.gz", (90, 90, 30))


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A scan whose bias field takes long enough to be cancelled in."""
    return _noise(tmp_path_factory.mktemp("large") / "large.nii", (200, 200, 80))


def _noise(path: Path, shape: tuple[int, int, int]) -> Path:
    array = np.random.default_rng(0).normal(500, 60, shape).astype(np.float32)
    write_volume(path, Volume(array, np.diag([0.9, 0.9, 2.0, 1.0])))
    return path


def preprocess(scan: Path, output: Path) -> WorkerJob:
    return WorkerJob(["preprocess", scan, "--output", output, "--brain-mask", "none"], OWN)


def test_a_command_runs_to_its_result(temporary_files):
    job = WorkerJob(["models", "list"], OWN)
    assert (job.state, job.alive, job.elapsed_s, job.poll()) == ("waiting", False, 0, [])
    started = time.perf_counter()
    job.start()
    # On the main thread of an application; 50 ms is what one does not feel.
    assert time.perf_counter() - started < 0.2
    assert job.state == "running"
    events = follow(job)
    assert events[-1]["event"] == "result"
    assert job.state == "done"
    assert isinstance(job.result["models"], list)
    assert job.error is None
    assert job.fraction == 1
    assert 0.1 < job.elapsed_s < 60
    assert not list(temporary_files.iterdir())
    assert not family()


def test_progress_is_told_and_strange_names_work(head, tmp_path):
    output = tmp_path / "Ergebnis ß 1"
    job = preprocess(head, output)
    job.start()
    seen = []

    def note(events: list[dict]) -> bool:
        seen.append((job.stage, job.fraction, job.left_s))
        return False

    events = follow(job, note)
    assert job.state == "done", (job.error, job.log_tail())
    assert job.result["output"] == str(output)
    assert read_volume(output / "preprocessed.nii.gz").shape
    fractions = [fraction for _, fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert {"reading", "bias field"} <= {stage for stage, *_ in seen}
    assert any(left is not None and left >= 0 for *_, left in seen)
    assert {"progress", "result"} <= {event["event"] for event in events}


def test_the_workers_own_error_is_passed_on(tmp_path):
    job = WorkerJob(["preprocess", tmp_path / "ö absent.nii.gz", "--output", tmp_path / "o"], OWN)
    job.start()
    assert follow(job)[-1]["event"] == "error"
    assert job.state == "failed"
    assert job.error.code == "bad-input"
    assert "ö absent.nii.gz" in job.error.message
    assert job.error.hint.endswith(".")
    assert job.elapsed_s > 0


def test_cancelling_a_computation_leaves_nothing(large, tmp_path, temporary_files):
    job = preprocess(large, tmp_path / "o")
    job.start()
    follow(job, at_stage("bias field"))
    workers = family()
    assert workers
    asked = time.monotonic()
    job.cancel()
    assert time.monotonic() - asked < 0.1
    assert job.state == "cancelled"
    events = follow(job)
    # The contract is 2 s; test machines are noisy.
    assert time.monotonic() - asked < 3
    assert [event["code"] for event in events] == ["cancelled"]
    assert job.error.message == "Cancelled; nothing was written."
    assert gone(workers, 0)
    assert not list(temporary_files.iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["tmp"]


@posix
def test_a_worker_that_cannot_be_interrupted_removes_its_files_itself(tmp_path, temporary_files):
    job = WorkerJob([tmp_path / "out" / "result"], program(tmp_path / "stuck", STUCK))
    job.start()
    follow(job, at_stage("stuck"))
    assert list((tmp_path / "out").glob(".partial-*/half.txt"))
    workers = family()
    assert len(workers) == 2
    asked = time.monotonic()
    job.cancel()
    follow(job)
    assert time.monotonic() - asked < 3
    assert gone(workers, 0.5)
    assert not list((tmp_path / "out").iterdir())
    assert not list(temporary_files.iterdir())
    # Asked twice, by signal and standard input, it was interrupted once.
    assert job.log_tail().count("Cancelled(") == 1


@posix
def test_a_killed_worker_is_explained_and_cleaned_up_after(tmp_path, temporary_files):
    job = WorkerJob([tmp_path / "out" / "result"], program(tmp_path / "stuck", STUCK))
    job.start()
    follow(job, at_stage("stuck"))
    workers = family()
    os.kill(workers[0].pid, signal.SIGKILL)
    events = follow(job, seconds=10)
    assert job.state == "failed"
    assert job.error.code == events[-1]["code"] == "killed"
    assert "memory" in job.error.message
    assert gone(workers, 1)
    assert not list((tmp_path / "out").iterdir())
    assert not list(temporary_files.iterdir())


@posix
def test_a_worker_behind_a_launcher_is_waited_for(tmp_path, temporary_files):
    """Slicer's Python is a launcher, which the signal ends before the worker has removed its files."""
    worker = program(tmp_path / "stuck", STUCK).python
    body = f"import subprocess, sys\nsys.exit(subprocess.call([{str(worker)!r}, *sys.argv[1:]]))\n"
    job = WorkerJob([tmp_path / "out" / "result"], program(tmp_path / "launcher", body))
    job.start()
    follow(job, at_stage("stuck"))
    workers = family()
    assert len(workers) == 3
    asked = time.monotonic()
    job.cancel()
    follow(job)
    assert time.monotonic() - asked < 3
    assert gone(workers, 0.5)
    assert not list((tmp_path / "out").iterdir())
    assert not list(temporary_files.iterdir())


@posix
@pytest.mark.parametrize("psutil_is_there", [True, False])
def test_closing_with_the_application_leaves_nothing(tmp_path, temporary_files, monkeypatch, psutil_is_there):
    if not psutil_is_there:
        monkeypatch.setattr("CMBDetectorLib.processes._descendants", lambda pid: None)
    # This one does not even follow its standard input.
    body = STUCK.replace("follow_stdin()\n", "").replace("_catch_signals()\n", "")
    body = body.replace("while True", "import signal; signal.signal(15, signal.SIG_IGN)\n    while True")
    job = WorkerJob([tmp_path / "out" / "result"], program(tmp_path / "deaf", body))
    job.start()
    follow(job, at_stage("stuck"))
    workers = family()
    asked = time.monotonic()
    job.close()
    assert time.monotonic() - asked < 3
    assert gone(workers, 0.5)
    assert job.state == "cancelled"
    assert not list(temporary_files.iterdir())
    job.close()


@posix
@pytest.mark.parametrize("real", [True, False], ids=["in N4", "stuck"])
def test_a_host_that_is_killed_leaves_no_worker(large, tmp_path, temporary_files, real):
    out = tmp_path / "out" / "result"
    arguments = ["preprocess", str(large), "--output", str(out), "--brain-mask", "none"] if real else [str(out)]
    python = sys.executable if real else program(tmp_path / "stuck", STUCK).python
    host = (
        "import sys, time\nfrom pathlib import Path\n"
        "from CMBDetectorLib.runtime.interpreter import Interpreter\nfrom CMBDetectorLib.gui.job import WorkerJob\n"
        f"job = WorkerJob({arguments!r}, Interpreter(Path({str(python)!r})))\njob.start()\n"
        "while True:\n    job.poll(); time.sleep(0.05)\n    print(job.stage, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", host], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(temporary_files), "PYTHONPATH": str(LIBRARY)},
    )  # fmt: skip
    for line in process.stdout:
        if line.strip() in ("bias field", "stuck"):
            break
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) == (1 if real else 2)
    process.kill()
    process.wait()
    process.stdout.close()
    assert gone(workers, 3)
    assert not list((tmp_path / "out").glob(".partial-*"))
    assert not list(temporary_files.iterdir())


def test_a_missing_interpreter_is_a_sentence(tmp_path, temporary_files):
    job = WorkerJob(["models", "list"], Interpreter(tmp_path / "no python"))
    job.start()
    assert job.state == "failed"
    assert job.alive
    events = job.poll()
    assert [event["event"] for event in events] == ["error"]
    assert events[0]["code"] == "interpreter"
    assert "no python cannot be started" in job.error.message
    assert not job.alive
    assert not list(temporary_files.iterdir())
    job.cancel()
    job.close()
    assert job.state == "failed"


@posix
def test_a_silent_worker_is_stopped(tmp_path, temporary_files):
    body = 'import time\nprint(\'{"event": "heartbeat"}\', flush=True)\ntime.sleep(60)\n'
    job = WorkerJob([], program(tmp_path / "silent", body), silent_after_s=1.0)
    job.start()
    started = time.monotonic()
    follow(job, lambda events: bool(events))
    # An application that was busy itself must not take its own silence for the worker's.
    time.sleep(1.5)
    assert job.poll() == []
    assert job.state == "running"
    events = follow(job)
    assert time.monotonic() - started < 10
    assert job.state == "failed"
    assert [event["code"] for event in events] == ["silent"]
    assert "1 seconds" in job.error.message
    assert not family()
    assert not list(temporary_files.iterdir())


@posix
def test_lines_that_are_no_events_are_passed_over(tmp_path, caplog):
    body = (
        "import sys\n"
        'for line in (b"hello", b"\\xff\\xfe", b"[1]", b\'{"event": 3}\', b"", b"[" * 50000, b\'{"event": "lo\',\n'
        '             b\'{"event": "progress", "stage": "s", "fraction": "x", "left_s": NaN}\',\n'
        '             b\'{"event": "progress", "stage": "t", "fraction": 7, "left_s": true}\',\n'
        '             b\'{"event": "result", "a": 1}\', b\'{"event": "error", "message": "late"}\'):\n'
        "    sys.stdout.buffer.write(line + bytes([10]))\n"
    )
    job = WorkerJob([], program(tmp_path / "babbling", body))
    job.start()
    events = follow(job)
    assert [event["event"] for event in events] == ["progress", "progress", "result"]
    assert (job.state, job.stage, job.fraction, job.left_s) == ("done", "t", 1, None)
    assert job.result == {"a": 1}
    assert sum("no event" in record.message for record in caplog.records) == 7


@posix
@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("import os; os.abort()", "crash", "signal 6"),
        ("import absent_package.part", "missing-package", "absent_package"),
        ("import sys; sys.exit('odd')", "error", "exit code 1"),
        ("", "error", "without a result"),
        ("import sys; sys.exit(6)", "cancelled", "Cancelled"),
    ],
)
def test_an_end_without_a_word_is_explained(tmp_path, body, code, words):
    job = WorkerJob([], program(tmp_path / "program", body))
    job.start()
    assert follow(job)[-1]["event"] == "error"
    assert job.error.code == code
    assert words in job.error.message
    assert job.state == ("cancelled" if code == "cancelled" else "failed")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (-4, "crash"), (3221225501, "crash"), (-1073741795, "crash"), (3221225477, "crash"), (137, "killed"),
        (3221225781, "missing-package"), (5, "memory"), (2, "bad-input"), (4, "model"), (77, "error"),
    ],
)  # fmt: skip
def test_every_exit_code_has_a_sentence(code, kind):
    error = explain(code, "")
    assert error.code == kind
    assert error.message.endswith(".")
    assert error.hint.endswith(".")


def test_real_jobs_in_the_queue_never_overlap(tmp_path):
    queue = JobQueue()
    for key in ("one", "two"):
        queue.add(key, key, lambda: WorkerJob(["models", "list"], OWN))
    told, end = [], time.monotonic() + 60
    while not queue.is_idle and time.monotonic() < end:
        told += queue.tick()
        assert len(family()) <= 1
        time.sleep(0.05)
    assert [(key, event["event"]) for key, event in told if event["event"] in ("started", "result", "error")] == [
        ("one", "started"), ("one", "result"), ("two", "started"), ("two", "result"),
    ]  # fmt: skip


def test_the_name_of_a_scan_is_recorded_instead_of_its_files(worker, head, tmp_path):
    if not bundled_versions():
        pytest.skip("no model is bundled")
    small = read_volume(head)
    write_volume(tmp_path / "temporary.nii.gz", Volume(small.array[:40, :40, :12], small.ijk_to_ras))
    arguments = ("--output", tmp_path / "o", "--brain-mask", "none")
    name = " 5:\tSWI/mIP\n<Kopf> 'Ü'\x1b "
    run = worker("detect", tmp_path / "temporary.nii.gz", *arguments, "--scan-name", name)
    assert run.code == 0, run.stderr[-2000:]
    assert json.loads((tmp_path / "o" / "candidates.json").read_text())["scan"]["name"] == "5: SWI-mIP <Kopf> 'Ü'"
    report = (tmp_path / "o" / "report.html").read_text(encoding="utf-8")
    assert "&lt;Kopf&gt;" in report
    assert "temporary.nii" not in report


def test_simulate_tells_where_the_scans_are(head, tmp_path, monkeypatch):
    made = [Path(name) for name in ("sub-01/swi/sub-01_swi.nii.gz", "sub-02/anat/sub-02_T2starw.nii.gz")]

    def simulate_dataset(output: Path, *settings: object, **others: object) -> None:
        for path in made:
            (output / path).parent.mkdir(parents=True)
            shutil.copyfile(head, output / path)

    # Simulating takes ten seconds, and other tests do it; here the question is what the module is told.
    monkeypatch.setattr("CMBDetectorLib.simulation.dataset.simulate_dataset", simulate_dataset)
    monkeypatch.chdir(tmp_path)
    options = argparse.Namespace(output=Path("d"), scans=2, seed=1, protocol="crop", microbleeds=None, vary=False)
    data, _ = simulate.run(options, Listener())
    assert data["scans"] == [str(tmp_path / "d" / path) for path in made]
