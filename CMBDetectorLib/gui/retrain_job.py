"""Retraining in the background: one at a time, in the queue of the detections, cancelled and gone on with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from CMBDetectorLib.gui import preferences
from CMBDetectorLib.gui.detection import DetectionLogic, Progress, worker_interpreter
from CMBDetectorLib.gui.endings import JobError
from CMBDetectorLib.gui.job import WorkerJob

DEPTHS = ("second-stage", "both-stages", "from-scratch")


@dataclass(frozen=True)
class Epoch:
    """One epoch of a network: its mean ``loss``, and that on scans that it does not learn from."""

    network: str
    epoch: int
    epochs: int
    loss: float | None
    validation: float | None

    def sentence(self) -> str:
        """Return one line for the panel."""
        words = _("{network}: epoch {epoch} of {epochs}").format(**vars(self))
        losses = (_("loss {value:.3f}"), self.loss), (_("on other scans {value:.3f}"), self.validation)
        return ", ".join([words, *(text.format(value=value) for text, value in losses if value is not None)])


@dataclass
class Ended:
    """How a retraining ended: ``result`` of the worker, or ``error``; ``log`` is the end of what it wrote."""

    result: dict[str, Any] | None = None
    error: JobError | None = None
    log: str = ""

    @property
    def is_cancelled(self) -> bool:
        """Whether the user stopped it."""
        return self.error is not None and self.error.code == "cancelled"


@dataclass
class Curves:
    """The losses of a run so far: by network, (epoch, loss) of its own scans and of others; folds begin anew."""

    epochs: list[Epoch] = field(default_factory=list)

    def add(self, epoch: Epoch) -> None:
        """Take in an epoch; of a network that begins again only the new course is kept."""
        if epoch.epoch == 1:
            self.epochs = [known for known in self.epochs if known.network != epoch.network]
        self.epochs.append(epoch)

    def last_network(self) -> list[Epoch]:
        """Return the epochs of the network that learns now."""
        return [known for known in self.epochs if known.network == self.epochs[-1].network]


class RetrainLogic:
    """Runs ``cmbdetector retrain``. ``jobs`` are those of the module: what is queued there waits for its turn.

    ``on_change()``, ``on_progress(Progress)``, ``on_epoch(Epoch)``, ``on_note(sentence)`` and ``on_end(Ended)`` are
    set by the panel.
    """

    def __init__(self, jobs: DetectionLogic) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.on_progress: Callable[[Progress], None] = lambda progress: None
        self.on_epoch: Callable[[Epoch], None] = lambda epoch: None
        self.on_note: Callable[[str], None] = lambda note: None
        self.on_end: Callable[[Ended], None] = lambda ended: None
        self.curves = Curves()
        self._jobs = jobs
        self._number = 0
        self._key: str | None = None
        self._job: WorkerJob | None = None

    @property
    def is_waiting_or_running(self) -> bool:
        """Whether a retraining is under way."""
        return self._key is not None

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for its turn."""
        return self._key is not None and self._job is None

    def start(self, dataset: Path, depth: str, resume: bool = False) -> None:
        """Queue a retraining of the active model on ``dataset``; ``resume`` goes on with the interrupted one.

        Raises:
            CMBDetectorError: there is no interpreter for the worker.
        """
        if self._key is not None:
            return
        interpreter = worker_interpreter()
        arguments = [*check_arguments(dataset, depth), *(["--resume"] if resume else [])]
        self._number += 1
        key = self._key = f"retrain-{self._number}"
        self._job = None
        self.curves = Curves()

        def make() -> WorkerJob:
            self._job = WorkerJob(arguments, interpreter)
            return self._job

        self._jobs.add_other(key, _("Retraining"), make, lambda event: self._on_event(key, event))
        self.on_change()

    def cancel(self) -> None:
        """Stop it; what was done is kept for going on."""
        if self._key is not None:
            self._jobs.take_out(self._key)

    def _on_event(self, key: str, event: Mapping[str, Any]) -> None:
        if key != self._key:
            return
        kind = event["event"]
        if kind in ("result", "error"):
            self._end(event)
            return
        if kind == "epoch":
            self._take_epoch(event)
        elif kind == "log":
            self.on_note(str(event.get("message", "")))
        elif kind == "started":
            self.on_change()
        job = self._job
        if job is not None and job.state == "running":
            self.on_progress(Progress(_("Retraining"), job.stage, job.fraction, job.elapsed_s, job.left_s))

    def _take_epoch(self, event: Mapping[str, Any]) -> None:
        values = (event.get("loss"), event.get("validation"))
        losses = [float(value) if isinstance(value, int | float) else None for value in values]
        try:
            epoch = Epoch(str(event["network"]), int(event["epoch"]), int(event["epochs"]), *losses)
        except (KeyError, TypeError, ValueError):
            return
        self.curves.add(epoch)
        self.on_epoch(epoch)

    def _end(self, event: Mapping[str, Any]) -> None:
        log = self._job.log_tail() if self._job is not None else ""
        self._key = self._job = None
        if event["event"] == "error":
            error = JobError(*(str(event.get(name) or "") for name in ("message", "hint", "code")))
            self.on_end(Ended(error=error, log=log))
        else:
            self.on_end(Ended(result={key: value for key, value in event.items() if key != "event"}, log=log))


def check_arguments(dataset: Path, depth: str) -> list[str]:
    """Return what names a retraining to the worker; the same for its check, its start and going on with it.

    A setting lets the tests use short ones.
    """
    return ["retrain", str(dataset), "--depth", depth, *preferences.text("RetrainOptions").split()]
