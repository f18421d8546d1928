"""Which temporary files and folders are in use, so that a process that must end at once leaves none of them.

A process that unwinds removes its own. One that has to end while a library holds its main thread calls
:func:`remove_all`; for one that was killed, its parent calls :func:`remove_listed` on the journal it kept.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = ".partial-"

_lock = threading.Lock()
_in_use: set[Path] = set()
_journal: Path | None = None


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep :func:`remove_all` away while the block makes a temporary path or puts a result in its place."""
    with _lock:
        yield


def register(path: Path) -> None:
    """Say that ``path`` (absolute, named ``.partial-…``) is in use."""
    _in_use.add(path)
    if _journal is not None:
        with suppress(OSError), open(_journal, "a", encoding="ascii") as stream:
            stream.write(json.dumps(str(path)) + "\n")


def unregister(path: Path) -> None:
    """Say that ``path`` is gone or has become a result."""
    _in_use.discard(path)


@contextmanager
def folder(parent: Path) -> Iterator[Path]:
    """Make a folder in ``parent`` that is in use while the block runs; at its end it goes with all that is left in it.

    Raises:
        OSError: it cannot be made.
    """
    with undisturbed():
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        register(path)
    try:
        yield path
    finally:
        remove(path)
        unregister(path)


def keep_journal(path: Path) -> None:
    """Write every path registered from now on into the file ``path``, one JSON string a line."""
    global _journal
    _journal = path


def remove_all(wait_s: float = 0.3) -> None:
    """Remove what is in use, at the very end of this process: nothing temporary can be made any more.

    A result that is being put in its place gets ``wait_s`` seconds to arrive there.
    """
    # Never released: whoever wants to make a temporary path now waits until the process is gone.
    _lock.acquire(timeout=wait_s)
    for path in sorted(_in_use):
        remove(path)


def remove_listed(journal: Path) -> None:
    """Remove what the journal of a dead process lists and is still there; without a journal nothing happens."""
    try:
        lines = journal.read_text(encoding="ascii").splitlines()
    except OSError:
        return
    for line in lines:
        # The last line of a killed process may be cut.
        with suppress(ValueError):
            path = Path(str(json.loads(line)))
            if path.is_absolute() and path.name.startswith(PREFIX):
                remove(path)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all it holds; what cannot be removed stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
