"""Training and cross-validation by the real worker: resume after a kill, same seed same result."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.models.versions import load_bundle
from CMBDetectorLib.worker.commands.train import read_datasets

SHORT = ("--tiny", "--recipe", "paper", "--epochs", "3", "--steps", "6", "--seed", "4")


def _kill_when(command, wanted, number):
    """Start ``command``, send it a signal at the first event for which ``wanted`` is true; return its exit code."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        for line in process.stdout:
            if wanted(json.loads(line)):
                process.send_signal(number)
                break
        process.stdout.read()
        return process.wait(timeout=20)


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
def test_a_killed_training_resumes_to_the_same_model(worker, crops, tmp_path):
    assert worker("train", crops, "--output", tmp_path / "whole", *SHORT).code == 0
    command = [
        sys.executable,
        "-m",
        "CMBDetectorLib",
        "train",
        crops,
        "--output",
        tmp_path / "killed",
        *SHORT,
        "--events",
    ]
    code = _kill_when(command, lambda e: e["event"] == "log" and "unet-30: epoch 2" in e["message"], signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    refused = worker("train", crops, "--output", tmp_path / "killed", *SHORT)
    assert refused.code == 2
    assert "--resume" in refused.last("error")["hint"]
    resumed = worker("train", crops, "--output", tmp_path / "killed", *SHORT, "--resume")
    assert resumed.code == 0, resumed.stderr[-2000:]
    assert "unet-30: epoch 1 of 3" not in str(resumed.events)
    whole, killed = load_bundle(tmp_path / "whole"), load_bundle(tmp_path / "killed")
    assert whole.card["training"]["mimics"] == killed.card["training"]["mimics"]
    for kind in ("unets", "cnns"):
        for (one, _), (other, _) in zip(whole.networks(kind), killed.networks(kind), strict=True):
            assert _weights(one) == _weights(other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]


def test_crossvalidation_reports_every_scan_once(worker, crops, tmp_path):
    run = worker("crossvalidate", crops, "--output", tmp_path / "cv", "--leave-out", "2", *SHORT)
    assert run.code == 0, run.stderr[-2000:]
    folder = tmp_path / "cv"
    froc = json.loads((folder / "froc.json").read_text())
    assert "never saw" in froc["notes"][0]
    assert sorted(p.name for p in (folder / "predictions").iterdir()) == ["sub-01", "sub-02", "sub-03", "sub-04"]
    assert len(list((folder / "mimics").rglob("*_desc-mimic_points.tsv"))) == 4
    assert json.loads((folder / "settings.json").read_text())["seed"] == 4
    assert "Cross-validation" in (folder / "report.html").read_text(encoding="utf-8")
    assert not (tmp_path / "cv.work").exists()
    fractions = [event["fraction"] for event in run.events if event["event"] == "progress"]
    assert fractions == sorted(fractions)


def test_leaving_out_everything_is_refused(worker, crops, tmp_path):
    run = worker("crossvalidate", crops, "--output", tmp_path / "cv", "--leave-out", "4", *SHORT)
    assert run.code == 2
    assert "Leaving out 4 of 4" in run.last("error")["message"]


def test_several_datasets_are_trained_on_together(crops, tmp_path):
    shutil.copytree(crops, tmp_path / "b")
    cases = read_datasets([crops, tmp_path / "b"])
    assert [case.id for case in cases[3:5]] == ["crops_sub-04", "b_sub-01"]
    with pytest.raises(BadInputError, match="same folder name"):
        read_datasets([crops, crops])


def _weights(path):
    from CMBDetectorLib.networks import backend

    return [w.tobytes() for w in backend.load(path).get_weights()]
