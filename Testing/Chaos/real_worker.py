"""Real detections by a tiny model, as the module starts and follows them."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from conftest import run_worker

from CMBDetectorLib.candidate import Candidate, read_detection
from CMBDetectorLib.errors import CMBDetectorError
from CMBDetectorLib.gui.job import WorkerJob
from CMBDetectorLib.runtime.interpreter import Interpreter

SHARED = "CMBDETECTOR_CHAOS_SHARED"
"""The environment variable that names a folder where the tiny model is kept from one run to the next."""
OWN = Interpreter(Path(sys.executable))
_GONE_S = 3.0
_POLL_S = 0.02
_RESULT = ("candidates.json", "candidates.csv", "candidates.mrk.json", "report.html")
_KEPT = ("brain_mask.nii",)


@dataclass
class Followed:
    """How a job ended: ``state`` and ``code`` as of the job, what it said, seconds, and processes it left."""

    state: str
    code: str
    words: str
    log: str
    seconds: float
    left: list[int]
    notes: list[str]


def scan_and_model(folder: Path) -> tuple[Path, Path]:
    """Simulate a small scan and train a bundle of tiny networks on it, or take those of an earlier run."""
    shared = Path(os.environ.get(SHARED) or folder / "shared")
    crops, model = shared / "crops", shared / "tiny"
    if not (model / "model.json").is_file():
        shared.mkdir(parents=True, exist_ok=True)
        _made("simulate", "--scans", "2", "--seed", "7", "--protocol", "crop", "--microbleeds", "12", "--output", crops)
        _made("train", crops, "--output", model, "--tiny", "--recipe", "paper", "--epochs", "3", "--steps", "20",
              "--seed", "1")  # fmt: skip
    return next(crops.glob("sub-01/*/*.nii.gz")), model


def arguments(scan: Path, model: Path, output: Path) -> list[str]:
    """Return the command of a detection whose result is small and the same each time."""
    command = ["detect", str(scan), "--output", str(output), "--model", str(model), "--brain-mask", "none"]
    return [*command, "--stage1-threshold", "0.05", "--keep", "brain-mask-raw"]


def follow(job: WorkerJob, act: Callable[[WorkerJob, float], bool] = lambda job, seconds: False) -> Followed:
    """Start ``job`` and poll it to its end, as the module does; ``act(job, seconds)`` may do something to it, once."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    notes: list[str] = []
    started = time.monotonic()
    job.start()
    acted = False
    while job.alive:
        notes += [event["message"] for event in job.poll() if event["event"] == "log"]
        acted = acted or act(job, time.monotonic() - started)
        time.sleep(_POLL_S)
    error = job.error
    words = f"{error.message} {error.hint}" if error is not None else ""
    left = _left(before)
    code = error.code if error is not None else ""
    return Followed(job.state, code, words, job.log_tail(), time.monotonic() - started, left, notes)


def result_of(output: Path) -> list[Candidate] | None:
    """Return the candidates in a result folder, ``None`` where there is none.

    Raises:
        ValueError: there is half of one.
    """
    if not output.exists():
        return None
    missing = [name for name in (*_RESULT, *_KEPT) if not (output / name).is_file()]
    if missing:
        raise ValueError(f"the result lacks {', '.join(missing)}")
    if not (output / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>"):
        raise ValueError("the report is cut")
    try:
        return read_detection(output / "candidates.json").candidates
    except CMBDetectorError as error:
        raise ValueError(error.message) from error


def workers() -> list[psutil.Process]:
    """Return the workers of this process and all they started."""
    return psutil.Process().children(recursive=True)


def temporary_names() -> list[str]:
    """Return what jobs have left in the folder of temporary files."""
    return [path.name for path in Path(tempfile.gettempdir()).glob("cmbd-job-*")]


def _left(before: set[int]) -> list[int]:
    end = time.monotonic() + _GONE_S
    while True:
        left = [p.pid for p in workers() if p.pid not in before and p.status() != psutil.STATUS_ZOMBIE]
        if not left or time.monotonic() > end:
            return left
        time.sleep(_POLL_S)


def _made(*command: object) -> None:
    run = run_worker(*command)
    if run.code != 0:
        raise RuntimeError(run.stderr[-2000:])


def words_are_missing(followed: Followed, codes: Sequence[str]) -> str:
    """Return what is wrong with how a job failed, "" where it has one of ``codes`` and a sentence with a next step."""
    if followed.code not in codes:
        return f"the end is called {followed.code or followed.state}: {followed.words} {followed.log[-300:]}"
    sentences = followed.words.count(". ") + followed.words.endswith(".")
    return "" if sentences >= 2 else f"no sentence with a next step: {followed.words}"
