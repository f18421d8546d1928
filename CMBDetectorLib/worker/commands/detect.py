"""``cmbdetector detect``: candidates of one scan, or of every scan of a BIDS folder."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import CMBDetectorLib
from CMBDetectorLib.candidate import Detection, read_detection, write_detection
from CMBDetectorLib.datasets.bids import Case, read_dataset
from CMBDetectorLib.dicom import patient
from CMBDetectorLib.errors import BadInputError, Cancelled, CMBDetectorError, OutputError
from CMBDetectorLib.files import check_output_folder, output_error, output_folder, write_json
from CMBDetectorLib.models.bundle import Bundle
from CMBDetectorLib.models.registry import default_bundle
from CMBDetectorLib.models.versions import load_bundle
from CMBDetectorLib.preprocessing.pipeline import Preprocessed, preprocess, preprocessing_stages
from CMBDetectorLib.progress import Part, Progress
from CMBDetectorLib.pseudonyms import neutral_name
from CMBDetectorLib.report.html import write_detection_report
from CMBDetectorLib.report.markups import write_markups
from CMBDetectorLib.report.tables import write_candidate_table
from CMBDetectorLib.volume import Volume, read_volume, write_volume
from CMBDetectorLib.worker.listeners import Listener
from CMBDetectorLib.worker.options import (
    add_brain_mask,
    add_low_memory,
    choose_brain_mask,
    fraction,
    plain_name,
)

if TYPE_CHECKING:
    from CMBDetectorLib.detection.detector import Detector, Found

RESULT_FILES = (
    "candidates.json",
    "candidates.csv",
    "candidates.mrk.json",
    "report.html",
    "preprocessed.nii.gz",
    "likelihood.nii.gz",
    "brain_mask.nii.gz",
    "brain_mask.nii",
)
KEEP = {"preprocessed": "preprocessed.nii.gz", "likelihood": "likelihood.nii.gz", "brain-mask": "brain_mask.nii.gz"}
FAILED = "failed.json"
# What of the settings decides which candidates are found and shown, in words for the user.
_COMPARED = {
    "threshold": "--threshold",
    "stage1_threshold": "--stage1-threshold",
    "inference": "--inference",
    "brain_mask": "--brain-mask",
}
# Not compressed, for the module: unpacking a mask would hold up the application.
RAW_MASK = {"brain-mask-raw": "brain_mask.nii"}


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser = commands.add_parser("detect", parents=[common], help="find microbleed candidates in a scan")
    parser.add_argument("scan", type=Path, help="NIfTI or NRRD file, folder of one DICOM series, or a BIDS folder")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="new folder for the results")
    parser.add_argument("--model", help="NAME[@VERSION] of a model, or folder of a bundle (the active model)")
    add_brain_mask(parser)
    parser.add_argument("--threshold", type=fraction, help="least score of a shown candidate (0-1)")
    parser.add_argument("--stage1-threshold", type=fraction, help="least likelihood of a candidate (0-1)")
    parser.add_argument("--inference", choices=("dense", "exact"), default="dense", help="large tiles, or as the paper")
    add_low_memory(parser)
    parser.add_argument("--keep", default="", metavar="WHAT", help=f"also write, by commas: {', '.join(KEEP)}")
    parser.add_argument("--scan-name", type=plain_name, metavar="NAME", help="name in the results (a pseudonym)")
    parser.add_argument(
        "--show-names",
        action="store_true",
        help="name the patient (of DICOM) or the file in report.html, and only there",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, listener: Listener) -> tuple[dict[str, Any], str]:
    """Detect in one scan or in a dataset.

    Raises:
        CMBDetectorError: for a dataset only when no scan could be read or the output folder holds results of another
            model or other settings; else any failure of the one scan.
    """
    keep = _keep(options.keep)
    if not options.scan.exists():
        raise BadInputError(f"There is no file or folder {options.scan}.", "Check the path.")
    is_dataset = options.scan.is_dir() and any(options.scan.glob("sub-*/"))
    if not is_dataset:
        check_output_folder(options.output, RESULT_FILES)
    elif options.scan_name:
        raise BadInputError("--scan-name names one scan, not those of a dataset.", "Leave it out.")
    bundle = load_bundle(options.model) if options.model else default_bundle()
    if is_dataset:
        return _run_dataset(options, bundle, keep, listener)
    detection = detect_scan(options.scan, options.output, options.brain_mask, options, bundle, None, keep, listener)
    data = {"output": str(options.output), "shown": len(detection.shown()), "candidates": len(detection.candidates)}
    return {**data, "seconds": detection.seconds}, _summary(detection, options.output)


def detect_scan(
    path: Path,
    output: Path,
    brain_mask: str,
    options: argparse.Namespace,
    bundle: Bundle,
    detector: Detector | None,
    keep: set[str],
    progress: Progress,
) -> Detection:
    """Detect in the scan ``path`` and write the result folder ``output``, all or nothing."""
    mask = choose_brain_mask(brain_mask, progress)
    # Weights are seconds of a 512x512x150 scan on two cores.
    ends = [("stage 1", 15.0), ("stage 2", 3.0), ("report", 1.0)]
    progress.plan([("reading", 3.0), *preprocessing_stages(mask), *ends])
    progress.report("reading")
    scan = read_volume(path)
    progress.report("reading", 1, 1)
    made = preprocess(scan, mask, bundle.spacing_mm, progress, coarsest_mm=bundle.coarsest_mm)
    for note in made.notes:
        progress.log(note)
    if detector is None:
        progress.report("stage 1")
        from CMBDetectorLib.detection.detector import Detector

        detector = Detector.from_bundle(bundle, options.low_memory)
    settings = _settings(options, bundle, mask)
    found = detector.detect(made.image, made.mask, settings["stage1_threshold"], options.inference, progress)
    progress.report("report")
    described = {
        **scan.source,
        # Files are called after patients; what is wanted in the results has to be said.
        "name": options.scan_name or neutral_name(scan.source),
        "shape": list(scan.shape),
        "spacing_mm": [round(s, 5) for s in scan.spacing],
        "orientation": scan.orientation,
    }
    settings["notes"] = made.notes
    detection = Detection(described, bundle.provenance(), settings, found.candidates, progress.seconds())
    _write(output, detection, scan, made, found, keep, _names(path) if options.show_names else {})
    progress.report("report", 1, 1)
    return detection


def _settings(options: argparse.Namespace, bundle: Bundle, mask: str) -> dict[str, Any]:
    """Return the settings that a result states; ``mask`` as :func:`choose_brain_mask` returned it."""
    given, stage1 = options.threshold, options.stage1_threshold
    return {
        "threshold": given if given is not None else bundle.thresholds["shown"],
        "stage1_threshold": stage1 if stage1 is not None else _stage1(bundle, options.inference),
        "inference": options.inference,
        "brain_mask": mask if mask in ("hd-bet", "simple", "none") else "file",
    }


def _names(path: Path) -> dict[str, str]:
    """Return what a person calls the scan: of DICOM name, id and birth date of the patient."""
    return patient(path) if path.is_dir() else {"file": path.name}


def _write(
    output: Path,
    detection: Detection,
    scan: Volume,
    made: Preprocessed,
    found: Found,
    keep: set[str],
    names: Mapping[str, str],
) -> None:
    with output_folder(output, RESULT_FILES) as folder:
        write_detection(folder / "candidates.json", detection)
        write_candidate_table(folder / "candidates.csv", detection)
        write_markups(folder / "candidates.mrk.json", detection)
        version = f"cmbdetector {CMBDetectorLib.__version__}"
        provenance = f"Made by {version} on {datetime.date.today().isoformat()}."
        write_detection_report(folder / "report.html", detection, scan, made.notes, provenance, names)
        kept = {"preprocessed": made.image, "likelihood": found.likelihood, "brain-mask": made.brain_mask}
        kept["brain-mask-raw"] = made.brain_mask
        for name in keep:
            write_volume(folder / {**KEEP, **RAW_MASK}[name], kept[name])


def _run_dataset(
    options: argparse.Namespace, bundle: Bundle, keep: set[str], listener: Listener
) -> tuple[dict[str, Any], str]:
    """Detect in every scan of a BIDS folder; finished scans are kept, a scan that fails is named and passed over.

    Raises:
        BadInputError: the dataset is damaged, or none of its scans could be searched.
        OutputError: the output folder holds results of another model or other settings, or cannot be written.
    """
    from CMBDetectorLib.detection.detector import Detector

    cases = read_dataset(options.scan)
    finished = _finished(cases, options, bundle, keep)
    listener.plan([("scans", 1.0)])
    detector: Detector | None = None
    failed: dict[str, str] = {}
    done = 0
    for number, case in enumerate(cases):
        output = options.output / case.id
        if case.id not in finished:
            detector = detector or Detector.from_bundle(bundle, options.low_memory)
            part = Part(listener, "scans", number, len(cases))
            try:
                detect_scan(
                    case.scan, output, _mask_of(case, options.brain_mask), options, bundle, detector, keep, part
                )
            except Cancelled:
                raise
            except (CMBDetectorError, MemoryError) as error:
                message = getattr(error, "message", "There is not enough memory for this scan.")
                failed[case.id] = message
                listener.log(f"{case.id}: {message}")
        done += case.id not in failed
        listener.report("scans", number + 1, len(cases))
    if failed:
        write_json(options.output / FAILED, failed)
    else:
        _forget_failures(options.output / FAILED)
    if not done:
        raise BadInputError(f"None of the {len(cases)} scans could be searched.", f"See {options.output / FAILED}.")
    text = f"{done} of {len(cases)} scans searched; results in {options.output}"
    if failed:
        text += "\nNot searched:\n" + "\n".join(f"  {case}: {message}" for case, message in failed.items())
    return {"output": str(options.output), "scans": done, "failed": failed}, text


def _finished(cases: list[Case], options: argparse.Namespace, bundle: Bundle, keep: set[str]) -> set[str]:
    """Return the ids of the cases whose results are there already, with what is to be kept beside them.

    A result that cannot be read counts as none.

    Raises:
        OutputError: a result was made by another model or with other settings. It may have taken hours and is not
            replaced; beside it, results of this run would be taken for those of one model.
    """
    finished = set()
    for case in cases:
        try:
            known = read_detection(options.output / case.id / "candidates.json")
        except BadInputError:
            continue
        # What "auto" becomes is told when a scan is searched.
        mask = choose_brain_mask(_mask_of(case, options.brain_mask), Progress())
        asked = _settings(options, bundle, mask)
        other = [words for key, words in _COMPARED.items() if known.settings.get(key) != asked[key]]
        if not isinstance(known.model, dict) or known.model.get("checksum") != bundle.checksum:
            other.insert(0, "--model")
        if other:
            raise OutputError(
                f"{options.output} holds results of another model or other settings "
                f"({case.id} differs in {', '.join(other)}).",
                "Choose another output folder, or repeat the model and the settings of these results.",
            )
        if all((options.output / case.id / {**KEEP, **RAW_MASK}[name]).is_file() for name in keep):
            finished.add(case.id)
    return finished


def _forget_failures(path: Path) -> None:
    """Remove what an earlier run could not search."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(error, path) from error


