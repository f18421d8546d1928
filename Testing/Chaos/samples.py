"""Reviews, datasets and models to be lost: small, and known exactly before and after every change."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Python"))

from fake_bundles import fake
from grids import CENTRE_RAS
from local_datasets import key_of, scan_of
from reviews import KEY, OFFSETS, Clock, detection, ids

from CMBDetectorLib.datasets.local import list_scans
from CMBDetectorLib.errors import CMBDetectorError
from CMBDetectorLib.models.registry import Registry
from CMBDetectorLib.review.export_dataset import export_dataset
from CMBDetectorLib.review.finding import Certainty, Finding, State
from CMBDetectorLib.review.log import ReviewLog, find_reviews, read_review, resume
from CMBDetectorLib.review.review import Review

_PLACES = [(float(10 * n), float(n), float(-n)) for n in range(8)]


def sentence_of(error: CMBDetectorError) -> str:
    """Return what is wrong with the words of an error, "" where nothing is."""
    text = error.message
    if not text.endswith(".") or "\n" in text or len(text) > 600 or "Traceback" in text:
        return f"no sentence: {text!r}"
    return "" if error.hint else f"no next step: {text!r}"


# Reviews


def new_review() -> Review:
    """Return the review that every host begins with."""
    return Review(detection(_PLACES), "Dr A", now=Clock())


def changes(seed: int, count: int) -> list[Callable[[Review], object]]:
    """Return ``count`` changes of a review, the same for the same seed."""
    chance = random.Random(seed)

    def change(number: int) -> Callable[[Review], object]:
        kind = chance.choice(["judge", "judge", "judge", "move", "comment", "add", "undo", "redo"])
        pick, state = chance.random(), chance.choice(list(State))
        shift = [round(chance.uniform(-2, 2), 2) for _ in range(3)]

        def act(review: Review) -> object:
            key = ids(review)[int(pick * len(ids(review)))]
            if kind == "judge":
                return review.judge(key, state, Certainty.POSSIBLE if state is State.ACCEPTED else None)
            if kind == "move":
                return review.move(key, [a + b for a, b in zip(review[key].ras_mm, shift, strict=True)])
            if kind == "comment":
                return review.comment(key, f"remark {number} \u00fc\u2028\U0001f9e0")
            if kind == "add":
                return review.add([50 + v + number for v in shift])
            return review.undo() if kind == "undo" else review.redo()

        return act

    return [change(number) for number in range(count)]


def states(seed: int, count: int) -> list[list[Finding]]:
    """Return the findings before and after each of the changes: ``count`` + 1 lists."""
    review = new_review()
    known = [review.findings]
    for act in changes(seed, count):
        act(review)
        known.append(review.findings)
    return known


def host_of_a_review(root: Path, seed: int, count: int) -> Callable[[Callable[[object], None]], None]:
    """Return a host that records the changes and says how many of them are kept."""

    def host(say: Callable[[object], None]) -> None:
        review = new_review()
        log = ReviewLog.create(root, KEY, review, Clock())
        review.changed.append(log.append)
        say(0)
        for number, act in enumerate(changes(seed, count), 1):
            act(review)
            say(number)
        log.close()

    return host


def losses_of_a_review(root: Path, seed: int, count: int, kept: int | None) -> list[str]:
    """Return what is lost of a review of which ``kept`` changes were said to be kept (``None``: not even begun)."""
    found = [entry for entry in find_reviews(root, KEY)]
    if not found:
        return [] if kept is None else [f"the whole review is gone ({kept} verdicts)"]
    lost = [f"cannot be resumed: {entry.problem}" for entry in found if entry.problem]
    if lost:
        return lost
    known = states(seed, count)
    review, log = resume(found[0].path)
    may_be = known[kept or 0 : (kept or 0) + 2]
    if review.findings not in may_be:
        lost.append(f"after {kept} changes the review is another one")
    review.changed.append(log.append)
    review.comment(ids(review)[0], "the next run")
    log.close()
    if read_review(found[0].path).findings != review.findings:
        lost.append("the next run did not keep its change")
    if list(root.rglob("*.lock")):
        lost.append("a lock is left")
    return lost


# Datasets


def judged_as(count: int, reader: str = "Dr A") -> Review:
    """Return a review of the phantom with ``count`` microbleeds and as many mimics (1 or 2)."""
    review = Review(detection([tuple(CENTRE_RAS + offset) for offset in OFFSETS], threshold=0.5), reader)
    keys = ids(review)
    for number, key in enumerate(keys):
        state = (State.ACCEPTED, State.REJECTED)[number % 2] if number < 2 * count else State.UNSURE
        review.judge(key, state, mimic_class="vessel" if state is State.REJECTED else None)
    return review


def export(folder: Path, number: int, count: int) -> None:
    """Export the phantom ``number`` as :func:`judged_as` says."""
    scan = scan_of(number)
    export_dataset(folder, judged_as(count), scan, key_of(scan))


def host_of_a_dataset(folder: Path, scans: int, rounds: int) -> Callable[[Callable[[object], None]], None]:
    """Return a host that exports scans round after round, with one and with two microbleeds, and says which are."""

    def host(say: Callable[[object], None]) -> None:
        for round_ in range(rounds):
            for number in range(scans):
                say(("begin", number, round_ % 2 + 1))
                export(folder, number, round_ % 2 + 1)
                say(("done", number, round_ % 2 + 1))

    return host


def losses_of_a_dataset(folder: Path, said: list[tuple[str, int, int]]) -> list[str]:
    """Return what is lost of a dataset whose host said ``said``; then exports all anew and looks again."""
    done = {key_of(scan_of(number)): count for what, number, count in said if what == "done"}
    begun = {key_of(scan_of(said[-1][1]))} if said and said[-1][0] == "begin" else set()
    lost = []
    listed = list_scans(folder) if folder.is_dir() else []
    for scan in listed:
        if scan.trains and not scan.microbleeds == scan.mimics > 0:
            lost.append(f"a mixture trains: {scan.microbleeds} microbleeds, {scan.mimics} mimics")
        if scan.key in done and scan.key not in begun and (not scan.trains or scan.microbleeds != done[scan.key]):
            lost.append(f"an export that had ended is gone: {scan.reason}")
    missing = set(done) - begun - {scan.key for scan in listed}
    lost += [f"{len(missing)} exported scans are gone"] if missing else []
    for number in {number for _, number, _ in said}:
        export(folder, number, 2)
    whole = [(scan.trains, scan.microbleeds, scan.mimics) for scan in list_scans(folder)] if said else []
    if any(entry != (True, 2, 2) for entry in whole) or len(whole) != len({number for _, number, _ in said}):
        lost.append(f"the next export does not make it whole: {whole}")
    left = [path.name for path in folder.rglob("*") if "partial" in path.name or path.suffix == ".lock"]
    lost += [f"leftovers {left}"] if left else []
    return lost


# Models


def make_models(folder: Path, count: int = 3) -> list[Path]:
    """Write ``count`` bundles with networks of a few bytes."""
    return [fake(folder / f"source-{n}", version=str(n), number=float(n)) for n in range(1, count + 1)]


def host_of_a_registry(
    registry: Path, sources: list[Path], seed: int, count: int
) -> Callable[[Callable[[object], None]], None]:
    """Return a host that installs, activates, rolls back and removes, and says what is so."""

    def host(say: Callable[[object], None]) -> None:
        chance = random.Random(seed)
        models = Registry(registry)
        for source in sources[:2]:
            say(("begin", "install", f"local@{source.name[-1]}"))
            models.install(source)
            say(("done", "install", f"local@{source.name[-1]}"))
        for _ in range(count):
            what = chance.choice(["activate", "activate", "rollback", "install", "remove"])
            reference = f"local@{chance.randint(1, len(sources))}"
            say(("begin", what, reference))
            try:
                if what == "activate":
                    reference = models.activate(reference)[0].reference
                elif what == "rollback":
                    reference = models.rollback().reference
                elif what == "install":
                    models.install(sources[int(reference[-1]) - 1])
                else:
                    models.remove(reference)
            except CMBDetectorError:
                # Refused: it is active, it is not there, nothing was active before.
                say(("refused", what, reference))
                continue
            say(("done", what, reference))

    return host


def losses_of_a_registry(registry: Path, sources: list[Path], said: list[tuple[str, str, str]]) -> list[str]:
    """Return what is lost of a registry whose host said ``said``; then changes it again."""
    models = Registry(registry)
    installed: set[str] = set()
    active = Registry(registry.parent / "none").active_reference()
    for what, change, reference in said:
        if what != "done":
            continue
        if change == "install":
            installed.add(reference)
        elif change == "remove":
            installed.discard(reference)
        else:
            active = reference
    last = said[-1] if said and said[-1][0] == "begin" else ("", "", "")
    lost = []
    own = {version.reference: version for version in models.versions() if not version.is_bundled}
    for reference in installed - set(own) - ({last[2]} if last[1] == "remove" else set()):
        lost.append(f"the installed model {reference} is gone")
    for reference, version in own.items():
        if reference not in installed and (last[1], last[2]) != ("install", reference):
            lost.append(f"the removed model {reference} is back")
        if version.problem is not None:
            lost.append(f"{reference}: {version.problem}")
        else:
            models.load(reference)
    now = models.active_reference()
    if now != active and not (last[1] == "rollback" or (last[1] == "activate" and now == last[2])):
        lost.append(f"{now} is active instead of {active}")
    models.load()
    for source in sources:
        models.install(source)
    if models.activate("local@1")[0].reference != models.active_reference():
        lost.append("the next activation does not count")
    left = [path.name for path in registry.iterdir() if path.name.startswith(".")]
    lost += [f"leftovers {left}"] if left else []
    return lost
