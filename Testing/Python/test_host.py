"""The stand-in for 3D Slicer: its module ``qt``, its threads, its application and its program."""

# ruff: noqa: F811  (fixtures are imported, and named again as arguments)
from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest
from host_example import EXAMPLE, scan  # noqa: F401  (a fixture)


def test_properties_are_attributes(host):
    import ctk
    import qt

    button = qt.QPushButton("one")
    button.text, button.enabled, button.checkable, button.name = "two", False, True, "apply"
    assert (button.text, button.enabled, button.checked, button.objectName) == ("two", False, False, "apply")
    assert button.className() == "QPushButton"
    timer = qt.QTimer()
    timer.singleShot = True
    assert (timer.singleShot, timer.active) == (True, False)
    with pytest.raises(AttributeError, match="cannot be set"):
        button.width = 5
    with pytest.raises(AttributeError, match="no attribute 'enabeld'"):
        button.enabeld = True
    section = ctk.ctkCollapsibleButton()
    with pytest.raises(AttributeError, match="no attribute 'collaped'"):
        section.collaped = True


def test_a_python_subclass_may_have_attributes_and_overrides(host):
    import qt

    class Wide(qt.QLabel):
        def __init__(self):
            super().__init__()
            self.mine = 3

        def sizeHint(self):
            return qt.QSize(321, 20)

    label = Wide()
    label.text = "wide"
    label.adjustSize()
    assert (label.mine, label.text, label.width) == (3, "wide", 321)


def test_signals_are_connected_by_signature(host):
    import qt

    seen = []
    button = qt.QPushButton("x")
    button.checkable = True
    button.connect("clicked(bool)", seen.append)
    button.connect("clicked()", lambda key="default": seen.append(key))
    button.connect("toggled(bool)", lambda: seen.append("fewer arguments"))
    button.toggled.connect(lambda on: seen.append(f"by attribute {on}"))
    button.click()
    assert seen == ["fewer arguments", "by attribute True", True, "default"]
    with pytest.raises(ValueError, match="no signal 'clickt"):
        button.connect("clickt(bool)", seen.append)
    with pytest.raises(ValueError, match=r"currentIndexChanged\(int\)"):
        qt.QComboBox().connect("currentIndexChanged(QString)", seen.append)


def test_slots_are_kept_alive_and_can_be_disconnected(host):
    import qt

    class Counter:
        clicks = 0

        def count(self):
            Counter.clicks += 1

    button = qt.QPushButton("x")
    button.connect("clicked(bool)", Counter().count)
    button.click()
    keeper = Counter()
    button.connect("clicked(bool)", keeper.count)
    assert button.disconnect("clicked(bool)", keeper.count)
    assert not button.disconnect("clicked(bool)", keeper.count)
    button.click()
    assert Counter.clicks == 2


def test_what_a_slot_raises_is_collected(host, capsys):
    import qt
    import vtk

    def fail():
        raise RuntimeError("in the slot")

    button, source = qt.QPushButton("x"), vtk.vtkObject()
    button.connect("clicked()", fail)
    source.AddObserver("ModifiedEvent", lambda *_: fail())
    qt.QTimer.singleShot(0, fail)
    button.click()
    source.Modified()
    host.wait(0.02)
    assert [str(error) for error in host.slot_errors] == ["in the slot"] * 3
    host.slot_errors.clear()
    with pytest.raises(AssertionError, match="in the slot"), host.no_slot_errors():
        button.click()


def test_header_views_lists_and_shortcuts_connect(host):
    import qt

    table = qt.QTableWidget(2, 2)
    sections = []
    table.horizontalHeader().connect("sectionClicked(int)", sections.append)
    table.horizontalHeader().sectionClicked.emit(1)
    table.setItem(0, 0, qt.QTableWidgetItem("cell"))
    assert (table.rowCount, table.item(0, 0).text(), sections) == (2, "cell", [1])


def test_file_dialogs_answer_with_the_path_alone_and_never_block_a_test(host, monkeypatch):
    import qt
    from SlicerHost import pythonqt

    with pytest.raises(RuntimeError, match="nobody would answer"):
        qt.QFileDialog.getSaveFileName(host.window, "Save")

    class Dialog:
        ask = staticmethod(lambda: ("report.csv", "*.csv"))

    pythonqt._ask_as_pythonqt(Dialog, "ask")
    monkeypatch.setattr(host.app, "_testing", False)
    assert Dialog.ask() == "report.csv"


def test_settings_are_kept_apart_from_the_users(host):
    import qt
    import slicer

    qt.QSettings().setValue("HostExample/key", 5)
    assert slicer.util.settingsValue("HostExample/key", 0, converter=int) == 5
    assert qt.QSettings().fileName().startswith(str(host.folder))
    host.reset()
    assert not slicer.app.userSettings().contains("HostExample/key")


def test_messages_do_not_wait_for_a_click(host, caplog):
    import slicer

    assert slicer.util.mainWindow() is host.window
    slicer.util.errorDisplay("went wrong")
    assert slicer.util.confirmOkCancelDisplay("sure?") is True or slicer.util.confirmYesNoDisplay("sure?") is not None
    assert "went wrong" in caplog.text
    assert slicer.util.showStatusMessage("done")


def test_blocking_is_measured(host):
    with host.main_thread_gaps() as quiet:
        host.wait(0.1)
    with host.main_thread_gaps() as blocked:
        host.wait(0.02)
        time.sleep(0.15)
    assert len(quiet.gaps) > 5
    assert 0.1 < blocked.longest_s < 1
    with pytest.raises(TimeoutError):
        host.wait_until(lambda: False, timeout_s=0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="the lock can be kept on Linux only")
def test_a_thread_can_be_made_to_starve_as_it_does_in_slicer(host):
    import qt

    steps, stop = [], threading.Event()

    def work():
        while not stop.wait(0.001):
            steps.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        host.wait(0.3)
        free = len(steps)
        with host.interpreter_held():
            host.wait(0.3)
            starved = len(steps) - free
            timer = qt.QTimer()
            timer.connect("timeout()", lambda: time.sleep(0.001))
            timer.start(5)
            host.wait(0.3)
            timer.stop()
            ticked = len(steps) - free - starved
    finally:
        stop.set()
        thread.join()
    assert starved < 20 < ticked
    assert free > 50


def test_qt_in_another_thread_is_reported(host):
    import qt

    label = qt.QLabel("x")

    def touch():
        with pytest.raises(RuntimeError):
            label.text += "y"

    def in_a_thread():
        with host.no_slot_errors():
            thread = threading.Thread(target=touch)
            thread.start()
            thread.join()

    with pytest.raises(AssertionError, match="other than the main one"):
        in_a_thread()


def test_the_program_writes_a_picture_of_the_window(application, scan, tmp_path):
    picture = tmp_path / "folder" / "window.png"
    command = [sys.executable, "-m", "SlicerHost", "--module", str(EXAMPLE)]
    env = {**os.environ, "PYTHONPATH": str(EXAMPLE.parents[2])}
    done = subprocess.run([*command, str(scan), "--screenshot", str(picture)], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert picture.stat().st_size > 10_000
    done = subprocess.run([*command, "absent.nii", "--screenshot", "x"], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (2, "there is no file absent.nii")


def test_sample_data_is_registered(host):
    import SampleData

    register = SampleData.SampleDataLogic.registerCustomSampleDataSource
    for node in ("first", "second"):
        register(category="Tests", sampleName="ball", uris="file:ball", fileNames="ball.nii", nodeNames=node)
    assert [source.nodeNames for source in SampleData.sources["Tests"]] == [["second"]]
