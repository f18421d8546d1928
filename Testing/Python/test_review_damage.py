"""What of a review log survives damage, a crash, a full disk and a folder that cannot be written."""

from __future__ import annotations

import errno
import json
import os
import signal
import tempfile
import zlib

import pytest
from reviews import KEY, Clock, ids, python, review, sitting

from CMBDetectorLib.errors import BadInputError, OutputError
from CMBDetectorLib.locking import FileLock
from CMBDetectorLib.review.finding import State
from CMBDetectorLib.review.log import ReviewLog, find_reviews, read_review, resume
from CMBDetectorLib.review.records import read_records

posix_only = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals and limits")


# Damage


def test_a_log_cut_anywhere_loses_at_most_its_last_line(tmp_path):
    _, log = sitting(tmp_path)
    data = log.path.read_bytes()
    whole = read_records(data, "log").changes
    ends = [n + 1 for n, byte in enumerate(data) if byte == 10]
    for length in range(len(data) + 1):
        # The end of a line itself is not needed.
        there = sum(end - 1 <= length for end in ends)
        if there == 0:
            with pytest.raises(BadInputError, match="first line is damaged"):
                read_records(data[:length], "log")
            continue
        read = read_records(data[:length], "log")
        assert read.changes == whole[: there - 1], length
        assert read.damaged == (length not in (ends[there - 1], ends[there - 1] - 1)), length


def test_after_half_a_line_the_next_begins_anew(tmp_path):
    of, log = sitting(tmp_path)
    data = log.path.read_bytes()
    ends = [n + 1 for n, byte in enumerate(data) if byte == 10]
    for length in (
        *ends,
        *(end - 1 for end in ends),
        *(end + 1 for end in ends[:-1]),
        *(end + 99 for end in ends[:-1]),
    ):
        log.path.write_bytes(data[:length])
        opened, again = resume(log.path)
        opened.changed.append(again.append)
        before = {f.id: f for f in opened.findings}
        judged = opened.judge(ids(of)[2], State.UNSURE)
        again.close()
        read = {f.id: f for f in read_review(log.path).findings}
        assert read == {**before, judged.id: judged}
        assert json.loads(log.path.read_bytes().splitlines()[-1])["finding"]["id"] == judged.id


def test_any_flipped_bit_costs_at_most_its_line(tmp_path):
    _, log = sitting(tmp_path)
    data = log.path.read_bytes()
    whole = read_records(data, "log").changes
    start = data.index(b"\n")
    for position in range(start + 1, len(data)):
        line = data.count(b"\n", 0, position) - 1
        for bit in (position % 8, 0) if data[position] != 10 else range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            read = read_records(bytes(damaged), "log").changes
            missing = [change.sequence for change in whole if change not in read]
            assert missing in ([], [line + 1]), (position, bit)
            assert all(change in whole for change in read)
    for position in range(0, start, 7):
        damaged = bytearray(data)
        damaged[position] ^= 1 << (position % 8)
        with pytest.raises(BadInputError, match="first line is damaged"):
            read_records(bytes(damaged), "log")


def test_a_lost_line_costs_one_change_and_no_more(tmp_path):
    of, log = sitting(tmp_path)
    lines = log.path.read_bytes().splitlines(keepends=True)
    for lost in range(1, len(lines)):
        log.path.write_bytes(b"".join(lines[:lost] + lines[lost + 1 :]))
        opened = read_review(log.path)
        later = {json.loads(line)["finding"]["id"] for line in lines[lost + 1 :]}
        for finding in of.findings:
            if finding.id in later or finding.id != json.loads(lines[lost])["finding"]["id"]:
                assert opened[finding.id] == finding
        while opened.can_undo:
            opened.undo()
        while opened.can_redo:
            opened.redo()


def test_undo_ends_where_the_history_has_a_hole(tmp_path):
    of = review()
    with ReviewLog.create(tmp_path, KEY, of) as log:
        of.changed.append(log.append)
        for key in ids(of):
            of.judge(key, State.ACCEPTED)
        of.undo()
        of.undo()
        of.changed.clear()
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join(lines[:4] + lines[5:]))
    opened = read_review(log.path)
    # The first undo is lost and with it what it did; the second one does not follow from what is left.
    assert [f.state.value for f in opened.findings] == ["accepted", "unreviewed", "accepted"]
    assert not opened.can_undo
    assert not opened.can_redo
    with ReviewLog.create(tmp_path, KEY, of) as log:
        log.append(of.add((7, 8, 9)), "add")
        log.append(of.comment(ids(of)[-1], "here"), "comment")
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join(lines[:1] + lines[2:]))
    opened = read_review(log.path)
    assert opened.findings == of.findings
    assert not opened.can_undo


