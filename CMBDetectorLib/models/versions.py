"""Which versions of models there are - bundled with the program, or installed by the user - and which one is meant.

Only reads; what changes the registry of installed versions is in ``registry``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from CMBDetectorLib.errors import BadInputError, ModelError
from CMBDetectorLib.models.bundle import CARD, DEFAULT_MODEL, RESOURCES, Bundle, read_card, verified
from CMBDetectorLib.user_data import data_folder

VARIABLE = "CMBDETECTOR_MODELS"
"""The environment variable that names the registry's folder."""


@dataclass(frozen=True)
class Version:
    """One model in one version, as it lies in ``folder``.

    ``problem`` is the sentence that says why it cannot be used; name and version are then taken from the folder's name.
    ``card`` is ``None`` where it is damaged.
    """

    folder: Path
    name: str
    version: str
    is_bundled: bool
    card: Mapping[str, Any] | None
    problem: str | None = None

    @property
    def reference(self) -> str:
        """NAME@VERSION."""
        return f"{self.name}@{self.version}"

    def whole_folder(self) -> Path:
        """Return the folder.

        Raises:
            ModelError: there is a problem with it.
        """
        if self.problem is not None:
            raise ModelError(self.problem, "Install the model again.")
        return self.folder


def registry_folder(given: Path | None = None) -> Path:
    """Return the folder of the installed models: ``given``, that of the environment, or the user's own."""
    if given is not None:
        return given
    named = os.environ.get(VARIABLE, "").strip()
    return Path(named) if named else data_folder() / "models"


def folder_name(name: str, version: str) -> str:
    """Return the name of the folder of a version in the registry."""
    return f"{name}-{version}"


def bundled_versions() -> list[Version]:
    """Return what lies in ``Resources/Models``, by name."""
    return [_read(folder, is_bundled=True) for folder in _bundle_folders(RESOURCES / "Models")]


def installed_versions(registry: Path) -> list[Version]:
    """Return what lies in the folder ``registry``, by name and version; half-written and foreign folders do not count.

    Raises:
        BadInputError: it is no folder, or cannot be read.
    """
    versions = [_read(folder, is_bundled=False) for folder in _bundle_folders(registry)]
    return sorted(versions, key=lambda v: (v.name, _by_number(v.version)))


def all_versions(registry: Path | None = None) -> list[Version]:
    """Return the bundled versions and then those of the registry.

    Raises:
        BadInputError: the registry is no folder, or cannot be read.
    """
    return bundled_versions() + installed_versions(registry_folder(registry))


def find_version(reference: str, registry: Path | None = None) -> Version:
    """Return the version that NAME or NAME@VERSION means; a name of a bundled model always means that one.

    Raises:
        ModelError: there is none.
        BadInputError: there are several versions of that name.
    """
    name, _, version = reference.partition("@")

    def meant(versions: list[Version]) -> list[Version]:
        return [v for v in versions if v.name == name and version in ("", v.version)]

    # A script that names the program's own model must not get another one because a version of it was installed; nor
    # does it need a registry that can be read.
    if own := meant(bundled_versions()):
        return own[0]
    known = all_versions(registry)
    found = meant(known)
    if not found:
        names = ", ".join(v.name if v.is_bundled else v.reference for v in known) or "none"
        raise ModelError(
            f"There is no model {reference}.", f"Give the folder of a bundle or one of the models: {names}."
        )
    if len(found) > 1:
        names = ", ".join(v.reference for v in found)
        raise BadInputError(f"There are {len(found)} versions of the model {name}.", f"Name one of them: {names}.")
    return found[0]


def load_bundle(name_or_folder: str | Path = DEFAULT_MODEL) -> Bundle:
    """Find a bundle and verify it: by folder, or as NAME or NAME@VERSION among the bundled and the installed ones.

    The name of a bundled model always means that one, also where a folder is called so: that one is ``./NAME``.

    Raises:
        ModelError: there is none, its card is damaged, or a file is missing or has another checksum.
        BadInputError: there are several versions of that name.
    """
    folder = Path(name_or_folder)
    if folder.is_dir() and not any(name_or_folder in (v.name, v.reference) for v in bundled_versions()):
        return verified(folder)
    return verified(find_version(str(name_or_folder)).whole_folder())


def _bundle_folders(folder: Path) -> list[Path]:
    try:
        if not folder.exists():
            return []
        return sorted(f for f in folder.iterdir() if not f.name.startswith(".") and (f / CARD).is_file())
    except NotADirectoryError as error:
        raise BadInputError(f"{folder} is a file, not a folder of models.", "Give another folder.") from error
    except OSError as error:
        raise BadInputError(f"The folder of models {folder} cannot be read.", "Ask for the permission to.") from error


def _read(folder: Path, is_bundled: bool) -> Version:
    card = None
    try:
        card = read_card(folder)
        name, version = str(card["name"]), str(card["version"])
        if folder.name == (name if is_bundled else folder_name(name, version)):
            return Version(folder, name, version, is_bundled, card)
        problem = f"The folder {folder.name} holds the model {name} {version}: it was renamed or copied by hand."
    except ModelError as error:
        problem = error.message
    name, _, version = (folder.name, "", "") if is_bundled else folder.name.rpartition("-")
    return Version(folder, name or folder.name, version or "?", is_bundled, card, problem)


def _by_number(version: str) -> list[tuple[int, str]]:
    """Return a key that puts 10 behind 9."""
    return [(int(part or 0), text) for text, part in re.findall(r"([^0-9]*)([0-9]*)", version)]
