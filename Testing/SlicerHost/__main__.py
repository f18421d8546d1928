"""Opens the module on the desktop: ``python -m SlicerHost [SCAN] [--module NAME] [--screenshot FILE]``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from . import missing, start


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="SlicerHost", description="Opens a module in a stand-in for 3D Slicer.")
    parser.add_argument("scan", nargs="?", type=Path, help="a volume (NIfTI, NRRD) to load")
    parser.add_argument("--module", default="CMBDetector", help="the module's name, or its file")
    parser.add_argument("--screenshot", type=Path, help="only write a picture of the window; needs no display")
    parser.add_argument("--settings", type=Path, help="a folder that keeps the settings (default: a temporary one)")
    return parser.parse_args()


def main() -> int:
    """Run the program and return its exit code."""
    given = _arguments()
    display = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    sentence = missing()
    if not sentence and not display and not given.screenshot:
        sentence = "there is no display; --screenshot FILE needs none"
    if not sentence and given.scan and not given.scan.is_file():
        sentence = f"there is no file {given.scan}"
    if sentence:
        print(sentence, file=sys.stderr)
        return 2
    picture = given.screenshot
    host = start(given.settings, testing=picture is not None, offscreen=picture is not None)
    host.load_module(given.module)
    if given.scan:
        host.load_volume(given.scan)
    if picture:
        host.wait(0.5)
        picture.parent.mkdir(parents=True, exist_ok=True)
        saved = host.window.grab().save(str(picture))
        code = 0 if saved and not host.slot_errors else 1
    else:
        code = host.app.exec_()
    host.shutdown()
    return code


if __name__ == "__main__":
    sys.exit(main())
