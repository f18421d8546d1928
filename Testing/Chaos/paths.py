"""Folders and files with names in any script and of 250 characters, from the command line to the dataset."""

from __future__ import annotations

from pathlib import Path

import forks
import real_worker
import samples
from local_datasets import scan_of
from outcome import Chaos, Outcome
from reviews import KEY, Clock

from CMBDetectorLib.datasets.importing import import_annotations
from CMBDetectorLib.datasets.local import list_scans
from CMBDetectorLib.gui.job import WorkerJob
from CMBDetectorLib.models.package import write_package
from CMBDetectorLib.models.registry import Registry
from CMBDetectorLib.review.log import ReviewLog, find_reviews, read_review
from CMBDetectorLib.volume import read_volume, write_volume

# At most 255 bytes may a name have; paths of 250 characters are what Windows allows.
NAMES = (
    "Bilder für Dr Ü & Söhne",
    "脳 MRI 検査",
    "مسح الدماغ",
    "🧠 scan",
    "a'b\"c $HOME `x` %PATH% ;|>",
    " leading and trailing ",
    "[brackets] {braces} (1)",
    "e\u0301 decomposed, \u00e9 composed",
    "two\nlines",
    "x" * 250,
    "ö" * 125,
    "-rf --output",
)


def names(chaos: Chaos) -> Outcome:
    """Everything that reads and writes, in folders with such names."""
    outcome = Outcome("names in any script and of 250 characters: all that reads and writes")
    top = chaos.place("paths")
    sources = samples.make_models(top, 1)
    for number in range(min(len(NAMES), chaos.times(len(NAMES)))):
        outcome.tries += 1
        folder = top / f"{number}" / NAMES[number]
        folder.mkdir(parents=True)
        ended = forks.run(lambda say, f=folder: _everything(f, sources[0]))
        outcome.check(not ended.error and not ended.hung, f"{NAMES[number][:30]!r}: {ended.error[-600:]}")
    return outcome


def detections(chaos: Chaos) -> Outcome:
    """Real detections of scans with such names into folders with such names."""
    outcome = Outcome("names in any script and of 250 characters: detections")
    top = chaos.place("detection-paths")
    chosen = (1, 3, 4, 9)
    for number in chosen[: chaos.times(len(chosen))]:
        outcome.tries += 1
        folder = top / NAMES[number]
        folder.mkdir()
        name = NAMES[number][: 250 - len(".nii.gz")]
        scan = folder / f"{name}.nii.gz"
        scan.write_bytes(chaos.scan.read_bytes())
        output = folder / NAMES[number]
        ended = real_worker.follow(WorkerJob(real_worker.arguments(scan, chaos.model, output), real_worker.OWN))
        outcome.check(ended.state == "done", f"{name[:30]!r}: {ended.words} {ended.log[-300:]}")
        try:
            outcome.check(real_worker.result_of(output) is not None, f"{name[:30]!r}: no result")
        except ValueError as error:
            outcome.losses.append(f"{name[:30]!r}: {error}")
    return outcome


def _everything(folder: Path, source: Path) -> None:
    name = folder.name[: 250 - len(".nii.gz")]
    while len(name.encode()) > 250 - len(".nii.gz"):
        name = name[:-1]
    scan = scan_of(0)
    for ending in (".nii.gz", ".nrrd"):
        write_volume(folder / f"{name}{ending}", scan)
        assert read_volume(folder / f"{name}{ending}").same_grid(scan)
    review = samples.new_review()
    with ReviewLog.create(folder / "reviews", KEY, review, Clock()) as log:
        review.changed.append(log.append)
        for act in samples.changes(5, 10):
            act(review)
    (found,) = find_reviews(folder / "reviews", KEY)
    assert read_review(found.path).findings == review.findings
    samples.export(folder / "dataset", 1, 2)
    table = folder / f"{name}.tsv"
    table.write_text("x\ty\tz\n12\t-7\t20\n", encoding="utf-8")
    import_annotations(folder / "dataset", folder / f"{name}.nii.gz", table, reader=name, is_complete=True)
    assert [listed.trains for listed in list_scans(folder / "dataset")] == [True, True]
    registry = Registry(folder / "models")
    bundle, _ = registry.install(source)
    registry.activate(bundle.reference)
    write_package(registry.load(), folder / f"{name}.zip")
    assert Registry(folder / "others").install(folder / f"{name}.zip")[0].checksum == bundle.checksum
    left = [path.name for path in folder.rglob("*") if "partial" in path.name or path.suffix == ".lock"]
    assert not left, left
