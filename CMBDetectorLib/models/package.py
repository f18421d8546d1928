"""A model on its way: copied in from a bundle folder or from one file, checked, and written as one file."""

from __future__ import annotations

import json
import re
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from CMBDetectorLib.errors import BadInputError, ModelError, OutputError
from CMBDetectorLib.files import atomic_path
from CMBDetectorLib.models.archives import HINT, LARGEST_BYTES, copy_stream, opened, safe_entries
from CMBDetectorLib.models.bundle import CARD, PLAIN_NAME, Bundle, card_text
from CMBDetectorLib.models.companions import COMPANIONS, check_companion
from CMBDetectorLib.models.keras_file import check_network
from CMBDetectorLib.models.versions import load_bundle

README = "README.md"
_LARGEST_CARD = 4 << 20
_LONGEST_NAME = 80
# The oldest time that a zip archive can state: the bytes of a package do not depend on when it is made.
_TIME = (1980, 1, 1, 0, 0, 0)
# Windows opens a device for such a file name, whatever follows the dot.
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_LEFT_BY_FILE_MANAGERS = {".DS_Store", "Thumbs.db", "desktop.ini"}


def copy_in(source: Path, folder: Path) -> None:
    """Copy the files of the bundle ``source``, a folder or a file made by :func:`write_package`, into ``folder``.

    Raises:
        ModelError: there is none, it cannot be read, it is too large, or holds what belongs to no bundle.
        OSError: the folder cannot be written.
    """
    label = source.name or str(source)
    if source.is_dir():
        _copy({path.name: _opener(path) for path in _files_of(source, label)}, folder, label)
    elif source.is_file():
        with opened(source, label) as archive:
            entries = safe_entries(archive, label, _may_hold)
            _copy({name: _entry_opener(archive, entry) for name, entry in entries.items()}, folder, label)
    else:
        raise ModelError(f"There is no file or folder {source}.", "Check the path of the model.")
    if not (folder / CARD).is_file():
        raise ModelError(f"{label} is no model: it holds no {CARD}.", HINT)
    if (folder / CARD).stat().st_size > _LARGEST_CARD:
        raise ModelError(f"{label} is larger than any model.", HINT)


def check_bundle(folder: Path) -> Bundle:
    """Return the bundle in ``folder``: whole, holding nothing else, with networks that are networks and no more.

    Raises:
        ModelError: it is not.
    """
    bundle = load_bundle(folder)
    check_texts(bundle)
    files = bundle.card["files"]
    for name in files:
        if not (name.endswith(".keras") or name in COMPANIONS) or _DEVICE.fullmatch(name):
            raise ModelError(f"The model {bundle.name} holds {name}, which is no network.", HINT)
    others = {path.name for path in folder.iterdir()} - {CARD, README, *files} - _LEFT_BY_FILE_MANAGERS
    if others:
        raise ModelError(f"The model {bundle.name} holds {min(others)}, which has no checksum.", HINT)
    for name in files:
        check = check_companion if name in COMPANIONS else check_network
        check(folder / name)
    return bundle


def check_texts(bundle: Bundle) -> None:
    """Refuse a card that could not be shown, written or used: a stranger's card may hold anything.

    Raises:
        ModelError: it is such a card.
    """
    card = bundle.card
    try:
        texts = [card[key] for key in ("name", "version", "training_data", "licence", "description")]
        texts += [card.get("created", ""), card["parent"] or "", *card["metrics"], *card["metrics"].values()]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("a text is none")
        # Numbers and letters that JSON cannot hold.
        json.dumps([card, bundle.operating_points, bundle.thresholds], allow_nan=False, ensure_ascii=False).encode()
        card_text(card)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ModelError(f"The card of the model {bundle.folder.name} is damaged.", HINT) from error


def check_name(kind: str, text: Any) -> None:
    """Refuse a name (or version) that cannot be part of a folder's name everywhere; ``kind`` stands in the sentence.

    Raises:
        BadInputError: it is no such name.
    """
    plain = isinstance(text, str) and PLAIN_NAME.fullmatch(text) and len(text) <= _LONGEST_NAME
    if not plain or text.endswith(".") or _DEVICE.fullmatch(text):
        raise BadInputError(
            f"A model cannot be installed with the {kind} {str(text)[:60]!r}.",
            "Give it a name of letters a-z, digits, '.', '_' and '-' with --name.",
        )


def write_package(bundle: Bundle, file: Path) -> None:
    """Write ``bundle`` as the new zip archive ``file``: the same bundle gives the same bytes, always and everywhere.

    Raises:
        OutputError: there is a file of that name, or it cannot be written.
    """
    if file.exists():
        raise OutputError(f"{file} exists already.", "Give another name, so that nothing is overwritten.")
    with atomic_path(file) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in sorted({CARD, README, *bundle.card["files"]}):
            info = zipfile.ZipInfo(name, _TIME)
            info.create_system = 3
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            # Not compressed: weights hardly shrink, and versions of zlib differ in the bytes they make.
            if name == README:
                archive.writestr(info, card_text(bundle.card).encode("utf-8"))
                continue
            info.file_size = (bundle.folder / name).stat().st_size
            with open(bundle.folder / name, "rb") as stream, archive.open(info, "w") as out:
                shutil.copyfileobj(stream, out, 1 << 20)


def _may_hold(name: str) -> bool:
    plain = PLAIN_NAME.fullmatch(name) and not _DEVICE.fullmatch(name)
    return name in (CARD, README, *COMPANIONS) or bool(plain and name.endswith(".keras"))


def _files_of(folder: Path, label: str) -> list[Path]:
    files = []
    try:
        for path in sorted(folder.iterdir()):
            if path.name in _LEFT_BY_FILE_MANAGERS:
                continue
            if not stat.S_ISREG(path.lstat().st_mode):
                raise ModelError(f"{label} holds a link or something else that is no file: {path.name}.", HINT)
            if not _may_hold(path.name):
                raise ModelError(f"{label} holds {path.name}, which belongs to no model.", "Give a model's own folder.")
            files.append(path)
    except OSError as error:
        raise ModelError(f"{label} cannot be read.", "Check the folder and its permissions.") from error
    return files


def _opener(path: Path) -> Callable[[], IO[bytes]]:
    return lambda: open(path, "rb")


def _entry_opener(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    return lambda: archive.open(entry)


def _copy(sources: dict[str, Callable[[], IO[bytes]]], folder: Path, label: str) -> None:
    left = LARGEST_BYTES
    for name, opener in sources.items():
        try:
            stream = opener()
        except OSError as error:
            raise ModelError(f"{label} cannot be read.", "Check the file and its permissions.") from error
        with stream:
            left -= copy_stream(stream, folder / name, left, label)
