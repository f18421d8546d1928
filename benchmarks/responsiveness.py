"""How long the application stands still: during a detection of a full-size scan, and in a review of 500 candidates.

Runs the module in the stand-in host with the real worker; needs the test packages. Prints one table. The parts that
depend on the machine's load are given as times and as shares of a reference measured in the same run: an event loop
that does nothing but draw the four slice views.

    python benchmarks/responsiveness.py SCAN [--model NAME]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "Testing"), str(ROOT)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--model", default="")
    options = parser.parse_args()
    from SlicerHost import start

    host = start()
    import qt

    with tempfile.TemporaryDirectory() as folder:
        qt.QSettings().setValue("CMBDetector/DataFolder", folder)
        qt.QSettings().setValue("CMBDetector/Interpreter", sys.executable)
        host.window.resize(1500, 1000)
        panels = host.load_module("CMBDetector").panels
        scan = host.load_volume(options.scan)
        panels.detect.parameters.inputVolume = scan
        panels.detect.parameters.model = options.model
        _show("what", "longest", "median", "")
        _reference(host)
        _detection(host, panels)
        _cancel(host, panels)
        _review(host, panels, scan)
        host.shutdown()


def _reference(host: object) -> None:
    times = [_timed(lambda: [host.view(name).forceRender() for name in ("Red", "Yellow", "Green")]) for _ in range(10)]
    _show("drawing three slice views (reference)", max(times), statistics.median(times), "")


def _detection(host: object, panels: object) -> None:
    from SlicerHost.gaps import Gaps

    ui = panels.detect.ui
    ui.maskCombo.setCurrentIndex(ui.maskCombo.findData("simple"))
    click = _timed(ui.detectButton.click)
    _show("click on Detect", click, click, "")
    began = time.monotonic()
    running, showing = Gaps(), Gaps()
    finish = panels.logic._finish

    def at_result(*given: object) -> object:
        running.stop()
        showing.start()
        return finish(*given)

    panels.logic._finish = at_result
    running.start()
    host.wait_until(lambda: not panels.logic.is_running, 600)
    host.wait(1)
    showing.stop()
    panels.logic._finish = finish
    took = f"{time.monotonic() - began:.0f} s"
    _show("standing still while the worker ran", running.longest_s, statistics.median(running.gaps), took)
    _show("standing still when its result came", showing.longest_s, statistics.median(showing.gaps), "")
    print("   ", panels.detect.ui.messageLabel.text)


def _cancel(host: object, panels: object) -> None:
    import psutil

    ui = panels.detect.ui
    ui.detectButton.click()
    host.wait(6)
    processes = psutil.Process().children(recursive=True)
    began = time.monotonic()
    ui.detectButton.click()
    host.wait_until(lambda: not panels.logic.is_running, 10)
    left = [process for process in processes if process.is_running()]
    _show("from Cancel to the last process gone", time.monotonic() - began, None, f"{len(left)} left behind")


def _review(host: object, panels: object, scan: object) -> None:
    import numpy as np

    from CMBDetectorLib.candidate import Candidate, Detection, candidate_id
    from CMBDetectorLib.gui.scan_node import scan_volume

    volume = scan_volume(scan)
    rng = np.random.default_rng(0)
    places = volume.to_ras(rng.uniform(0.25, 0.75, (500, 3)) * volume.shape)
    candidates = [
        Candidate(candidate_id(place), tuple(float(v) for v in place), 0.5, round(1 - k / 501, 4), 3.0)
        for k, place in enumerate(places)
    ]
    model = {"name": "500", "version": "1", "checksum": "", "training_data": "None.", "licence": ""}
    detection = Detection({"name": "500"}, model, {"threshold": 0.0}, candidates)
    show = _timed(lambda: panels.review.show_detection(scan, detection, select_first=True))
    _show("500 candidates: shown at once", show, show, "")
    host.wait(0.5)
    review = panels.review
    for name, action in (
        ("jump to the next", lambda k: review.step(1)),
        ("verdict and next", lambda k: host.press(None, "AR"[k % 2])),
        ("score slider", lambda k: review._on_threshold(k / 20)),
        ("filter of the table", lambda k: review.table.set_filter(("accepted", "rejected", "all")[k % 3])),
        ("undo", lambda k: review.undo()),
    ):
        times = []
        for k in range(15):
            times.append(_timed(lambda k=k, action=action: action(k)))
            host.wait(0.05)
        _show(f"500 candidates: {name}", max(times), statistics.median(times), "")


def _timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _show(what: str, longest: float | str, median: float | str | None, note: str) -> None:
    def cell(value: float | str | None) -> str:
        return f"{1000 * value:9.0f} ms" if isinstance(value, float) else f"{value or '':>12}"

    print(f"{what:<66}{cell(longest)}{cell(median)}  {note}", flush=True)


if __name__ == "__main__":
    main()
