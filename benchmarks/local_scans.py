"""What *Retrain on local data* brings on a scanner new to the model: before and after, for several numbers of scans.

    python benchmarks/local_scans.py WORK [--protocol swi-thick] [--numbers 4 8 13] [--depth second-stage]

The scans are simulated with a protocol that the model has not seen. For each number `cmbdetector retrain` learns from
the first so many of them and compares the old and the new model on scans that are left out two at a time (in at most
five groups). The table is printed and written to WORK, too; the times are those of this computer, the comparison
included, with scans that were preprocessed and searched by the largest number. A finished row is not done again.
With --altered the scans look as from a scanner that the model knows nothing like: `altered_scans.py --only dark`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from altered_scans import alter
from data_efficiency import LOCAL_SEED, first_scans, run, simulate

RATES = (1.0, 4.1, 14.5)


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder for datasets, models and results")
    parser.add_argument("--protocol", default="swi-thick", help="protocol of all scans (%(default)s)")
    parser.add_argument("--seed", type=int, default=LOCAL_SEED, help="seed of the scans (%(default)s)")
    parser.add_argument("--numbers", type=int, nargs="+", default=[4, 8, 13], help="numbers of local scans")
    parser.add_argument("--depth", default="second-stage", help="as for `cmbdetector retrain` (%(default)s)")
    parser.add_argument("--model", default="default", help="the model to start from (%(default)s)")
    parser.add_argument("--altered", action="store_true", help="squared intensities, blurred, with 3 %% more noise")
    options = parser.parse_args()
    local = options.work / f"local-{options.seed}"
    simulate(local, max(options.numbers), options.seed, options.protocol)
    if options.altered:
        local = alter(local, options.work / f"altered-{options.seed}", "dark")
    # The largest number first: what is preprocessed and searched for it serves the others.
    results = {number: _result(options, local, number) for number in sorted(options.numbers, reverse=True)}
    text = _table(dict(sorted(results.items())), options)
    print(text)
    (options.work / f"table-{local.name}.md").write_text(text, encoding="utf-8")


def _result(options: argparse.Namespace, local: Path, number: int) -> dict[str, Any]:
    """Return what `retrain` answers for the first ``number`` scans of ``local``, and the ``seconds`` that it took."""
    kept = options.work / f"{options.depth}-{local.name}-{number}.json"
    if not kept.exists():
        part = first_scans(local, number, options.work / f"{local.name}-{number}")
        begun = time.monotonic()
        answer = run("retrain", part, "--depth", options.depth, "--model", options.model, "--leave-out", 2,
                     "--work", options.work / f"work-{local.name}", registry=options.work / "models")  # fmt: skip
        kept.write_text(json.dumps({**answer, "seconds": time.monotonic() - begun}), encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))


def _table(results: dict[int, dict[str, Any]], options: argparse.Namespace) -> str:
    rates = " | ".join(f"at {rate:g} before -> after (difference, 95 %)" for rate in RATES)
    lines = [
        f"Sensitivity at so many FP/scan on left-out simulated scans of {options.protocol} (seed {options.seed}"
        f"{', altered' if options.altered else ''}), depth {options.depth}:\n",
        f"| local scans | microbleeds | {rates} | minutes |",
        "|---|---|---|---|---|---|",
    ]
    for number, result in results.items():
        rows = {rate["fp"]: rate for rate in result["comparison"]["rates"]}
        cells = [_cell(rows[rate]) for rate in RATES]
        minutes = result["seconds"] / 60
        lines.append(f"| {number} | {result['comparison']['microbleeds']} | {' | '.join(cells)} | {minutes:.0f} |")
    return "\n".join(lines) + "\n"


def _cell(rate: dict[str, Any]) -> str:
    low, high = rate["difference_ci"]
    change = f"{100 * rate['difference']:+.0f}, {100 * low:+.0f} to {100 * high:+.0f}"
    return f"{rate['old']['sensitivity']:.0%} -> {rate['new']['sensitivity']:.0%} ({change})"


if __name__ == "__main__":
    main()
