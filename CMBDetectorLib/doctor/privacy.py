"""Takes persons out of a report: home folders, the user's name, the computer's name. Standard library only."""

from __future__ import annotations

import getpass
import os
import platform
import re
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

# Anybody's home folder, not only that of whoever asks.
_HOMES = re.compile(
    r"(?:\b[a-z]:)?[/\\]+(?:users|home|documents and settings)[/\\]+"
    r"(?:[^/\\\n\"']{1,64}(?=[/\\])|[^/\\\s\"',;:)]+)",
    re.IGNORECASE,
)
# Names that stand for nobody.
_NOBODY = {"root", "user", "localhost", "admin", "python", "slicer"}
_SHORTEST = 3


def without_person(value: Any) -> Any:
    """Return ``value`` (text, or lists and dictionaries of it) with ``~`` for every home folder and so on."""
    if isinstance(value, dict):
        return {key: without_person(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_person(entry) for entry in value]
    if not isinstance(value, str):
        return value
    for home in _own_homes():
        value = value.replace(home, "~")
    value = _HOMES.sub("~", value)
    for name, stand_in in _names().items():
        value = re.sub(rf"(?<![\w]){re.escape(name)}(?![\w])", stand_in, value, flags=re.IGNORECASE)
    return value


@cache
def _own_homes() -> list[str]:
    """Return how the user's home folder may be written, the longest first."""
    homes = {os.environ.get(name, "") for name in ("HOME", "USERPROFILE")}
    with suppress(RuntimeError, OSError):
        homes |= {str(Path.home()), os.path.realpath(Path.home())}
    homes |= {home.replace("\\", "/") for home in homes} | {home.replace("\\", "\\\\") for home in homes}
    # "/" is the home of some services, and would be everywhere.
    return sorted((home.rstrip("/\\") for home in homes if len(home.strip("/\\:")) > 1), key=len, reverse=True)


@cache
def _names() -> dict[str, str]:
    users = {os.environ.get(name, "") for name in ("USER", "USERNAME", "LOGNAME")}
    try:
        users.add(getpass.getuser())
    # Which error it is differs between versions of Python.
    except Exception:
        users.discard("")
    computer = platform.node()
    names = {name: "<user>" for name in users} | {name: "<computer>" for name in (computer, computer.split(".")[0])}
    return {n: s for n, s in names.items() if len(n) >= _SHORTEST and n.lower() not in _NOBODY}
