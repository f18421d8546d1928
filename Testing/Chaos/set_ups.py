"""The set-up of the runtime: killed at any line or moment, on a disk full at any byte, with a file cut or changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import forks
from outcome import Chaos, Outcome
from small_disk import SmallDisk
from small_runtime import SmallRuntime, make_small_runtime, make_wheel

from CMBDetectorLib.errors import CMBDetectorError, OutputError, SetUpError
from CMBDetectorLib.progress import Progress
from CMBDetectorLib.runtime import installing
from CMBDetectorLib.runtime.installing import alone, locks_for, set_up
from CMBDetectorLib.runtime.locks import DETECTOR, PARTS, VARIABLE
from CMBDetectorLib.runtime.place import Place, census
from CMBDetectorLib.runtime.removal import remove

_DISK_BYTES = 2 << 20
_NOT_MOUNTED = "left out: mounting a tmpfs needs root"


def killed(chaos: Chaos) -> Outcome:
    """A new version is set up over an old one, then both are removed; whoever is killed leaves one of them whole."""
    outcome = Outcome("kill -9 of a set-up and of a removal: the old packages or the new")
    chance, top = chaos.random("set-up kills"), chaos.place("set-up-kills")
    small = _old_and_new(top / "made")
    tries, early = chaos.times(40), 0
    for work_of, allowed in ((_renew, ("1", "2")), (_take_away, ("1", None))):
        whole = _copy(small, top / f"whole-{work_of.__name__}")
        for at in forks.moments(chance, work_of(whole, small), -(-tries // 2)):
            folder = _copy(small, top / f"{outcome.tries}")
            ended = forks.run(work_of(folder, small), at)
            outcome.tries += 1
            early += ended.was_killed
            outcome.check(not ended.error and not ended.hung, f"it failed by itself: {ended.error[-600:]}")
            found = _value(folder, small)
            outcome.check(found in allowed, f"version {found} is there, {allowed} were allowed")
            after = forks.run(_renew(folder, small))
            outcome.check(not after.error, f"the next set-up fails: {after.error[-600:]}")
            outcome.check(_value(folder, small) == "2", "the next set-up does not set up")
            outcome.check(_only_one(folder), "something is left over")
            shutil.rmtree(folder, ignore_errors=True)
    outcome.note = f"{early} before the end"
    return outcome


def on_a_full_disk(chaos: Chaos) -> Outcome:
    """The disk is full somewhere in a set-up: a sentence, the old packages as before, and later the new ones."""
    outcome = Outcome("disk full: set-up of packages")
    chance, top = chaos.random("full set-up"), chaos.place("full-set-up")
    small = _old_and_new(top / "made")
    # What is asked before is not the question here, but what happens when others fill the disk meanwhile.
    spare, installing._SPARE_BYTES = installing._SPARE_BYTES, -(1 << 40)
    try:
        with SmallDisk(top / "disk", _DISK_BYTES) as disk:
            sentences = 0
            for _ in range(chaos.times(16) if disk.is_real else 0):
                disk.clear()
                folder = _copy(small, disk.folder / "runtime")
                disk.leave_free(chance.randrange(0, 500_000))
                outcome.tries += 1
                ended = forks.run(_renew(folder, small, expected=(OutputError, SetUpError)))
                sentences += ended.value is False
                outcome.check(not ended.error, f"no sentence: {ended.error[-600:]}")
                outcome.check(_value(folder, small) == ("2" if ended.value else "1"), "the packages are neither")
                disk.clear()
                outcome.check(not forks.run(_renew(folder, small)).error, "it fails with space, too")
                outcome.check(_value(folder, small) == "2" and _only_one(folder), "it is not as it should be")
                shutil.rmtree(folder)
            outcome.note = f"{sentences} ended in a sentence" if disk.is_real else _NOT_MOUNTED
    finally:
        installing._SPARE_BYTES = spare
    return outcome


def from_damaged_wheels(chaos: Chaos) -> Outcome:
    """A file of the folder of wheels is cut, or a byte of it is another: it is refused, the old packages stay."""
    outcome = Outcome("cut off, or a byte changed: wheels of a set-up")
    chance, top = chaos.random("damaged wheels"), chaos.place("damaged-wheels")
    small = _old_and_new(top / "made")
    folder = _copy(small, top / "runtime")
    for number in range(chaos.times(60)):
        file = chance.choice(sorted(small.wheels.glob("probe_detector-2*")) + sorted(small.wheels.glob("probe_plain*")))
        whole = file.read_bytes()
        place = chance.randrange(len(whole))
        changed = whole[:place] + bytes([whole[place] ^ (1 << chance.randrange(8))]) + whole[place + 1 :]
        file.write_bytes(whole[:place] if number % 2 else changed)
        outcome.tries += 1
        ended = forks.run(_renew(folder, small, expected=(SetUpError,)))
        outcome.check(not ended.error, f"no sentence: {ended.error[-600:]}")
        outcome.check(ended.value is False, "a damaged file was taken for a whole one")
        outcome.check(_value(folder, small) == "1" and _only_one(folder), "the old packages are not as before")
        file.write_bytes(whole)
    return outcome


def _old_and_new(top: Path) -> SmallRuntime:
    """Return one with version 1 set up and version 2 locked."""
    small = make_small_runtime(top)
    os.environ[VARIABLE] = str(small.locks)
    set_up(small.place(), locks_for((DETECTOR,))[0], small.wheels, Progress())
    small.lock_detector(
        "2", make_wheel(small.wheels, "probe-plain", "2.0", {"probe_plain.py": "", "probe_more.py": ""})
    )
    return small


def _copy(small: SmallRuntime, folder: Path) -> Path:
    return Path(shutil.copytree(small.folder, folder))


def _renew(folder: Path, small: SmallRuntime, expected: tuple[type[CMBDetectorError], ...] = ()) -> forks.Work:
    def work(say: forks.Say) -> bool:
        os.environ[VARIABLE] = str(small.locks)
        try:
            set_up(Place(folder), locks_for((DETECTOR,))[0], small.wheels, Progress())
        except expected as error:
            if not error.message or not error.hint:
                raise
            return False
        return True

    return work


def _take_away(folder: Path, small: SmallRuntime) -> forks.Work:
    def work(say: forks.Say) -> None:
        with alone(Place(folder)):
            remove(Place(folder), list(PARTS))

    return work


def _value(folder: Path, small: SmallRuntime) -> str | None:
    """Return the version that is set up and whole, "damaged", or ``None``."""
    os.environ[VARIABLE] = str(small.locks)
    place = Place(folder)
    packages = place.packages()
    if not packages:
        return None
    listed = [place.set_up(lock.name) for lock in locks_for((DETECTOR,))]
    if listed[0] is None or census(packages[0]) != (listed[0].files, listed[0].bytes):
        return "damaged"
    return listed[0].versions["probe-detector"]


def _only_one(folder: Path) -> bool:
    used = {path.name for path in Place(folder).packages()}
    return {path.name for path in folder.iterdir()} == {*used, "current.json"}
