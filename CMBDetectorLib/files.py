"""Writing that is whole or not there: temporary file or folder, fsync, rename."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from CMBDetectorLib import temporary as in_use
from CMBDetectorLib.errors import OutputError

_TEMPORARY = in_use.PREFIX
# A cell that a spreadsheet would run: it begins like a formula, perhaps behind blanks or quotation marks, which are
# taken off where the table is read. In some countries a semicolon begins a new cell, whatever the file says.
_FORMULA = re.compile(r"(^|[;|])(?=[\s\"'\u201c\u201d\ufeff\u200b\x00-\x1f]*[=+\-@\uff1d\uff0b\uff0d\uff20])")
_NEGATIVE_NUMBER = re.compile(r"-\d+(\.\d+)?([eE][+-]?\d{1,3})?", re.ASCII)


def output_error(error: OSError, path: Path) -> OutputError:
    """Return the sentence for an ``OSError`` met while writing ``path``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"The disk is full: {path} was not written.", "Free some space or choose another folder.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"{path} cannot be written: permission denied.", "Choose a folder that you may write to.")
    if error.errno == errno.EBUSY:
        return OutputError(f"{path} is in use or a mounted drive: it cannot be replaced.", "Choose a folder inside it.")
    reason = error.strerror or type(error).__name__
    return OutputError(f"{path} cannot be written: {reason}.", "Choose another folder.")


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` (same suffixes); on success it is fsynced and renamed to ``path``.

    On any exception the temporary file is removed and ``path`` keeps what it held.

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        suffix = "".join(path.suffixes[-2:]) if path.name.endswith(".gz") else path.suffix
        with in_use.undisturbed():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=_TEMPORARY, suffix=suffix, dir=path.parent)
            os.close(handle)
            temporary = Path(os.path.abspath(name))
            in_use.register(temporary)
        yield temporary
        # mkstemp makes the file private; a result gets the permissions of any other new file.
        temporary.chmod(0o666 & ~_umask())
        _fsync(temporary)
        os.replace(temporary, path)
        _fsync(path.parent)
    except OSError as error:
        raise output_error(error, path) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
            in_use.unregister(temporary)


@contextmanager
def output_folder(path: Path | str, mine: Iterable[str]) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path`` when the block ends well, and vanishes when it does not.

    An earlier result at ``path`` is replaced as a whole; a folder holding anything but names matching the glob
    patterns ``mine`` is refused, so that nobody's files are lost. Where ``path`` is a link, the folder that it leads to
    is replaced and the link stays.

    Raises:
        OutputError: the folder holds other files, is the current folder or one above it, or cannot be written.
    """
    path = Path(path)
    patterns = list(mine)
    temporary: Path | None = None
    try:
        path = Path(os.path.realpath(path))
        check_output_folder(path, patterns)
        with in_use.undisturbed():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=path.parent))
            in_use.register(temporary)
        yield temporary
        for file in sorted(temporary.rglob("*")):
            _fsync(file)
        # Private until now; a result gets the permissions of any other new folder.
        temporary.chmod(0o777 & ~_umask())
        _fsync(temporary)
        check_output_folder(path, patterns)
        with in_use.undisturbed():
            _swap(temporary, path)
    except OSError as error:
        raise output_error(error, path) from error
    finally:
        if temporary is not None:
            if temporary.exists():
                shutil.rmtree(temporary, ignore_errors=True)
            in_use.unregister(temporary)


def check_output_folder(path: Path, mine: Iterable[str]) -> None:
    """Refuse ``path`` unless it is absent, empty, or holds only names matching the glob patterns ``mine``.

    Raises:
        OutputError: there is something else in it, it is a file, or the current folder or one above it.
    """
    if not path.exists():
        return
    if not path.is_dir():
        raise OutputError(f"{path} is a file, not a folder.", "Choose another output folder.")
    patterns = list(mine)
    # What a file manager or an earlier run that was killed left behind belongs to nobody.
    patterns += [f"{_TEMPORARY}*", ".DS_Store", "Thumbs.db", "desktop.ini"]
    others = [p.name for p in path.iterdir() if not any(p.match(pattern) for pattern in patterns)]
    if others:
        raise OutputError(
            f"The folder {path} holds other files ({', '.join(sorted(others)[:3])}).",
            "Choose an empty or new folder, so that nothing is overwritten.",
        )
    # Replaced, it would leave the shell in a deleted folder; Windows does not even let it be renamed.
    if _is_current(path):
        raise OutputError(
            f"{path.resolve()} is the current folder or one above it, which cannot be replaced.",
            "Name a new folder, such as ./results, or go to another folder first.",
        )


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8 with ``\\n`` line ends, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def write_json(path: Path | str, data: Any) -> None:
    """Write ``data`` as indented JSON; NaN and infinity are refused with ``ValueError``."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_table(path: Path | str, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write ``rows`` as CSV, or as TSV where ``path`` ends in ``.tsv`` (BIDS: no quoting, ``None`` becomes ``n/a``).

    Tabs and line breaks inside a cell become blanks; a cell that a spreadsheet would take for a formula gets a ``'``.
    """
    path = Path(path)
    tabs = path.suffix == ".tsv"
    columns = list(columns)
    table = [columns, *([_cell(row.get(column), "n/a" if tabs else "") for column in columns] for row in rows)]
    buffer = io.StringIO()
    if tabs:
        buffer.writelines("\t".join(row) + "\n" for row in table)
    else:
        csv.writer(buffer, lineterminator="\n").writerows(table)
    write_text(path, buffer.getvalue())


def sha256(path: Path | str, report: Callable[[int], None] = lambda done: None) -> str:
    """Return the SHA-256 of a file as hexadecimal digits; ``report`` is told the bytes read so far."""
    digest, done = hashlib.sha256(), 0
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
            done += len(block)
            report(done)
    return digest.hexdigest()


def harmless_cell(text: str) -> str:
    """Return ``text`` on one line, with a ``'`` before whatever a spreadsheet would run as a formula."""
    text = " ".join(text.splitlines()).replace("\t", " ")
    return text if _NEGATIVE_NUMBER.fullmatch(text) else _FORMULA.sub(r"\1'", text)


def _cell(value: Any, missing: str) -> str:
    if value is None:
        return missing
    # numpy's numbers count as numbers too (numbers.Real), or -1.5 would be taken for a formula.
    if isinstance(value, Real):
        return str(value) if isinstance(value, Integral) else f"{float(value):.6g}"
    return harmless_cell(str(value))


def _swap(new: Path, path: Path) -> None:
    """Put the folder ``new`` in the place of ``path``, removing what was there."""
    if not path.exists():
        os.rename(new, path)
    else:
        old = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=path.parent))
        try:
            os.rename(path, old / path.name)
            os.rename(new, path)
        except BaseException:
            # Also what a signal raises: what was there is the only result.
            if not path.exists():
                os.rename(old / path.name, path)
            raise
        finally:
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)
    _fsync(path.parent)


def _is_current(path: Path) -> bool:
    """Tell whether the folder ``path`` is the current one or above it, by whatever links it is named."""
    try:
        current = os.path.realpath(os.curdir)
    except OSError:
        # Somebody removed it.
        return False
    return Path(current).is_relative_to(os.path.realpath(path))


def _fsync(path: Path) -> None:
    windows = os.name == "nt"
    if windows and path.is_dir():
        return
    # Windows flushes only what was opened for writing.
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