def test_an_editor_s_marks_do_no_harm(tmp_path):
    of, log = sitting(tmp_path)
    log.path.write_bytes(b"\xef\xbb\xbf" + log.path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\r\n")
    assert read_review(log.path).findings == of.findings


def test_a_review_without_its_header_is_named_and_not_resumed(tmp_path):
    _, good = sitting(tmp_path)
    _, log = sitting(tmp_path)
    log.path.write_bytes(b"".join(log.path.read_bytes().splitlines(keepends=True)[1:]))
    with pytest.raises(BadInputError, match="cannot be resumed: its first line is damaged") as caught:
        resume(log.path)
    assert caught.value.hint
    first, second = find_reviews(tmp_path, KEY)
    assert (first.path, second.path) == (good.path, log.path)
    assert second.problem == caught.value.message
    assert not list(tmp_path.rglob("*.lock"))
    with pytest.raises(BadInputError, match="There is no review"):
        resume(tmp_path / "absent.jsonl")


def test_a_log_of_a_newer_program(tmp_path):
    _, log = sitting(tmp_path)
    header, rest = log.path.read_bytes().split(b"\n", 1)
    body = header[len('{"crc32":"12345678"') :].replace(b'"schema": 1', b'"schema": 2')
    log.path.write_bytes(b'{"crc32":"%08x"' % zlib.crc32(body) + body + b"\n" + rest)
    with pytest.raises(BadInputError, match="newer version"):
        resume(log.path)


def test_a_clock_set_back_changes_nothing(tmp_path):
    times = iter([*(f"2026-03-01T10:00:{60 - n:02d}+00:00" for n in range(1, 30))])
    of, log = sitting(tmp_path, now=lambda: next(times))
    assert read_review(log.path).findings == of.findings
    # Nor does an order of lines that some tool for synchronising files has made up.
    header, *lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join([header, *reversed(lines)]))
    opened, again = resume(log.path)
    assert opened.findings == of.findings
    opened.changed.append(again.append)
    opened.judge(ids(opened)[0], State.REJECTED)
    again.close()
    assert read_review(log.path)[ids(of)[0]].state is State.REJECTED


def test_newest_first(tmp_path):
    _, old = sitting(tmp_path, now=Clock(0))
    _, new = sitting(tmp_path, now=Clock(60))
    assert [found.path for found in find_reviews(tmp_path, KEY)] == [new.path, old.path]
    resume(old.path, Clock(120))[1].close()
    opened, log = resume(old.path, Clock(120))
    log.append(opened.judge(ids(opened)[0], State.UNSURE), "judge")
    log.close()
    assert [found.path for found in find_reviews(tmp_path, KEY)] == [old.path, new.path]


# Crash, full disk, no permission


@posix_only
def test_a_killed_program_loses_no_verdict_it_had_kept(tmp_path):
    code = f"""
        import sys
        from reviews import ids, review
        from CMBDetectorLib.review.finding import State
        from CMBDetectorLib.review.log import ReviewLog
        of = review()
        log = ReviewLog.create(sys.argv[1], {KEY!r}, of)
        of.changed.append(log.append)
        for number in range(100_000):
            of.comment(ids(of)[0], f"number {{number}}")
            print(number, flush=True)
    """
    process = python(code, tmp_path)
    last = -1
    for line in process.stdout:
        last = int(line)
        if last == 40:
            process.send_signal(signal.SIGKILL)
    process.wait()
    (found,) = find_reviews(tmp_path, KEY)
    assert last >= 40
    opened, log = resume(found.path)
    assert int(opened.findings[0].comment.split()[1]) in (last, last + 1)
    log.close()


