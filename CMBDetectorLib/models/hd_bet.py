"""The weights of HD-BET 2: where they lie and how they are installed from a file that the user fetched."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any

from CMBDetectorLib.errors import ModelError
from CMBDetectorLib.files import output_folder

# Names another folder than HD-BET's own, for managed installations.
WEIGHTS_VARIABLE = "CMBDETECTOR_HD_BET_WEIGHTS"
CHECKPOINT = "fold_all/checkpoint_final.pth"
REQUIRED = ("dataset.json", "plans.json", CHECKPOINT)

# The published archive is a few hundred megabytes.
_LARGEST_BYTES = 4 * 1024**3
# What an nnU-Net model folder may hold; anything else is not replaced.
_MINE = ("*.json", "*.txt", "*.png", "*.pkl", "fold_*")
# What nnU-Net imports and calls by the names in plans.json may be networks and their parts, nothing else.
_IMPORTED = ("dynamic_network_architectures.architectures.", "torch.nn.")
_HINT = "Download the HD-BET 2 weights again, or use --brain-mask simple."


def package_version() -> str | None:
    """Return the version of the HD-BET that Python would import, None where there is none.

    An installed 2.x may be hidden behind the 1.1 that another Slicer extension puts on the path, so what counts is
    the package found, not only the one registered. Nothing is imported.
    """
    try:
        spec = importlib.util.find_spec("HD_BET")
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        return None
    if not any((Path(folder) / "hd_bet_prediction.py").is_file() for folder in spec.submodule_search_locations):
        return "1"
    try:
        return importlib.metadata.version("hd-bet")
    except importlib.metadata.PackageNotFoundError:
        return "2"


def weights_folder() -> Path:
    """Return the folder of the weights: that of the environment variable, else the one HD-BET itself uses."""
    if named := os.environ.get(WEIGHTS_VARIABLE):
        return Path(named)
    version = package_version()
    if version is not None and version.startswith("2"):
        # This module of HD-BET imports nothing but os.
        from HD_BET.paths import folder_with_parameter_files

        return Path(folder_with_parameter_files)
    return Path.home() / "hd-bet_params" / "release_2.0.0"


def weights_present() -> bool:
    """Tell whether all files that HD-BET reads are in :func:`weights_folder`."""
    return all((weights_folder() / name).is_file() for name in REQUIRED)


def install_weights(zip_or_folder: Path | str) -> Path:
    """Install the weights of HD-BET 2 from the published archive, or from a folder unpacked from it.

    The three files HD-BET reads are checked and copied beside the target first, so that weights already there stay
    whole whatever goes wrong.

    Returns:
        The folder of the weights.

    Raises:
        ModelError: the archive is missing, damaged, too large or no HD-BET 2 model.
        OutputError: the target cannot be written, or holds files that are no weights.
    """
    source, target = Path(zip_or_folder), weights_folder()
    if not source.exists():
        raise ModelError(f"There is no file or folder {source}.", "Check the path of the downloaded weights.")
    with output_folder(target, _MINE) as temporary:
        if source.is_dir():
            _copy(_from_folder(source), temporary, source.name)
        else:
            _unpack(source, temporary)
        _check(temporary, source.name)
    return target


def _unpack(archive: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _from_archive(opened, archive.name)
            _copy({name: (lambda info=info: opened.open(info)) for name, info in members.items()}, target, archive.name)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelError(f"{archive.name} is not a complete zip archive.", _HINT) from error


def _from_archive(archive: zipfile.ZipFile, label: str) -> dict[str, zipfile.ZipInfo]:
    """Return the entry of each required file, below the archive's root or a single folder in it."""
    entries = [info for info in archive.infolist() if not info.is_dir()]
    for info in entries:
        path = PurePosixPath(info.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            raise ModelError(f"{label} holds a file that would be written outside its folder.", _HINT)
    if sum(info.file_size for info in entries) > _LARGEST_BYTES:
        raise ModelError(f"{label} is larger than any HD-BET model.", _HINT)
    names = {info.filename.replace("\\", "/"): info for info in entries}
    root = _root(list(names), label)
    return {name: names[root + name] for name in REQUIRED}


def _from_folder(folder: Path) -> dict[str, Callable[[], IO[bytes]]]:
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    root = _root(files, folder.name)
    return {name: (lambda name=name: open(folder / (root + name), "rb")) for name in REQUIRED}


def _root(names: list[str], label: str) -> str:
    """Return what stands before the required names, ``""`` or ``"folder/"``; the shortest where several fit."""
    ends = [name[: -len(CHECKPOINT)] for name in names if f"/{name}".endswith(f"/{CHECKPOINT}")]
    whole = [root for root in ends if all(root + name in names for name in REQUIRED)]
    if not whole:
        raise ModelError(
            f"{label} is no HD-BET 2 model: it lacks {', '.join(REQUIRED[:2])} or {CHECKPOINT}.",
            "Give the zip file published with HD-BET 2, as downloaded.",
        )
    return min(whole, key=len)


def _copy(sources: dict[str, Callable[[], IO[bytes]]], target: Path, label: str) -> None:
    """Copy each source to its name below ``target``; the sizes an archive claims are not trusted."""
    left = _LARGEST_BYTES
    for name, opener in sources.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        with opener() as stream, open(target / name, "wb") as out:
            while block := stream.read(1 << 20):
                left -= len(block)
                if left < 0:
                    raise ModelError(f"{label} is larger than any HD-BET model.", _HINT)
                out.write(block)


def _check(folder: Path, label: str) -> None:
    """Refuse what HD-BET could not load, as far as that shows without torch."""
    for name, key in (("dataset.json", "labels"), ("plans.json", "configurations")):
        try:
            data = json.loads((folder / name).read_text(encoding="utf-8"))
        except ValueError:
            data = None
        if not isinstance(data, dict) or key not in data:
            raise ModelError(f"{label} is no HD-BET 2 model: its {name} is damaged.", _HINT)
        _check_names(data, label)
    # torch.save writes a zip; a torn one lacks the directory at its end.
    if not zipfile.is_zipfile(folder / CHECKPOINT):
        raise ModelError(f"{label} is no HD-BET 2 model: its checkpoint is damaged.", _HINT)


def check_plans(folder: Path) -> None:
    """Refuse weights in ``folder`` whose plans would have nnU-Net call anything but parts of networks.

    Raises:
        ModelError: they would, or are damaged.
    """
    try:
        plans = json.loads((folder / "plans.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError("The weights of HD-BET are damaged: plans.json.", _HINT) from error
    _check_names(plans, "The weights of HD-BET")


def _check_names(data: Any, label: str) -> None:
    waiting = [data]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            waiting += part.values()
            called = [part.get("network_class_name")]
            arguments = part.get("arch_kwargs")
            imported = part.get("_kw_requires_import")
            if isinstance(arguments, dict) and isinstance(imported, list):
                called += [arguments.get(str(name)) for name in imported]
            if not all(name is None or (isinstance(name, str) and name.startswith(_IMPORTED)) for name in called):
                raise ModelError(f"{label} would run something else than a network.", _HINT)
