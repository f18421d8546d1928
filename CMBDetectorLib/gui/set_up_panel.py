"""The panel *Set up*: what would be installed, how large and where, before anything is; then the work, its progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from CMBDetectorLib.errors import CMBDetectorError
from CMBDetectorLib.gui import preferences
from CMBDetectorLib.gui.commands import Commands, sentence
from CMBDetectorLib.gui.endings import JobError
from CMBDetectorLib.models.bundle import RESOURCES
from CMBDetectorLib.runtime.installing import locks_for
from CMBDetectorLib.runtime.interpreter import Interpreter, application_python
from CMBDetectorLib.runtime.locks import DETECTOR, HD_BET, PARTS, Lock
from CMBDetectorLib.runtime.place import Place

_KIND = "runtime"
# The packages that people know by name.
_KNOWN = ("tensorflow", "tensorflow-cpu", "keras", "numpy", "torch", "hd-bet")


class SetUpPanel:
    """Sets up and removes the packages of the worker, by its command ``runtime`` in the application's own Python.

    ``on_changed()`` is called when another Python or other packages compute from now on.
    """

    def __init__(self, on_changed: Callable[[], None]) -> None:
        self._on_changed = on_changed
        self.commands = Commands(lambda: Interpreter(application_python()))
        self.source: Path | None = None
        self._is_sure = False
        self.widget = slicer.util.loadUI(str(RESOURCES / "UI" / "SetUpPanel.ui"))
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self._labels = {DETECTOR: self.ui.detectorLabel, HD_BET: self.ui.hdBetLabel}
        self._buttons = {DETECTOR: self.ui.detectorButton, HD_BET: self.ui.hdBetButton}
        self.ui.detectorButton.connect("clicked()", lambda: self.set_up(DETECTOR))
        self.ui.hdBetButton.connect("clicked()", lambda: self.set_up(HD_BET))
        self.ui.sourceButton.connect("clicked()", self._on_source)
        self.ui.useButton.connect("clicked()", self._on_use)
        self.ui.removeButton.connect("clicked()", self._on_remove)
        self.ui.cancelButton.connect("clicked()", self.cancel)
        self.say("")
        self.update()

    @property
    def is_running(self) -> bool:
        """Whether a set-up, a removal or a trial is under way."""
        return self.commands.is_asked(_KIND)

    def set_up(self, part: str) -> None:
        """Set up ``part``, from the chosen folder of wheels or from the network."""
        source = ["--from", str(self.source)] if self.source is not None else []
        self._run(["setup", "--part", part, *source], _("{part} is set up.").format(part=_title(part)))

    def use(self, python: Path | None) -> None:
        """Try another Python and compute with it; ``None``: with what is set up here."""
        chosen = [str(python)] if python is not None else ["--own"]
        # A choice of an earlier version of this module would hide the new one.
        self._run(
            ["use", *chosen], _("That Python computes from now on."), lambda: preferences.store("Interpreter", "")
        )

    def remove(self) -> None:
        """Remove everything that was downloaded."""
        self._run(["remove"], _("{size} were removed."))

    def cancel(self) -> None:
        """Stop what runs."""
        self.commands.drop(_KIND)
        self.say(_("Cancelled: what was set up before stays."))
        self.update()

    def close(self) -> None:
        """The module or the application goes."""
        self.commands.close()

    def say(self, message: str) -> None:
        """Show a sentence, or take it away."""
        self.ui.messageLabel.text = message
        self.ui.messageLabel.setVisible(bool(message))

    def update(self) -> None:
        """Bring texts and buttons up to date with what is there."""
        place, running = Place(preferences.runtime_folder()), self.is_running
        chosen = preferences.text("Interpreter") or place.chosen_python()
        origin = _("from {folder}").format(folder=self.source) if self.source else _("from the network (package index)")
        lines = [_("Packages go into {folder}, {origin}; never into Slicer's own Python.")]
        if chosen:
            lines.append(_("Computes with another Python: {python}"))
        self.ui.placeLabel.text = "\n".join(lines).format(folder=place.folder, origin=origin, python=chosen)
        there = {part: self._show_part(part, place, running) for part in PARTS}
        self._enable(place, there, running, bool(chosen))

    def _show_part(self, part: str, place: Place, running: bool) -> bool:
        label, button = self._labels[part], self._buttons[part]
        button.text = _("Set up {part}").format(part=_title(part))
        try:
            lock = locks_for((part,))[0]
        except CMBDetectorError as error:
            label.text, button.enabled = f"{_title(part)}: {error.message} {error.hint}", False
            button.toolTip = error.message
            return False
        there = place.set_up(lock.name)
        waits = part == HD_BET and not place.packages()
        label.text = _words(part, lock, there.bytes if there else None, there.when if there else "")
        if there is not None and not lock.fits(there.digest):
            label.text += " " + _("Newer versions can be set up.")
        button.enabled = not running and not waits
        button.toolTip = (
            _("It is being done.")
            if running
            else _("HD-BET shares packages of the detector: set that up first.")
            if waits
            else _("Install what is listed here; what is set up now stays until the new one has been tried.")
        )
        return there is not None

    def _enable(self, place: Place, there: Mapping[str, bool], running: bool, is_other: bool) -> None:
        ui, busy = self.ui, _("It is being done.")
        ui.sourceButton.text = _("From the network") if self.source else _("From a folder…")
        tip = (
            _("Fetch packages again.")
            if self.source
            else _("Use a folder of wheels, for a computer without a network.")
        )
        ui.sourceButton.toolTip = busy if running else tip
        ui.useButton.text = _("Use what is set up") if is_other else _("Use another Python…")
        tip = _("Compute with a Python environment of your own; it is tried first.")
        ui.useButton.toolTip = busy if running else _("Compute with the packages above again.") if is_other else tip
        for button in (ui.sourceButton, ui.useButton):
            button.enabled = not running
        something = any(there.values()) or place.wheels.is_dir()
        self._is_sure = self._is_sure and something and not running
        ui.removeButton.text = _("Remove for good") if self._is_sure else _("Remove…")
        ui.removeButton.enabled = something and not running
        tip = _("Remove everything that was downloaded.") if something else _("Nothing is set up.")
        ui.removeButton.toolTip = busy if running else tip
        ui.cancelButton.setVisible(running)
        ui.progressBar.setVisible(running)

    def _on_source(self) -> None:
        if self.source is not None:
            self.source = None
        else:
            folder = qt.QFileDialog.getExistingDirectory(self.widget, _("Folder of wheels"))
            self.source = Path(str(folder)) if folder else None
        self.say("")
        self.update()

    def _on_use(self) -> None:
        if preferences.text("Interpreter") or Place(preferences.runtime_folder()).chosen_python():
            self.use(None)
            return
        folder = qt.QFileDialog.getExistingDirectory(self.widget, _("Folder of a Python environment"))
        if folder:
            self.use(Path(str(folder)))

    def _on_remove(self) -> None:
        if self._is_sure:
            self._is_sure = False
            self.remove()
            return
        self._is_sure = True
        self.say(_("Press again to remove what was downloaded from this computer."))
        self.update()

    def _run(self, arguments: Sequence[str], words: str, then: Callable[[], None] = lambda: None) -> None:
        def done(result: dict[str, Any]) -> None:
            then()
            self.say(words.format(size=_size(result.get("freed_bytes") or 0)))
            self.update()
            self._on_changed()

        self._is_sure = False
        self.say(_("Starting…"))
        self.ui.progressBar.value = 0
        where = ["--folder", str(preferences.runtime_folder())]
        self.commands.run(_KIND, ["runtime", *arguments, *where], done, self._on_error, on_progress=self._on_progress)
        self.update()

    def _on_progress(self, event: Mapping[str, Any]) -> None:
        self.ui.progressBar.value = round(1000 * float(event.get("fraction") or 0))
        step, steps, left = event.get("step") or 0, event.get("steps") or 0, event.get("left_s")
        # Small numbers count things, not bytes.
        told = f": {_size(step)} {_('of')} {_size(steps)}" if steps > 1 else "…"
        rest = f", {_('about')} {max(1, round(left))} s {_('left')}" if left else ""
        self.say(f"{event.get('stage')}{told}{rest}")

    def _on_error(self, error: JobError) -> None:
        self.say(sentence(error))
        self.update()


def _title(part: str) -> str:
    return {DETECTOR: _("detector"), HD_BET: "HD-BET"}[part]


def _words(part: str, lock: Lock, size: int | None, when: str) -> str:
    title = _title(part)[0].upper() + _title(part)[1:]
    known = ", ".join(f"{p.name} {p.version}" for p in lock.packages if p.name in _KNOWN)
    packages = _("{count} packages").format(count=len(lock.packages)) + (f" ({known})" if known else "")
    if size is not None:
        return f"{title}: {packages}; {_('set up')} {when[:10]}, {_size(size)}."
    more = _("{fetch} to fetch, up to {disk} on disk").format(fetch=_size(lock.bytes), disk=_size(lock.installed_bytes))
    if lock.lean is not None:
        more += " " + _("({lean} where pip knows an index with PyTorch for processors)").format(
            lean=_size(lock.lean.bytes)
        )
    return f"{title}: {_('not set up')}. {packages}; {more}."


def _size(bytes_: float) -> str:
    return f"{bytes_ / 1e9:.1f} GB" if bytes_ >= 1e9 else f"{bytes_ / 1e6:.0f} MB"
