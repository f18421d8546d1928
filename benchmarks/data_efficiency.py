"""How many local scans a new scanner needs: sensitivity against their number, from scratch and from the bundled model.

    python benchmarks/data_efficiency.py WORK [--protocol swi-thick] [--numbers 3 5 10 15] [--held-out 20]

Local and held-out scans are simulated with a protocol that the bundled model has not seen. For each number of local
scans one model is trained from random weights (`cmbdetector train`), and the bundled one is taken further as *Retrain
on local data* does (`cmbdetector retrain`). Both, and the bundled model as it is, rank what their first stages propose
in the same held-out scans. What lies in the folder WORK is not done again, so that an interrupted run goes on. The
table is printed, and written to WORK/table.md and WORK/curve.png.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import held_out

from CMBDetectorLib.datasets.bids import read_dataset
from CMBDetectorLib.evaluation.comparison import JUDGED_FP, Comparison, compare_models
from CMBDetectorLib.evaluation.froc import ScanResult
from CMBDetectorLib.files import output_folder
from CMBDetectorLib.models.versions import load_bundle
from CMBDetectorLib.networks import backend
from CMBDetectorLib.progress import Progress

LOCAL_SEED, HELD_OUT_SEED = 601, 602
MICROBLEEDS_A_SCAN = 40 / 15  # the paper's data
SCRATCH, RETRAINED, BUNDLED = "from scratch", "bundled model, retrained", "bundled model as it is"


def main() -> None:
    """Run what is missing, then print the table and draw the curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder for datasets, models and results")
    parser.add_argument("--protocol", default="swi-thick", help="protocol of all scans (%(default)s)")
    parser.add_argument("--numbers", type=int, nargs="+", default=[3, 5, 10, 15], help="numbers of local scans")
    parser.add_argument("--scratch", type=int, nargs="*", help="which of them also from random weights (all)")
    parser.add_argument("--held-out", type=int, default=20, help="scans that are searched (%(default)s)")
    parser.add_argument("--model", default="default", help="the model to start from (%(default)s)")
    parser.add_argument("--epochs", type=int, help="epochs of each U-Net; twice as many of each CNN (the recipe's)")
    options = parser.parse_args()
    backend.prefer_torch()
    simulate(options.work / "local", max(options.numbers), LOCAL_SEED, options.protocol)
    simulate(options.work / "held-out", options.held_out, HELD_OUT_SEED, options.protocol)
    bundled = _ranked(options, options.model)
    rows = [(0, BUNDLED, compare_models(bundled, bundled))]
    # The largest number first: what is preprocessed and searched for it serves the others.
    for number in sorted(options.numbers, reverse=True):
        local = first_scans(options.work / "local", number, options.work / f"local-{number}")
        rows.append((number, RETRAINED, compare_models(bundled, _ranked(options, _retrained(options, local)))))
        if options.scratch is None or number in options.scratch:
            rows.append((number, SCRATCH, compare_models(bundled, _ranked(options, _from_scratch(options, local)))))
    rows.sort(key=lambda row: row[:2])
    text = _table(rows, options)
    print(text)
    (options.work / "table.md").write_text(text, encoding="utf-8")
    _draw(rows, options.work / "curve.png")


def _from_scratch(options: argparse.Namespace, local: Path) -> Path:
    """Return the folder of a model that was trained on the dataset ``local`` from random weights."""
    folder = options.work / "scratch" / local.name
    if not folder.exists():
        resume = ["--resume"] if folder.with_name(f"{folder.name}.work").exists() else []
        length = ["--epochs", options.epochs] if options.epochs else []
        run("train", local, "--output", folder, *length, "--seed", 1, "--cases", options.work / "cases", *resume)
    return folder


def _retrained(options: argparse.Namespace, local: Path) -> str:
    """Return the folder of the model that comes out where ``options.model`` is retrained on the dataset ``local``, as
    deep as the panel proposes; the name of that model itself where no version came out."""
    registry = options.work / "models"
    kept = options.work / f"retrained-{local.name}.json"
    if not kept.exists():
        answer = run("retrain", local, "--model", options.model, "--no-compare", "--name", local.name,
                     "--work", options.work / "retraining", registry=registry)  # fmt: skip
        kept.write_text(json.dumps(answer), encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))["folder"] or options.model


