"""What becomes of a detection when memory runs out, the worker is killed, hangs or stands still: real workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from jobs import OWN, at_stage, family, follow, gone, program

from CMBDetectorLib.candidate import read_detection
from CMBDetectorLib.datasets.bids import read_dataset
from CMBDetectorLib.errors import OutOfMemoryError, is_out_of_memory
from CMBDetectorLib.gui.endings import NO_MEMORY_TWICE, explain
from CMBDetectorLib.gui.job import WorkerJob
from CMBDetectorLib.gui.worker_process import sweep
from CMBDetectorLib.locking import FileLock
from CMBDetectorLib.runtime.interpreter import LIBRARY
from CMBDetectorLib.volume import Volume, write_volume
from CMBDetectorLib.worker.options import LOW_MEMORY

pytestmark = pytest.mark.skipif(os.name == "nt", reason="scripts as programs, and signals, are POSIX")

# The real worker; what runs before it is put in front.
WORKER = f"""
import os, runpy, signal, sys, time
sys.path.insert(0, {str(LIBRARY)!r})
is_sparing = {LOW_MEMORY!r} in sys.argv
sys.argv = sys.argv[2:]
%s
runpy.run_module("CMBDetectorLib", run_name="__main__", alter_sys=True)
"""
# Before TensorFlow is loaded, so that the tests are quick.
KILLED = """
from CMBDetectorLib.worker.commands import detect
def killed(*given, **named):
    if not is_sparing:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*given, **named)
real, detect.preprocess = detect.preprocess, killed
"""
SHORT_OF_MEMORY = """
from CMBDetectorLib.worker.commands import detect
def short(*_, **__):
    raise MemoryError
