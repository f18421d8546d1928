"""``cmbdetector preprocess``: write what the networks would see of a scan."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from CMBDetectorLib.files import output_folder
from CMBDetectorLib.models.registry import default_bundle
from CMBDetectorLib.models.versions import load_bundle
from CMBDetectorLib.preprocessing.pipeline import preprocess, preprocessing_stages
from CMBDetectorLib.volume import read_volume, write_volume
from CMBDetectorLib.worker.listeners import Listener
from CMBDetectorLib.worker.options import add_brain_mask, choose_brain_mask

FILES = ("preprocessed.nii.gz", "brain_mask.nii.gz")


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser = commands.add_parser("preprocess", parents=[common], help="brain mask, N4 and normalisation alone")
    parser.add_argument("scan", type=Path, help="NIfTI or NRRD file, or the folder of one DICOM series")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="new folder for the two images")
    parser.add_argument("--model", help="model whose voxel size is used (the active model)")
    add_brain_mask(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """Write ``preprocessed.nii.gz`` (canonical, at the model's voxel size) and ``brain_mask.nii.gz`` (as stored)."""
    mask = choose_brain_mask(options.brain_mask, listener)
    listener.plan([("reading", 3.0), *preprocessing_stages(mask), ("writing", 3.0)])
    bundle = load_bundle(options.model) if options.model else default_bundle()
    listener.report("reading")
    scan = read_volume(options.scan)
    made = preprocess(scan, mask, bundle.spacing_mm, listener, coarsest_mm=bundle.coarsest_mm)
    for note in made.notes:
        listener.log(note)
    listener.report("writing")
    with output_folder(options.output, FILES) as folder:
        write_volume(folder / FILES[0], made.image)
        write_volume(folder / FILES[1], made.brain_mask)
    listener.report("writing", 1, 1)
    data = {"output": str(options.output), "notes": made.notes, "seconds": listener.seconds()}
    return data, f"Written: {', '.join(str(options.output / name) for name in FILES)}"
