"""The widgets of the review in the stand-in host: real keys and clicks, real pictures, and the time they take."""

# A fixture that is imported is "redefined" by each argument of its name.
# ruff: noqa: F811
from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from gui_widgets import cpu_ms, finding, host, interactive, keys, many, number_of, panel  # noqa: F401  (fixtures)

from CMBDetectorLib.report.thumbnails import grey_window, pictures
from CMBDetectorLib.review.finding import MIMIC_CLASSES, Certainty, State
from CMBDetectorLib.volume import Volume

# The table


@pytest.fixture
def table(host, panel):
    from CMBDetectorLib.gui.candidate_table import CandidateTable

    chosen: list[str] = []
    made = CandidateTable(chosen.append)
    made.chosen = chosen
    panel(made.widget)
    return made


def sort_by(host, table, column):
    import qt

    header = table.table.horizontalHeader()
    x = header.sectionViewportPosition(column) + header.sectionSize(column) // 2
    for kind in (qt.QEvent.MouseButtonPress, qt.QEvent.MouseButtonRelease):
        place = qt.QPointF(x, header.height // 2)
        event = qt.QMouseEvent(kind, place, place, qt.Qt.LeftButton, qt.Qt.LeftButton, qt.Qt.NoModifier)
        host.app.sendEvent(header.viewport(), event)
    host.process_events()


def test_headings_sort_by_number_not_by_text(host, table):
    table.show(many(120), number_of)
    assert [number_of(key) for key in table.order()] == list(range(1, 121))
    sort_by(host, table, 0)
    assert [number_of(key) for key in table.order()] == list(range(1, 121))
    sort_by(host, table, 0)
    assert [number_of(key) for key in table.order()] == list(range(120, 0, -1))
    sort_by(host, table, 2)
    sizes = [1.0 + number_of(key) % 90 / 10 for key in table.order()]
    assert sizes == sorted(sizes, reverse=True)
    sort_by(host, table, 3)
    assert table.table.item(0, 3).text() == "○ To judge"
    assert table.table.item(119, 3).text() == "✗ Rejected"


def test_filter_text_and_threshold_hide_rows(table):
    found = many(60)
    found[3] = replace(found[3], comment="Beside a Vein")
    table.show(found, number_of)
    table.set_threshold(0.5)
    assert table.order() == [f.id for f in found if f.is_reviewed or f.score >= 0.5]
    table.set_filter("rejected")
    assert table.order() == [f.id for f in found if f.state is State.REJECTED]
    table.filter_edit.text = "vessel"
    assert table.order() == [f.id for f in found if f.mimic_class == "vessel"]
    table.set_filter("all")
    table.filter_edit.text = "a vein"
    assert table.order() == ["c4"]


def test_selecting_calls_back_only_for_the_user(host, table):
    import qt

    table.show(many(40), number_of)
    table.select("c9")
    assert (table.selected, table.chosen) == ("c9", [])
    table.table.setFocus()
    host.press(None, "Down")
    assert (table.selected, table.chosen) == ("c10", ["c10"])
    sort_by(host, table, 0)
    table.set_threshold(0.9)
    assert (table.selected, table.chosen) == ("c10", ["c10"])
    assert table.table.item(table.table.currentRow(), 0).data(qt.Qt.UserRole) == "c10"
    table.select(None)
    assert table.selected is None
    assert table.chosen == ["c10"]


def test_a_judged_row_stays_until_the_next_is_selected(table):
    found = [finding(k, 1 - k / 10) for k in range(1, 6)]
    table.show(found, number_of)
    table.set_filter("to-judge")
    table.select("c2")
    table.update(found[1].judged(State.ACCEPTED, None, None, "now"))
    assert table.order() == ["c1", "c2", "c3", "c4", "c5"]
    table.select("c3")
    assert table.order() == ["c1", "c3", "c4", "c5"]


def test_rows_are_changed_added_and_removed(table):
    table.show([finding(1, 0.9), finding(2, 0.8)], number_of)
    table.update(finding(2, 0.8, ras_mm=(0.0, 0.0, 0.0), comment="x").judged(State.REJECTED, None, "iron", "now"))
    assert table.table.item(1, 4).text() == "Iron deposition, moved, ✎"
    added = finding(3, None).judged(State.ACCEPTED, None, None, "now")
    table.update(added)
    table.select("c3")
    assert (table.order(), table.table.item(2, 4).text()) == (["c1", "c2", "c3"], "Definite, added")
    table.update(replace(added, removed=True))
    assert (table.order(), table.selected, table.chosen) == (["c1", "c2"], None, [])


def test_five_hundred_rows_do_not_keep_the_reader_waiting(table):
    found = many(500)
    assert cpu_ms(lambda: table.show(found, number_of)) < 50
    thresholds = iter([0.9, 0.1] * 5)
    assert cpu_ms(lambda: table.set_threshold(next(thresholds))) < 50
    filters = iter(["accepted", "all"] * 5)
    assert cpu_ms(lambda: table.set_filter(next(filters))) < 50
    assert cpu_ms(lambda: table.update(found[100].judged(State.ACCEPTED, None, None, "now"))) < 50
    assert cpu_ms(lambda: table.select("c300")) < 50


# The card


@pytest.fixture
def card(host, panel):
    from CMBDetectorLib.gui.candidate_card import CandidateCard

    made = CandidateCard()
    panel(made.widget)
    return made


def scan(shape=(90, 90, 60), spacing=(0.9, 0.9, 1.5)) -> Volume:
    """A noisy scan whose axes run to L, P and S, round RAS (0, 0, 0)."""
    array = np.random.default_rng(3).normal(600, 60, shape[::-1]).astype(np.float32).transpose(2, 1, 0)
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) / 2)
    return Volume(array, affine)


