"""The panel *Set up* in the stand-in for Slicer: real buttons, real worker, small wheels in place of TensorFlow."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from small_runtime import make_small_runtime
from test_module import add_scan, library_comes_back, panels

__all__ = ["library_comes_back", "panels"]


@pytest.fixture
def small(tmp_path, monkeypatch):
    made = make_small_runtime(tmp_path / "small", tmp_path / "user data ö" / "runtime")
    for name, value in made.environment.items():
        if name.startswith(("PIP_", "CMBDETECTOR_")):
            monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def set_up(small, panels, host):
    """The panel of a user who has no Python chosen and nothing set up."""
    import qt

    qt.QSettings().remove("CMBDetector/Interpreter")
    panels.sections["set up"].collapsed = False
    panels.set_up.update()
    return panels.set_up


def answered(host, set_up):
    host.wait_until(lambda: not set_up.is_running, 120)
    host.process_events()
    return set_up.ui.messageLabel.text


def test_it_says_what_how_large_and_where_before_anything_is_installed(host, set_up, small):
    assert str(small.folder) in set_up.ui.placeLabel.text
    assert "never into Slicer's own Python" in set_up.ui.placeLabel.text
    assert "Detector: not set up. 2 packages; " in set_up.ui.detectorLabel.text
    assert "to fetch, up to 0 MB on disk" in set_up.ui.detectorLabel.text
    assert not small.folder.exists()
    assert not set_up.ui.hdBetButton.enabled
    assert "set that up first" in set_up.ui.hdBetButton.toolTip
    assert not set_up.ui.removeButton.enabled
    assert not set_up.ui.cancelButton.isVisible()


def test_set_up_from_the_network_and_away_again(host, panels, set_up, small):
    # Not the checkout, where coverage keeps files for a moment.
    own = [Path(name) for name in sys.path if Path(name).name == "site-packages"]
    assert own
    before = {folder: set(folder.iterdir()) for folder in own}
    host.click(set_up.ui.detectorButton)
    assert set_up.is_running
    assert not set_up.ui.detectorButton.enabled
    assert answered(host, set_up) == "detector is set up."
    assert small.value() == "1"
    assert "set up 2" in set_up.ui.detectorLabel.text
    # What computes from now on are these packages, in the application's own Python.
    from CMBDetectorLib.gui.detection import worker_interpreter

    assert worker_interpreter().packages == small.place().packages()
    assert worker_interpreter().is_own
    host.click(set_up.ui.hdBetButton)
    assert answered(host, set_up) == "HD-BET is set up."
    assert len(worker_interpreter().packages) == 2
    host.click(set_up.ui.removeButton)
    assert set_up.ui.removeButton.text == "Remove for good"
    assert small.value() == "1"
    host.click(set_up.ui.removeButton)
    assert "were removed" in answered(host, set_up)
    assert not small.folder.exists()
    # Nothing was put beside the application's own packages.
    assert before == {folder: set(folder.iterdir()) for folder in own}


def test_a_folder_that_lacks_something_is_said_and_another_one_works(host, set_up, small, tmp_path, monkeypatch):
    import qt

    (tmp_path / "empty").mkdir()
    for folder, words in ((tmp_path / "empty", "2 of 2 packages are missing"), (small.wheels, "detector is set up.")):
        monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *a, folder=folder: str(folder))
        host.click(set_up.ui.sourceButton)
        assert f"from {folder}" in set_up.ui.placeLabel.text
        host.click(set_up.ui.detectorButton)
        assert words in answered(host, set_up)
        host.click(set_up.ui.sourceButton)
        assert "from the network" in set_up.ui.placeLabel.text
    assert small.value() == "1"


def test_a_set_up_can_be_cancelled(host, set_up, small):
    host.click(set_up.ui.detectorButton)
    host.click(set_up.ui.cancelButton)
    assert "Cancelled" in set_up.ui.messageLabel.text
    host.wait_until(lambda: not set_up.commands.is_running, 20)
    assert small.place().packages() == ()
    host.click(set_up.ui.detectorButton)
    assert answered(host, set_up) == "detector is set up."


def test_another_python_is_tried_used_and_given_back(host, set_up, small, tmp_path, monkeypatch):
    import qt

    from CMBDetectorLib.gui.detection import worker_interpreter

    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "bin" / "python3").chmod(0o755)
    environment = Path(sys.executable).parent.parent
    for folder, words in ((tmp_path, "Loading the packages failed"), (environment, "That Python computes from now on")):
        monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *a, folder=folder: str(folder))
        host.click(set_up.ui.useButton)
        assert words in answered(host, set_up)
    assert worker_interpreter().python.parent == Path(sys.executable).parent
    assert "Computes with another Python" in set_up.ui.placeLabel.text
    host.click(set_up.ui.useButton)
    answered(host, set_up)
    assert small.place().chosen_python() is None
    assert set_up.ui.useButton.text == "Use another Python…"


def test_detect_without_packages_leads_here(host, panels, set_up, monkeypatch):
    panels.sections["set up"].collapsed = True
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    add_scan()
    host.process_events()
    host.click(panels.detect.ui.detectButton)
    assert "not set up yet" in panels.detect.ui.messageLabel.text
    host.click(panels.detect.ui.setUpButton)
    assert not panels.sections["set up"].collapsed
    assert "Detector: not set up" in set_up.ui.detectorLabel.text
