"""A whole simulated data set as a BIDS folder; a run that was stopped goes on where it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from CMBDetectorLib.datasets.bids import Point, write_points
from CMBDetectorLib.errors import BadInputError, OutputError
from CMBDetectorLib.files import check_output_folder, output_folder, write_json, write_table, write_text
from CMBDetectorLib.progress import Part, Progress
from CMBDetectorLib.simulation.anatomy import load_template
from CMBDetectorLib.simulation.head import SimulatedScan, simulate_head
from CMBDetectorLib.simulation.lesions import MOST_MICROBLEEDS, Lesion, draw_count
from CMBDetectorLib.simulation.protocols import Protocol, find_protocol, varied
from CMBDetectorLib.volume import write_volume

_MINE = ("dataset_description.json", "participants.tsv", "README", "sub-*", "derivatives", ".partial-*")
_STAGE = "simulation"
_SEED_STEP = 100_003  # a prime: data sets of neighbouring seeds share no scan
_VARIATION = 7  # keeps the draws of the protocol apart from those of the head
_README = """Simulated brain scans with cerebral microbleeds, made by CMBDetector. No person was scanned.

The positions of microbleeds (desc-cmb) and of what resembles them (desc-mimic) are under derivatives/cmbdetector, in
RAS millimetres of each scan.
"""


def simulate_dataset(
    output: Path | str,
    scans: int,
    seed: int,
    protocol: str = "swi-3t",
    total_microbleeds: int | None = None,
    progress: Progress | None = None,
    vary: bool = False,
) -> Path:
    """Write a BIDS data set of ``scans`` simulated scans to the folder ``output`` and return it.

    ``total_microbleeds`` are shared out among the scans, at least one each and a few scans with many; None draws the
    number of each scan. With ``vary`` every scan has its own protocol around the given one, drawn from its seed. The
    same arguments give the same data set; run again on a folder they have begun to fill, the
    scans that are complete stay and the others are added.

    Raises:
        BadInputError: unknown protocol, no scans, or fewer microbleeds than scans.
        OutputError: the folder holds something else, or another simulated data set, or cannot be written.
        MissingPackageError: nilearn is not installed.
    """
    progress = progress or Progress()
    chosen = find_protocol(protocol)
    counts = _counts(scans, seed, total_microbleeds)
    output = Path(output)
    settings = {"scans": scans, "seed": seed, "protocol": protocol, "total_microbleeds": total_microbleeds}
    if vary:
        settings["vary"] = True
    _claim(output, settings)
    load_template()
    digits = max(2, len(str(scans)))
    names = [f"sub-{number:0{digits}d}" for number in range(1, scans + 1)]
    _write_head(output, settings, names, counts, seed)
    progress.plan([(_STAGE, 1)])
    for number, (name, count) in enumerate(zip(names, counts, strict=True)):
        # The folder of the scan comes last, so what is there is complete.
        if not (output / name).is_dir():
            part = Part(progress, _STAGE, number, scans)
            own = _own_protocol(chosen, _scan_seed(seed, number)) if vary else chosen
            _write_scan(output, name, simulate_head(_scan_seed(seed, number), own, count, part), own)
        progress.report(_STAGE, number + 1, scans)
    return output


def _scan_seed(seed: int, number: int) -> int:
    return seed * _SEED_STEP + number


def _own_protocol(protocol: Protocol, seed: int) -> Protocol:
    return varied(protocol, np.random.default_rng([seed, _VARIATION]))


def _counts(scans: int, seed: int, total: int | None) -> list[int]:
    """Return the number of microbleeds of each scan."""
    if scans < 1:
        raise BadInputError("A data set needs at least one scan.", "Ask for one scan or more.")
    if seed < 0:
        raise BadInputError("The seed must not be negative.", "Choose a seed of 0 or more.")
    rng = np.random.default_rng([seed, scans])
    drawn = np.array([draw_count(rng) for _ in range(scans)])
    if total is None:
        return [int(n) for n in drawn]
    if not scans <= total <= scans * MOST_MICROBLEEDS:
        raise BadInputError(
            f"{total} microbleeds cannot be shared out among {scans} scans.",
            f"Ask for {scans} to {scans * MOST_MICROBLEEDS}: at least 1 and at most {MOST_MICROBLEEDS} a scan.",
        )
    # The drawn numbers are the weights of the lots: scans with many get most of the rest.
    counts = np.ones(scans, int)
    while counts.sum() < total:
        weights = drawn * (counts < MOST_MICROBLEEDS)
        counts[rng.choice(scans, p=weights / weights.sum())] += 1
    return [int(n) for n in counts]


def _claim(output: Path, settings: dict[str, Any]) -> None:
    """Refuse a folder that holds anything but the beginnings of this very data set."""
    check_output_folder(output, _MINE)
    description = output / "dataset_description.json"
    if not description.exists():
        others = [p.name for p in output.iterdir() if not p.name.startswith(".partial-")] if output.exists() else []
        if others:
            raise OutputError(f"The folder {output} holds other files ({others[0]}).", "Choose an empty or new folder.")
        return
    try:
        earlier = json.loads(description.read_text(encoding="utf-8"))["GeneratedBy"][0]["Settings"]
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        earlier = None
    if earlier != settings:
        raise OutputError(
            f"The folder {output} holds another data set.",
            "Choose an empty or new folder, or give the settings it was begun with.",
        )
    for remains in [*output.glob(".partial-*"), *output.glob("derivatives/cmbdetector/.partial-*")]:
        shutil.rmtree(remains, ignore_errors=True) if remains.is_dir() else remains.unlink(missing_ok=True)


def _write_head(output: Path, settings: dict[str, Any], names: Sequence[str], counts: Sequence[int], seed: int) -> None:
    """Write the files at the top: description, participants and a few words."""
    about = {"Name": "CMBDetector simulation", "BIDSVersion": "1.9.0", "License": "CC0-1.0"}
    made_by = {"Name": "CMBDetector", "Settings": settings}
    write_json(
        output / "dataset_description.json", about | {"DatasetType": "raw", "Simulated": True, "GeneratedBy": [made_by]}
    )
    rows = [
        {"participant_id": name, "microbleeds": count, "simulation_seed": _scan_seed(seed, number)}
        for number, (name, count) in enumerate(zip(names, counts, strict=True))
    ]
    write_table(output / "participants.tsv", ("participant_id", "microbleeds", "simulation_seed"), rows)
    write_text(output / "README", _README)
    write_json(
        output / "derivatives" / "cmbdetector" / "dataset_description.json",
        about | {"DatasetType": "derivative", "GeneratedBy": [made_by]},
    )


def _write_scan(output: Path, name: str, simulated: SimulatedScan, protocol: Protocol) -> None:
    """Write one scan and its annotations, each folder whole or not at all."""
    kind, suffix = ("swi", "swi") if protocol.family == "swi" else ("anat", "T2starw")
    with output_folder(output / "derivatives" / "cmbdetector" / name, (f"{name}_desc-*",)) as folder:
        stem = folder / f"{name}_"
        write_volume(f"{stem}desc-brain_mask.nii.gz", simulated.brain_mask)
        write_points(f"{stem}desc-cmb_points.tsv", map(_point, simulated.microbleeds))
        write_points(f"{stem}desc-mimic_points.tsv", map(_point, simulated.mimics), mimics=True)
    with output_folder(output / name, ("swi", "anat")) as folder:
        stem = folder / kind / f"{name}_{suffix}"
        write_volume(f"{stem}.nii.gz", simulated.scan)
        sidecar = {
            "EchoTime": round(protocol.echo_time_ms / 1000, 5),
            "MagneticFieldStrength": protocol.field_tesla,
            "ProtocolName": protocol.name,
            "Simulated": True,
            "SliceThickness": round(protocol.spacing_mm[2] * protocol.thickness, 3),
            "SpacingBetweenSlices": protocol.spacing_mm[2],
            "ZeroFilling": protocol.zero_filling,
            "RelativeNoise": protocol.noise,
            "PhaseMaskPower": protocol.phase_power,
            "MixedContrast": protocol.mixed,
        }
        write_json(f"{stem}.json", sidecar)


def _point(lesion: Lesion) -> Point:
    return Point(
        tuple(round(v, 3) for v in lesion.ras_mm),
        diameter_mm=round(lesion.diameter_mm, 2),
        certainty="definite",
        source="simulated",
        mimic_class=lesion.mimic_class or None,
        location=lesion.location or None,
        near_dark=bool(lesion.near_dark),
        contrast=round(float(lesion.contrast), 3),
    )
