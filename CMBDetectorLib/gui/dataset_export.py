"""Adding a reviewed scan to the local dataset in the background: compressing a scan takes seconds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

from CMBDetectorLib.gui import preferences, scene
from CMBDetectorLib.gui.detection import worker_interpreter
from CMBDetectorLib.gui.job_queue import JobQueue
from CMBDetectorLib.gui.review_session import ReviewSession
from CMBDetectorLib.gui.scan_job import MASK_FILE, SCAN_FILE, ScanJob
from CMBDetectorLib.review.log import ReviewLog

_TICK_MS = 100


@dataclass(frozen=True)
class Target:
    """Where to: the dataset's ``folder``; ``link`` is the scan's own file where it is not to be copied."""

    folder: Path
    link: Path | None = None
    replace: bool = False


@dataclass(frozen=True)
class Exported:
    """What was to be exported: whose review of which scan (node id) into which folder."""

    scan_id: str
    reader: str
    folder: Path


class DatasetExport:
    """Exports one after the other; ``on_end(exported, sentence, code)`` is told how each went (code "" where it went
    well)."""

    def __init__(self, on_end: Callable[[Exported, str, str], None]) -> None:
        self._on_end = on_end
        self._queue = JobQueue()
        self._folders: dict[Any, Path] = {}
        self._exported: dict[Any, Exported] = {}
        self._number = 0
        self._timer = qt.QTimer()
        self._timer.setInterval(_TICK_MS)
        self._timer.connect("timeout()", self._on_tick)

    @property
    def is_running(self) -> bool:
        """Whether something is being exported."""
        return not self._queue.is_idle

    def add(self, session: ReviewSession, target: Target) -> None:
        """Export the review as it is now, whatever is said afterwards.

        Raises:
            CMBDetectorError: there is no interpreter for the worker, or no space for the review.
        """
        interpreter = worker_interpreter()
        folder = preferences.temporary_folder("export")
        # A snapshot: the reader may go on judging, and the log of the review may be on a disk that is full.
        log = ReviewLog.create(folder, session.nodes.key, session.review)
        log.close()
        scan_id, mask_id = session.nodes.scan.GetID(), scene.brain_mask_id(session.nodes)
        arguments = ["export", str(log.path), "--scan", str(folder / SCAN_FILE), "--dataset", str(target.folder)]
        arguments += ["--threshold", str(session.shown.threshold)]
        arguments += ["--brain-mask", str(folder / MASK_FILE)] if mask_id is not None else []
        arguments += ["--link", str(target.link)] if target.link is not None else []
        arguments += ["--replace"] if target.replace else []
        self._number += 1
        self._folders[self._number] = folder
        self._exported[self._number] = Exported(scan_id, session.review.reader, target.folder)
        self._queue.add(self._number, "", lambda: ScanJob(scan_id, mask_id, folder, arguments, interpreter))
        self._timer.start()

    def close(self) -> None:
        """End everything now."""
        self._timer.stop()
        self._timer.disconnect("timeout()", self._on_tick)
        self._queue.close()
        for folder in self._folders.values():
            shutil.rmtree(folder, ignore_errors=True)

    def _on_tick(self) -> None:
        for key, event in self._queue.tick():
            if event["event"] not in ("result", "error"):
                continue
            shutil.rmtree(self._folders.pop(key), ignore_errors=True)
            exported = self._exported.pop(key)
            if event["event"] == "error":
                self._on_end(exported, f"{event['message']} {event['hint']}", str(event["code"]))
                continue
            words = _("Added to the local dataset (microbleeds: {microbleeds}, mimics: {mimics}): {scan}")
            sentence = words.format(**{name: event[name] for name in ("microbleeds", "mimics", "scan")})
            self._on_end(exported, sentence, "")
        if self._queue.is_idle:
            self._timer.stop()
