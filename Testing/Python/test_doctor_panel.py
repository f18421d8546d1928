"""The panel *Check the installation* in the stand-in for Slicer: real buttons, real worker."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from test_module import library_comes_back, panels

__all__ = ["library_comes_back", "panels"]


@pytest.fixture
def doctor(panels):
    import qt

    qt.QSettings().setValue("CMBDetector/DoctorOptions", "--no-self-test")
    panels.sections["doctor"].collapsed = False
    yield panels.doctor
    qt.QSettings().remove("CMBDetector/DoctorOptions")


def answered(host, doctor):
    host.wait_until(lambda: not doctor.commands.is_running, 120)
    host.process_events()


def test_the_computer_is_checked_and_the_report_copied(host, doctor):
    import qt

    assert not doctor.ui.copyButton.enabled
    assert "before the computer was checked" in doctor.ui.copyButton.toolTip
    doctor.ui.checkButton.click()
    assert doctor.ui.checkButton.text == "Cancel"
    answered(host, doctor)
    assert doctor.ui.checkButton.text == "Check this computer"
    names = [doctor.ui.findingTable.item(row, 1).text() for row in range(doctor.ui.findingTable.rowCount)]
    assert {"Python", "Packages", "Memory", "Models", "HD-BET", "Reviews", "Local dataset"} <= set(names)
    assert doctor.ui.messageLabel.text.startswith("CMBDetector ")
    doctor.ui.copyButton.click()
    copied = str(qt.QApplication.clipboard().text())
    assert copied == doctor.report
    assert str(Path.home()) not in copied
    row = names.index("Models")
    doctor.ui.findingTable.setCurrentCell(row, 1)
    assert doctor.findings[row]["text"] in doctor.ui.detailsLabel.text


def test_a_check_can_be_cancelled_and_repeated(host, doctor):
    doctor.ui.checkButton.click()
    doctor.ui.checkButton.click()
    assert (doctor.ui.messageLabel.text, doctor.ui.checkButton.text) == ("Cancelled.", "Check this computer")
    answered(host, doctor)
    assert (doctor.findings, doctor.report) == ([], "")


def test_an_absent_interpreter_is_the_finding(host, doctor, tmp_path):
    import qt

    qt.QSettings().setValue("CMBDetector/Interpreter", str(tmp_path / "no python"))
    doctor.ui.checkButton.click()
    answered(host, doctor)
    assert "There is no Python" in doctor.ui.messageLabel.text
    assert doctor.ui.copyButton.enabled
    assert "There is no Python" in doctor.report
    # A Python that lacks what the program needs can still examine the computer.
    (tmp_path / "broken" / "bin").mkdir(parents=True)
    program = tmp_path / "broken" / "bin" / "python3"
    (tmp_path / "broken" / "SimpleITK.py").write_text("raise ImportError('a library is missing', name='SimpleITK')")
    program.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path}/broken:$PYTHONPATH exec {sys.executable} "$@"\n')
    program.chmod(0o755)
    qt.QSettings().setValue("CMBDetector/Interpreter", str(tmp_path / "broken"))
    doctor.ui.checkButton.click()
    answered(host, doctor)
    assert "SimpleITK cannot be loaded" in doctor.report
    assert doctor.findings[doctor.ui.findingTable.currentRow()]["name"] == "Packages"
