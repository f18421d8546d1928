"""Where the retraining of a dataset keeps its work: preprocessed scans for the next time, and the run that goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from CMBDetectorLib.errors import BadInputError, OutputError
from CMBDetectorLib.files import check_output_folder, output_error
from CMBDetectorLib.locking import FileLock
from CMBDetectorLib.models.versions import registry_folder
from CMBDetectorLib.training.cases import PreparedCase
from CMBDetectorLib.training.work import open_work


class Workplace:
    """The folder of one dataset: ``cases`` and ``stage1-…`` stay for the next retraining, ``run`` until it is done."""

    def __init__(self, dataset: Path, folder: Path | None = None) -> None:
        """``folder``: instead of the one beside the registry of models."""
        name = hashlib.sha256(str(dataset.resolve()).encode()).hexdigest()[:16]
        self.folder = (folder or registry_folder().absolute().parent / "retrain" / name).absolute()

    @property
    def cases(self) -> Path:
        """Preprocessed scans."""
        return self.folder / "cases"

    @property
    def run(self) -> Path:
        """The retraining that goes on or was interrupted."""
        return self.folder / "run"

    def known_file(self, checksum: str, case: PreparedCase) -> Path:
        """Return the file for what the model of ``checksum`` says of ``case`` as it is now."""
        inputs = json.loads((case.folder / "case.json").read_text(encoding="utf-8"))["inputs"]
        return self.folder / f"stage1-{checksum[:12]}" / f"{case.id}-{inputs[:12]}.npz"

    def is_interrupted(self, description: dict[str, Any]) -> bool:
        """Tell whether a run of this ``description`` was interrupted and can go on."""
        try:
            known = json.loads((self.run / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(known == json.loads(json.dumps(description)))

    def open(self, description: dict[str, Any], resume: bool) -> None:
        """Begin the run, or go on with the interrupted one where ``resume``; one that was given up is removed.

        Raises:
            BadInputError: the interrupted run was another one.
        """
        # Without its description it was killed before it did anything.
        if not resume or not (self.run / "run.json").is_file():
            shutil.rmtree(self.run, ignore_errors=True)
        elif not self.is_interrupted(description):
            raise BadInputError(
                "The scans, the model or the settings have changed since the retraining was interrupted.",
                "Begin anew: repeat it without --resume.",
            )
        open_work(self.run, description, resume)

    def prepared(self, ids: Sequence[str]) -> int:
        """Return how many of the scans ``ids`` are preprocessed already."""
        return sum((self.cases / name / "case.json").is_file() for name in ids)

    def forget_others(self, ids: Sequence[str]) -> None:
        """Remove what is kept of scans that are in the dataset no more: they show patients."""
        for case in self.cases.glob("*"):
            if case.name not in ids and case.is_dir():
                shutil.rmtree(case, ignore_errors=True)

    def close(self) -> None:
        """Remove the run, which is done."""
        shutil.rmtree(self.run, ignore_errors=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock of this folder.

        Raises:
            OutputError: another retraining holds it, or the folder holds other files or cannot be written.
        """
        check_output_folder(self.folder, ("cases", "run", "stage1-*", ".lock"))
        lock = FileLock(self.folder / ".lock")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = lock.acquire()
        except OSError as error:
            raise output_error(error, self.folder) from error
        if not free:
            raise OutputError(
                f"A retraining on this dataset is going on already ({lock.holder()}).",
                "Wait until it has ended, or cancel it.",
            )
        try:
            yield
        finally:
            lock.release()
