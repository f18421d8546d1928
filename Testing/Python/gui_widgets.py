"""Fixtures and made-up findings for the tests of the widgets; importing it skips where the host cannot run."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from CMBDetectorLib.review.finding import MIMIC_CLASSES, Certainty, Finding, State

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
SlicerHost = pytest.importorskip("SlicerHost")
if SlicerHost.missing():
    pytest.skip(SlicerHost.missing(), allow_module_level=True)


@pytest.fixture(autouse=True)
def host():
    """The application, with no key changed and nothing raised in a slot."""
    if SlicerHost.missing():
        pytest.skip(SlicerHost.missing())
    running = SlicerHost.start()
    import qt

    qt.QSettings().remove("CMBDetector/keys")
    with running.no_slot_errors():
        yield running


@pytest.fixture
def panel(host):
    """An empty panel in the main window: ``panel(widget, …)`` shows the widgets in it."""
    import qt

    frame = qt.QWidget()
    layout = qt.QVBoxLayout(frame)

    def show(*widgets):
        for widget in widgets:
            layout.addWidget(widget)
        host.window.show_module(frame)
        host.window.activateWindow()
        host.process_events()

    yield show
    frame.setParent(None)
    frame.deleteLater()
    host.process_events()


@pytest.fixture
def keys():
    import qt

    from CMBDetectorLib.gui.keys import KeyTable

    return KeyTable(qt.QSettings())


def finding(number: int, score: float | None = 0.5, **changes) -> Finding:
    place = (float(number), -4.25, 31.5)
    detected = None if score is None else place
    return replace(Finding(f"c{number}", place, detected, score, score, 1.0 + number % 90 / 10), **changes)


def many(count: int) -> list[Finding]:
    found = [finding(k, round(1 - k / count, 4)) for k in range(1, count + 1)]
    for at, mimic in zip(range(0, count, 5), list(MIMIC_CLASSES) * count, strict=False):
        found[at] = found[at].judged(State.REJECTED, None, mimic, "now")
    for at in range(2, count, 7):
        found[at] = found[at].judged(State.ACCEPTED, Certainty.POSSIBLE, None, "now")
    return found


def number_of(key: str) -> int:
    return int(key[1:])


def cpu_ms(work, times: int = 5) -> float:
    """The least processor time of ``work`` in ms: what else the machine does must not fail a test."""
    spent = []
    for _ in range(times):
        begin = time.process_time()
        work()
        spent.append(1e3 * (time.process_time() - begin))
    return min(spent)


def interactive(widget) -> list:
    import qt

    kinds = (qt.QAbstractButton, qt.QAbstractSlider, qt.QAbstractSpinBox, qt.QComboBox, qt.QLineEdit, qt.QTableWidget)
    # Qt's own parts of a compound widget have names beginning with qt_, or belong to it.
    inner = (qt.QAbstractSpinBox, qt.QComboBox, qt.QScrollBar, qt.QAbstractScrollArea, qt.QLineEdit)
    found = [w for kind in kinds for w in widget.findChildren(kind)]
    return [w for w in found if not isinstance(w, qt.QScrollBar) and not isinstance(w.parent(), inner)]
