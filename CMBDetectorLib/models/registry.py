"""The registry: a folder of installed versions of models, of which one is active; made to be changed without damage.

Every change holds a lock, so that two programs wait for each other, and is whole or not there after a crash: files are
first written into a folder ``.partial-…`` that nobody reads.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from CMBDetectorLib import temporary as in_use
from CMBDetectorLib.errors import BadInputError, ModelError, OutputError
from CMBDetectorLib.files import output_error, output_folder, write_json
from CMBDetectorLib.locking import FileLock
from CMBDetectorLib.models import package
from CMBDetectorLib.models.activation import State, pop, push, read_state
from CMBDetectorLib.models.bundle import BUNDLE_FILES, CARD, DEFAULT_MODEL, RESOURCES, Bundle, card_text
from CMBDetectorLib.models.versions import (
    Version,
    all_versions,
    bundled_versions,
    find_version,
    folder_name,
    installed_versions,
    load_bundle,
    registry_folder,
)

LOCK = ".lock"
# Installing the largest model takes half a minute on a slow drive.
_WAIT_S = 60.0
_OTHER_NAME = "Give it another name: cmbdetector models install … --name NAME."


class Registry:
    """The registry in ``folder`` (else that of the environment, else the user's own) beside the bundled models.

    The folder is made by the first change.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = Path(os.path.abspath(registry_folder(folder)))

    def versions(self) -> list[Version]:
        """Return the bundled and the installed versions, damaged ones too.

        Raises:
            BadInputError: the folder cannot be read.
        """
        return all_versions(self.folder)

    def load(self, reference: str | None = None) -> Bundle:
        """Return the model NAME or NAME@VERSION, verified; without a reference the active one.

        Where nothing was activated, or everything was rolled back, that is the program's own default.

        Raises:
            ModelError: it is missing, damaged, or other than it was when it was activated.
            BadInputError: there are several versions of that name.
        """
        if reference is not None:
            return load_bundle(find_version(reference, self.folder).whole_folder())
        active = read_state(self.folder).last
        if active is None or active.reference is None:
            return load_bundle(RESOURCES / "Models" / DEFAULT_MODEL)
        # Never another one in its place: nobody would notice whose results they are.
        hint = "Activate another one (cmbdetector models activate NAME), or name one with --model."
        if not any(version.reference == active.reference for version in self.versions()):
            raise ModelError(f"The active model {active.reference} is not there any more.", hint)
        bundle = self.load(active.reference)
        if bundle.checksum != active.checksum:
            raise ModelError(f"The networks of the active model {active.reference} are not those activated.", hint)
        return bundle

    def active_reference(self) -> str:
        """Return NAME@VERSION of what :meth:`load` takes without a reference; its files are not looked at.

        Raises:
            ModelError: that is not known.
        """
        active = read_state(self.folder).last
        if active is not None and active.reference is not None:
            return active.reference
        return next((v.reference for v in bundled_versions() if v.name == DEFAULT_MODEL), DEFAULT_MODEL)

    def activate(self, reference: str) -> tuple[Bundle, bool]:
        """Verify a model and make it the one that is used by default; returns it and whether it was not before.

        Raises:
            ModelError: it is missing or damaged; the active one stays.
            BadInputError: there are several versions of that name.
            OutputError: the registry cannot be written or is in use.
        """
        with self._changing():
            bundle = self.load(reference)
            package.check_bundle(bundle.folder)
            try:
                state = read_state(self.folder)
            except ModelError:
                # Nobody knows any more what was active before: a new beginning.
                state = State()
            last = state.last
            if last is not None and (last.reference, last.checksum) == (bundle.reference, bundle.checksum):
                return bundle, False
            push(self.folder, state, bundle)
            return bundle, True

    def rollback(self) -> Bundle:
        """Make the model active that was so before, passing over removed ones; verifies and returns it.

        Raises:
            BadInputError: there is none.
            ModelError: it is damaged; the active one stays.
            OutputError: the registry cannot be written or is in use.
        """
        with self._changing():
            state = read_state(self.folder)
            here = {None, *(version.reference for version in self.versions())}
            for depth, record in enumerate(reversed(state.before), 1):
                if record.reference in here:
                    default = RESOURCES / "Models" / DEFAULT_MODEL
                    bundle = load_bundle(default) if record.reference is None else self.load(record.reference)
                    if record.checksum not in (None, bundle.checksum):
                        raise ModelError(
                            f"The networks of {record.reference} are not those that were active before.",
                            f"If you trust them: cmbdetector models activate {record.reference}",
                        )
                    pop(self.folder, state, depth)
                    return bundle
            raise BadInputError(
                "No other model was active before.", "Choose one: cmbdetector models list, then models activate NAME."
            )

    def remove(self, reference: str) -> str:
        """Remove an installed version, damaged or not; returns its NAME@VERSION.

        Raises:
            ModelError: there is none, or it is not known which one is active.
            BadInputError: it is active or bundled, or there are several versions of that name.
            OutputError: the registry cannot be written or is in use.
        """
        with self._changing():
            own = [v for v in installed_versions(self.folder) if v.reference == reference]
            version = own[0] if own else find_version(reference, self.folder)
            if version.is_bundled:
                raise BadInputError(f"{version.name} came with the program: it cannot be removed.", "Leave it.")
            if version.reference == self.active_reference():
                raise BadInputError(
                    f"The model {version.reference} is active: it cannot be removed.",
                    "Activate another one before, or go back: cmbdetector models rollback.",
                )
            try:
                with self._stage() as stage:
                    # In one step, so that nobody sees half of a model.
                    os.rename(version.folder, stage / version.folder.name)
            except OSError as error:
                raise output_error(error, version.folder) from error
            return version.reference

    def install(self, source: Path, name: str | None = None) -> tuple[Bundle, bool]:
        """Install a bundle folder or a file made by :meth:`export`, under ``name`` where one is given.

        Returns:
            The installed bundle, and whether it is new: the same networks in the same version are installed once.

        Raises:
            ModelError: it is missing, damaged, or holds what no model holds.
            BadInputError: its name and version belong to other networks.
            OutputError: the registry cannot be written or is in use.
        """
        return self._add(source, {} if name is None else {"name": name}, renumber=False)

    def register(self, bundle_folder: Path, parent: str | None = None, name: str | None = None) -> Bundle:
        """Install what was just trained, as a child of ``parent`` (NAME@VERSION); it is not activated.

        Where the version in its card is taken by other networks it gets the next whole number.

        Raises:
            ModelError, BadInputError, OutputError: as :meth:`install`.
        """
        changes = {"name": name, "parent": parent}
        return self._add(bundle_folder, {k: v for k, v in changes.items() if v is not None}, renumber=True)[0]

    def export(self, reference: str, file: Path) -> Bundle:
        """Write a model as the one new file ``file`` that :meth:`install` takes; returns the model.

        Raises:
            ModelError: it is missing or damaged.
            OutputError: the file exists, or cannot be written.
        """
        bundle = self.load(reference)
        package.check_bundle(bundle.folder)
        package.write_package(bundle, file)
        return bundle

    def _add(self, source: Path, changes: dict[str, str], renumber: bool) -> tuple[Bundle, bool]:
        with self._changing(), self._stage() as stage:
            # Messages name the folder: it is called like the source. Made absolute, its name is never "..".
            copy = stage / (os.path.basename(os.path.abspath(source)) or "model")
            try:
                copy.mkdir()
                package.copy_in(source, copy)
            except OSError as error:
                raise output_error(error, self.folder) from error
            bundle = package.check_bundle(copy)
            card = {**bundle.card, **changes}
            if renumber:
                card["version"] = self._free_version(card["name"], card["version"], bundle.checksum)
            package.check_name("name", card["name"])
            package.check_name("version", card["version"])
            there = self._same(card, bundle.checksum)
            if there is not None:
                return there, False
            target = self.folder / folder_name(card["name"], card["version"])
            with output_folder(target, BUNDLE_FILES) as folder:
                for file in (CARD, *card["files"]):
                    os.rename(copy / file, folder / file)
                # Byte for byte as it came, unless it has to say something else.
                if card != bundle.card:
                    write_json(folder / CARD, card)
                # Not what came with it: no checksum covers that.
                (folder / package.README).write_bytes(card_text(card).encode("utf-8"))
            return Bundle(target, card), True

    def _same(self, card: dict[str, Any], checksum: str) -> Bundle | None:
        """Return the whole model that is there with the same name, version and networks; ``None`` lets it be installed.

        A damaged one may be replaced, by the same networks as far as its card can still tell.

        Raises:
            BadInputError: the name and version belong to something else.
        """
        name, version = card["name"], card["version"]
        for own in bundled_versions():
            if own.name.lower() == name.lower():
                if own.card is not None and own.reference == f"{name}@{version}":
                    bundle = load_bundle(own.folder)
                    if bundle.checksum == checksum:
                        return bundle
                raise BadInputError(f"The name {name} belongs to a model of this program.", _OTHER_NAME)
        # Capitals make no difference on many drives, and "a-1" in version 2 would share a folder with "a" in "1-2".
        folder = folder_name(name, version).lower()
        for other in installed_versions(self.folder):
            if other.folder.name.lower() != folder or other.card is None:
                continue
            if (other.card["name"], other.card["version"]) != (name, version):
                raise BadInputError(
                    f"{name} {version} would share a folder with the installed {other.reference}.", _OTHER_NAME
                )
            if Bundle(other.folder, dict(other.card)).checksum != checksum:
                raise BadInputError(f"Another model is installed as {other.reference}.", _OTHER_NAME)
            try:
                return load_bundle(other.folder)
            except ModelError:
                return None
        return None

    def _free_version(self, name: str, version: str, checksum: str) -> str:
        taken = {
            v.version: Bundle(v.folder, dict(v.card)).checksum if v.card is not None else ""
            for v in installed_versions(self.folder)
            if v.name == name
        }
        for known, its_checksum in taken.items():
            if its_checksum == checksum:
                return known
        if version not in taken:
            return version
        return str(max((int(v) for v in taken if v.isdecimal()), default=1) + 1)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the registry's lock.

        Raises:
            OutputError: the folder cannot be written, or another program holds the lock for long.
        """
        lock = FileLock(self.folder / LOCK)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            is_mine = lock.acquire(_WAIT_S)
        except OSError as error:
            raise output_error(error, self.folder) from error
        if not is_mine:
            raise OutputError(
                f"The models in {self.folder} are being changed by {lock.holder()}.", "Try again when it is done."
            )
        try:
            # Whoever made these was killed: everything temporary is made by the holder of the lock.
            for path in self.folder.glob(f"{in_use.PREFIX}*"):
                in_use.remove(path)
            yield
        finally:
            lock.release()

    @contextmanager
    def _stage(self) -> Iterator[Path]:
        """Yield a new folder in the registry that nobody reads, and that is gone in the end."""
        try:
            with in_use.undisturbed():
                stage = Path(tempfile.mkdtemp(prefix=in_use.PREFIX, dir=self.folder))
                in_use.register(stage)
        except OSError as error:
            raise output_error(error, self.folder) from error
        try:
            yield stage
        finally:
            in_use.remove(stage)
            in_use.unregister(stage)


def default_bundle() -> Bundle:
    """Return the active model of the registry, where nothing was activated the program's own default.

    Raises:
        ModelError: it is missing or damaged.
    """
    return Registry().load()


def register(bundle_folder: Path, parent: str | None = None, name: str | None = None) -> Bundle:
    """Install what was just trained in the registry, see :meth:`Registry.register`."""
    return Registry().register(bundle_folder, parent, name)
