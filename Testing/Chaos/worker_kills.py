"""kill -9 of the worker, and of the host while a worker computes for it, at random moments of real detections."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import real_worker
from outcome import Chaos, Outcome

from CMBDetectorLib.gui import worker_process
from CMBDetectorLib.gui.job import WorkerJob

_HOST = """
import sys, time
from pathlib import Path
from CMBDetectorLib.runtime.interpreter import Interpreter
from CMBDetectorLib.gui.job import WorkerJob
job = WorkerJob(sys.argv[1:], Interpreter(Path(sys.executable)))
job.start()
print("started", flush=True)
while job.alive:
    job.poll(); time.sleep(0.02)
"""
_GONE_S = 4.0


def worker(chaos: Chaos) -> Outcome:
    """The worker is killed: the host says so, the result is the old one, a new one or none, nothing is left."""
    outcome = Outcome("kill -9 of the worker: detections")
    chance, top = chaos.random("worker kills"), chaos.place("worker-kills")
    output = top / "o"
    whole = real_worker.follow(WorkerJob(real_worker.arguments(chaos.scan, chaos.model, output), real_worker.OWN))
    expected = real_worker.result_of(output)
    outcome.check(whole.state == "done", f"not even undisturbed: {whole.words} {whole.log}")
    killed = 0
    for number in range(chaos.times(24)):
        outcome.tries += 1
        # Every other time there is an earlier result in its place.
        output = top / ("o" if number % 2 else f"o-{number}")
        moment = chance.uniform(0, 1.02 * whole.seconds)

        def kill(job: WorkerJob, seconds: float, moment: float = moment) -> bool:
            if seconds < moment:
                return False
            for process in real_worker.workers():
                os.kill(process.pid, signal.SIGKILL)
            return True

        command = real_worker.arguments(chaos.scan, chaos.model, output)
        ended = real_worker.follow(WorkerJob(command, real_worker.OWN), kill)
        if ended.state != "done":
            killed += 1
            loss = real_worker.words_are_missing(ended, ["killed"])
            outcome.check(not loss, loss)
        _look(outcome, output, expected, is_old=number % 2 == 1)
        outcome.check(not ended.left, f"processes are left: {ended.left}")
    again = real_worker.follow(WorkerJob(real_worker.arguments(chaos.scan, chaos.model, top / "o"), real_worker.OWN))
    outcome.check(again.state == "done", f"the next run fails: {again.words}")
    outcome.note = f"{killed} before the end; a detection takes {whole.seconds:.0f} s here"
    return outcome


def host(chaos: Chaos) -> Outcome:
    """The host is killed: its worker ends by itself and leaves no half of a result."""
    outcome = Outcome("kill -9 of the host: while a worker computes for it")
    chance, top = chaos.random("host kills"), chaos.place("host-kills")
    expected, seconds, swept = None, 5.0, 0
    for number in range(chaos.times(12) + 1):
        output, temporary = top / f"o-{number}", top / f"tmp-{number}"
        temporary.mkdir()
        command = real_worker.arguments(chaos.scan, chaos.model, output)
        environment = {**os.environ, "TMPDIR": str(temporary)}
        process = subprocess.Popen([sys.executable, "-c", _HOST, *command], stdout=subprocess.PIPE, env=environment)
        process.stdout.readline()
        started = time.monotonic()
        if number == 0:
            process.wait()
            expected, seconds = real_worker.result_of(output), time.monotonic() - started
            continue
        outcome.tries += 1
        moment = chance.uniform(0, seconds)
        time.sleep(moment)
        family = _family(process)
        process.kill()
        process.wait()
        process.stdout.close()
        outcome.check(_gone(family), "a worker outlives its host")
        _look(outcome, output, expected, is_old=False)
        left = [str(path.relative_to(temporary)) for path in temporary.rglob("*")]
        swept += bool(left)
        outcome.check(not _after_the_next_start(temporary), f"killed after {moment:.2f} s, for ever left: {left}")
    outcome.note = f"{swept} times the next start removed temporary files"
    return outcome


def _after_the_next_start(temporary: Path) -> list[str]:
    """Return what of a killed host is left once the next one has started a worker."""
    for path in temporary.iterdir():
        # As if that were some minutes later.
        os.utime(path, (0, 0))
    before, tempfile.tempdir = tempfile.tempdir, str(temporary)
    try:
        worker_process.sweep()
    finally:
        tempfile.tempdir = before
    return [path.name for path in temporary.iterdir()]


def _look(outcome: Outcome, output: Path, expected: list | None, is_old: bool) -> None:
    try:
        found = real_worker.result_of(output)
    except ValueError as error:
        outcome.losses.append(str(error))
        return
    outcome.check(found == expected or (found is None and not is_old), "the earlier result is gone or another one")
    left = [path.name for path in output.parent.glob(".partial-*")]
    outcome.check(not left, f"half a result is left: {left}")


def _family(process: subprocess.Popen) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _gone(family: list[psutil.Process]) -> bool:
    end = time.monotonic() + _GONE_S
    while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
