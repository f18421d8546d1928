"""The process of the self-test: ``python -m CMBDetectorLib.doctor.phantom_process RESULT [--model NAME]``.

A process of its own, because a TensorFlow that does not suit the processor ends the process that loads it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from CMBDetectorLib.errors import CMBDetectorError, MissingPackageError
from CMBDetectorLib.files import write_json


def main(arguments: list[str] | None = None) -> int:
    """Search the phantom and write what was found, or why it failed, to RESULT; returns 0."""
    parser = argparse.ArgumentParser(description="Search the phantom of the self-test")
    parser.add_argument("result", type=Path, help="file to write")
    parser.add_argument("--model", help="NAME@VERSION; the active one")
    parser.add_argument("--registry", type=Path, help="folder of the installed models")
    options = parser.parse_args(arguments)
    try:
        data = _search(options)
    except CMBDetectorError as error:
        data = {"error": error.message, "hint": error.hint, "exit_code": error.exit_code}
    except ModuleNotFoundError as error:
        told = f"the package {error.name} is missing"
        data = {"error": told, "hint": "Set up the packages again.", "exit_code": MissingPackageError.exit_code}
    write_json(options.result, data)
    return 0


def _search(options: argparse.Namespace) -> dict[str, Any]:
    from CMBDetectorLib.doctor.phantom import judge, write_phantom
    from CMBDetectorLib.models.registry import Registry
    from CMBDetectorLib.preprocessing.pipeline import preprocess
    from CMBDetectorLib.volume import read_volume

    bundle = Registry(options.registry).load(options.model)
    with tempfile.TemporaryDirectory(prefix="cmbdetector-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "phantom.nii.gz"
        write_phantom(path, bundle.spacing_mm)
        made = preprocess(read_volume(path), "none", bundle.spacing_mm)
    from CMBDetectorLib.detection.detector import Detector

    found = Detector.from_bundle(bundle).detect(made.image, made.mask, bundle.thresholds["mimics"])
    # What is shown is a choice against the mimics of a head; the phantom has none.
    answer = judge(found.candidates, min(0.5, bundle.thresholds["shown"]))
    return {"model": bundle.reference, "candidates": len(found.candidates), **answer.as_json()}


if __name__ == "__main__":
    sys.exit(main())
