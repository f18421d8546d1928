"""Names that stand for a scan and tell nothing of the patient: hashes with a salt that only this computer knows.

A plain hash of a patient's or series' number could be found again by hashing all numbers that there are.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from CMBDetectorLib import temporary
from CMBDetectorLib.user_data import data_folder

SALT = "pseudonyms.salt"
_BYTES = 32
# Whoever names files by BIDS has given the patients numbers.
_BIDS = re.compile(r"sub-[A-Za-z0-9]+(_[a-z]+-[A-Za-z0-9]+)*_(swi|SWI|GRE|T2starw|T2S|T2w|T1w|FLAIR)\.nii(\.gz)?")


def pseudonym(kind: str, text: str) -> str:
    """Return ``kind`` and 12 hexadecimal digits for ``text``; the same for this user on this computer, always.

    Where the user's data folder cannot be written it holds until the end of this process only.
    """
    digest = hmac.new(_salt(data_folder()), text.encode("utf-8", "surrogatepass"), "sha256").hexdigest()
    return f"{kind}-{digest[:12]}"


def neutral_name(source: Mapping[str, Any]) -> str:
    """Return what results call the scan that ``source`` (of a volume) describes.

    File names of BIDS and the names that DICOM series have here stay; other files may be called after the patient, and
    get a pseudonym.
    """
    name = str(source.get("name") or "scan")
    return name if source.get("kind") != "file" or _BIDS.fullmatch(name) else pseudonym("scan", name)


@cache
def _salt(folder: Path) -> bytes:
    path = folder / SALT
    with suppress(OSError):
        if (known := _read(path)) is not None:
            return known
    made = secrets.token_bytes(_BYTES)
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _keep(path, made)
    return made


def _read(path: Path) -> bytes | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return data if len(data) == _BYTES else None


def _keep(path: Path, made: bytes) -> bytes:
    """Write the salt unless another process was faster; return the one that counts."""
    # Not files.atomic_path: its results can be read by others, this one never.
    handle, name = tempfile.mkstemp(prefix=temporary.PREFIX, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(made)
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(name, path)
        except OSError:
            # There is one already, it is damaged, or the drive knows no links.
            if _read(path) is None:
                os.replace(name, path)
        return _read(path) or made
    finally:
        Path(name).unlink(missing_ok=True)
