"""The review log: every change of a review on disk before the reader goes on, and reviews found and resumed.

Layout: ``<root>/<scan key>/<UTC stamp>-<reader>-<6 hex>.jsonl``, one file a sitting reader, only ever appended to (see
:mod:`CMBDetectorLib.review.records` for its lines). While it is open a ``.lock`` lies beside it.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from CMBDetectorLib.errors import BadInputError, OutputError
from CMBDetectorLib.files import atomic_path, output_error
from CMBDetectorLib.locking import FileLock
from CMBDetectorLib.review.finding import Finding
from CMBDetectorLib.review.records import Change, Recorded, change_line, header_line, read_records
from CMBDetectorLib.review.review import Review, utc_now
from CMBDetectorLib.review.scan_key import is_scan_key

_LONGEST_SLUG = 40


class ReviewLog:
    """A log open for appending; nobody else can open it until :meth:`close`, or the end of the process.

    Made by :meth:`create` or :func:`resume`. To keep every change: ``review.changed.append(log.append)``.
    """

    def __init__(self, path: Path, lock: FileLock, sequence: int, now: Callable[[], str] = utc_now) -> None:
        self.path = path
        self._lock = lock
        self._sequence = sequence
        self._now = now
        self._waiting: list[bytes] = []
        # A crash in the middle of a write leaves half a line; the next one must not be glued to it.
        self._torn = not path.read_bytes().endswith(b"\n")
        self._is_open = True

    @classmethod
    def create(cls, root: Path | str, key: str, review: Review, now: Callable[[], str] = utc_now) -> ReviewLog:
        """Start a log for ``review``, as it is now, of the scan ``key`` (:func:`~.scan_key.scan_key`) under ``root``.

        Raises:
            OutputError: the folder cannot be written.
        """
        if not is_scan_key(key):
            raise ValueError(f"{key!r} is no scan key")
        started = now()
        stamp = re.sub(r"[^0-9TZ]", "", started.replace("+00:00", "Z"))
        folder = Path(root) / key
        path = folder / f"{stamp}-{_slug(review.reader)}-{secrets.token_hex(3)}.jsonl"
        lock = FileLock(f"{path}.lock")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            raise output_error(error, path) from error
        try:
            # Whole or not at all: a log without its header would be of no use.
            with atomic_path(path) as temporary:
                temporary.write_bytes(header_line(key, review, started))
            return cls(path, lock, 1, now)
        except BaseException:
            lock.release()
            raise

    @property
    def pending(self) -> int:
        """How many changes are not on disk; they are tried again with the next one and by :meth:`save`."""
        return len(self._waiting)

    def append(self, finding: Finding, what: str) -> None:
        """Write that ``what`` was done and ``finding`` is the outcome; on the disk when this returns.

        Raises:
            OutputError: it could not be written; it is kept, counts as :attr:`pending` and is tried again next time.
        """
        if not self._is_open:
            raise ValueError("the log is closed")
        self._waiting.append(change_line(Change(self._sequence, self._now(), what, finding)))
        self._sequence += 1
        self.save()

    def save(self) -> None:
        """Write what is :attr:`pending`.

        Raises:
            OutputError: it could not be written.
        """
        try:
            while self._waiting:
                self._write(self._waiting[0])
                del self._waiting[0]
        except OSError as error:
            reason, count = output_error(error, self.path), len(self._waiting)
            kept = "1 change of the review is" if count == 1 else f"{count} changes of the review are"
            raise OutputError(
                reason.message,
                f"{kept} kept in memory and saved with the next one: free some space or restore the folder, "
                "and do not close the program before.",
            ) from error

    def close(self, give_up: bool = False) -> None:
        """Write what is pending and let others open the log; with ``give_up`` even where writing fails.

        Raises:
            OutputError: something could not be written; the log stays open.
        """
        if not self._is_open:
            return
        try:
            self.save()
        except OutputError:
            if not give_up:
                raise
        self._is_open = False
        self._lock.release()

    def __enter__(self) -> ReviewLog:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close(give_up=kind is not None)

    def _write(self, line: bytes) -> None:
        # Opened anew each time (20 us): after a network drive was away an old descriptor stays dead. Not created anew:
        # a log without its header could not be resumed.
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0))
        try:
            data = b"\n" + line if self._torn else line
            self._torn = True
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._torn = False
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class FoundReview:
    """A review on disk. ``started`` and ``last_change`` are ISO 8601 in UTC.

    ``reviewed`` of ``total`` places are judged, among those shown at the threshold of its detection. Where ``problem``
    (a sentence) is not empty the review cannot be resumed and the rest is unknown. ``damaged`` lines were passed over.
    """

    path: Path
    reader: str = ""
    started: str = ""
    last_change: str = ""
    reviewed: int = 0
    total: int = 0
    model_name: str = ""
    model_version: str = ""
    model_checksum: str = ""
    damaged: int = 0
    problem: str = ""


def find_reviews(root: Path | str, key: str) -> list[FoundReview]:
    """Return the reviews of the scan ``key`` under ``root``, newest change first, unreadable ones last.

    Raises:
        BadInputError: the folder may not be read.
    """
    try:
        # A dot: a header whose writing was cut short.
        paths = [path for path in sorted((Path(root) / key).glob("*.jsonl")) if not path.name.startswith(".")]
    except OSError as error:
        raise BadInputError(f"The folder of reviews {root} cannot be read.", "Check its permissions.") from error
    found = [_describe(path) for path in paths]
    return sorted(found, key=lambda review: (review.last_change, review.started), reverse=True)


def read_review(path: Path | str) -> Review:
    """Return a review without opening its log, for instance that of another reader.

    Raises:
        BadInputError: it is missing, cannot be read, or its header is damaged.
    """
    return read_log(Path(path)).review()


def resume(path: Path | str, now: Callable[[], str] = utc_now) -> tuple[Review, ReviewLog]:
    """Return a review as it was left, with its undo history, and its log to go on with.

    The last undamaged line of each finding counts. The log does not listen to the review yet.

    Raises:
        BadInputError: it is missing, cannot be read, or its header is damaged.
        OutputError: another window has it open, or the folder cannot be written.
    """
    path = Path(path)
    lock = FileLock(f"{path}.lock")
    try:
        if not path.is_file():
            raise BadInputError(f"There is no review {path}.", "Start a new review.")
        free = lock.acquire()
    except OSError as error:
        raise output_error(error, path) from error
    if not free:
        raise OutputError(f"This review is open in another window ({lock.holder()}).", "Close it there first.")
    try:
        recorded = read_log(path)
        sequence = recorded.changes[-1].sequence + 1 if recorded.changes else 1
        return recorded.review(), ReviewLog(path, lock, sequence, now)
    except BaseException:
        lock.release()
        raise


def read_log(path: Path | str) -> Recorded:
    """Return what a log holds, without opening it for writing.

    Raises:
        BadInputError: it is missing, cannot be read, or its header is damaged.
    """
    path = Path(path)
    try:
        return read_records(path.read_bytes(), path.name)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BadInputError(f"The review {path} cannot be read: {reason}.", "Check its permissions.") from error


def _describe(path: Path) -> FoundReview:
    try:
        recorded = read_log(path)
    except BadInputError as error:
        return FoundReview(path, problem=error.message)
    review, detection = recorded.review(), recorded.detection
    threshold = float(detection.settings["threshold"])
    visible = [finding for finding in review.findings if review.is_visible(finding, threshold)]
    return FoundReview(
        path,
        review.reader,
        str(recorded.header["started"]),
        recorded.last_change,
        sum(finding.is_reviewed for finding in visible),
        len(visible),
        *(str(detection.model.get(entry, "")) for entry in ("name", "version", "checksum")),
        damaged=recorded.damaged,
    )


def _slug(reader: str) -> str:
    """Return what of a reader's name can stand in a file name anywhere; the whole name is in the header."""
    plain = unicodedata.normalize("NFKD", reader).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_LONGEST_SLUG].strip("-") or "reader"