def run(*arguments: object, registry: Path | None = None) -> dict[str, Any]:
    """Run ``cmbdetector`` with ``arguments``, its own models in ``registry``; returns the result it answers with."""
    print("cmbdetector", *arguments, file=sys.stderr, flush=True)
    environment = {**os.environ, **({"CMBDETECTOR_MODELS": str(registry)} if registry else {})}
    command = [sys.executable, "-m", "CMBDetectorLib", *map(str, arguments), "--events"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment)
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return next(event for event in events if event["event"] == "result")


def simulate(folder: Path, scans: int, seed: int, protocol: str) -> None:
    """Make the dataset ``folder`` of ``scans`` with as many microbleeds a scan as the paper's; what is there stays."""
    bleeds = round(scans * MICROBLEEDS_A_SCAN)
    run("simulate", "--scans", scans, "--seed", seed, "--protocol", protocol, "--microbleeds", bleeds,
        "--output", folder)  # fmt: skip


def first_scans(dataset: Path, number: int, folder: Path) -> Path:
    """Return ``folder`` with the first ``number`` scans of ``dataset`` as links, under the same names."""
    if not folder.exists():
        with output_folder(folder, ()) as temporary:
            known = Path("derivatives", "cmbdetector")
            (temporary / known).mkdir(parents=True)
            shutil.copy(dataset / "dataset_description.json", temporary)
            for scan in sorted(dataset.glob("sub-*"))[:number]:
                (temporary / scan.name).symlink_to(scan.resolve())
                (temporary / known / scan.name).symlink_to((dataset / known / scan.name).resolve())
    return folder


def _ranked(options: argparse.Namespace, model: str | Path) -> list[ScanResult]:
    """Return what ``model`` finds in the held-out scans."""
    cases = read_dataset(options.work / "held-out")
    return held_out.ranked(load_bundle(model), cases, options.work / "searched", Progress())


def _table(rows: list[tuple[int, str, Comparison]], options: argparse.Namespace) -> str:
    bleeds = sum(len(case.microbleeds()) for case in read_dataset(options.work / "held-out"))
    rates = [rate.fp for rate in rows[0][2].rates]
    lines = [
        f"Sensitivity on {options.held_out} held-out simulated scans of {options.protocol} with {bleeds} microbleeds, "
        "pooled (95 %), and how much that is more than that of the bundled model, in points:\n",
        f"| local scans | model | {' | '.join(f'at {rate:g} FP/scan' for rate in rates)} |",
        "|---|---|" + "---|" * len(rates),
    ]
    for number, words, comparison in rows:
        cells = []
        for rate in comparison.rates:
            low, high = rate.new.sensitivity_ci
            cell = f"{rate.new.sensitivity:.0%} ({low:.0%}-{high:.0%})"
            if number:
                less, more = rate.difference_ci
                cell += f"; {100 * rate.difference:+.0f} ({100 * less:+.0f} to {100 * more:+.0f})"
            cells.append(cell)
        lines.append(f"| {number or '-'} | {words} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _draw(rows: list[tuple[int, str, Comparison]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    at_rate = [(number, words, comparison.judged.new) for number, words, comparison in rows]
    for words, colour, aside in ((RETRAINED, "C0", -0.1), (SCRATCH, "C3", 0.1)):
        # The bundled model itself is where its curve begins; the two stand a little aside of each other.
        curve = [(n + aside, p) for n, label, p in at_rate if label == words or (label, words) == (BUNDLED, RETRAINED)]
        y = [100 * p.sensitivity for _, p in curve]
        low = [100 * (p.sensitivity - p.sensitivity_ci[0]) for _, p in curve]
        high = [100 * (p.sensitivity_ci[1] - p.sensitivity) for _, p in curve]
        axes.errorbar([x for x, _ in curve], y, [low, high], marker="o", capsize=3, color=colour, label=words)
    axes.set(xlabel="local scans", ylabel=f"sensitivity at {JUDGED_FP} FP/scan, %", ylim=(0, 102))
    axes.set_title("Simulated scans of a protocol new to the bundled model")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
