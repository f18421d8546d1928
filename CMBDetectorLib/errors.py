"""Errors a user sees: one plain sentence, a next step and the worker's exit code.

Library code raises these; only the worker turns them into an ``error`` event or a line on the terminal.
"""

from __future__ import annotations

import errno
import re

# What ITK, TensorFlow, PyTorch and the system's loader say where they have no error type of their own for it.
_NO_MEMORY = re.compile(
    r"(not enough|out of|insufficient) memory|(can'?t|cannot|could not|failed to|unable to) allocate|bad.?alloc"
    r"|OOM when allocating|RESOURCE_EXHAUSTED|failed to map segment",
    re.IGNORECASE,
)
_OF_LIBRARIES = ("ResourceExhaustedError", "OutOfMemoryError", "_ArrayMemoryError")


class CMBDetectorError(Exception):
    """Base of all errors meant for a user.

    ``message`` is one sentence for a radiologist, ``hint`` the next step; ``code`` names the kind in the event stream
    and ``exit_code`` is what the worker process returns.
    """

    code = "error"
    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class BadInputError(CMBDetectorError):
    """The scan, mask, dataset or setting given by the user cannot be used."""

    code = "bad-input"
    exit_code = 2


class OutputError(CMBDetectorError):
    """Results cannot be written: no permission, no space, or a folder that holds something else."""

    code = "output"
    exit_code = 2


class MissingPackageError(CMBDetectorError):
    """A Python package that this command needs is not installed."""

    code = "missing-package"
    exit_code = 3


class SetUpError(MissingPackageError):
    """The packages could not be set up; those that were there before still are."""

    code = "set-up"


class NotOfferedError(SetUpError):
    """The package index has no such file."""


class ModelError(CMBDetectorError):
    """A model bundle or a set of weights is missing or damaged."""

    code = "model"
    exit_code = 4


class OutOfMemoryError(CMBDetectorError):
    """The machine has too little memory for the work."""

    code = "memory"
    exit_code = 5


class Cancelled(CMBDetectorError):
    """The user stopped the work; nothing was written."""

    code = "cancelled"
    exit_code = 6

    def __init__(self, message: str = "Cancelled; nothing was written.", hint: str = "") -> None:
        super().__init__(message, hint)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether ``error`` is some library's, or the system's, way of saying that there is no memory left."""
    if isinstance(error, MemoryError | OutOfMemoryError) or type(error).__name__ in _OF_LIBRARIES:
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError | ImportError) and _NO_MEMORY.search(str(error)) is not None
