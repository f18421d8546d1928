"""How many local scans a new scanner needs: sensitivity against their number, from scratch and from the bundled model.

    python benchmarks/data_efficiency.py WORK [--protocol swi-thick] [--numbers 3 5 10 15] [--held-out 20]

Local and held-out scans are simulated with a protocol that the bundled model has not seen. For each number of local
scans a model is trained from random weights and one from the bundled model; both, and the bundled model as it is,
search the same held-out scans. Everything goes through `cmbdetector`; what lies in the folder WORK is not done again,
so that an interrupted run goes on. The table is printed, and written to WORK/table.md and WORK/curve.png.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

LOCAL_SEED, HELD_OUT_SEED = 601, 602
MICROBLEEDS_A_SCAN = 40 / 15  # the paper's data
RATE = 4.1


def main() -> None:
    """Run what is missing, then print the table and draw the curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder for datasets, models and results")
    parser.add_argument("--protocol", default="swi-thick", help="protocol of all scans (%(default)s)")
    parser.add_argument("--numbers", type=int, nargs="+", default=[3, 5, 10, 15], help="numbers of local scans")
    parser.add_argument("--held-out", type=int, default=20, help="scans that are searched (%(default)s)")
    parser.add_argument("--model", default="default", help="the model to start from (%(default)s)")
    parser.add_argument("--epochs", type=int, default=12, help="epochs of each U-Net; twice as many of each CNN")
    options = parser.parse_args()
    work, model = options.work, options.model
    local, held_out = work / "local", work / "held-out"
    simulate(local, max(options.numbers), LOCAL_SEED, options.protocol)
    simulate(held_out, options.held_out, HELD_OUT_SEED, options.protocol)
    rows = [(0, "from the bundled model", _figures(work, held_out, model, "bundled"))]
    for number in options.numbers:
        part = first_scans(local, number, work / f"local-{number}")
        for start, words in (("", "from scratch"), (model, "from the bundled model")):
            name = f"{'further' if start else 'scratch'}-{number}"
            trained = work / "models" / name
            if not trained.exists():
                rest = ["--from", start] if start else []
                length = ["--epochs", options.epochs, "--steps", 50, "--seed", 1, "--cases", work / "cases"]
                resume = ["--resume"] if trained.with_name(f"{name}.work").exists() else []
                _run("train", part, "--output", trained, *length, *rest, *resume)
            rows.append((number, words, _figures(work, held_out, trained, name)))
    text = _table(rows, options.protocol)
    print(text)
    (work / "table.md").write_text(text, encoding="utf-8")
    _draw(rows, work / "curve.png")


def _run(*arguments: object) -> None:
    print("cmbdetector", *arguments, file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "CMBDetectorLib", *map(str, arguments)], check=True)


def simulate(folder: Path, scans: int, seed: int, protocol: str) -> None:
    """Make the dataset ``folder`` of ``scans`` with as many microbleeds a scan as the paper's; what is there stays."""
    bleeds = round(scans * MICROBLEEDS_A_SCAN)
    _run("simulate", "--scans", scans, "--seed", seed, "--protocol", protocol, "--microbleeds", bleeds,
         "--output", folder)  # fmt: skip


def first_scans(dataset: Path, number: int, folder: Path) -> Path:
    """Return ``folder`` with the first ``number`` scans of ``dataset`` as links, under the same names."""
    if not folder.exists():
        temporary = folder.with_name(folder.name + ".partial")
        shutil.rmtree(temporary, ignore_errors=True)
        (temporary / "derivatives" / "cmbdetector").mkdir(parents=True)
        shutil.copy(dataset / "dataset_description.json", temporary)
        for scan in sorted(dataset.glob("sub-*"))[:number]:
            (temporary / scan.name).symlink_to(scan.resolve())
            known = dataset / "derivatives" / "cmbdetector" / scan.name
            (temporary / "derivatives" / "cmbdetector" / scan.name).symlink_to(known.resolve())
        temporary.rename(folder)
    return folder


def _figures(work: Path, held_out: Path, model: object, name: str) -> dict[str, object]:
    """Return the operating point at 4.1 FP/scan of ``model`` on the held-out scans."""
    found, result = work / "found" / name, work / "evaluations" / name
    if not (result / "froc.json").exists():
        _run("detect", held_out, "--model", model, "--brain-mask", "dataset", "--output", found)
        _run("evaluate", held_out, "--predictions", found, "--output", result)
    froc = json.loads((result / "froc.json").read_text(encoding="utf-8"))
    return next(p for p in froc["final"]["operating_points"] if p["fp_allowed"] == RATE)


def _table(rows: list[tuple[int, str, dict]], protocol: str) -> str:
    lines = [
        f"Sensitivity at {RATE} FP/scan on held-out simulated scans of {protocol}, pooled and mean of scans (95 %):\n",
        "| local scans | training | pooled | mean of scans |",
        "|---|---|---|---|",
    ]
    for number, words, p in rows:
        pooled, mean = (
            f"{p[key]:.1%} ({p[f'{key}_ci'][0]:.0%}-{p[f'{key}_ci'][1]:.0%})"
            for key in ("sensitivity", "mean_sensitivity")
        )
        lines.append(f"| {number} | {words} | {pooled} | {mean} |")
    return "\n".join(lines) + "\n"


def _draw(rows: list[tuple[int, str, dict]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for words, colour in (("from the bundled model", "C0"), ("from scratch", "C3")):
        points = [(number, p) for number, label, p in rows if label == words]
        x = [number for number, _ in points]
        y = [100 * p["sensitivity"] for _, p in points]
        low = [100 * (p["sensitivity"] - p["sensitivity_ci"][0]) for _, p in points]
        high = [100 * (p["sensitivity_ci"][1] - p["sensitivity"]) for _, p in points]
        axes.errorbar(x, y, [low, high], marker="o", capsize=3, color=colour, label=words)
    axes.set(xlabel="local scans", ylabel=f"sensitivity at {RATE} FP/scan, %", ylim=(0, 102))
    axes.set_title("Simulated scans of a protocol new to the model")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
