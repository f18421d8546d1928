"""The keys of the review in the stand-in host: pressed, typed in fields, changed, and gone after leaving."""

# A fixture that is imported is "redefined" by each argument of its name.
# ruff: noqa: F811
from __future__ import annotations

import gc
import weakref

import pytest
from gui_widgets import host, interactive, keys, panel  # noqa: F401  (fixtures)


def test_each_press_does_one_thing_once_and_nothing_after_leaving(host, panel, keys):
    import qt

    from CMBDetectorLib.gui.keys import Shortcuts

    done = []
    slider = qt.QSlider()
    panel(slider)
    shortcuts = Shortcuts(keys, host.window, {name: lambda name=name: done.append(name) for name in keys.actions})
    shortcuts.enable()
    shortcuts.enable()
    slider.setFocus()
    expected = []
    for name in keys.actions:
        for key in keys.keys(name):
            host.press(None, key)
            expected.append(name)
    assert done == expected
    assert len(expected) > 22
    shortcuts.disable()
    host.press(None, "A")
    assert done == expected
    shortcuts.enable()
    host.press(None, "A")
    assert done == [*expected, "accept"]
    shortcuts.disable()


def test_a_held_verdict_key_judges_one_candidate(host, panel, keys):
    from CMBDetectorLib.gui.keys import Shortcuts

    assert not any(keys.actions[name].repeats for name in keys.actions if name.startswith(("accept", "reject", "undo")))
    shortcuts = Shortcuts(keys, host.window, {"accept": lambda: None, "next": lambda: None})
    shortcuts.enable()
    repeats = {shortcut.key.toString(): shortcut.autoRepeat for shortcut, _handler in shortcuts._shortcuts}
    assert repeats == {"A": False, "N": True}
    shortcuts.disable()


@pytest.mark.parametrize("kind", ["QLineEdit", "QDoubleSpinBox", "QTextEdit", "QPlainTextEdit", "QComboBox"])
def test_keys_are_typed_while_a_field_has_the_focus(host, panel, keys, kind):
    import qt

    from CMBDetectorLib.gui.keys import Shortcuts

    done, states = [], []
    field, other = getattr(qt, kind)(), qt.QPushButton("other")
    if kind == "QComboBox":
        field.editable = True
    panel(field, other)
    handlers = {name: lambda name=name: done.append(name) for name in keys.actions}
    shortcuts = Shortcuts(keys, host.window, handlers, states.append)
    shortcuts.enable()
    for key in ("1", "A", "Ctrl+Z", "Space", "Del"):
        host.press(field, key)
    assert done == []
    assert states[-1] is False
    other.setFocus()
    host.press(None, "A")
    assert done == ["accept"]
    assert states[-1] is True
    shortcuts.disable()


def test_escape_leaves_a_field(host, panel, keys):
    import qt

    from CMBDetectorLib.gui.keys import Shortcuts, leave_with_escape

    done = []
    field = qt.QLineEdit()
    leave_with_escape(field)
    panel(field)
    shortcuts = Shortcuts(keys, host.window, {"accept": lambda: done.append("accept")})
    shortcuts.enable()
    host.press(field, "A")
    host.press(None, "Esc")
    host.press(None, "A")
    assert (field.text, done) == ("a", ["accept"])
    shortcuts.disable()


def test_shortcuts_let_go_of_what_they_call(host, keys):
    from CMBDetectorLib.gui.keys import Shortcuts

    class Panel:
        def accept(self):
            pass

    owner = Panel()
    shortcuts = Shortcuts(keys, host.window, {"accept": owner.accept})
    shortcuts.enable()
    shortcuts.disable()
    host.process_events()
    gone = weakref.ref(owner)
    del owner, shortcuts
    gc.collect()
    assert gone() is None
    assert keys.changed == []


def test_the_delivered_keys_do_not_clash(keys):
    used = [key for name in keys.actions for key in keys.keys(name)]
    assert len(used) == len(set(used))
    assert all(keys.why_not(name, action.default_key) == "" for name, action in keys.actions.items())


def test_keys_are_changed_kept_and_restored(host, panel, keys):
    import qt

    from CMBDetectorLib.gui.keys import KeyTable, Shortcuts

    done = []
    shortcuts = Shortcuts(keys, host.window, {"accept": lambda: done.append("accept")})
    shortcuts.enable()
    assert keys.set_key("accept", "ctrl+j") == ""
    host.press(None, "A")
    host.press(None, "Ctrl+J")
    assert done == ["accept"]
    shortcuts.disable()
    assert keys.set_key("unsure", "") == ""
    again = KeyTable(qt.QSettings())
    assert (again.key("accept"), again.keys("unsure")) == ("Ctrl+J", [])
    assert "<b>Ctrl+J</b>" in again.legend()
    assert "Unsure" not in again.legend()
    again.reset()
    assert (keys.key("accept"), keys.key("unsure")) == ("A", "U")


def test_a_key_that_cannot_be_had_is_refused_with_a_sentence(keys):
    for text, words in (
        ("R", "already the key of “Reject”"),
        ("Ctrl+Shift+Z", "already the key of “Redo”"),
        ("Ctrl+S", "belongs to the application"),
        ("A, B", "more than one press"),
        ("Blah", "is no key"),
    ):
        assert words in keys.set_key("accept", text)
    assert keys.key("accept") == "A"


def test_the_panel_of_keys_takes_the_pressed_key(host, keys):
    from CMBDetectorLib.gui.key_settings import KeySettings

    settings = KeySettings(keys)
    settings.widget.show()
    field = settings._fields["accept"]
    host.press(field, "R")
    assert "already" in settings.message.text
    host.press(field, "Ctrl+Shift+K")
    assert (field.text, keys.key("accept")) == ("Ctrl+Shift+K", "Ctrl+Shift+K")
    host.press(field, "Backspace")
    assert (field.text, keys.key("accept")) == ("", "")
    host.click(settings.reset_button)
    assert (field.text, keys.key("accept")) == ("A", "A")
    assert all(w.objectName and w.toolTip for w in interactive(settings.widget))
    settings.cleanup()
    settings.widget.close()
    assert keys.changed == []
