"""``cmbdetector models``: which versions of models there are and which one is active; and HD-BET's weights."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from CMBDetectorLib.errors import BadInputError, ModelError
from CMBDetectorLib.models import hd_bet
from CMBDetectorLib.models.bundle import Bundle, card_text
from CMBDetectorLib.models.package import check_texts
from CMBDetectorLib.models.registry import Registry
from CMBDetectorLib.models.versions import VARIABLE, Version, load_bundle
from CMBDetectorLib.worker.listeners import Listener

# The figure that the cards state beside others, near the working point of the paper.
_FIGURE = re.compile(r"\b4\.1 FP/scan (\d+(?:\.\d+)?%)")
_COLUMNS = ("", "model", "version", "parent", "made", "found at 4.1 FP/scan", "trained on")


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser = commands.add_parser("models", parents=[common], help="list, choose, install models; HD-BET's weights")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=type(parser))
    where = argparse.ArgumentParser(add_help=False)
    help_where = f"folder of the installed models (that of {VARIABLE}, else one of the user's own)"
    where.add_argument("--registry", type=Path, metavar="DIR", help=help_where)
    parents = [common, where]

    def add(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        action = actions.add_parser(name, parents=parents, help=text)
        action.set_defaults(run=run)
        return action

    def add_model(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        action = add(name, run, text)
        action.add_argument("model", metavar="NAME[@VERSION]")
        return action

    add("list", run_list, "bundled and installed models, checksums verified")
    add_model("show", run_show, "the card of a model")
    add_model("activate", run_activate, "verify a model and use it where no --model is given")
    add("rollback", run_rollback, "use the model again that was active before")
    add_model("remove", run_remove, "remove an installed model that is not active")
    export = add_model("export", run_export, "write a model as one file, for models install")
    export.add_argument("file", type=Path, metavar="FILE.zip", help="new file")
    install = add("install", run_install, "install a model, or HD-BET's weights, from a file or folder")
    install.add_argument("source", type=Path, nargs="?", help="file made by models export, or folder of a bundle")
    install.add_argument("--name", help="install under another name than that in its card")
    install.add_argument(
        "--hd-bet",
        type=Path,
        metavar="FILE",
        help="the official zip (or its folder) of HD-BET 2; PyTorch runs what is in it, so take no other",
    )


def run_list(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """List the bundled and the installed models; a damaged one is listed with what is wrong with it."""
    registry = Registry(options.registry)
    active, trouble = None, None
    try:
        active = registry.active_reference()
    except ModelError as error:
        trouble = f"{error.message} {error.hint}"
    models = [_described(version, active) for version in registry.versions()]
    if active is not None and not any(model["active"] for model in models):
        trouble = f"The active model {active} is not there any more. Activate another one."
    data = {"models": models, "active": active, "problem": trouble, "registry": str(registry.folder)}
    text = _table([_row(model) for model in models]) if models else "No model is installed."
    wrong = [f"{model['reference']}: {model['problem']}" for model in models if model["problem"]]
    return data, "\n".join([text, *map(_plain, wrong), *([trouble] if trouble else [])])


def run_show(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """Show a card.

    Raises:
        ModelError: the model is missing or damaged.
    """
    registry = Registry(options.registry)
    bundle = registry.load(options.model)
    page = "\n".join(_plain(line) for line in card_text(bundle.card).splitlines())
    data = {**_data(bundle), "card": bundle.card}
    return data, f"{page}\n\nFolder: {bundle.folder}\nChecksum of the networks: {bundle.checksum}"


def run_activate(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """Activate a model.

    Raises:
        ModelError: it is missing or damaged.
    """
    bundle, is_new = Registry(options.registry).activate(options.model)
    return {**_data(bundle), "changed": is_new}, f"{bundle.reference} is {'now' if is_new else 'already'} active."


def run_rollback(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """Activate the model that was active before.

    Raises:
        BadInputError: there is none.
        ModelError: it is damaged.
    """
    bundle = Registry(options.registry).rollback()
    return _data(bundle), f"{bundle.reference} is active again."


def run_remove(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """Remove an installed model.

    Raises:
        BadInputError: it is active or bundled.
        ModelError: there is none.
    """
    reference = Registry(options.registry).remove(options.model)
    return {"removed": reference}, f"{reference} was removed."


def run_export(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """Write a model as one file.

    Raises:
        ModelError: it is missing or damaged.
        OutputError: the file exists or cannot be written.
    """
    bundle = Registry(options.registry).export(options.model, options.file)
    return {**_data(bundle), "file": str(options.file)}, f"{bundle.reference} was written as {options.file}"


def run_install(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """Install a model or HD-BET's weights, all or nothing; what is there stays until the new is whole.

    Raises:
        BadInputError: both or none were given, or the name belongs to another model.
        ModelError: what was given is missing, damaged or no model.
    """
    if (options.source is None) == (options.hd_bet is None):
        raise BadInputError(
            "It is not clear what to install.",
            "Give one file or folder: a model (models install FILE), or HD-BET's weights (--hd-bet FILE).",
        )
    if options.hd_bet is not None:
        folder = hd_bet.install_weights(options.hd_bet)
        return {"folder": str(folder)}, f"HD-BET's weights are in {folder}"
    bundle, is_new = Registry(options.registry).install(options.source, options.name)
    text = f"{bundle.reference} is {'' if is_new else 'already '}installed in {bundle.folder}"
    if is_new:
        text += f"\nTo use it: cmbdetector models activate {bundle.reference}"
    return {**_data(bundle), "changed": is_new}, text


def _data(bundle: Bundle) -> dict[str, Any]:
    return {"reference": bundle.reference, "folder": str(bundle.folder), **bundle.provenance()}


def _described(version: Version, active: str | None) -> dict[str, Any]:
    """Return everything about ``version`` that a list may show; ``problem`` is ``None`` for a whole one."""
    described: dict[str, Any] = {
        "reference": version.reference,
        "name": version.name,
        "version": version.version,
        "bundled": version.is_bundled,
        "active": version.reference == active,
        "folder": str(version.folder),
        "problem": None,
    }
    try:
        bundle = load_bundle(version.whole_folder())
        check_texts(bundle)
        more = {key: bundle.card.get(key) for key in ("parent", "created", "description", "metrics")}
        return {**described, **more, **bundle.provenance()}
    except ModelError as error:
        return {**described, "problem": f"{error.message} {error.hint}"}


def _row(model: dict[str, Any]) -> list[str]:
    mark = "*" if model["active"] else ""
    if model["problem"]:
        return [mark, model["name"], model["version"], "", "", "", "damaged, see below"]
    figures = [(name, _FIGURE.search(text)) for name, text in model["metrics"].items()]
    found = ", ".join(f"{figure[1]} {name}" for name, figure in figures if figure)
    cells = [model["name"], model["version"], model["parent"], model["created"], found, model["training_data"]]
    return [mark, *(str(cell or "-") for cell in cells)]


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [[_plain(cell) for cell in row] for row in (_COLUMNS, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def _plain(text: str) -> str:
    """Return a stranger's text without what could steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
