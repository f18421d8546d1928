"""Detections in the background: a queue of scans, each exported, searched by the worker, and put into the scene."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from CMBDetectorLib.candidate import Detection, read_detection
from CMBDetectorLib.errors import CMBDetectorError
from CMBDetectorLib.gui import preferences, scene
from CMBDetectorLib.gui.endings import CANCELLED, JobError
from CMBDetectorLib.gui.job import WorkerJob
from CMBDetectorLib.gui.job_queue import JobQueue
from CMBDetectorLib.gui.scan_job import MASK_FILE, SCAN_FILE, ScanJob
from CMBDetectorLib.gui.scan_node import key_of, scan_volume
from CMBDetectorLib.runtime.interpreter import Interpreter, find_interpreter
from CMBDetectorLib.volume import Volume
from CMBDetectorLib.worker.options import LOW_MEMORY

SAMPLE = "sample"
SAMPLE_PROTOCOL = "swi-3t"
_SAMPLE_SEED = "2026"
_SAMPLE_MICROBLEEDS = "8"
_LOGGER = logging.getLogger("CMBDetector")


@dataclass(frozen=True)
class Settings:
    """What the user chose: method of the brain mask ("node": ``mask_node_id`` is the mask), and the model."""

    brain_mask: str = "auto"
    mask_node_id: str | None = None
    model: str = ""


@dataclass(frozen=True)
class Progress:
    """How far the running job is: ``fraction`` 0..1, times in seconds (``left_s`` is ``None`` while unknown)."""

    title: str
    stage: str
    fraction: float
    elapsed_s: float
    left_s: float | None

    def sentence(self) -> str:
        """Return one line for the panel."""
        left = f", {_('about')} {_clock(self.left_s)} {_('left')}" if self.left_s is not None else ""
        stage = self.stage or _("starting")
        return f"{self.title}: {stage} - {100 * self.fraction:.0f} %, {_clock(self.elapsed_s)}{left}"


@dataclass
class Outcome:
    """How a job ended: ``key`` is the scan's node id or "sample", exactly one of the others says how. ``scan_key``
    tells which scan was handed over: a node may hold another one by now."""

    key: str
    title: str
    scan_key: str = ""
    detection: Detection | None = None
    folder: Path | None = None
    mask: Volume | None = None
    sample: Path | None = None
    error: JobError | None = None
    log: str = ""

    @property
    def is_cancelled(self) -> bool:
        """Whether the user stopped it."""
        return self.error is not None and self.error.code == "cancelled"


class DetectionLogic:
    """The jobs of the module. :meth:`tick` is called about every 100 ms and tells what happened by callbacks.

    ``on_busy()``, ``on_progress(Progress)``, ``on_end(Outcome)``, ``on_note(sentence)`` and ``on_idle()`` are set by
    the module; between busy and idle somebody must call :meth:`tick`.
    """

    def __init__(self) -> None:
        self.on_busy: Callable[[], None] = lambda: None
        self.on_progress: Callable[[Progress], None] = lambda progress: None
        self.on_end: Callable[[Outcome], None] = lambda outcome: None
        self.on_note: Callable[[str], None] = lambda note: None
        self.on_idle: Callable[[], None] = lambda: None
        self.last_report: Path | None = None
        self._queue = JobQueue()
        self._others: dict[str, Callable[[dict[str, Any]], None]] = {}
        self._jobs: dict[str, WorkerJob] = {}
        self._titles: dict[str, str] = {}
        self._scan_keys: dict[str, str] = {}
        self._folders: dict[str, Path] = {}
        self._kept: Path | None = None
        self._ended: list[tuple[str, dict[str, Any]]] = []
        self._read: tuple[Outcome, Path | None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether anything runs or waits, or its result is still to be told: somebody must call :meth:`tick`."""
        return not self._queue.is_idle or bool(self._ended) or self._read is not None

    @property
    def is_running(self) -> bool:
        """Whether a scan or the sample runs or waits, or its result is still to be told."""
        own = [key for key in (self._queue.current, *dict(self._queue.pending)) if key not in (None, *self._others)]
        return bool(own) or bool(self._titles) or bool(self._ended) or self._read is not None

    @property
    def runs_other(self) -> bool:
        """Whether work of another kind has its turn: scans wait for it."""
        return self._queue.current in self._others

    def is_waiting_or_running(self, key: str) -> bool:
        """Whether the scan (node id) or the sample is under way."""
        return key in self._titles

    def waiting(self) -> list[tuple[str, str]]:
        """Return (key, title) of the jobs that wait, in their order."""
        return self._queue.pending

    def add_other(
        self, key: str, title: str, make: Callable[[], WorkerJob], listener: Callable[[dict[str, Any]], None]
    ) -> None:
        """Queue work of another kind, so that it and the scans do not fight for the processor.

        ``listener`` gets its events, of which the last is a result or an error (:class:`JobQueue`).

        Raises:
            ValueError: ``key`` is in the queue already.
        """
        self._queue.add(key, title, make)
        self._others[key] = listener
        self.on_busy()

    def job(self, key: str) -> WorkerJob | None:
        """Return the job ``key`` while it has its turn."""
        return self._queue.current_job if self._queue.current == key else None

    def add(self, scan: slicer.vtkMRMLScalarVolumeNode, settings: Settings) -> None:
        """Queue a scan.

        Raises:
            CMBDetectorError: it waits already, has no image, or there is no interpreter for the worker.
        """
        key = scan.GetID()
        if scan_volume(scan) is None:
            raise CMBDetectorError(_("This volume holds no 3D image."), _("Choose the SWI or T2* scan."))
        if key in self._titles:
            raise CMBDetectorError(_("This scan is being searched already."), _("Wait for it, or cancel it."))
        interpreter = worker_interpreter()

        def make() -> WorkerJob:
            folder = preferences.temporary_folder("scan")
            self._folders[key] = folder
            node = slicer.mrmlScene.GetNodeByID(key)
            self._scan_keys[key] = (key_of(node) or "") if node is not None else ""
            name = f"scan-{self._scan_keys[key][:8]}"
            arguments = _arguments(settings, folder, name)
            job = ScanJob(key, settings.mask_node_id, folder, arguments, interpreter, [LOW_MEMORY])
            return self._made(key, job)

        self._titles[key] = scan.GetName()
        self._queue.add(key, scan.GetName(), make)
        self.on_busy()

    def add_sample(self) -> None:
        """Queue the making of a simulated scan.

        Raises:
            CMBDetectorError: there is no interpreter for the worker.
        """
        interpreter = worker_interpreter()

        def make() -> WorkerJob:
            folder = preferences.temporary_folder("sample")
            self._folders[SAMPLE] = folder
            arguments = ["simulate", "--scans", "1", "--seed", _SAMPLE_SEED, "--microbleeds", _SAMPLE_MICROBLEEDS]
            arguments += ["--protocol", sample_protocol(), "--output", str(folder / "dataset")]
            return self._made(SAMPLE, WorkerJob(arguments, interpreter))

        self._titles[SAMPLE] = _("Sample")
        self._queue.add(SAMPLE, _("Sample"), make)
        self.on_busy()

    def cancel(self) -> None:
        """Stop the scan or sample that runs, or while other work runs the first that waits."""
        keys = (self._queue.current, *dict(self._queue.pending))
        own = next((key for key in keys if key is not None and key not in self._others), None)
        if own is not None:
            self._queue.cancel(own)

    def take_out(self, key: str) -> None:
        """Stop the job ``key``, or take it out of the queue."""
        self._queue.cancel(key)

    def cancel_all(self) -> None:
        """Stop the sample and all scans; other work needs no scene and goes on.

        What ended but was not told yet counts as stopped, too: the next scene gives its nodes the same ids.
        """
        for key in (*dict(self._queue.pending), self._queue.current):
            if key is not None and key not in self._others:
                self._queue.cancel(key)
        self._ended = [(key, {"event": "error", **CANCELLED._asdict()}) for key, _event in self._ended]
        if self._read is not None:
            outcome, folder = self._read
            self._read = Outcome(outcome.key, outcome.title, error=CANCELLED), folder

    def tick(self) -> None:
        """Follow the jobs; called by a timer on the main thread."""
        was_busy = self.is_running
        ended = []
        for key, event in self._queue.tick():
            kind = event.get("event")
            if key in self._others:
                self._tell_other(key, event)
            elif kind == "log":
                self.on_note(str(event.get("message", "")))
            elif kind in ("result", "error"):
                ended.append((key, event))
        current = self._queue.current
        job = self._jobs.get(current) if current is not None else None
        if job is not None and job.state == "running":
            title = self._titles.get(current, "")
            self.on_progress(Progress(title, job.stage, job.fraction, job.elapsed_s, job.left_s))
        # Reading a result and showing it take a noticeable time: each has a turn of its own.
        if self._read is not None:
            outcome, self._read = self._read, None
            self._tell(*outcome)
        elif self._ended:
            self._read = self._finish(*self._ended.pop(0))
        self._ended += ended
        for key in [key for key in self._others if self._queue.position(key) is None]:
            del self._others[key]
        if was_busy and not self.is_running:
            self.on_idle()

    def close(self) -> None:
        """End all jobs now and delete temporary files, for when the module or the application goes."""
        self._queue.close()
        for folder in [*self._folders.values(), self._kept]:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
        if self._read is not None and self._read[1] is not None:
            shutil.rmtree(self._read[1], ignore_errors=True)
        self._read = None
        self._ended.clear()
        self._jobs.clear()
        self._others.clear()
        self._folders.clear()
        self._titles.clear()
        self._scan_keys.clear()
        self._kept = None

    def _tell_other(self, key: str, event: dict[str, Any]) -> None:
        listener = self._others[key]
        try:
            listener(event)
        except Exception:
            # What goes wrong in showing one event must not cost the scans theirs.
            _LOGGER.exception("An event of %s could not be shown", key)

    def _made(self, key: str, job: WorkerJob) -> WorkerJob:
        self._jobs[key] = job
        return job

    def _finish(self, key: str, event: dict[str, Any]) -> tuple[Outcome, Path | None]:
        """Return how the job ended and its folder; its key is free again."""
        job = self._jobs.pop(key, None)
        folder = self._folders.pop(key, None)
        log = job.log_tail() if job is not None else ""
        outcome = Outcome(key, self._titles.pop(key, ""), self._scan_keys.pop(key, ""), log=log)
        try:
            if event["event"] == "error":
                parts = (str(event.get(name) or "") for name in ("message", "hint", "code"))
                outcome.error = JobError(*parts)
            elif key == SAMPLE:
                outcome.sample = Path(event["scans"][0])
            else:
                outcome.folder = folder / "result"
                outcome.detection = read_detection(outcome.folder / "candidates.json")
                outcome.mask = scene.read_own_mask(outcome.folder / "brain_mask.nii")
        except CMBDetectorError as error:
            outcome.error = JobError(error.message, error.hint, error.code)
        return outcome, folder

    def _tell(self, outcome: Outcome, folder: Path | None) -> None:
        self.on_end(outcome)
        self._clean_up(folder, keep=outcome.detection is not None)

    def _clean_up(self, folder: Path | None, keep: bool) -> None:
        """Delete the files of a job; the report of the last detection stays until the next one."""
        if folder is None:
            return
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
            return
        for name in (SCAN_FILE, MASK_FILE, "result/brain_mask.nii"):
            with contextlib.suppress(OSError):
                (folder / name).unlink(missing_ok=True)
        if self._kept is not None:
            shutil.rmtree(self._kept, ignore_errors=True)
        self._kept = folder
        self.last_report = folder / "result" / "report.html"


def worker_interpreter() -> Interpreter:
    """Return the Python that runs the worker, by the user's setting.

    Raises:
        CMBDetectorError: there is none.
    """
    return find_interpreter(preferences.text("Interpreter") or None, preferences.runtime_folder())


def sample_protocol() -> str:
    """Return the protocol of the sample scan; a setting lets the self-tests use a small one."""
    return preferences.text("SampleProtocol", SAMPLE_PROTOCOL)


def _arguments(settings: Settings, folder: Path, name: str) -> Sequence[str]:
    mask = str(folder / MASK_FILE) if settings.mask_node_id is not None else settings.brain_mask
    arguments = ["detect", str(folder / SCAN_FILE), "--output", str(folder / "result"), "--scan-name", name]
    arguments += ["--brain-mask", mask, "--keep", "brain-mask-raw"]
    return [*arguments, "--model", settings.model] if settings.model else arguments


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"
