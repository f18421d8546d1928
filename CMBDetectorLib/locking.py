"""A lock between processes: a file locked by the operating system, which lets go of it when the process dies.

No process number has to be judged dead or alive, and a crash leaves nothing stale. Where a network drive knows no
locks, everybody gets one: two windows at once are rarer than such drives, and a review that cannot be saved is worse.
"""

from __future__ import annotations

import errno
import os
import platform
import time
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, getattr(errno, "EOPNOTSUPP", errno.ENOSYS)}
# Windows keeps others from reading what is locked; a byte far behind the text leaves the text readable.
_LOCKED_BYTE = 1 << 20
_PAUSE_S = 0.05


class FileLock:
    """The lock ``path``; it exists as a file only while somebody holds it.

    It also keeps out a second ``FileLock`` of the same process.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._descriptor: int | None = None

    def acquire(self, wait_s: float = 0.0) -> bool:
        """Take the lock, waiting for at most ``wait_s``; returns whether it was free.

        Raises:
            OSError: the lock file cannot be made.
        """
        end = time.monotonic() + wait_s
        while not self._try():
            if time.monotonic() >= end:
                return False
            time.sleep(_PAUSE_S)
        return True

    def holder(self) -> str:
        """Return who holds the lock ("process 4711 on ws12"), or "another program"."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            text = ""
        return text or "another program"

    def release(self) -> None:
        """Give the lock back; nothing happens where it is not held."""
        if self._descriptor is None:
            return
        # Removed while still held: whoever opened it meanwhile sees in _try() that it is no longer the file of that
        # name. Windows removes no open file; there it is done afterwards, and fails where it is held again.
        if fcntl is not None:
            self._remove()
        os.close(self._descriptor)
        self._descriptor = None
        if fcntl is None:
            self._remove()

    def _try(self) -> bool:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if _lock(descriptor) and os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
                # On a full disk the lock still holds, without a name.
                with suppress(OSError):
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
                self._descriptor, descriptor = descriptor, -1
                return True
        except FileNotFoundError:
            pass
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        return False

    def _remove(self) -> None:
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def _lock(descriptor: int) -> bool:
    """Lock the open file without waiting; returns whether it was free."""
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError as error:
        return error.errno in _UNSUPPORTED
    return True
