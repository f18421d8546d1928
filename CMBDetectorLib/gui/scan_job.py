"""A job of the worker on a scan of the scene: the scan is handed over in pieces first, so that nothing stops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from CMBDetectorLib.errors import CMBDetectorError
from CMBDetectorLib.gui import scene
from CMBDetectorLib.gui.endings import JobError
from CMBDetectorLib.gui.job import WorkerJob
from CMBDetectorLib.gui.scan_node import scan_volume, write_pieces
from CMBDetectorLib.runtime.interpreter import Interpreter

SCAN_FILE = "scan.nrrd"
MASK_FILE = "mask.nrrd"


class ScanJob(WorkerJob):
    """Writes scan and mask into ``folder``, a piece at each poll, then runs ``arguments``, which name these files.

    ``scan_id`` and ``mask_id`` (a segmentation or label map, or ``None``) are node ids: a node that is gone when the
    turn of the job comes ends it with a sentence.
    """

    def __init__(
        self,
        scan_id: str,
        mask_id: str | None,
        folder: Path,
        arguments: Sequence[str],
        interpreter: Interpreter,
        when_memory_is_short: Sequence[str] = (),
    ) -> None:
        super().__init__(arguments, interpreter, when_memory_is_short=when_memory_is_short)
        self.folder = folder
        self._scan_id = scan_id
        self._mask_id = mask_id
        self._pieces: Iterator[float] | None = None

    @property
    def state(self) -> str:
        """As of the worker; "running" while the scan is still being written."""
        return "running" if self._pieces is not None else super().state

    @property
    def alive(self) -> bool:
        """Tell whether something is still under way."""
        return self._pieces is not None or super().alive

    def start(self) -> None:
        """Begin to write the scan."""
        self.stage = _("handing over the scan")
        self._pieces = self._write()

    def poll(self) -> list[dict[str, Any]]:
        """Write the next piece, or follow the worker."""
        if self._pieces is not None:
            self._next_piece()
        return super().poll()

    def cancel(self) -> None:
        """Stop at once."""
        self._pieces = None
        super().cancel()

    def _write(self) -> Iterator[float]:
        scan = slicer.mrmlScene.GetNodeByID(self._scan_id)
        volume = scan_volume(scan)
        if volume is None:
            raise CMBDetectorError(_("The scan is no longer in the scene."), _("Load it again."))
        yield from write_pieces(volume, self.folder / SCAN_FILE)
        if self._mask_id is None:
            return
        mask, scan = (slicer.mrmlScene.GetNodeByID(key) for key in (self._mask_id, self._scan_id))
        if mask is None or scan is None:
            raise CMBDetectorError(_("The brain mask is no longer in the scene."), _("Choose another."))
        yield from write_pieces(scene.mask_volume(mask, scan), self.folder / MASK_FILE)

    def _next_piece(self) -> None:
        try:
            next(self._pieces)
            return
        except StopIteration:
            self._pieces = None
            super().start()
            return
        except CMBDetectorError as error:
            failure = JobError(error.message, error.hint, error.code)
        except OSError as error:
            failure = JobError(
                _("The scan could not be handed over: {reason}.").format(reason=error.strerror),
                _("Free some space on the disk of temporary files."),
                "output",
            )
        self._pieces = None
        self._fail(failure)
