"""A sentence for a worker that ended without a word: what its exit code and the end of its log tell."""

from __future__ import annotations

import re
from typing import NamedTuple

from CMBDetectorLib.errors import BadInputError, Cancelled, MissingPackageError, ModelError, OutOfMemoryError

_REPORT = "Try again; if it happens again, report what the log says."
_ABSENT = re.compile(r"No module named '?([\w.]+)'?")
_UNLOADABLE = re.compile(r"^ImportError: (?!cannot import name)", re.MULTILINE)
# Libraries in C++ abort when they get no memory; the loader says so of a library that it cannot map.
_NO_MEMORY = re.compile(r"MemoryError|bad_alloc|[Oo]ut of memory|failed to map segment|[Cc]annot allocate memory")
_SIGNALS = {2, 9, 15}
_ILLEGAL_INSTRUCTION = 4
# Windows reports exceptions as exit codes (NTSTATUS).
_NT_ILLEGAL_INSTRUCTION = 0xC000001D
_NT_NO_MEMORY = {0xC0000017, 0xC000012D}
_NT_NO_LIBRARY = {0xC0000135, 0xC0000139, 0xC0000142}


class JobError(NamedTuple):
    """Why a job failed: one sentence, the next step, and the kind (as in the ``error`` event)."""

    message: str
    hint: str
    code: str


CANCELLED = JobError(Cancelled().message, "", Cancelled.code)
KILLED = "killed"
# Of a job whose second attempt, with little memory, ended like the first.
NO_MEMORY_TWICE = JobError(
    "This computer has too little free memory for the scan, also in small pieces.",
    "Close other programs and try again, or crop the scan to the head.",
    OutOfMemoryError.code,
)


def is_for_want_of_memory(error: JobError) -> bool:
    """Tell whether memory ran out, or most likely did: a system that is short of it ends processes from outside."""
    return error.code in (OutOfMemoryError.code, KILLED)


def explain(code: int, log: str) -> JobError:
    """Return why a worker ended with exit code ``code`` (negative: a signal) though it sent no result or error.

    ``log`` is the end of what it wrote to standard error.
    """
    signal = -code if code < 0 else code - 128 if 128 < code < 160 else 0
    if code == Cancelled.exit_code:
        return CANCELLED
    told = _NO_MEMORY.search(log[-500:]) is not None
    if code == OutOfMemoryError.exit_code or code & 0xFFFFFFFF in _NT_NO_MEMORY or told:
        return JobError("There is not enough memory for this.", "Close other programs.", OutOfMemoryError.code)
    if signal:
        return _by_signal(signal)
    absent = _ABSENT.findall(log)
    if absent:
        package = absent[-1].split(".")[0]
        return JobError(
            f"The Python that computes lacks the package {package}.",
            "Set up the packages again, or choose a Python that has them, in the section Set up.",
            MissingPackageError.code,
        )
    if _UNLOADABLE.search(log) or code & 0xFFFFFFFF in _NT_NO_LIBRARY:
        return JobError(
            "A package of the Python that computes is damaged or does not fit this computer.",
            "Set up the packages again, or choose another Python, in the section Set up.",
            MissingPackageError.code,
        )
    if code & 0xFFFFFFFF == _NT_ILLEGAL_INSTRUCTION:
        return _by_signal(_ILLEGAL_INSTRUCTION)
    if code & 0xFFFFFFFF >= 0xC0000000:
        return JobError(f"The computation crashed (0x{code & 0xFFFFFFFF:08X}).", _REPORT, "crash")
    kinds = {BadInputError.exit_code: BadInputError.code, ModelError.exit_code: ModelError.code}
    if code == 0:
        return JobError("The computation ended without a result.", _REPORT, "error")
    return JobError(f"The computation ended unexpectedly (exit code {code}).", _REPORT, kinds.get(code, "error"))


def _by_signal(signal: int) -> JobError:
    if signal in _SIGNALS:
        return JobError(
            "The computation was ended from outside, most often because the computer ran out of memory.",
            "Close other programs and try again.",
            KILLED,
        )
    if signal == _ILLEGAL_INSTRUCTION:
        return JobError(
            "This computer's processor cannot run the installed TensorFlow.",
            "Choose a Python with a TensorFlow built for this processor in the section Set up.",
            "crash",
        )
    return JobError(f"The computation crashed (signal {signal}).", _REPORT, "crash")
