"""A model bundle: a folder with ``model.json`` (the card) and the ``.keras`` files of two U-Nets and two CNNs.

Knows files and checksums, not networks: what is inside a ``.keras`` file is the business of ``detection`` and
``training``.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from CMBDetectorLib.errors import BadInputError, ModelError
from CMBDetectorLib.files import output_folder, sha256, write_json, write_text
from CMBDetectorLib.models.companions import COMPANIONS, REPLAY

SCHEMA = 1
CARD = "model.json"
BUNDLE_FILES = (CARD, "*.keras", "README.md", *COMPANIONS)
"""Glob patterns of everything a bundle folder may hold."""

RESOURCES = Path(__file__).resolve().parents[2] / "Resources"
DEFAULT_MODEL = "default"
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Names of files, models and versions: the same on every file system, and no path."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose checksums have been verified: its ``folder`` and its ``card`` (the content of model.json)."""

    folder: Path
    card: dict[str, Any]

    @property
    def name(self) -> str:
        """The bundle's name."""
        return str(self.card["name"])

    @property
    def reference(self) -> str:
        """Name and version, as ``--model`` takes them: NAME@VERSION."""
        return f"{self.name}@{self.card['version']}"

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size in mm (i, j, k of a canonical volume) at which the networks see a scan."""
        return tuple(float(v) for v in self.card["spacing_mm"])  # type: ignore[return-value]

    @property
    def coarsest_mm(self) -> tuple[float, float, float]:
        """The coarsest voxels in mm (R, A, S) of the scans that the networks learnt from; of a card that does not tell,
        twice :attr:`spacing_mm`."""
        known = self.card.get("coarsest_mm") or [2 * v for v in self.spacing_mm]
        return tuple(float(v) for v in known)  # type: ignore[return-value]

    @property
    def thresholds(self) -> dict[str, float]:
        """``stage1`` (candidates), ``mimics`` (mining) and ``shown`` (candidates presented first)."""
        return {key: float(value) for key, value in self.card["thresholds"].items()}

    @property
    def checksum(self) -> str:
        """SHA-256 over the checksums of all network files: one number that names these weights."""
        return files_checksum({name: value for name, value in self.card["files"].items() if name not in COMPANIONS})

    @property
    def replay(self) -> Path | None:
        """The file of simulated windows to learn from again beside local scans, where the model has them."""
        return self.folder / REPLAY if REPLAY in self.card["files"] else None

    def networks(self, kind: str) -> list[tuple[Path, dict[str, Any]]]:
        """Return (file, architecture) of each network of ``kind`` ("unets" or "cnns")."""
        return [(self.folder / entry["file"], entry["architecture"]) for entry in self.card["networks"][kind]]

    def provenance(self) -> dict[str, Any]:
        """Return what a result states about its model."""
        keys = ("name", "version", "training_data", "licence")
        provenance = {**{key: self.card[key] for key in keys}, "checksum": self.checksum}
        points = self.operating_points
        return {**provenance, "operating_points": points} if points else provenance

    @property
    def operating_points(self) -> dict[str, float]:
        """Scores to show candidates from, by what they cost ("4.1 FP/scan"), where that was measured.

        Of several datasets the highest score counts, so that none of them had more false positives.
        """
        combined: dict[str, float] = {}
        for points in self.card.get("operating_points", {}).values():
            for rate, score in points.items():
                name = f"{rate} FP/scan"
                combined[name] = max(float(score), combined.get(name, 0.0))
        return combined


def verified(folder: Path) -> Bundle:
    """Return the bundle in ``folder`` after comparing all its files with the checksums of its card.

    Raises:
        ModelError: there is none, its card is damaged, or a file is missing or has another checksum.
    """
    card = read_card(folder)
    for name, checksum in card["files"].items():
        path = folder / name
        if not path.is_file():
            raise ModelError(f"The model {card['name']} lacks its file {name}.", "Install the model again.")
        if sha256(path) != checksum:
            raise ModelError(
                f"The file {name} of the model {card['name']} has a wrong checksum: it was damaged or changed.",
                "Install the model again.",
            )
    return Bundle(folder, card)


def read_card(folder: Path) -> dict[str, Any]:
    """Return the card of the bundle in ``folder``; its other files are not looked at.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        _check_card(card)
        return card
    except FileNotFoundError as error:
        raise ModelError(f"{folder} holds no {CARD}.", "Give the folder of a model bundle.") from error
    # A card nested too deeply for the parser ends in RecursionError.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"The card of the model {folder.name} is damaged.", "Install the model again.") from error


