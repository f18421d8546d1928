"""Copying an image file of a public dataset into a BIDS one, unchanged but for compression."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import BinaryIO

from CMBDetectorLib.errors import BadInputError


def copy_compressed(source: Path, destination: Path) -> None:
    """Copy the NIfTI ``source`` to ``destination`` (``.nii.gz``), compressing it unless it already is.

    Raises:
        BadInputError: the source cannot be read.
        OSError: the destination cannot be written.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    with _opened(source) as stream, open(destination, "wb") as target:
        if source.name.endswith(".gz"):
            shutil.copyfileobj(stream, target, 1 << 20)
        else:
            # No name and time in the header: the same scan gives the same file.
            with gzip.GzipFile(filename="", mode="wb", fileobj=target, compresslevel=6, mtime=0) as packed:
                shutil.copyfileobj(stream, packed, 1 << 20)


def _opened(source: Path) -> BinaryIO:
    try:
        return source.open("rb")
    except OSError as error:
        raise BadInputError(f"{source} cannot be read: {error.strerror}.", "Check its permissions.") from error