def pixels(label) -> np.ndarray:
    """The red channel of what a label shows."""
    image = label.pixmap.toImage()
    return np.array([[image.pixelColor(x, y).red() for x in range(image.width())] for y in range(image.height())])


def test_the_card_says_what_is_known(card):
    judged = finding(7, 0.876, ras_mm=(7.0, -2.25, 31.5)).judged(State.ACCEPTED, Certainty.POSSIBLE, None, "now")
    card.show(replace(judged, comment="near the vein"), 7, note="No. 3 is 4.1 mm away")
    assert card.number_label.text == "7"
    assert card.state_label.text == "✓ Accepted  Possible"
    assert card.fact_label.text == "score 0.88, 1.7 mm, moved 2.0 mm"
    assert card.place_label.text == "R 7.0, P 2.2, S 31.5 mm"
    assert card.note_label.text == "No. 3 is 4.1 mm away · near the vein"
    card.show(finding(8, None), 8)
    assert card.fact_label.text == "1.8 mm, added by reader"
    assert not card.note_label.isVisible()
    card.show(None)
    assert (card.number_label.text, card.state_label.text) == ("", "No candidate selected")


def test_the_pictures_are_those_of_the_report_with_the_centre_free(card):
    volume = scan()
    card.set_scan(volume)
    place = finding(5, ras_mm=(5.0, 3.0, -2.0))
    card.show(place, 5)
    for label, picture in zip(card.picture_labels, pictures(volume, place.ras_mm, grey_window(volume)), strict=True):
        seen = pixels(label)
        size = len(seen)
        middle = (slice(size // 4, -size // 4),) * 2
        np.testing.assert_array_equal(seen[middle], picture.pixels[middle])
        # The mark at the upper edge is bright and points to the centre.
        assert (seen[1:8, size // 2] > 240).all()
        assert np.count_nonzero(seen != picture.pixels) > 100
    card.set_scan(None)
    card.show(place, 5)
    assert card.picture_labels[0].pixmap.isNull()


def test_pictures_are_kept_and_made_ahead(host, card, monkeypatch):
    import CMBDetectorLib.gui.candidate_card as module

    made = []

    def count(scan, ras_mm, window):
        made.append(ras_mm)
        return pictures(scan, ras_mm, window)

    monkeypatch.setattr(module, "pictures", count)
    card.set_scan(scan())
    one, two = finding(1, ras_mm=(1.0, 0.0, 0.0)), finding(2, ras_mm=(2.0, 0.0, 0.0))
    card.show(one, 1, next_finding=two)
    assert made == [one.ras_mm]
    host.wait_until(lambda: len(made) == 2)
    card.show(two, 2)
    card.show(one, 1)
    assert made == [one.ras_mm, two.ras_mm]
    card.show(replace(one, ras_mm=(1.5, 0.0, 0.0)), 1)
    assert len(made) == 3


def test_the_pictures_of_a_big_scan_do_not_keep_the_reader_waiting(card):
    card.set_scan(scan((512, 512, 150), (0.45, 0.45, 1.0)))
    places = iter([finding(k, ras_mm=(k, 2.0 * k, -k)) for k in range(5)])
    assert cpu_ms(lambda: card.show(next(places), 1)) < 50


# The slider


@pytest.fixture
def slider(host, panel):
    from CMBDetectorLib.gui.score_slider import ScoreSlider

    told: list[float] = []
    made = ScoreSlider(told.append)
    made.told = told
    panel(made.widget)
    return made


def test_dragging_tells_the_last_value_and_not_every_one(host, slider):
    begin = time.perf_counter()
    for step in range(100, 700, 5):
        slider.slider.value = step
        host.process_events()
    slowest = 2 + math.ceil((time.perf_counter() - begin) / 0.03)  # an interval begun may tell, too
    host.wait_until(lambda: slider.told and slider.told[-1] == 0.695)
    assert len(slider.told) <= slowest
    assert slider.spin_box.value == pytest.approx(0.695, abs=0.006)


def test_number_and_marks_set_the_threshold(host, slider):
    import qt

    slider.set_marks({"shown": 0.94, "4.1 FP/scan": 0.62})
    host.process_events()
    low, high = (slider.widget.findChild(qt.QToolButton, f"scoreMark{index}") for index in (0, 1))
    assert (low.text, high.text) == ("0.62 4.1 FP/scan", "0.94 shown")
    host.click(high)
    host.wait_until(lambda: slider.told == [0.94])
    host.wait(0.05)
    slider.spin_box.selectAll()
    for key in ("0", ".", "3", "Return"):
        host.press(slider.spin_box, key)
    assert slider.told == [0.94, 0.3]
    assert (slider.threshold, slider.spin_box.hasFocus()) == (0.3, False)
    slider.set_threshold(0.5)
    assert (slider.threshold, slider.told) == (0.5, [0.94, 0.3])
    slider.set_marks({})
    host.process_events()
    assert slider.widget.findChildren(qt.QToolButton) == []


def test_the_slider_counts(slider):
    slider.set_counts(37, 112)
    assert slider.count_label.text == "37 shown, 112 hidden; judged ones always stay"
    slider.set_counts(37, 0)
    assert slider.count_label.text == "37 shown, none hidden"


# The buttons


@pytest.fixture
def verdicts(panel, keys):
    from CMBDetectorLib.gui.verdict_buttons import VerdictButtons

    done: list[str] = []
    made = VerdictButtons(keys, {name: lambda name=name: done.append(name) for name in keys.actions})
    made.done = done
    panel(made.widget)
    yield made
    made.cleanup()
    assert keys.changed == []


def test_every_button_does_what_its_key_does(host, verdicts, keys):
    verdicts.show(finding(1, None).judged(State.ACCEPTED, None, None, "now"))
    for button in verdicts.buttons.values():
        host.click(button)
    assert verdicts.done == list(verdicts.buttons)
    assert set(keys.actions) == set(verdicts.buttons)
    for name, button in verdicts.buttons.items():
        assert keys.shown_key(name) in button.text or f"[{keys.shown_key(name)}" in button.toolTip
    assert verdicts.buttons["reject-partial-volume"].objectName == "rejectPartialVolumeButton"


def test_a_disabled_button_says_why(verdicts):
    from CMBDetectorLib.gui.verdict_buttons import Possible

    verdicts.show(None, Possible(undo="nothing was changed.", next="this is the last."))
    for name in ("accept", "reject", "reject-vessel", "unsure", "move", "comment", "undo", "next"):
        assert not verdicts.buttons[name].enabled
        assert "Not now: " in verdicts.buttons[name].toolTip
    assert "nothing was changed" in verdicts.buttons["undo"].toolTip
    assert verdicts.buttons["redo"].enabled
    verdicts.click("undo")
    assert verdicts.done == []
    verdicts.show(finding(1), Possible())
    assert "added yourself" in verdicts.buttons["remove"].toolTip
    assert all("Not now" not in b.toolTip for name, b in verdicts.buttons.items() if name != "remove")


def test_the_verdict_given_is_marked_and_new_keys_are_shown(verdicts, keys):
    def marked():
        return [name for name, button in verdicts.buttons.items() if "bold" in button.styleSheet]

    for verdict, name in (
        ((State.ACCEPTED, Certainty.DEFINITE, None), "accept"),
        ((State.ACCEPTED, Certainty.POSSIBLE, None), "accept-possible"),
        ((State.REJECTED, None, None), "reject"),
        ((State.REJECTED, None, "iron"), "reject-iron"),
        ((State.UNSURE, None, None), "unsure"),
    ):
        verdicts.show(finding(1).judged(*verdict, "now"))
        assert marked() == [name]
    verdicts.show(finding(1))
    assert marked() == []
    keys.set_key("accept", "J")
    assert verdicts.buttons["accept"].text == "✓ Accept (J)"


# The looks


def luminance(colour) -> float:
    """Relative luminance (WCAG 2.1)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_states_are_read_on_light_and_dark_and_told_apart_without_colour(host):
    import slicer

    from CMBDetectorLib.gui.state_style import STATE_STYLES, mimic_text

    display = slicer.vtkMRMLMarkupsDisplayNode()
    known = {display.GetGlyphTypeAsString(index) for index in range(display.GetMinimumGlyphType(), 15)}
    for style in STATE_STYLES.values():
        assert 1.05 / (luminance(style.on_light) + 0.05) > 4.5
        assert (luminance(style.on_dark) + 0.05) / (luminance("#353535") + 0.05) > 4.5
        assert style.glyph in known
    assert len({style.symbol for style in STATE_STYLES.values()}) == len(State)
    assert len({style.glyph for style in STATE_STYLES.values()}) == len(State)
    assert all(mimic_text(key) and mimic_text(key, short=True) for key in MIMIC_CLASSES)


def test_everything_one_can_use_has_a_name_and_a_tip_and_fits(host, table, card, slider, verdicts):
    slider.set_marks({"shown": 0.94, "4.1 FP/scan": 0.62, "14.5 FP/scan": 0.31})
    verdicts.show(finding(1))
    host.process_events()
    for widget in (table.widget, card.widget, slider.widget, verdicts.widget):
        assert [w for w in interactive(widget) if not (w.objectName and w.toolTip)] == []
        assert widget.minimumSizeHint().width() <= 400