def write_bundle(folder: Path | str, card: Mapping[str, Any], files: Mapping[str, Path]) -> Bundle:
    """Write a bundle: copies ``files`` (name -> source) and a card with their checksums, all or nothing.

    ``card`` has every key of model.json but ``schema`` and ``files``.

    Raises:
        OutputError: the folder holds something that is no bundle, or cannot be written.
        BadInputError: the card is incomplete.
    """
    folder = Path(folder)
    full = {"schema": SCHEMA, **card, "files": {name: sha256(path) for name, path in files.items()}}
    try:
        _check_card(full)
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(f"The model card is incomplete ({error}).", "Give every entry of the card.") from error
    with output_folder(folder, BUNDLE_FILES) as temporary:
        for name, path in files.items():
            shutil.copyfile(path, temporary / name)
        write_json(temporary / CARD, full)
        (temporary / "README.md").write_text(card_text(full), encoding="utf-8")
    return Bundle(folder, full)


def add_metrics(
    bundle: Bundle, metrics: Mapping[str, str], operating_points: Mapping[str, Mapping[str, float]] | None = None
) -> Bundle:
    """Write ``metrics`` (what was measured -> result) into the card of ``bundle``, beside those already there.

    ``operating_points``: what was measured -> false positives a scan ("4.1") -> lowest score that stays within them.

    Raises:
        OutputError: the folder cannot be written.
    """
    card = {**bundle.card, "metrics": {**bundle.card["metrics"], **metrics}}
    if operating_points:
        card["operating_points"] = {**bundle.card.get("operating_points", {}), **operating_points}
    write_json(bundle.folder / CARD, card)
    write_text(bundle.folder / "README.md", card_text(card))
    return Bundle(bundle.folder, card)


def set_shown_threshold(bundle: Bundle, score: float) -> Bundle:
    """Write into the card of ``bundle`` from which score on it shows candidates.

    Raises:
        OutputError: the folder cannot be written.
    """
    card = {**bundle.card, "thresholds": {**bundle.card["thresholds"], "shown": score}}
    write_json(bundle.folder / CARD, card)
    return Bundle(bundle.folder, card)


def files_checksum(files: Mapping[str, str]) -> str:
    """Return one SHA-256 for a mapping of file names to their SHA-256."""
    return hashlib.sha256("\n".join(f"{name} {files[name]}" for name in sorted(files)).encode()).hexdigest()


def card_text(card: Mapping[str, Any]) -> str:
    """Return the card as a page for people (Markdown)."""
    metrics = "\n".join(f"* {key}: {value}" for key, value in card["metrics"].items()) or "* none measured"
    return (
        f"# {card['name']} {card['version']}\n\n**{card['training_data']} Not for clinical use.**\n\n"
        f"{card['description']}\n\n"
        f"Voxel size {' x '.join(str(v) for v in card['spacing_mm'])} mm, window "
        f"{' x '.join(str(v) for v in card['window'])} voxels, licence {card['licence']}, parent: {card['parent']}.\n\n"
        f"## Measured\n\n{metrics}\n"
    )


def _check_card(card: Mapping[str, Any]) -> None:
    """Raise ``KeyError``, ``TypeError`` or ``ValueError`` for a card that lacks an entry or points elsewhere."""
    if card["schema"] != SCHEMA:
        raise ValueError(f"schema {card['schema']}")
    for key in ("name", "version", "parent", "training_data", "licence", "description", "metrics"):
        card[key]
    for voxels in (card["spacing_mm"], card.get("coarsest_mm", card["spacing_mm"])):
        if len(voxels) != 3 or not all(float(v) > 0 for v in voxels):
            raise ValueError("spacing_mm")
    for key in ("stage1", "mimics", "shown"):
        float(card["thresholds"][key])
    for name in card["files"]:
        if not PLAIN_NAME.fullmatch(name):
            raise ValueError(f"file name {name!r}")
    for kind in ("unets", "cnns"):
        if not card["networks"][kind]:
            raise ValueError(f"no {kind}")
        for entry in card["networks"][kind]:
            if entry["file"] not in card["files"]:
                raise ValueError(f"no checksum for {entry['file']!r}")
            entry["architecture"]["kind"]
