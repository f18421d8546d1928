"""Which model is active in a registry and which ones were before: ``active.json``; ``history.jsonl`` is the record.

``active.json`` is what counts, and is replaced as a whole. The history only grows; a line that a crash kept from it is
added before the next one.
"""

from __future__ import annotations

import datetime
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from CMBDetectorLib.errors import ModelError
from CMBDetectorLib.files import output_error, write_json
from CMBDetectorLib.models.bundle import Bundle

ACTIVE = "active.json"
HISTORY = "history.jsonl"
_SCHEMA = 1


@dataclass(frozen=True)
class Activation:
    """That a model became active: ``action`` is "activate" or "rollback", ``time`` ISO 8601 in UTC.

    ``checksum`` names its networks. All three are ``None`` where the program's own default became active again.
    """

    time: str
    action: str
    name: str | None = None
    version: str | None = None
    checksum: str | None = None

    @property
    def reference(self) -> str | None:
        """NAME@VERSION, ``None`` for the program's default."""
        return None if self.name is None else f"{self.name}@{self.version}"


@dataclass(frozen=True)
class State:
    """The last activation (``None``: nothing was ever activated) and the ones to go back to, the latest at the end."""

    last: Activation | None = None
    before: list[Activation] = field(default_factory=list)


def read_state(registry: Path) -> State:
    """Return the state of the folder ``registry``; that of an absent or fresh one is empty.

    Raises:
        ModelError: ``active.json`` is damaged or cannot be read.
    """
    try:
        data = json.loads((registry / ACTIVE).read_text(encoding="utf-8"))
        if data["schema"] != _SCHEMA:
            raise ValueError(f"schema {data['schema']}")
        return State(_parsed(data["active"]), [_parsed(record) for record in data["before"]])
    except (FileNotFoundError, NotADirectoryError):
        return State()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"It is not known which model is active: {registry / ACTIVE} is damaged or cannot be read.",
            "Activate one again (cmbdetector models activate NAME), or name one with --model.",
        ) from error


def push(registry: Path, state: State, bundle: Bundle) -> None:
    """Make ``bundle`` the active one after ``state``; the registry must be locked.

    Raises:
        OutputError: the folder cannot be written.
    """
    last = state.last or Activation(_now(), "start")
    record = Activation(_now(), "activate", bundle.name, str(bundle.card["version"]), bundle.checksum)
    _write(registry, state, State(record, [*state.before, last]))


def pop(registry: Path, state: State, depth: int) -> None:
    """Go back by ``depth`` activations; the registry must be locked.

    Raises:
        OutputError: the folder cannot be written.
    """
    back = state.before[-depth]
    record = Activation(_now(), "rollback", back.name, back.version, back.checksum)
    _write(registry, state, State(record, state.before[:-depth]))


def _write(registry: Path, old: State, new: State) -> None:
    lines = _read_history(registry)
    data = {"schema": _SCHEMA, "active": asdict(new.last), "before": [asdict(record) for record in new.before]}
    write_json(registry / ACTIVE, data)
    missing = [old.last] if old.last is not None and (not lines or lines[-1] != _line(old.last)) else []
    _append(registry / HISTORY, [_line(record) for record in [*missing, new.last] if record is not None])


def _append(path: Path, lines: list[str]) -> None:
    try:
        with open(path, "ab+") as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                # A crash may have cut the last line.
                if stream.read(1) != b"\n":
                    stream.write(b"\n")
            stream.write("".join(f"{line}\n" for line in lines).encode("ascii"))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise output_error(error, path) from error


def _read_history(registry: Path) -> list[str]:
    try:
        return (registry / HISTORY).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []


def _line(record: Activation) -> str:
    return json.dumps(asdict(record))


def _parsed(record: dict[str, Any]) -> Activation:
    if not all(value is None or isinstance(value, str) for value in record.values()):
        raise TypeError("an entry is no text")
    return Activation(**record)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