def _stage1(bundle: Bundle, inference: str) -> float:
    """Return the likelihood from which stage 1 proposes a candidate.

    The paper's threshold belongs to the paper's map. The dense map differs a little from it; from the threshold of
    mining on, which stage 2 was taught with, it proposes whatever the exact map does (benchmarks/inference.py).
    """
    return bundle.thresholds["stage1" if inference == "exact" else "mimics"]


def _mask_of(case: Case, wanted: str) -> str:
    """Return the brain mask to use for ``case``: with "dataset" its own, where it has one."""
    if wanted != "dataset":
        return wanted
    return str(case.brain_mask) if case.brain_mask is not None else "auto"


def _keep(text: str) -> set[str]:
    names = {name.strip() for name in text.split(",") if name.strip()}
    if names - set(KEEP) - set(RAW_MASK):
        raise BadInputError(
            f"--keep does not know {', '.join(sorted(names - set(KEEP)))}.", f"It knows {', '.join(KEEP)}."
        )
    return names


def _summary(detection: Detection, output: Path) -> str:
    """Return the table of the shown candidates and where the report is, for a terminal."""
    shown = detection.shown()
    hidden = len(detection.candidates) - len(shown)
    lines = (
        [f"{'rank':>4} {'score':>6} {'stage 1':>8} {'mm':>5}   {'R':>8} {'A':>8} {'S':>8}  (RAS mm)"] if shown else []
    )
    for rank, c in enumerate(shown, 1):
        r, a, s = c.ras_mm
        scores = f"{c.score:6.3f} {c.stage1_score:8.3f} {c.diameter_mm:5.1f}"
        lines.append(f"{rank:>4} {scores}   {r:8.1f} {a:8.1f} {s:8.1f}")
    lines.append(
        f"{len(shown)} candidate{'s' * (len(shown) != 1)} with a score of {detection.settings['threshold']:g} or more, "
        f"{hidden} below."
    )
    model: Mapping[str, Any] = detection.model
    lines.append(f"Model {model['name']} {model['version']}: {model['training_data']} Not for clinical use.")
    lines.append(f"Report: {output / 'report.html'}")
    return "\n".join(lines)
