"""A disk full at any byte, and a folder that may not be written: sentences, nothing half, and later all of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import forks
import real_worker
import samples
from outcome import Chaos, Outcome
from reviews import KEY, Clock, ids
from small_disk import SmallDisk

from CMBDetectorLib.datasets.local import list_scans
from CMBDetectorLib.errors import CMBDetectorError, OutputError
from CMBDetectorLib.gui.job import WorkerJob
from CMBDetectorLib.models.registry import Registry
from CMBDetectorLib.review.log import ReviewLog, read_review
from CMBDetectorLib.review.review import Review

_SIZE = 1 << 20
_NOT_MOUNTED = "left out: mounting a tmpfs needs root"


def full_for_verdicts(chaos: Chaos) -> Outcome:
    """The disk fills while verdicts are given; they wait in memory, and are all kept once there is space."""
    outcome = Outcome("disk full: verdicts into the review log")
    chance, top = chaos.random("full review"), chaos.place("full-review")
    with SmallDisk(top / "disk", _SIZE) as disk:
        for _ in range(chaos.times(12)):
            seed, free = chance.randrange(1 << 30), chance.randrange(4096, 20_000)
            _try(outcome, lambda say, s=seed, f=free: _verdicts_on_a_full_disk(disk, s, f))
        outcome.note = "" if disk.is_real else _NOT_MOUNTED
    return outcome


def full_for_exports(chaos: Chaos) -> Outcome:
    """The disk is full somewhere in an export; the dataset is as before, and the next export makes it whole."""
    outcome = Outcome("disk full: export to the local dataset")
    chance, top = chaos.random("full dataset"), chaos.place("full-dataset")
    with SmallDisk(top / "disk", _SIZE) as disk:
        for number in range(chaos.times(16)):
            free = chance.randrange(0, 120_000)
            _try(outcome, lambda say, n=number, f=free: _export_on_a_full_disk(disk, n, f))
        outcome.note = "" if disk.is_real else _NOT_MOUNTED
    return outcome


def full_for_models(chaos: Chaos) -> Outcome:
    """The disk is full somewhere in an installation or activation; what was there and active stays so."""
    outcome = Outcome("disk full: models installed and activated")
    chance, top = chaos.random("full registry"), chaos.place("full-registry")
    sources = samples.make_models(top)
    with SmallDisk(top / "disk", _SIZE) as disk:
        for number in range(chaos.times(16)):
            free = chance.randrange(0, 40_000)
            _try(outcome, lambda say, n=number, f=free: _models_on_a_full_disk(disk, sources, n, f))
        outcome.note = "" if disk.is_real else _NOT_MOUNTED
    return outcome


def full_for_detections(chaos: Chaos) -> Outcome:
    """The disk of the results, or that of temporary files and the log, is full during a real detection."""
    outcome = Outcome("disk full: detections (results; temporary files and log)")
    chance, top = chaos.random("full detection"), chaos.place("full-detection")
    with SmallDisk(top / "disk", 8 * _SIZE) as disk:
        for number in range(chaos.times(6) if disk.is_real else 0):
            outcome.tries += 1
            is_log = number % 3 == 2
            disk.leave_free(0 if is_log else chance.randrange(0, 600_000))
            output = (top if is_log else disk.folder) / f"o-{number}"
            command = real_worker.arguments(chaos.scan, chaos.model, output)
            before = tempfile.tempdir
            tempfile.tempdir = str(disk.folder) if is_log else before
            try:
                ended = real_worker.follow(WorkerJob(command, real_worker.OWN))
            finally:
                tempfile.tempdir = before
            if ended.state != "done":
                loss = real_worker.words_are_missing(ended, ["output"])
                outcome.check(not loss, loss)
            disk.clear()
            try:
                found = real_worker.result_of(output)
                outcome.check(found is None or ended.state == "done", "a result is there though it failed")
            except ValueError as error:
                outcome.losses.append(str(error))
            left = [path.name for path in disk.folder.iterdir() if path.name != output.name]
            outcome.check(not left, f"leftovers {left}")
            _empty(output)
        outcome.note = "" if disk.is_real else _NOT_MOUNTED
    return outcome


def read_only(chaos: Chaos) -> Outcome:
    """Nothing may be written: a read-only file system for root, a folder without permission for anybody else."""
    outcome = Outcome("read-only folders: review, dataset, models")
    top = chaos.place("read-only")
    sources = samples.make_models(top)
    with SmallDisk(top / "disk", _SIZE) as disk:
        disk.folder.chmod(0o777)
        for number in range(chaos.times(8)):
            place = disk.folder / f"{number}"
            prepared = forks.run(lambda say, p=place: _fill(p, sources))
            outcome.check(not prepared.error, prepared.error[-600:])
            if disk.is_real and number % 2:
                disk.read_only(True)
                _try(outcome, lambda say, p=place: _refused(p, sources))
                disk.read_only(False)
            else:
                _chmod(place, 0o555, 0o444)
                _try(outcome, lambda say, p=place: _without_privileges(lambda: _refused(p, sources)))
                _chmod(place, 0o755, 0o644)
            after = forks.run(lambda say, p=place: _next_run(p, sources))
            outcome.check(not after.error, f"the next run fails: {after.error[-600:]}")
        outcome.note = "read-only mounts, and folders without permission, as a user without privileges"
    return outcome


def _try(outcome: Outcome, work: forks.Work) -> None:
    outcome.tries += 1
    ended = forks.run(work)
    outcome.check(not ended.error and not ended.hung, f"an error without a sentence: {ended.error[-800:]}")
    outcome.losses += ended.value or []


def _verdicts_on_a_full_disk(disk: SmallDisk, seed: int, free: int) -> list[str]:
    root, lost = disk.folder / f"review-{seed}", []
    limit = None if disk.is_real else _limit_files
    disk.leave_free(free)
    review = samples.new_review()
    try:
        log = ReviewLog.create(root, KEY, review, Clock())
    except OutputError as error:
        disk.clear()
        return [text for text in [samples.sentence_of(error)] if text]
    if limit is not None:
        limit(log.path.stat().st_size + 300)
    review.changed.append(log.append)
    for act in samples.changes(seed, 120):
        try:
            act(review)
        except OutputError as error:
            lost += [text for text in [samples.sentence_of(error)] if text]
    waiting = log.pending
    disk.clear()
    if limit is not None:
        limit(None)
    log.save()
    log.close()
    if read_review(log.path).findings != review.findings:
        lost.append(f"{waiting} verdicts that waited are not kept")
    _empty(root)
    return lost


def _export_on_a_full_disk(disk: SmallDisk, number: int, free: int) -> list[str]:
    folder, lost = disk.folder / f"dataset-{number}", []
    is_new = number % 2 == 0
    if not is_new:
        samples.export(folder, 1, 1)
    disk.leave_free(free)
    done = True
    try:
        samples.export(folder, 1, 2)
    except OutputError as error:
        done = False
        lost += [text for text in [samples.sentence_of(error)] if text]
    for scan in list_scans(folder) if folder.is_dir() else []:
        wanted = {2} if done else {1} - ({1} if is_new else set())
        if scan.trains and (scan.microbleeds != scan.mimics or (done and scan.microbleeds not in wanted)):
            lost.append(f"a mixture trains: {scan.microbleeds} and {scan.mimics}")
        if done and not scan.trains:
            lost.append(f"an export that ended does not train: {scan.reason}")
    disk.clear()
    lost += samples.losses_of_a_dataset(folder, [("begin", 1, 2)])
    _empty(folder)
    return lost


def _models_on_a_full_disk(disk: SmallDisk, sources: list[Path], number: int, free: int) -> list[str]:
    registry = Registry(disk.folder / f"registry-{number}")
    registry.install(sources[0])
    registry.activate("local@1")
    said = [("done", "install", "local@1"), ("done", "activate", "local@1")]
    disk.leave_free(free)
    lost: list[str] = []
    for what, reference, act in (
        ("install", "local@2", lambda: registry.install(sources[1])),
        ("activate", "local@2", lambda: registry.activate("local@2")),
    ):
        try:
            act()
            said.append(("done", what, reference))
        except CMBDetectorError as error:
            lost += [text for text in [samples.sentence_of(error)] if text]
    disk.clear()
    lost += samples.losses_of_a_registry(registry.folder, sources, said)
    _empty(registry.folder)
    return lost


def _fill(place: Path, sources: list[Path]) -> None:
    place.mkdir()
    with ReviewLog.create(place / "reviews", KEY, samples.new_review(), Clock()):
        pass
    samples.export(place / "dataset", 1, 1)
    Registry(place / "models").install(sources[0])
    Registry(place / "models").activate("local@1")


def _refused(place: Path, sources: list[Path]) -> list[str]:
    """Try everything that writes; return what did not end with a sentence, or was changed."""
    models = Registry(place / "models")
    acts: list[Callable[[], object]] = [
        lambda: ReviewLog.create(place / "reviews", KEY, samples.new_review(), Clock()),
        lambda: samples.resume(samples.find_reviews(place / "reviews", KEY)[0].path),
        lambda: samples.export(place / "dataset", 1, 2),
        lambda: samples.export(place / "dataset", 2, 2),
        lambda: models.install(sources[1]),
        lambda: models.rollback(),
        lambda: models.remove("local@1"),
    ]
    lost = []
    for number, act in enumerate(acts):
        try:
            act()
            lost.append(f"writing ({number}) is said to have gone well")
        except OutputError as error:
            lost += [text for text in [samples.sentence_of(error)] if text]
    # Reading still goes.
    (scan,) = list_scans(place / "dataset")
    if (scan.trains, scan.microbleeds) != (True, 1) or models.load().reference != "local@1":
        lost.append("what was there is not as it was")
    if read_review(samples.find_reviews(place / "reviews", KEY)[0].path).findings != samples.new_review().findings:
        lost.append("the review is not as it was")
    return lost


def _next_run(place: Path, sources: list[Path]) -> None:
    review: Review
    review, log = samples.resume(samples.find_reviews(place / "reviews", KEY)[0].path)
    review.changed.append(log.append)
    review.comment(ids(review)[0], "again")
    log.close()
    samples.export(place / "dataset", 1, 2)
    Registry(place / "models").install(sources[1])
    assert [path for path in place.rglob("*") if "partial" in path.name or path.suffix == ".lock"] == []


def _without_privileges(act: Callable[[], list[str]]) -> list[str]:
    if os.geteuid() == 0:
        _drop_privileges()
    return act()


def _drop_privileges() -> None:
    """Take from root what lets it write where the permissions forbid it.

    It stays root: as another user the program could not be read in a checkout that only root can read.
    """
    import ctypes

    version_3, this_process = 0x20080522, 0
    header, none = (ctypes.c_uint32 * 2)(version_3, this_process), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, none) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _chmod(place: Path, folders: int, files: int) -> None:
    for path in (place, *place.rglob("*")):
        path.chmod(folders if path.is_dir() else files)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _limit_files(size: int | None) -> None:
    """Refuse to let a file grow beyond ``size``: what stands in for a full disk where none can be mounted."""
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size is None else size, hard))
