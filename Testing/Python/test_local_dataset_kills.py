"""Two who write at once, one who looks, and kills at any moment: nothing is damaged, and what is half there is said."""

from __future__ import annotations

import random
import signal
import threading
import time

import pytest
from local_datasets import exported, import_once, leftovers, only
from reviews import ids, judged, python

from CMBDetectorLib.datasets.bids import MIMICS, POINTS, REVIEW, read_dataset, write_points
from CMBDetectorLib.datasets.local import list_scans
from CMBDetectorLib.review.finding import State
from CMBDetectorLib.volume import read_volume

WRITER = """
    import sys
    from pathlib import Path
    from local_datasets import import_once
    root, first, last, rounds = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    print("ready", flush=True)
    for round in range(rounds):
        for number in range(first, last):
            import_once(root, number, round % 2 + 1)
"""


def test_two_writers_and_one_who_looks(tmp_path):
    # Scans 0-2 and 2-4: one of them is written by both.
    writers = [python(WRITER, tmp_path, *part) for part in ((0, 3, 4), (2, 5, 4))]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    seen = 0
    while any(writer.poll() is None for writer in writers):
        listed = list_scans(tmp_path / "d") if (tmp_path / "d").is_dir() else []
        for scan in listed:
            assert scan.trains or "Nobody has annotated" in scan.reason or "broken off" in scan.reason, scan.reason
            assert not scan.trains or scan.microbleeds == scan.mimics > 0
        seen = max(seen, len(listed))
    assert [writer.returncode for writer in writers] == [0, 0]
    listed = list_scans(tmp_path / "d")
    assert (len(listed), seen > 0) == (5, True)
    assert all(scan.trains and scan.microbleeds == 2 for scan in listed)
    assert len(read_dataset(tmp_path / "d")) == 5
    assert not leftovers(tmp_path / "d")
    assert not (tmp_path / "d" / "derivatives" / "cmbdetector" / ".export.lock").exists()


def test_who_looks_while_files_are_exchanged_looks_again(tmp_path):
    folder = tmp_path / "d"
    made = exported(folder)
    before = made.points.read_bytes()
    write_points(made.points, [])
    assert not only(folder).trains
    lock = folder / "derivatives" / "cmbdetector" / ".export.lock"
    lock.touch()
    start = time.monotonic()
    assert not only(folder).trains
    assert time.monotonic() - start < 2
    timer = threading.Timer(0.15, made.points.write_bytes, [before])
    timer.start()
    assert only(folder).trains
    timer.join()


def test_killed_at_any_moment_nothing_is_damaged_and_importing_again_makes_it_whole(tmp_path):
    chance = random.Random(5)
    for _ in range(8):
        writer = python(WRITER, tmp_path, 0, 3, 100)
        writer.stdout.readline()
        time.sleep(chance.uniform(0.02, 0.6))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        listed = list_scans(tmp_path / "d") if (tmp_path / "d").is_dir() else []
        for scan in listed:
            # Whole as before or as after, or said to be unfinished; never a mixture that trains.
            assert not scan.trains or scan.microbleeds == scan.mimics > 0
            read_volume(scan.scan)
    for number in range(3):
        import_once(tmp_path, number, 2)
    listed = list_scans(tmp_path / "d")
    assert [(scan.trains, scan.microbleeds, scan.mimics) for scan in listed] == [(True, 2, 2)] * 3
    assert not leftovers(tmp_path / "d")


@pytest.mark.parametrize("last", [MIMICS, REVIEW, POINTS])
@pytest.mark.parametrize("before", [False, True])
def test_a_kill_between_any_two_files(tmp_path, monkeypatch, last, before):
    """``last`` is the first file that is not written any more; ``before``: an update, not a new scan."""
    from CMBDetectorLib.datasets import adding, bids

    folder = tmp_path / "d"
    if before:
        exported(folder)
    write, write_note = bids.write_points, adding.write_json

    def stop(function):
        def stopping(path, *arguments, **named):
            if str(path).endswith(last):
                raise KeyboardInterrupt
            function(path, *arguments, **named)

        return stopping

    review = judged()
    review.judge(ids(review)[2], State.ACCEPTED)
    review.judge(ids(review)[1], State.UNSURE)
    with monkeypatch.context() as patched:
        patched.setattr(bids, "write_points", stop(write))
        patched.setattr(adding, "write_json", stop(write_note))
        with pytest.raises(KeyboardInterrupt):
            exported(folder, review=review)
    listed = only(folder)
    if before and last == MIMICS:
        assert (listed.trains, listed.microbleeds, listed.mimics) == (True, 2, 1)
    else:
        assert not listed.trains
        assert "export or import it again" in listed.reason or "Nobody has annotated" in listed.reason
    exported(folder, review=review)
    assert (only(folder).trains, only(folder).microbleeds, only(folder).mimics) == (True, 3, 0)
