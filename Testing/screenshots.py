"""Makes the pictures of the README from the module itself, in the stand-in host, on a simulated scan.

python Testing/screenshots.py SCAN FOLDER [--retrain DATASET]
python3.12 Testing/screenshots.py - FOLDER --set-up
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "Testing"), str(ROOT)]


def main() -> None:
    """Detect, review and export as the tutorial tells, and keep a picture of each step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--retrain", type=Path, help="a local dataset: pictures of a (short) retraining on it, too")
    parser.add_argument("--only-retrain", action="store_true")
    parser.add_argument("--set-up", action="store_true", help="only the section Set up; with the Python of the locks")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    from SlicerHost import start

    host = start()
    import qt

    with tempfile.TemporaryDirectory() as data:
        qt.QSettings().setValue("CMBDetector/DataFolder", data)
        # Not in the settings: the picture would show where this computer has its Python, and its data.
        os.environ["CMBDETECTOR_PYTHON"] = sys.executable
        os.environ["CMBDETECTOR_MODELS"] = str(Path(data) / "models")
        qt.QSettings().setValue("CMBDetector/LocalDataset", "/data/microbleeds")
        qt.QSettings().setValue("CMBDetector/Reader", "Dr A")
        host.window.resize(1360, 1000)
        panels = host.load_module("CMBDetector").panels
        if options.set_up:
            _set_up(host, panels, options.folder)
        elif not options.only_retrain:
            scan = host.load_volume(options.scan)
            panels.detect.parameters.inputVolume = scan
            _detect(host, panels, options.folder)
            _review(host, panels, options.folder)
            _export(host, panels, options.folder)
        if options.retrain is not None:
            _retrain(host, panels, options.retrain, options.folder)
    host.shutdown()


def _set_up(host: Any, panels: Any, folder: Path) -> None:
    import qt

    # Nothing is there: neither this computer's packages nor its folders are to be seen.
    qt.QSettings().setValue("CMBDetector/DataFolder", "")
    os.environ.pop("CMBDETECTOR_PYTHON")
    os.environ["CMBDETECTOR_DATA"] = "/home/reader/.local/share/cmbdetector"
    _open_only(panels, "set up")
    panels.set_up.update()
    host.wait(0.3)
    panels.set_up.widget.grab().save(str(folder / "set-up.png"))


def _open_only(panels: Any, name: str) -> None:
    for other, section in panels.sections.items():
        section.collapsed = other != name


def _detect(host: Any, panels: Any, folder: Path) -> None:
    ui = panels.detect.ui
    ui.maskCombo.setCurrentIndex(ui.maskCombo.findData("simple"))
    host.click(ui.detectButton)
    host.wait_until(lambda: ui.progressBar.value > 500, 300)
    _save(host, folder / "detect.png")
    host.wait_until(lambda: not panels.logic.is_running, 300)
    host.wait(0.5)


def _review(host: Any, panels: Any, folder: Path) -> None:
    for key in ("A", "1", "P"):
        host.press(None, key)
    host.wait(0.5)
    _save(host, folder / "review.png")
    host.click(panels.review.ui.layoutButton)
    host.press(None, "A")
    host.wait(0.5)
    _save(host, folder / "review-layout.png")
    host.click(panels.review.ui.layoutButton)


def _export(host: Any, panels: Any, folder: Path) -> None:
    while panels.review.session.review.unreviewed(panels.review.session.shown.threshold):
        host.press(None, "R")
    host.wait(0.5)
    panels.export.widget.grab().save(str(folder / "export.png"))


def _retrain(host: Any, panels: Any, dataset: Path, folder: Path) -> None:
    import qt

    qt.QSettings().setValue("CMBDetector/LocalDataset", str(dataset.absolute()))
    qt.QSettings().setValue("CMBDetector/RetrainOptions", "--epochs 4 --steps 10 --leave-out 3")
    panels.retrain.follow_folder()
    _open_only(panels, "retrain")
    host.wait_until(lambda: not panels.learning.commands.is_running, 120)
    host.click(panels.retrain.ui.retrainButton)
    # Not where this computer has its data.
    panels.retrain.ui.folderEdit.text = "/data/microbleeds"
    host.wait_until(lambda: len(panels.learning.logic.curves.epochs) >= 4, 1800)
    host.wait(0.3)
    panels.retrain.widget.grab().save(str(folder / "retrain.png"))
    panels.retrain.follow_folder()
    host.wait_until(lambda: not panels.learning.logic.is_waiting_or_running, 1800)
    host.wait_until(lambda: not panels.learning.commands.is_running, 120)
    panels.sections["retrain"].collapsed = True
    view = panels.models.comparison
    if view.changed.rowCount:
        view.changed.cellClicked.emit(0, 0)
    host.click(view.plot_button)
    host.wait(0.5)
    _save(host, folder / "models.png")


def _save(host: Any, path: Path) -> None:
    host.process_events()
    host.window.grab().save(str(path))
    print(path)


if __name__ == "__main__":
    main()
