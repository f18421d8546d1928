"""What is installed to find microbleeds with: models, by their checksums, and HD-BET's weights."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from CMBDetectorLib.doctor.findings import OK, PROBLEM, WARNING, Finding
from CMBDetectorLib.errors import CMBDetectorError, ModelError
from CMBDetectorLib.files import sha256
from CMBDetectorLib.models import hd_bet
from CMBDetectorLib.models.keras_file import check_network
from CMBDetectorLib.models.registry import Registry
from CMBDetectorLib.models.versions import Version, load_bundle

_SIMPLE = "Without it the simple brain mask is used."
_AGAIN = "Get the weights of HD-BET 2 again and run: cmbdetector models install --hd-bet FILE"


def models(registry: Path | None = None) -> list[Finding]:
    """Return whether every bundled and every installed model is what its checksums say, and which one is active."""
    known = Registry(registry)
    versions = known.versions()
    whole = {}
    findings = []
    active: str | None = None
    try:
        active = known.active_reference()
    except CMBDetectorError as error:
        findings.append(Finding("Active model", PROBLEM, error.message, error.hint, exit_code=ModelError.exit_code))
    for version in versions:
        try:
            whole[version.reference] = _checksum(version)
        except CMBDetectorError as error:
            is_needed = version.is_bundled or version.reference == active
            hint = error.hint or "Install the model again."
            state = PROBLEM if is_needed else WARNING
            findings.append(Finding("Model", state, error.message, hint, exit_code=ModelError.exit_code))
    if active is not None and active not in {version.reference for version in versions}:
        text = f"the active model {active} is not there any more"
        hint = "Activate another one: cmbdetector models activate NAME"
        findings.append(Finding("Active model", PROBLEM, text, hint, exit_code=ModelError.exit_code))
    told = ", ".join(f"{name} ({checksum[:12]}){' active' * (name == active)}" for name, checksum in whole.items())
    text = f"{told}: checksums are right" if whole else "none is whole"
    return [Finding("Models", OK if whole else PROBLEM, text, "", {"checksums": whole, "active": active}, 4), *findings]


def brain_mask() -> Finding:
    """Return whether HD-BET can be used."""
    version = hd_bet.package_version()
    values: dict[str, object] = {"version": version}
    if version is None:
        return Finding(
            "HD-BET",
            WARNING,
            "not installed",
            f"{_SIMPLE} To set it up: section Set up of the module, or cmbdetector runtime setup --part hd-bet",
            values,
        )
    if not version.startswith("2"):
        hint = f"{_SIMPLE} Remove the other extension that brings it, or install HD-BET 2."
        return Finding("HD-BET", WARNING, f"version {version}; version 2 is needed", hint, values)
    folder = hd_bet.weights_folder()
    absent = [name for name in hd_bet.REQUIRED if not (folder / name).is_file()]
    if absent:
        return Finding(
            "HD-BET", WARNING, f"{version}, but its weights are not installed", f"{_SIMPLE} {_AGAIN}", values
        )
    damaged = _damaged_weights(folder)
    if damaged:
        text = f"{version}, but {damaged} among its weights is damaged"
        return Finding("HD-BET", PROBLEM, text, _AGAIN, values, ModelError.exit_code)
    values["checksums"] = {name: sha256(folder / name) for name in hd_bet.REQUIRED}
    checksum = values["checksums"][hd_bet.CHECKPOINT]  # type: ignore[index]
    return Finding("HD-BET", OK, f"{version}, weights whole (SHA-256 {checksum[:12]})", values=values)


def _checksum(version: Version) -> str:
    """Return the checksum of a model whose files are what its card says and hold nothing but networks."""
    bundle = load_bundle(version.whole_folder())
    for kind in ("unets", "cnns"):
        for file, _ in bundle.networks(kind):
            check_network(file)
    return bundle.checksum


def _damaged_weights(folder: Path) -> str | None:
    """Return the name of a file of the weights that is damaged, as far as its own checksums tell."""
    for name in hd_bet.REQUIRED:
        try:
            if name == hd_bet.CHECKPOINT:
                with zipfile.ZipFile(folder / name) as archive:
                    if archive.testzip() is not None:
                        return name
            else:
                json.loads((folder / name).read_text(encoding="utf-8"))
        # What zipfile raises for torn archives, and json for damaged texts.
        except (OSError, ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile):
            return name
    return None
