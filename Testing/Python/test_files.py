"""Results are whole or not there, nobody's files are lost, and tables are safe to open."""

import csv
import errno
import os
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest

from CMBDetectorLib.errors import OutputError
from CMBDetectorLib.files import (
    atomic_path,
    check_output_folder,
    output_folder,
    sha256,
    write_json,
    write_table,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_writing_replaces_the_old_file_and_makes_folders(tmp_path):
    file = tmp_path / "new" / "ü.txt"
    write_text(file, "one\n")
    write_text(file, "zwei ß\n")
    assert file.read_bytes() == "zwei ß\n".encode()
    assert names(file.parent) == ["ü.txt"]
    assert sha256(file) == sha256(file)
    assert len(sha256(file)) == 64
    if os.name != "nt":
        umask = os.umask(0o022)
        os.umask(umask)
        assert file.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(1)])
def test_exception_leaves_the_old_file_and_nothing_else(tmp_path, error):
    file = tmp_path / "scan.nii.gz"
    file.write_text("old")

    def write():
        with atomic_path(file) as temporary:
            assert temporary.name.endswith(".nii.gz")
            temporary.write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert file.read_text() == "old"
    assert names(tmp_path) == ["scan.nii.gz"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_exception_leaves_the_old_folder_and_nothing_else(tmp_path, error):
    folder = tmp_path / "result"
    folder.mkdir()
    (folder / "a.json").write_text("old")

    def write():
        with output_folder(folder, ["*.json"]) as temporary:
            (temporary / "a.json").write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert (folder / "a.json").read_text() == "old"
    assert names(tmp_path) == ["result"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_killed_process_leaves_the_old_result(tmp_path):
    folder = tmp_path / "result"
    folder.mkdir()
    (folder / "a.json").write_text("old")
    program = (
        "import sys, time\nfrom CMBDetectorLib.files import output_folder\n"
        "with output_folder(sys.argv[1], ['*.json']) as t:\n"
        "    (t / 'a.json').write_text('half')\n    print('ready', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    assert names(folder) == ["a.json"]
    assert (folder / "a.json").read_text() == "old"
    # What the killed run left beside it is in nobody's way.
    with output_folder(folder, ["*.json"]) as temporary:
        (temporary / "a.json").write_text("new")
    assert (folder / "a.json").read_text() == "new"


def test_folder_is_replaced_as_a_whole(tmp_path):
    folder = tmp_path / "result"
    for content in ({"a.json": "1", "b.json": "2"}, {"a.json": "3"}):
        with output_folder(folder, ["*.json"]) as temporary:
            for name, text in content.items():
                (temporary / name).write_text(text)
    assert names(folder) == ["a.json"]
    assert (folder / "a.json").read_text() == "3"
    assert names(tmp_path) == ["result"]


@pytest.mark.parametrize("renames", [1, 2])
def test_a_signal_during_the_replacement_loses_neither_result(tmp_path, monkeypatch, renames):
    folder = tmp_path / "results"
    with output_folder(folder, ("a.txt",)) as temporary:
        (temporary / "a.txt").write_text("old")
    rename, done = os.rename, []

    def interrupted(source, target):
        rename(source, target)
        done.append(target)
        if len(done) == renames:
            raise KeyboardInterrupt

    def replace():
        with output_folder(folder, ("a.txt",)) as temporary:
            (temporary / "a.txt").write_text("new")
            monkeypatch.setattr(os, "rename", interrupted)

    with pytest.raises(KeyboardInterrupt):
        replace()
    monkeypatch.undo()
    assert (folder / "a.txt").read_text() == ("old" if renames == 1 else "new")
    assert names(tmp_path) == ["results"]


@pytest.mark.parametrize("foreign", ["thesis.docx", "a.json.bak", "sub"])
def test_foreign_folder_is_refused_and_untouched(tmp_path, foreign):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / foreign).mkdir() if foreign == "sub" else (folder / foreign).write_text("precious")
    with pytest.raises(OutputError, match="other files") as caught, output_folder(folder, ["*.json"]):
        raise AssertionError("the block must not run")
    assert caught.value.exit_code == 2
    assert names(folder) == [foreign]
    assert names(tmp_path) == ["mine"]


def test_foreign_file_that_comes_during_the_work_is_kept(tmp_path):
    folder = tmp_path / "result"
    folder.mkdir()

    def write():
        with output_folder(folder, ["*.json"]) as temporary:
            (temporary / "a.json").write_text("new")
            (folder / "notes.txt").write_text("precious")

    with pytest.raises(OutputError, match="other files"):
        write()
    assert names(folder) == ["notes.txt"]


def test_leftovers_of_a_file_manager_do_not_count_as_foreign(tmp_path):
    for name in (".DS_Store", "Thumbs.db", ".partial-abc"):
        (tmp_path / "r").mkdir(exist_ok=True)
        (tmp_path / "r" / name).write_text("")
    with output_folder(tmp_path / "r", ["*.json"]) as temporary:
        (temporary / "a.json").write_text("new")
    assert names(tmp_path / "r") == ["a.json"]


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "result").write_text("precious")
    with pytest.raises(OutputError, match="is a file"), output_folder(tmp_path / "result", ["*"]):
        raise AssertionError("the block must not run")
    with pytest.raises(OutputError):
        write_text(tmp_path / "result" / "a.txt", "x")
    assert (tmp_path / "result").read_text() == "precious"


@pytest.mark.parametrize("name", [".", "..", "../../mine", "in/.."])
def test_the_current_folder_and_those_above_it_are_not_replaced(tmp_path, monkeypatch, name):
    folder = tmp_path / "mine" / "in"
    (folder / "in").mkdir(parents=True)
    monkeypatch.chdir(folder)
    with pytest.raises(OutputError, match="current folder") as caught, output_folder(name, ["in"]):
        raise AssertionError("the block must not run")
    assert caught.value.hint
    assert "\n" not in caught.value.message
    # Those who work for hours ask before.
    with pytest.raises(OutputError, match="current folder"):
        check_output_folder(type(tmp_path)(name), ["in"])
    assert os.getcwd() == os.path.realpath(folder)
    assert names(folder) == ["in"]
    with output_folder("new", ["a.txt"]) as temporary:
        (temporary / "a.txt").write_text("x")
    assert names(folder / "new") == ["a.txt"]


def test_a_link_to_the_current_folder_counts_as_it(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    linked(tmp_path / "link", tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine")
    with pytest.raises(OutputError, match="current folder"), output_folder(tmp_path / "link", []):
        raise AssertionError("the block must not run")


def linked(link, folder):
    try:
        link.symlink_to(folder, target_is_directory=True)
    except OSError:
        pytest.skip("links need a privilege here")


@pytest.mark.parametrize("there", [True, False])
def test_a_link_to_a_folder_is_filled_and_stays(tmp_path, there):
    folder = tmp_path / "large disk" / "result"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text("old")
    if not there:
        (folder / "a.json").unlink()
        folder.rmdir()
    linked(tmp_path / "link", folder)
    with output_folder(tmp_path / "link", ["*.json"]) as temporary:
        # On the disk that the link leads to, so that it can be renamed there.
        assert temporary.parent == folder.parent.resolve()
        (temporary / "a.json").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (folder / "a.json").read_text() == "new"
    assert names(tmp_path) == ["large disk", "link"]
    assert names(folder.parent) == ["result"]


def test_read_only_folder(tmp_path, monkeypatch):
    def forbidden(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    # Permissions do not bind a superuser, whom tests often run as: the refusal comes from the first call instead.
    monkeypatch.setattr(tempfile, "mkstemp", forbidden)
    monkeypatch.setattr(tempfile, "mkdtemp", forbidden)
    for write in (lambda: write_text(tmp_path / "a", "x"), output_folder(tmp_path / "b", []).__enter__):
        with pytest.raises(OutputError, match="permission denied") as caught:
            write()
        assert caught.value.exit_code == 2
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EROFS, "permission denied"),
        (errno.EBUSY, "in use"),
        (errno.EIO, "cannot be"),
    ],
)
def test_errors_of_the_system_become_sentences(tmp_path, monkeypatch, number, words):
    def replace(source, target):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", replace)
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(OutputError, match=words) as caught:
        write_text(file, "new")
    assert caught.value.hint
    assert file.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_formulas_in_tables_are_neutralised_and_numbers_are_not(tmp_path):
    words = ["=1+2", "+1", "-cmd", "@x", "\t=x", "+\r\nx", "plain", "", "a,b", 'say "x"', "ü"]
    write_table(tmp_path / "t.csv", ["word"], [{"word": word} for word in words])
    with open(tmp_path / "t.csv", encoding="utf-8", newline="") as stream:
        read = [row[0] if row else "" for row in csv.reader(stream)][1:]
    assert read == ["'=1+2", "'+1", "'-cmd", "'@x", "' =x", "'+ x", *words[6:]]
    numbers = [-1.5, -3, np.float32(-1.5), np.float64(-2.25), np.int16(-4), 1e-9, True, None]
    write_table(tmp_path / "n.tsv", ["value", "absent"], [{"value": number} for number in numbers])
    rows = (tmp_path / "n.tsv").read_text().splitlines()
    assert rows[0] == "value\tabsent"
    assert [row.split("\t")[0] for row in rows[1:]] == ["-1.5", "-3", "-1.5", "-2.25", "-4", "1e-09", "True", "n/a"]
    assert rows[1].split("\t")[1] == "n/a"
    write_table(tmp_path / "w.tsv", ["a", "b"], [{"a": 'say "x"\ty', "b": "1\n2"}])
    assert (tmp_path / "w.tsv").read_text() == 'a\tb\nsay "x" y\t1 2\n'


def test_json_refuses_what_other_programs_cannot_read(tmp_path):
    write_json(tmp_path / "a.json", {"name": "Größe", "values": [1, 2.5]})
    assert "Größe" in (tmp_path / "a.json").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"value": float("nan")})
    assert "Größe" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert names(tmp_path) == ["a.json"]


def test_readers_never_see_a_half_written_file(tmp_path):
    file = tmp_path / "a.txt"
    write_text(file, "0" * 200_000)
    program = (
        "import sys\nfrom CMBDetectorLib.files import write_text\nprint('go', flush=True)\n"
        "for n in range(60): write_text(sys.argv[1], str(n % 10) * 200_000)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(file)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "go\n"
    seen, end = set(), time.monotonic() + 30
    while process.poll() is None and time.monotonic() < end:
        text = file.read_text()
        assert len(text) == 200_000
        assert len(set(text)) == 1
        seen.add(text[0])
    process.stdout.close()
    assert process.wait(5) == 0
    assert len(seen) > 1
