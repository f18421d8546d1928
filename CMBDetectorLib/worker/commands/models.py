"""``cmbdetector models``: what is installed, and installing HD-BET's weights from a file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from CMBDetectorLib.models import hd_bet
from CMBDetectorLib.models.bundle import bundled_models, load_bundle
from CMBDetectorLib.worker.listeners import Listener


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser = commands.add_parser("models", parents=[common], help="list models, install HD-BET's weights")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=type(parser))
    listing = actions.add_parser("list", parents=[common], help="bundled models, checksums verified")
    listing.set_defaults(run=run_list)
    install = actions.add_parser("install", parents=[common], help="install weights from a file")
    install.add_argument(
        "--hd-bet",
        type=Path,
        required=True,
        metavar="FILE",
        help="the official zip (or its folder) of HD-BET 2; PyTorch runs what is in it, so take no other",
    )
    install.set_defaults(run=run_install)


def run_list(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """List the bundled models.

    Raises:
        ModelError: one of them is damaged.
    """
    bundles = [load_bundle(name) for name in bundled_models()]
    text = "\n".join(
        f"{bundle.name} {bundle.card['version']}  {bundle.checksum[:12]}  {bundle.card['training_data']}"
        for bundle in bundles
    )
    return {"models": [bundle.provenance() for bundle in bundles]}, text or "No model is installed."


def run_install(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """Install HD-BET's weights; the old ones stay until the new ones are whole."""
    folder = hd_bet.install_weights(options.hd_bet)
    return {"folder": str(folder)}, f"HD-BET's weights are in {folder}"
