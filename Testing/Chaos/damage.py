"""Files that were cut off or have a flipped bit: refused with a sentence, or read as what they were."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forks
import samples
from local_datasets import scan_of
from outcome import Chaos, Outcome
from reviews import KEY, Clock

from CMBDetectorLib.candidate import read_detection, write_detection
from CMBDetectorLib.datasets.bids import read_points
from CMBDetectorLib.datasets.local import list_scans
from CMBDetectorLib.errors import CMBDetectorError
from CMBDetectorLib.models.bundle import verified
from CMBDetectorLib.models.package import check_bundle, write_package
from CMBDetectorLib.models.registry import Registry
from CMBDetectorLib.review.log import ReviewLog, read_log
from CMBDetectorLib.volume import read_volume, write_volume


@dataclass(frozen=True)
class Kind:
    """A kind of file: ``name`` for the table, ``path`` of one, ``read`` of what it says.

    ``flips``: whether a flipped bit must be noticed (it has a checksum); a cut must be noticed always. ``may_be``
    tells of two readings whether the second, of the damaged file, is no loss.
    """

    name: str
    path: Path
    read: Callable[[], Any]
    flips: bool
    may_be: Callable[[Any, Any], bool]


def cut_and_flipped(chaos: Chaos) -> Outcome:
    """Every kind of file, cut at any length and with any bit flipped."""
    outcome = Outcome("cut off, or a bit flipped: models, scans, logs, registries, datasets, results")
    top = chaos.place("damage")
    made = forks.run(lambda say: _prepare(top))
    outcome.check(not made.error, made.error[-800:])
    for number, kind in enumerate(_kinds(top)):
        tries = chaos.times(40)
        ended = forks.run(lambda say, k=kind, n=number, t=tries: _damage(k, chaos.random(f"damage {n}"), t))
        outcome.tries += tries
        outcome.check(not ended.error and not ended.hung, f"{kind.name}: {ended.error[-600:] or 'it hangs'}")
        outcome.losses += [f"{kind.name}: {loss}" for loss in ended.value or []]
    return outcome


def _prepare(top: Path) -> None:
    (source,) = samples.make_models(top, 1)
    bundle = check_bundle(source)
    write_package(bundle, top / "model.zip")
    registry = Registry(top / "registry")
    registry.install(source)
    registry.activate("local@1")
    scan = scan_of(0)
    for name in ("scan.nii.gz", "scan.nii", "scan.nrrd", "scan.mha"):
        write_volume(top / name, scan)
    review = samples.new_review()
    with ReviewLog.create(top / "reviews", KEY, review, Clock()) as log:
        review.changed.append(log.append)
        for act in samples.changes(3, 20):
            act(review)
    shutil.copyfile(log.path, top / "review.jsonl")
    samples.export(top / "dataset", 1, 2)
    write_detection(top / "candidates.json", review.detection)


def _kinds(top: Path) -> list[Kind]:
    def voxels(name: str) -> Callable[[], Any]:
        def read() -> Any:
            volume = read_volume(top / name)
            return volume.array.tobytes(), volume.ijk_to_ras.tobytes()

        return read

    def trains() -> Any:
        (scan,) = list_scans(top / "dataset")
        if not scan.trains:
            raise CMBDetectorError(scan.reason, "Export it again.")
        return scan.microbleeds, scan.mimics, scan.case.microbleeds().tolist(), scan.case.mimic_positions().tolist()

    def active() -> Any:
        bundle = Registry(top / "registry").load()
        return bundle.reference, bundle.checksum

    def log() -> Any:
        recorded = read_log(top / "review.jsonl")
        return [change.finding for change in recorded.changes]

    def points() -> Any:
        return read_points(next((top / "dataset" / "derivatives").rglob("*cmb_points.tsv")))

    def same(before: Any, after: Any) -> bool:
        return before == after

    def subset(before: Any, after: Any) -> bool:
        return all(change in before for change in after)

    def anything(before: Any, after: Any) -> bool:
        return True

    def is_default(before: Any, after: Any) -> bool:
        return before == after

    source = top / "source-1"
    dataset = [next((top / "dataset" / "derivatives").rglob(f"*{name}")) if (top / "dataset").is_dir() else top
               for name in ("cmb_points.tsv", "mimic_points.tsv", "review.json")]  # fmt: skip
    return [
        Kind("network", source / "unet.keras", lambda: verified(source).checksum, True, same),
        Kind("model as one file", top / "model.zip", lambda: _installed(top), True, same),
        Kind("card of a model", source / "model.json", lambda: check_bundle(source).checksum, False, same),
        Kind("registry", top / "registry" / "active.json", active, True, is_default),
        Kind("scan.nii.gz", top / "scan.nii.gz", voxels("scan.nii.gz"), True, same),
        # Voxels without a checksum.
        Kind("scan.nii", top / "scan.nii", voxels("scan.nii"), False, same),
        Kind("scan.nrrd", top / "scan.nrrd", voxels("scan.nrrd"), False, same),
        Kind("scan.mha", top / "scan.mha", voxels("scan.mha"), False, same),
        Kind("review log", top / "review.jsonl", log, True, subset),
        Kind("list of microbleeds", dataset[0], trains, True, same),
        Kind("list of mimics", dataset[1], trains, True, same),
        Kind("note of a review", dataset[2], trains, True, same),
        Kind("point list", dataset[0], points, False, anything),
        Kind("result", top / "candidates.json", lambda: read_detection(top / "candidates.json"), False, same),
    ]


def _installed(top: Path) -> Any:
    registry = Registry(top / "other")
    shutil.rmtree(registry.folder, ignore_errors=True)
    try:
        return registry.install(top / "model.zip")[0].checksum
    finally:
        shutil.rmtree(registry.folder, ignore_errors=True)


def _damage(kind: Kind, chance: random.Random, tries: int) -> list[str]:
    lost = []
    whole = kind.path.read_bytes()
    before = kind.read()
    try:
        for number in range(tries):
            cut = number % 2 == 0
            if cut:
                length = chance.randrange(len(whole))
                kind.path.write_bytes(whole[:length])
                what = f"cut to {length} of {len(whole)} bytes"
            else:
                place, bit = chance.randrange(len(whole)), chance.randrange(8)
                damaged = bytearray(whole)
                damaged[place] ^= 1 << bit
                kind.path.write_bytes(damaged)
                what = f"bit {bit} of byte {place} flipped"
            try:
                after = kind.read()
            except CMBDetectorError as error:
                if wrong := samples.sentence_of(error):
                    lost.append(f"{what}: {wrong}")
                continue
            except Exception as error:
                lost.append(f"{what}: {type(error).__name__}: {error}")
                continue
            if (cut or kind.flips) and not kind.may_be(before, after):
                lost.append(f"{what}: taken for a whole one")
    finally:
        kind.path.write_bytes(whole)
    if kind.read() != before:
        lost.append("whole again, it is read as something else")
    return lost
