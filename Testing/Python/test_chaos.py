"""A small part of the chaos suite (``make chaos``), as much of each fault as takes seconds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

SUITE = Path(__file__).resolve().parents[1] / "Chaos"

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the chaos suite runs on Linux")


@pytest.fixture
def open_folder():
    """A folder that other users may look into, unlike pytest's: the suite works as one of them where it can."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.parametrize(
    ("part", "scale"),
    [("host_kills", 0.05), ("disks", 0.13), ("clock", 0.25), ("instances", 0.13), ("damage", 0.2), ("paths", 0.5),
     ("set_ups", 0.13),
     ("fuzz", 0.05)],
)  # fmt: skip
def test_nothing_is_lost(part, scale, tmp_path, open_folder):
    command = [sys.executable, SUITE, "--no-worker", "--only", part, "--scale", str(scale), "--seed", "7"]
    done = subprocess.run(
        [*command, "--table", tmp_path / "chaos.md"], capture_output=True, text=True, timeout=600,
        env={**os.environ, "TMPDIR": str(open_folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    tries, losses = re.search(r"(\d+) tries, (\d+) losses", done.stdout).groups()
    assert int(tries) > 0
    assert losses == "0"
    assert f"| **together** | **{tries}** | **0** | |" in (tmp_path / "chaos.md").read_text(encoding="utf-8")
    # Its own folder is gone, also what was mounted in it.
    assert not list(open_folder.glob("cmbdetector-chaos-*"))


def test_a_loss_is_counted(tmp_path):
    """With a log that forgets every third change, verdicts are missed, and the suite says so."""
    code = """
        import sys
        sys.argv = ["chaos", "--only", "host_kills.review", "--scale", "0.04"]
        from CMBDetectorLib.review.log import ReviewLog
        real = ReviewLog.append
        def forgetful(log, finding, what):
            log.calls = getattr(log, "calls", 0) + 1
            if log.calls % 3:
                real(log, finding, what)
        ReviewLog.append = forgetful
        import runpy
        runpy.run_path(sys.path[0], run_name="__main__")
    """
    lines = [line[8:] for line in code.splitlines()]
    lines.insert(1, f"import sys; sys.path.insert(0, {str(SUITE)!r})")
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=600,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(SUITE.parents[1])},
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr[-2000:]
    assert "the review is another one" in done.stdout