@posix_only
def test_on_a_full_disk_verdicts_wait_and_are_kept_later(tmp_path):
    # A limit on the size of files makes the system write half a line and then refuse, as a full disk does.
    code = f"""
        import resource, signal, sys
        from reviews import ids, review
        from CMBDetectorLib.errors import OutputError
        from CMBDetectorLib.review.finding import State
        from CMBDetectorLib.review.log import ReviewLog, read_review
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        of = review()
        log = ReviewLog.create(sys.argv[1], {KEY!r}, of)
        of.changed.append(log.append)
        one, two, three = ids(of)
        of.judge(one, State.ACCEPTED)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (log.path.stat().st_size + 100, limits[1]))
        for key in (two, three):
            try:
                of.judge(key, State.REJECTED)
            except OutputError as error:
                print(log.pending, error.message, error.hint)
        assert of[three].state is State.REJECTED
        assert len(read_review(log.path).unreviewed()) == 2
        try:
            log.close()
        except OutputError:
            print("still open")
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        of.judge(one, State.UNSURE)
        print(log.pending)
        log.close()
        assert read_review(log.path).findings == of.findings
        assert len(log.path.read_bytes().splitlines()) == 6
    """
    process = python(code, tmp_path)
    lines = process.communicate()[0].splitlines()
    assert process.returncode == 0
    assert [line[:2] for line in lines] == ["1 ", "2 ", "st", "0"]
    assert "cannot be written" in lines[0] or "disk is full" in lines[0]
    assert "2 changes of the review are kept in memory" in lines[1]
    assert find_reviews(tmp_path, KEY)[0].damaged == 1


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "denied"), (errno.EIO, "cannot be written")]
)
def test_what_could_not_be_made_safe_is_written_again(tmp_path, monkeypatch, number, words):
    of, log = sitting(tmp_path, close=False)

    def refused(descriptor):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refused)
        with pytest.raises(OutputError, match=words) as caught:
            of.judge(ids(of)[2], State.UNSURE)
    assert caught.value.hint.startswith("1 change of the review is kept in memory")
    assert log.pending == 1
    assert of[ids(of)[2]].state is State.UNSURE
    log.save()
    assert log.pending == 0
    log.close()
    opened = read_review(log.path)
    assert opened.findings == of.findings
    of.changed.clear()
    while of.can_undo:
        assert opened.undo() == of.undo()


def test_a_log_that_was_removed_is_told(tmp_path):
    of, log = sitting(tmp_path, close=False)
    log.path.unlink()
    with pytest.raises(OutputError, match="cannot be written"):
        of.judge(ids(of)[0], State.UNSURE)
    with pytest.raises(OutputError):
        log.close()
    log.close(give_up=True)
    log.close()
    with pytest.raises(ValueError, match="closed"):
        log.append(of.findings[0], "judge")


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    _, log = sitting(tmp_path)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        ReviewLog.create(blocked, KEY, review())
    refused = OSError(errno.EACCES, "Permission denied")
    monkeypatch.setattr(FileLock, "acquire", lambda *_: (_ for _ in ()).throw(refused))
    with pytest.raises(OutputError, match="permission denied"):
        resume(log.path)
    assert read_review(log.path).count(State.ACCEPTED) == 2


@posix_only
def test_a_read_only_folder():
    # Root may write anywhere: then as nobody, for whom the way to pytest's own folder is barred.
    with tempfile.TemporaryDirectory() as folder:
        _, log = sitting(folder)
        os.chmod(folder, 0o755)
        os.chmod(log.path.parent, 0o555)
        os.makedirs(f"{folder}/closed/{KEY}")
        os.chmod(f"{folder}/closed", 0o000)
        code = f"""
            import os, sys
            from reviews import review
            from CMBDetectorLib.errors import BadInputError, OutputError
            from CMBDetectorLib.review.log import ReviewLog, find_reviews, read_review, resume
            if os.geteuid() == 0:
                os.seteuid(65534)
            for act in (lambda: ReviewLog.create(sys.argv[1], {KEY!r}, review()), lambda: resume(sys.argv[2])):
                try:
                    act()
                except OutputError as error:
                    print(error.message)
            print(len(read_review(find_reviews(sys.argv[1], {KEY!r})[0].path).findings))
            try:
                find_reviews(sys.argv[1] + "/closed", {KEY!r})
            except BadInputError as error:
                print(error.message)
        """
        lines = python(code, folder, log.path).communicate()[0].splitlines()
        os.chmod(log.path.parent, 0o755)
        os.chmod(f"{folder}/closed", 0o755)
    assert ["permission denied" in line for line in lines] == [True, True, False, False]
    assert lines[2] == "4"
    assert "closed cannot be read." in lines[3]


def test_create_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def refused(descriptor):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(OutputError, match="disk is full"):
        ReviewLog.create(tmp_path, KEY, review())
    assert list((tmp_path / KEY).iterdir()) == []
