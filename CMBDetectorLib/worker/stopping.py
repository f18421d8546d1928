"""How a worker ends when the program that started it cancels or dies: politely first, then at once."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

from CMBDetectorLib import temporary
from CMBDetectorLib.errors import Cancelled
from CMBDetectorLib.processes import kill_children

# Unwinding takes some tenths of a second; the parent kills what is left after WorkerJob's KILL_AFTER_S.
GRACE_S = 0.7
# The parent's private folder for this run: its log, the journal of temporary paths, and what tempfile makes.
# The name is short, since macOS allows sockets made in it no more than 103 characters.
JOB_FOLDER = "CMBDETECTOR_JOB_FOLDER"
JOB_PREFIX = "cmbd-job-"
JOURNAL = "temporary.txt"
_LOOK_S = 0.2
_NICE = 10
_leaving = threading.Lock()


def follow_stdin(grace_s: float = GRACE_S) -> None:
    """End this process once its standard input, a pipe, is closed: the parent has cancelled or is gone.

    The main thread is asked first, as by SIGTERM; after ``grace_s`` seconds, in which TensorFlow or ITK may not have
    let it go, the process removes what is temporary, kills its children and exits with the code of a cancelled run.
    Nothing happens where standard input is no pipe.
    """
    if not _is_pipe(0):
        return
    folder = _job_folder()
    if folder is not None:
        temporary.keep_journal(folder / JOURNAL)

    def follow() -> None:
        wait_for_end(0)
        _interrupt_main_thread()
        time.sleep(grace_s)
        leave(Cancelled.exit_code)

    threading.Thread(target=follow, name="stdin", daemon=True).start()


def give_way() -> None:
    """Let the application that started this process, in which somebody scrolls and judges, go first."""
    # Slower scrolling is no reason not to work, nor is a Python without psutil, which sets up the packages.
    with contextlib.suppress(Exception):
        import psutil

        psutil.Process().nice(getattr(psutil, "BELOW_NORMAL_PRIORITY_CLASS", _NICE))


def leave(code: int) -> NoReturn:
    """Exit at once with ``code``: children, temporary files and the parent's folder for this run are removed."""
    # Never released. Two threads removing one folder trip over each other, and the first to be done ends the other.
    _leaving.acquire()
    try:
        kill_children()
        temporary.remove_all()
        folder = _job_folder()
        if folder is not None:
            # A parent that was killed cannot do it; one that lives holds its log open and misses nothing.
            shutil.rmtree(folder, ignore_errors=True)
        sys.stderr.flush()
    finally:
        # Waiting for the threads of the back end would keep the user waiting.
        os._exit(code)


def _job_folder() -> Path | None:
    folder = Path(os.environ.get(JOB_FOLDER, ""))
    return folder if folder.is_absolute() and folder.name.startswith(JOB_PREFIX) else None


def _is_pipe(descriptor: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def wait_for_end(descriptor: int) -> None:
    """Return when the other end of the pipe ``descriptor`` has been closed; what is written to it is ignored."""
    try:
        if os.name == "nt":
            import _winapi
            import msvcrt

            # A read that waits would block every library that looks at its standard handles while it is loaded.
            handle = msvcrt.get_osfhandle(descriptor)
            while True:
                _winapi.PeekNamedPipe(handle, 0)
                time.sleep(_LOOK_S)
        # Not sys.stdin: a thread waiting for its lock makes Python abort at the end of a run that went well.
        while os.read(descriptor, 4096):
            continue
    except OSError:
        return


def _interrupt_main_thread() -> None:
    if hasattr(signal, "pthread_kill"):
        # Sent to the main thread, it also ends a system call in which that thread waits.
        signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
    else:
        import _thread

        _thread.interrupt_main(signal.SIGINT)