detect.preprocess = short
"""


@pytest.fixture(autouse=True)
def _no_leftovers():
    yield
    for process in family():
        process.kill()


@pytest.fixture
def temporary_files(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture(scope="module")
def scan(crops) -> Path:
    return read_dataset(crops)[0].scan


def detection(scan, tiny_model, output, interpreter, **limits) -> WorkerJob:
    arguments = ["detect", scan, "--output", output, "--model", tiny_model, "--brain-mask", "none"]
    arguments += ["--stage1-threshold", "0.05"]
    return WorkerJob(arguments, interpreter, when_memory_is_short=[LOW_MEMORY], **limits)


def test_a_worker_that_is_killed_is_started_once_more_with_less_memory(scan, tiny_model, tmp_path, temporary_files):
    output = tmp_path / "o"
    job = detection(scan, tiny_model, output, program(tmp_path / "python", WORKER % KILLED))
    job.start()
    events = follow(job, seconds=600)
    assert job.state == "done", (job.error, job.log_tail())
    assert [event["event"] for event in events].count("result") == 1
    told = [event["message"] for event in events if event["event"] == "log"]
    assert sum("smaller pieces" in message for message in told) == 1
    assert len(read_detection(output / "candidates.json").candidates) == job.result["candidates"]
    assert not list(temporary_files.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o", "python", "tmp"]


@pytest.mark.parametrize("first", ["", KILLED], ids=["told", "killed"])
def test_a_worker_that_runs_out_of_memory_twice_is_given_up(scan, tiny_model, tmp_path, temporary_files, first):
    """``first``: whether the first attempt ends with a word about it or without."""
    counted = f"open({str(tmp_path / 'starts')!r}, 'a').write('2' if is_sparing else '1')\n"
    body = counted + SHORT_OF_MEMORY + first
    job = detection(scan, tiny_model, tmp_path / "o", program(tmp_path / "python", WORKER % body))
    job.start()
    events = follow(job, seconds=600)
    assert job.state == "failed"
    assert [event["event"] for event in events if event["event"] in ("result", "error")] == ["error"]
    assert job.error == NO_MEMORY_TWICE
    assert (tmp_path / "starts").read_text() == "12"
    # For who opens the details.
    assert "MemoryError" in job.log_tail()
    assert not (tmp_path / "o").exists()
    assert not list(temporary_files.iterdir())


def test_a_job_that_cannot_do_with_less_is_not_repeated(tmp_path, temporary_files):
    body = f"open({str(tmp_path / 'starts')!r}, 'a').write('x')\nimport os\nos.kill(os.getpid(), 9)\n"
    job = WorkerJob([], program(tmp_path / "python", body))
    job.start()
    follow(job)
    assert (job.state, job.error.code) == ("failed", "killed")
    assert (tmp_path / "starts").read_text() == "x"


def test_cancelling_the_second_attempt(scan, tiny_model, tmp_path, temporary_files):
    job = detection(scan, tiny_model, tmp_path / "o", program(tmp_path / "python", WORKER % KILLED))
    job.start()
    follow(job, lambda events: any("smaller pieces" in event.get("message", "") for event in events))
    job.cancel()
    events = follow(job)
    assert [event["code"] for event in events if event["event"] == "error"] == ["cancelled"]
    assert job.state == "cancelled"
    assert not family()
    assert not (tmp_path / "o").exists()


def test_a_worker_that_stands_still_is_noticed_and_stopped(tmp_path, temporary_files):
    array = np.random.default_rng(0).normal(500, 60, (200, 200, 80)).astype(np.float32)
    write_volume(tmp_path / "large.nii", Volume(array, np.diag([0.9, 0.9, 2.0, 1.0])))
    arguments = ["preprocess", tmp_path / "large.nii", "--output", tmp_path / "o", "--brain-mask", "none"]
    job = WorkerJob(arguments, OWN, silent_after_s=2.5)
    job.start()
    follow(job, at_stage("bias field"))
    workers = family()
    assert len(workers) == 1
    os.kill(workers[0].pid, signal.SIGSTOP)
    stopped = time.monotonic()
    follow(job)
    assert time.monotonic() - stopped < 15
    assert (job.state, job.error.code) == ("failed", "silent")
    assert "no sign of life for 2 seconds" in job.error.message
    assert gone(workers, 1)
    assert not (tmp_path / "o").exists()
    assert not list(tmp_path.glob(".partial-*"))
    assert not list(temporary_files.iterdir())


@pytest.mark.parametrize(("cpu_s", "ends"), [("0.1", True), ("2 * n", False)])
def test_a_heart_that_beats_without_work_is_not_life(tmp_path, temporary_files, cpu_s, ends):
    body = (
        "import json, time\nfor n in range(1, 30):\n"
        f"    print(json.dumps({{'event': 'heartbeat', 'cpu_s': {cpu_s}}}), flush=True)\n    time.sleep(0.2)\n"
        'print(\'{"event": "result"}\')\n'
    )
    job = WorkerJob([], program(tmp_path / "waiting", body), idle_after_s=2.0)
    job.start()
    follow(job)
    if ends:
        assert (job.state, job.error.code) == ("failed", "silent")
        assert "did nothing for 2 seconds" in job.error.message
    else:
        assert job.state == "done"
    assert not family()


def test_the_real_heartbeat_counts_the_work_of_the_worker_and_its_children(tmp_path):
    body = (
        "import os, subprocess, sys, time\n"
        f"sys.path.insert(0, {str(LIBRARY)!r})\n"
        "from CMBDetectorLib.worker import listeners\n"
        "listeners._BEATS_PER_LOOK = 1\n"
        "code = 'import time\\nend = time.process_time() + 2\\nwhile time.process_time() < end: pass\\ninput()'\n"
        "child = subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.PIPE)\n"
        "stream = listeners.EventStream(os.dup(1))\n"
        "time.sleep(300)\n"
    )
    job = WorkerJob([], program(tmp_path / "busy", body))
    job.start()
    used = [0.0]
    end = time.monotonic() + 200
    # The worker itself only sleeps.
    while used[-1] < 1.5 and time.monotonic() < end:
        used += [event["cpu_s"] for event in job.poll() if event["event"] == "heartbeat"]
        time.sleep(0.05)
    job.close()
    assert used == sorted(used)
    assert used[-1] >= 1.5


def _host_and_worker_killed(tmp_path) -> tuple[Path, Path]:
    """Return folder of temporary files and of results, as a kill of both leaves them."""
    temporary, out = tmp_path / "tmp", tmp_path / "out"
    temporary.mkdir()
    half = (
        "import os, sys, time\nfrom pathlib import Path\n"
        f"sys.path.insert(0, {str(LIBRARY)!r})\n"
        "from CMBDetectorLib import temporary\nfrom CMBDetectorLib.files import output_folder\n"
        "temporary.keep_journal(Path(os.environ['CMBDETECTOR_JOB_FOLDER']) / 'temporary.txt')\n"
        f"with output_folder({str(out / 'result')!r}, ['*']) as folder:\n"
        '    print(\'{"event": "heartbeat"}\', flush=True)\n    time.sleep(600)\n'
    )
    python = program(tmp_path / "half", half).python
    host = (
        "import time\nfrom pathlib import Path\n"
        "from CMBDetectorLib.runtime.interpreter import Interpreter\nfrom CMBDetectorLib.gui.job import WorkerJob\n"
        f"job = WorkerJob([], Interpreter(Path({str(python)!r})))\njob.start()\n"
        "while True:\n    print(*[event['event'] for event in job.poll()], flush=True)\n    time.sleep(0.1)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", host], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(LIBRARY)},
    )  # fmt: skip
    while process.stdout.readline().strip() != "heartbeat":
        pass
    both = [*psutil.Process(process.pid).children(recursive=True), process]
    for one in both:
        one.kill()
    process.wait()
    process.stdout.close()
    assert gone(both[:-1], 3)
    return temporary, out


def test_what_a_kill_of_host_and_worker_leaves_goes_with_the_next_job(tmp_path, monkeypatch):
    temporary, out = _host_and_worker_killed(tmp_path)
    (left,) = temporary.iterdir()
    assert list(out.glob(".partial-*"))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    # What is young may belong to an instance that is just starting.
    sweep()
    assert left.exists()
    for when in (time.time() - 100, time.time() + 1e6):
        os.utime(left, (when, when))
        lock = FileLock(left / "host.lock")
        assert lock.acquire()
        os.utime(left, (when, when))
        sweep()
        assert left.exists()
        lock.release()
    os.utime(left, (0, 0))
    (temporary / "cmbd-job-link").symlink_to(out)
    job = WorkerJob([], program(tmp_path / "short", 'print(\'{"event": "result"}\')'))
    job.start()
    follow(job)
    assert job.state == "done"
    assert not list(out.iterdir())
    assert [path.name for path in temporary.iterdir()] == ["cmbd-job-link"]


@pytest.mark.parametrize(
    ("code", "log"),
    [
        (-6, "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n"),
        (1, "ImportError: x.so: failed to map segment from shared object\n"),
        (0xC0000017, ""),
        (0xC000012D - (1 << 32), ""),
    ],
)
def test_ends_that_tell_of_memory(code, log):
    assert explain(code, log).code == OutOfMemoryError.code


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (OSError(12, "Cannot allocate memory"), True),
        (OSError(28, "No space left on device"), False),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("ITK ERROR: ImportImageContainer: Failed to allocate memory for image."), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("Could not open the file."), False),
        (ImportError("libx.so: failed to map segment from shared object"), True),
        (ImportError("No module named 'x'"), False),
        (type("ResourceExhaustedError", (Exception,), {})("OOM when allocating tensor"), True),
        (ValueError("out of memory"), False),
    ],
)
def test_words_of_libraries_for_no_memory(error, is_memory):
    assert is_out_of_memory(error) is is_memory


def test_the_words_of_numpy_and_of_itk_are_known():
    """Said by the libraries themselves, in a process that may not have more memory."""
    code = """
        import resource, sys
        import numpy as np
        import SimpleITK as sitk
        from CMBDetectorLib.errors import is_out_of_memory
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
        for ask in (lambda: np.zeros((4 << 30,), np.uint8), lambda: sitk.Image([2048, 2048, 1024], sitk.sitkFloat32)):
            try:
                ask()
            except BaseException as error:
                print(is_out_of_memory(error), type(error).__name__, str(error)[-100:].replace("\\n", " "))
    """
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(line[8:] for line in code.splitlines())],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(LIBRARY), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done
    assert all(line.startswith("True") for line in lines), lines
