"""One running worker process: started, listened to, asked to stop, killed with all it started, cleaned up after."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from CMBDetectorLib import temporary
from CMBDetectorLib.files import output_error
from CMBDetectorLib.locking import FileLock
from CMBDetectorLib.processes import kill_group, kill_tree
from CMBDetectorLib.runtime.interpreter import InterpreterError
from CMBDetectorLib.worker.stopping import JOB_FOLDER, JOB_PREFIX, JOURNAL

_LONGEST_LINE = 4 << 20
_LOG_TAIL = 8192
# Held by the host as long as the folder is in use; the system lets go of it when the host dies.
_LOCK = "host.lock"
# Another instance may have made its folder just now and not locked it yet.
_FRESH_S = 60.0
# How long a grandchild may hold standard output open after the worker has ended.
_ORPHANS_S = 1.0


class WorkerProcess:
    """A worker with its three pipes and its private temporary folder. Only the main thread calls these methods."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start ``command``.

        Raises:
            OutputError: no temporary folder can be made.
            InterpreterError: the program cannot be started.
        """
        sweep()
        try:
            self._folder = Path(tempfile.mkdtemp(prefix=JOB_PREFIX)).absolute()
            self._lock = FileLock(self._folder / _LOCK)
        except OSError as error:
            raise output_error(error, Path(tempfile.gettempdir())) from error
        log = self._folder / "log.txt"
        try:
            self._lock.acquire()
            stream = open(log, "wb")  # noqa: SIM115
        except OSError as error:
            self._remove_folder()
            raise output_error(error, log) from error
        folder = str(self._folder)
        # What the worker puts into the temporary folder goes with this one, however the worker ends.
        environment = {**environment, JOB_FOLDER: folder, "TMPDIR": folder, "TEMP": folder, "TMP": folder}
        try:
            with stream:
                self._process = subprocess.Popen(
                    list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream,
                    env=environment, **_apart(),
                )  # fmt: skip
        except (OSError, ValueError) as error:
            self._remove_folder()
            reason = getattr(error, "strerror", None) or str(error)
            raise InterpreterError(
                f"The Python {command[0]} cannot be started: {reason}.",
                "Choose another Python in the section Set up, or set up the packages again.",
            ) from error
        # A handle of its own: one shared with the worker would share its position, too.
        self._log: BinaryIO | None = open(log, "rb")  # noqa: SIM115
        self._last_words = ""
        self._lines: queue.Queue[dict[str, Any] | bytes | None] = queue.Queue()
        self._stream_ended = False
        self._exited_at: float | None = None
        reader = threading.Thread(target=_read, args=(self._process.stdout, self._lines), daemon=True)
        reader.start()

    @property
    def pid(self) -> int:
        """Process number of what was started (in Slicer the launcher of the worker)."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code, negative for a signal; ``None`` while it runs."""
        return self._process.poll()

    @property
    def ended(self) -> bool:
        """Tell whether the worker is gone and :meth:`receive` has returned all it said."""
        if self._process.poll() is None:
            return False
        self._exited_at = self._exited_at or time.monotonic()
        # The launcher of Slicer's Python may die before the worker, whose end of the pipe closes only then.
        return self._stream_ended or time.monotonic() - self._exited_at > _ORPHANS_S

    def receive(self) -> list[dict[str, Any] | bytes]:
        """Return what arrived since the last call: events, and as bytes the lines that are none."""
        # In Slicer the main thread keeps the interpreter lock even while it is idle: the reader runs only now.
        time.sleep(0.001)
        received: list[dict[str, Any] | bytes] = []
        with suppress(queue.Empty):
            while True:
                item = self._lines.get_nowait()
                if item is None:
                    self._stream_ended = True
                else:
                    received.append(item)
        return received

    def ask_to_stop(self) -> None:
        """Close its standard input and, where there are signals, send SIGTERM; returns at once."""
        with suppress(OSError):
            self._process.stdin.close()
        # On Windows terminate() would not ask, but kill.
        if os.name != "nt" and not self.ended:
            with suppress(OSError):
                os.killpg(self._process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill it and all it started, without waiting for them to be gone."""
        if self._process.poll() is None:
            kill_tree(self._process.pid)
        if not self.ended:
            kill_group(self._process.pid)

    def kill_after(self, seconds: float) -> None:
        """Kill it ``seconds`` from now if it is still there, from a thread of its own."""
        timer = threading.Timer(seconds, self.kill)
        timer.daemon = True
        timer.start()

    def log_tail(self) -> str:
        """Return the end of what it wrote to standard error (at most 8 KiB)."""
        if self._log is not None:
            with suppress(OSError):
                self._log.seek(0, os.SEEK_END)
                self._log.seek(max(0, self._log.tell() - _LOG_TAIL))
                self._last_words = self._log.read(_LOG_TAIL).decode("utf-8", errors="replace")
        return self._last_words

    def clean_up(self) -> None:
        """Remove what a worker that has ended left: its temporary folder and, if it was killed, unfinished results."""
        if self.exit_code != 0:
            # What a worker that crashed had started lives on without it.
            kill_group(self._process.pid)
        self.log_tail()
        if self._log is not None:
            self._log.close()
            self._log = None
        with suppress(OSError):
            self._process.stdin.close()
        temporary.remove_listed(self._folder / JOURNAL)
        self._remove_folder()

    def _remove_folder(self) -> None:
        self._lock.release()
        shutil.rmtree(self._folder, ignore_errors=True)


def sweep() -> None:
    """Remove what is left of jobs whose host and worker were both killed: their folders and unfinished results."""
    try:
        folders = list(Path(tempfile.gettempdir()).glob(f"{JOB_PREFIX}*"))
    except OSError:
        return
    for folder in folders:
        with suppress(OSError):
            found = folder.lstat()
            is_mine = not hasattr(os, "getuid") or found.st_uid == os.getuid()
            # A clock that was set back makes a folder look as if it came from the future.
            is_fresh = 0 <= time.time() - found.st_mtime < _FRESH_S
            lock = FileLock(folder / _LOCK)
            if stat.S_ISDIR(found.st_mode) and is_mine and not is_fresh and lock.acquire():
                temporary.remove_listed(folder / JOURNAL)
                lock.release()
                shutil.rmtree(folder, ignore_errors=True)


def _apart() -> dict[str, Any]:
    """Return what Popen needs so that Ctrl-C in the application's terminal passes the worker by."""
    if os.name == "nt":
        return {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _read(stream: BinaryIO, lines: queue.Queue[dict[str, Any] | bytes | None]) -> None:
    """Pass on every line of ``stream``, then ``None``. Runs in a thread and touches nothing of the application."""
    try:
        with stream:
            while line := stream.readline(_LONGEST_LINE):
                lines.put(_parse(line))
    except (OSError, ValueError):
        pass
    finally:
        lines.put(None)


def _parse(line: bytes) -> dict[str, Any] | bytes:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return line
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else line
