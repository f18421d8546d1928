"""The log on disk: found, resumed, in two windows, of two readers."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import subprocess
import time
import zlib
from pathlib import Path

import pytest
from reviews import KEY, detection, ids, python, review, sitting

from CMBDetectorLib.errors import OutputError
from CMBDetectorLib.locking import FileLock
from CMBDetectorLib.review.finding import State
from CMBDetectorLib.review.log import ReviewLog, find_reviews, read_review, resume
from CMBDetectorLib.review.review import Review

posix_only = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals and limits")


def test_a_review_is_found_and_goes_on(tmp_path):
    of, log = sitting(tmp_path)
    (found,) = find_reviews(tmp_path, KEY)
    assert (found.path, found.reader, found.reviewed, found.total) == (log.path, "Dr A", 3, 4)
    assert (found.model_name, found.model_version, found.model_checksum) == ("default", "1", "ab" * 32)
    assert (found.started, found.last_change) == ("2026-03-01T10:00:01+00:00", "2026-03-01T10:00:07+00:00")
    assert (found.damaged, found.problem) == (0, "")
    opened, again = resume(found.path)
    assert opened.findings == of.findings == read_review(found.path).findings
    assert (opened.reader, opened.detection) == ("Dr A", of.detection)
    assert opened.redo().comment.endswith("\U0001f9e0")
    opened.changed.append(again.append)
    opened.judge(ids(opened)[2], State.UNSURE)
    again.close()
    assert find_reviews(tmp_path, KEY)[0].reviewed == 4
    assert list(log.path.parent.iterdir()) == [log.path]
    assert find_reviews(tmp_path, "f" * 16) == find_reviews(tmp_path / "absent", KEY) == []


def test_every_line_stands_alone_with_its_checksum(tmp_path):
    _, log = sitting(tmp_path)
    lines = log.path.read_bytes().splitlines()
    header, *changes = map(json.loads, lines)
    assert (header["schema"], header["scan_key"], header["reader"]) == (1, KEY, "Dr A")
    assert header["program"].startswith("cmbdetector ")
    assert header["detection"]["scan"]["name"] == "scan.nii.gz"
    assert len(header["detection"]["candidates"]) == 3
    assert [c["sequence"] for c in changes] == [1, 2, 3, 4, 5, 6]
    assert [c["what"] for c in changes] == ["judge", "judge", "move", "add", "comment", "undo"]
    assert set(changes[0]["finding"]) >= {"id", "ras_mm", "detected_ras_mm", "state", "certainty", "score", "comment"}
    for line in lines:
        assert line.isascii()
        rest = line[len(b'{"crc32":"12345678"') :]
        assert json.loads(line)["crc32"] == f"{zlib.crc32(rest):08x}"


def test_verdicts_from_before_the_log_are_in_its_header(tmp_path):
    of = review()
    of.judge(ids(of)[1], State.ACCEPTED)
    of.remove(of.add((1, 1, 1)).id)
    kept = of.add((2, 2, 2)).id
    ReviewLog.create(tmp_path, KEY, of).close()
    opened = read_review(find_reviews(tmp_path, KEY)[0].path)
    assert opened.findings == of.findings
    assert opened.number(kept) == of.number(kept) == 5


def test_two_windows_on_one_review(tmp_path):
    _, log = sitting(tmp_path, close=False)
    with pytest.raises(OutputError, match=f"open in another window \\(process {os.getpid()} on "):
        resume(log.path)
    code = "import sys; from CMBDetectorLib.review.log import resume; resume(sys.argv[1])"
    process = python(code, log.path, stderr=subprocess.PIPE)
    assert "open in another window" in process.communicate()[1]
    assert read_review(log.path).count(State.ACCEPTED) == 2
    log.close()
    resume(log.path)[1].close()


@posix_only
def test_the_lock_of_a_dead_program_is_taken_over(tmp_path):
    _, log = sitting(tmp_path)
    code = """
        import sys, time
        from CMBDetectorLib.review.log import resume
        opened = resume(sys.argv[1])
        print("open", flush=True)
        time.sleep(60)
    """
    process = python(code, log.path)
    assert process.stdout.readline() == "open\n"
    with pytest.raises(OutputError, match=f"process {process.pid} on "):
        resume(log.path)
    process.kill()
    process.wait()
    assert Path(f"{log.path}.lock").exists()
    opened, again = resume(log.path)
    assert opened.reader == "Dr A"
    again.close()
    assert not Path(f"{log.path}.lock").exists()


def count_up(folder, rounds):
    """Add 1 to a number in a file again and again, under the lock."""
    for _ in range(rounds):
        lock = FileLock(folder / "lock")
        assert lock.acquire(30)
        number = folder / "number"
        value = int(number.read_text())
        time.sleep(0.0005)
        number.write_text(str(value + 1))
        lock.release()


def test_the_lock_lets_one_in_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("CMBDetectorLib.locking._PAUSE_S", 0.001)
    (tmp_path / "number").write_text("0")
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    workers = [context.Process(target=count_up, args=(tmp_path, 60)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (tmp_path / "number").read_text() == "240"
    assert not (tmp_path / "lock").exists()
    unused = FileLock(tmp_path / "lock")
    unused.release()
    assert unused.holder() == "another program"


def test_where_locks_are_unknown_the_review_goes_on(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def unknown(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", unknown)
    of, log = sitting(tmp_path)
    opened, again = resume(log.path)
    again.close()
    assert opened.findings == of.findings


def test_two_readers_stay_apart(tmp_path):
    one, _ = sitting(tmp_path, review("Dr A"))
    two, log = sitting(tmp_path, review("Dr B"), close=False)
    two.judge(ids(two)[0], State.REJECTED)
    log.close()
    found = {f.reader: read_review(f.path) for f in find_reviews(tmp_path, KEY)}
    assert found["Dr A"].findings == one.findings
    assert found["Dr B"].findings == two.findings


@pytest.mark.parametrize(
    ("reader", "slug"),
    [
        ("Dr. Müller-Lüdenscheidt", "dr-muller-ludenscheidt"),
        ("../../etc/passwd", "etc-passwd"),
        ("C:\\CON|<>*?\n", "c-con"),
        ("読影者", "reader"),
        ("", "reader"),
        ("=cmd()\x00", "cmd"),
        ("x" * 300, "x" * 40),
        ("\ud83e", "reader"),
    ],
)
def test_readers_of_any_name(tmp_path, reader, slug):
    of, log = sitting(tmp_path, review(reader))
    assert log.path.parent == tmp_path / KEY
    stamp, rest = log.path.name.split("-", 1)
    assert stamp == "20260301T100001Z"
    assert rest[: -len("-abcdef.jsonl")] == slug
    assert find_reviews(tmp_path, KEY)[0].reader == reader
    assert read_review(log.path).findings == of.findings


def test_a_key_that_is_none_is_refused(tmp_path):
    for key in ("", "../../../etc/xx", "0123456789ABCDEF", "0" * 17):
        with pytest.raises(ValueError, match="no scan key"):
            ReviewLog.create(tmp_path, key, review())


def test_a_detection_without_candidates(tmp_path):
    of = Review(detection([]), "Dr A")
    with ReviewLog.create(tmp_path, KEY, of) as log:
        of.changed.append(log.append)
        of.add((1, 2, 3))
    assert read_review(log.path).findings == of.findings
    with pytest.raises(KeyError), resume(log.path)[1]:
        raise KeyError
    resume(log.path)[1].close()
