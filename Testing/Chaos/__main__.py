"""The chaos suite: everything that goes wrong on a bad day, many times over, and a table of what was lost.

    python Testing/Chaos [--seed 1] [--scale 1.0] [--only WORD] [--table docs/chaos.md]

Linux. A run with the same seed and scale tries the same things; only times, which the system's load decides, differ.
"""

from __future__ import annotations

import os

# Copies of this process would wait for threads that only the original has.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "Testing" / "Python"), str(Path(__file__).parent)]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
# The models and weights of whoever runs this are none of its business.
os.environ["CMBDETECTOR_MODELS"] = str(Path(tempfile.gettempdir()) / "cmbdetector-chaos-no-models")

import real_worker  # noqa: E402
from outcome import Chaos, Outcome  # noqa: E402
from suite import FAULTS, NEED_A_WORKER  # noqa: E402

_COMMAND = "make chaos"


def main() -> int:
    """Run the faults, print and write the table; returns 1 where something was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="how much of the full suite to run")
    parser.add_argument("--only", default="", help="faults with one of these words (a,b) in their name")
    parser.add_argument("--no-worker", action="store_true", help="without real detections (needs no trained model)")
    parser.add_argument("--table", type=Path, help="also write the table into this file (Markdown)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="cmbdetector-chaos-"))
    try:
        return _run(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(options: argparse.Namespace, folder: Path) -> int:
    words = options.only.split(",")
    chosen = [fault for fault in FAULTS if any(word in f"{fault.__module__}.{fault.__name__}" for word in words)]
    if options.no_worker:
        chosen = [fault for fault in chosen if fault not in NEED_A_WORKER]
    started = time.monotonic()
    chaos = Chaos(options.seed, folder, options.scale)
    if any(fault in NEED_A_WORKER for fault in chosen):
        chaos.scan, chaos.model = real_worker.scan_and_model(folder)
        print(f"a tiny model was trained in {time.monotonic() - started:.0f} s", flush=True)
    outcomes: list[tuple[Outcome, float]] = []
    for fault in chosen:
        begun = time.monotonic()
        outcome = fault(chaos)
        outcomes.append((outcome, time.monotonic() - begun))
        print(_line(*outcomes[-1]), flush=True)
        for loss in outcome.told():
            print(f"    lost: {loss}", flush=True)
    seconds = time.monotonic() - started
    tries, losses = (sum(len(o.losses) if what else o.tries for o, _ in outcomes) for what in (0, 1))
    print(f"{tries} tries, {losses} losses, {seconds:.0f} s")
    if options.table is not None:
        options.table.write_text(_table(options, outcomes, seconds), encoding="utf-8")
    return 1 if losses else 0


def _line(outcome: Outcome, seconds: float) -> str:
    note = f"  ({outcome.note})" if outcome.note else ""
    return f"{outcome.tries:5} tries {len(outcome.losses):3} losses {seconds:6.1f} s  {outcome.fault}{note}"


def _table(options: argparse.Namespace, outcomes: list[tuple[Outcome, float]], seconds: float) -> str:
    rows = [
        f"| {outcome.fault} | {outcome.tries} | {len(outcome.losses)} | {outcome.note} |" for outcome, _ in outcomes
    ]
    tries, losses = (sum(len(o.losses) if what else o.tries for o, _ in outcomes) for what in (0, 1))
    kills = sum(outcome.tries for outcome, _ in outcomes if outcome.fault.startswith("kill -9"))
    return "\n".join(
        [
            "# What a bad day costs",
            "",
            f"Made by `{_COMMAND}` (seed {options.seed}, {platform.system()}, {os.cpu_count()} cores, {seconds:.0f} s);"
            f" {kills} of the {tries} tries are kills. The suite is `Testing/Chaos`; `make chaos ONLY=word` runs a"
            " part.",
            "",
            "A *loss* is any of these: a verdict, an export or a model that was said to be kept and is not there; a "
            "half-written or altered file that is taken for a whole one; an end without a sentence and a next step; a "
            "hang; something temporary left behind; a next run that does not work.",
            "",
            "| fault | tries | losses | |",
            "|---|--:|--:|---|",
            *rows,
            f"| **together** | **{tries}** | **{losses}** | |",
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
