"""A disk of a few hundred kilobytes that can be filled to any byte and made read-only: a tmpfs, mounted for a test."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import TracebackType

_BALLAST = "ballast"
_BLOCK = 4096


class SmallDisk:
    """A file system of ``size`` bytes at ``folder``; ``is_real`` is false where none may be mounted (no rights)."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.size = size
        self.is_real = False

    def __enter__(self) -> SmallDisk:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={self.size}", "tmpfs", str(self.folder)]
        self.is_real = shutil.which("mount") is not None and _ran(command)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.is_real and not _ran(["umount", str(self.folder)]):
            _ran(["umount", "-l", str(self.folder)])

    def leave_free(self, free: int) -> None:
        """Fill the disk but for ``free`` bytes, rounded down to blocks."""
        self.clear()
        left = shutil.disk_usage(self.folder).free - free // _BLOCK * _BLOCK
        with open(self.folder / _BALLAST, "wb") as stream:
            while left > 0:
                try:
                    left -= stream.write(bytes(min(left, _BLOCK)))
                    stream.flush()
                except OSError:
                    return

    def clear(self) -> None:
        """Give the space back."""
        (self.folder / _BALLAST).unlink(missing_ok=True)

    def read_only(self, on: bool) -> None:
        """Allow no writing, not even by root; or allow it again."""
        _ran(["mount", "-o", f"remount,{'ro' if on else 'rw'}", str(self.folder)])


def _ran(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0
