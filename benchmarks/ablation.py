"""What each part of the recipe brings to stage 2, measured on scans that no network has seen.

    python benchmarks/ablation.py WORK --from default.work --cases cases --datasets A B … --held-out C D …

Stage 1 and its mimics are those of a finished `cmbdetector train A B … --work default.work --cases cases --keep-work`.
Each variant fits one CNN to them, all from the same random seed and for as many steps, and ranks what stage 1 proposes
in the held-out scans. What lies in the folder WORK is not done again. The table is printed and written to
WORK/table.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import held_out

from CMBDetectorLib.networks import backend

RATES = (1.0, 4.1)
_SEARCHED_OTHERWISE = {
    "without mirror images when searching": "as it is",
    "without stage 1's log-odds": "as it is",
    "the same, mirror images, log-odds": "the paper's CNN (20x20x16 voxels)",
}
"""Variants of the search alone, and whose networks they share."""


def main() -> None:
    """Fit what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder for networks and results")
    parser.add_argument("--from", dest="start", type=Path, required=True, help="work folder of the training")
    parser.add_argument("--cases", type=Path, required=True, help="its preprocessed scans; held-out ones are added")
    parser.add_argument("--datasets", type=Path, nargs="+", required=True, help="what it was trained on")
    parser.add_argument("--held-out", type=Path, nargs="+", required=True, help="other simulated scans")
    parser.add_argument("--epochs", type=int, default=40, help="epochs of 50 steps of each variant (%(default)s)")
    parser.add_argument("--only", nargs="+", help="these variants, for several processes at once")
    options = parser.parse_args()
    backend.prefer_torch()
    rows = [(name, _results(options, name)) for name in _variants(options.epochs) if not _left_out(options, name)]
    text = _table(rows)
    print(text)
    (options.work / "table.md").write_text(text, encoding="utf-8")


def _left_out(options: argparse.Namespace, name: str) -> bool:
    return bool(options.only) and name not in options.only


def _settings(start: Path) -> Any:
    """Return the recipe ``context`` with stage 1 as the training of ``start`` fitted it: its networks are read."""
    from CMBDetectorLib.training.settings import FitSettings, settings_from

    known = json.loads((start / "run.json").read_text(encoding="utf-8"))["settings"]
    return replace(settings_from(known["seed"], recipe="context"), unet=FitSettings(**known["unet"]))


def _variants(epochs: int) -> dict[str, tuple[Callable, Callable]]:
    """Return for each variant how it changes the settings, and which of the cases it learns from."""
    from CMBDetectorLib.networks.cnn import DEFAULT_CNN
    from CMBDetectorLib.networks.context import DEFAULT_CONTEXT

    def fit(**changes: object) -> Callable:
        return lambda s: replace(s, cnn=replace(s.cnn, batch_sizes=(20,), epochs=epochs, steps=50, **changes))

    def architecture(**changes: object) -> Callable:
        return lambda s: replace(fit()(s), cnn_architecture={**s.cnn_architecture, **changes})

    def paper(**changes: object) -> Callable:
        return lambda s: replace(fit(shift=(1, 1, 1))(s), cnn_architecture={**DEFAULT_CNN, **changes})

    every = list
    return {
        "as it is": (fit(), every),
        "without mirror images when searching": (architecture(flips=False), every),
        "without stage 1's log-odds": (architecture(stage1_weight=0), every),
        "without the variation of scanners": (fit(scanners=False), every),
        "all mimics alike (one round)": (fit(rounds=1), every),
        "the paper's CNN (20x20x16 voxels)": (paper(), every),
        "the same, mirror images, log-odds": (
            paper(**{key: DEFAULT_CONTEXT[key] for key in ("flips", "stage1_weight")}),
            every,
        ),
        "half of the heads": (fit(), lambda cases: cases[::2]),
        "a quarter of the heads": (fit(), lambda cases: cases[::4]),
    }


def _results(options: argparse.Namespace, name: str) -> list:
    """Return the candidates of each held-out scan with the scores of the variant ``name``."""
    from CMBDetectorLib.progress import Progress
    from CMBDetectorLib.training.bundles import train_networks
    from CMBDetectorLib.training.cases import prepare_cases
    from CMBDetectorLib.worker.commands.train import read_datasets

    change, choose = _variants(options.epochs)[name]
    settings = change(_settings(options.start))
    cases, held = (
        prepare_cases(read_datasets(folders), options.cases, settings.spacing_mm, "dataset", Progress())
        for folders in (options.datasets, options.held_out)
    )
    # What was fitted already is read.
    fitted = _work(options, _folder(options, _SEARCHED_OTHERWISE.get(name, name)))
    detector = train_networks(choose(cases), settings, fitted, Progress()).detector
    scores = _folder(options, name) / "scores"
    results = held_out.ranked_by(
        detector, held, settings.stage1_threshold, options.work / "proposals", scores, Progress()
    )
    print(name, "is done", flush=True)
    return results


def _folder(options: argparse.Namespace, name: str) -> Path:
    return options.work / "".join(c if c.isalnum() else "-" for c in name)


def _work(options: argparse.Namespace, folder: Path) -> Path:
    """Return a folder for the networks of a variant with stage 1 of the training, and what it proposes, as links."""
    work = folder / "networks"
    work.mkdir(parents=True, exist_ok=True)
    source = options.start.resolve() / "networks"
    for path in [*source.glob("unet-*.npz"), source / "proposals"]:
        if not (work / path.name).exists():
            (work / path.name).symlink_to(path)
    return work


def _table(rows: Sequence[tuple[str, list]]) -> str:
    from CMBDetectorLib.evaluation.froc import froc

    scans = rows[0][1]
    bleeds = sum(len(scan.truth_ras) for scan in scans)
    lines = [
        f"Sensitivity on {len(scans)} held-out simulated scans with {bleeds} microbleeds, pooled (95 %):\n",
        "| one CNN | " + " | ".join(f"at {rate:g} FP/scan" for rate in RATES) + " | best F1 |",
        "|---|" + "---|" * (len(RATES) + 1),
    ]
    for name, results in rows:
        curve = froc(results)
        points = {point.fp_allowed: point for point in curve.operating_points}
        cells = [
            f"{points[r].sensitivity:.1%} ({points[r].sensitivity_ci[0]:.0%}-{points[r].sensitivity_ci[1]:.0%})"
            for r in RATES
        ]
        lines.append(f"| {name} | {' | '.join(cells)} | {curve.best_f1()['f1']:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
