"""The score from which candidates are shown: a slider, a number, and buttons for the model's operating points."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import qt
from slicer.i18n import tr as _

from CMBDetectorLib.gui.keys import leave_with_escape

STEPS = 1000
INTERVAL_MS = 30
_MARKS_A_LINE = 3


def count_text(shown: int, hidden: int) -> str:
    """Return how many candidates are on the screen and how many the threshold hides."""
    if not hidden:
        return _("{shown} shown, none hidden").format(shown=shown)
    return _("{shown} shown, {hidden} hidden; judged ones always stay").format(shown=shown, hidden=hidden)


class ScoreSlider:
    """A threshold from 0 to 1 in ``widget``; ``on_changed`` is called with it, at most every 30 ms while dragging."""

    def __init__(self, on_changed: Callable[[float], None], parent: qt.QWidget | None = None) -> None:
        self._on_changed = on_changed
        self._told: float | None = None
        self._marks: list[tuple[qt.QToolButton, Callable[[], None]]] = []
        self.widget = qt.QWidget(parent)
        self._build()
        self.timer = qt.QTimer(self.widget)
        self.timer.setSingleShot(True)
        self.timer.setInterval(INTERVAL_MS)
        self.timer.connect("timeout()", self._tell)

    @property
    def threshold(self) -> float:
        """The score from which candidates are shown."""
        return self.slider.value / STEPS

    def set_threshold(self, threshold: float) -> None:
        """Set the threshold without calling ``on_changed``."""
        self._show(round(min(max(threshold, 0.0), 1.0) * STEPS))
        self._told = self.threshold

    def set_marks(self, marks: Mapping[str, float]) -> None:
        """Offer the model's operating points: name -> score."""
        self._remove_marks()
        ordered = sorted(marks.items(), key=lambda mark: mark[1])
        steps = [round(min(max(score, 0.0), 1.0) * STEPS) for _name, score in ordered]
        self._ticks = self._make_ticks(steps)
        self._grid.addWidget(self._ticks, 1, 0)
        for index, ((name, score), step) in enumerate(zip(ordered, steps, strict=True)):
            button = qt.QToolButton()
            button.objectName = f"scoreMark{index}"
            button.text = f"{score:.2f} {name}"
            button.autoRaise = True
            button.focusPolicy = qt.Qt.TabFocus
            button.toolTip = _("Show the candidates with a score of {score:.2f} or more: {name}.").format(
                score=score, name=name
            )
            slot = lambda step=step: self.slider.setValue(step)  # noqa: E731
            button.connect("clicked()", slot)
            self._buttons.addWidget(button, index // _MARKS_A_LINE, index % _MARKS_A_LINE)
            self._marks.append((button, slot))

    def set_counts(self, shown: int, hidden: int) -> None:
        """Say how many candidates are on the screen and how many the threshold hides."""
        self.count_label.text = count_text(shown, hidden)

    def _build(self) -> None:
        layout = qt.QVBoxLayout(self.widget)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(1)
        self._grid = qt.QGridLayout()
        self._grid.setVerticalSpacing(0)
        layout.addLayout(self._grid)
        self._build_fields()
        self._grid.addWidget(self.slider, 0, 0)
        self._grid.addWidget(self.spin_box, 0, 1)
        self._ticks = self._make_ticks([])
        self._grid.addWidget(self._ticks, 1, 0)
        self._buttons = qt.QGridLayout()
        self._buttons.setSpacing(2)
        self._buttons.setColumnStretch(_MARKS_A_LINE, 1)
        layout.addLayout(self._buttons)
        self.count_label = qt.QLabel()
        self.count_label.objectName = "scoreCountLabel"
        self.count_label.toolTip = _("A verdict is never hidden by the threshold.")
        layout.addWidget(self.count_label)

    def _build_fields(self) -> None:
        tip = _("Candidates that are not judged yet are shown from this score on; higher means fewer.")
        self.slider = qt.QSlider(qt.Qt.Horizontal)
        self.slider.objectName = "scoreSlider"
        self.slider.setRange(0, STEPS)
        self.slider.pageStep = STEPS // 20
        self.slider.toolTip = tip
        self.slider.connect("valueChanged(int)", self._on_slider)
        self.slider.connect("sliderReleased()", self._tell)
        self.spin_box = qt.QDoubleSpinBox()
        self.spin_box.objectName = "scoreSpinBox"
        self.spin_box.setDecimals(2)
        self.spin_box.setRange(0.0, 1.0)
        self.spin_box.setSingleStep(0.01)
        # Or every half-typed number would count.
        self.spin_box.keyboardTracking = False
        # A click on arrows would take the focus, and with it the shortcuts, for good; the slider is beside it.
        self.spin_box.buttonSymbols = qt.QAbstractSpinBox.NoButtons
        self.spin_box.toolTip = tip + " " + _("Enter or Esc leaves the field.")
        self.spin_box.connect("valueChanged(double)", self._on_spin_box)
        self.spin_box.connect("editingFinished()", self.spin_box.clearFocus)
        leave_with_escape(self.spin_box)

    def _make_ticks(self, steps: list[int]) -> qt.QWidget:
        """Return a line of marks at ``steps``, as wide as the way of the middle of the slider's handle."""
        line = qt.QWidget()
        line.setFixedHeight(4)
        layout = qt.QHBoxLayout(line)
        half_handle = self.slider.style().pixelMetric(qt.QStyle.PM_SliderLength) // 2
        layout.setContentsMargins(half_handle, 0, half_handle, 0)
        layout.setSpacing(0)
        at = 0
        for step in steps:
            layout.addStretch(max(step - at, 0))
            at = step
            tick = qt.QFrame()
            tick.setFixedWidth(2)
            tick.setStyleSheet("background: palette(highlight);")
            layout.addWidget(tick)
        layout.addStretch(max(STEPS - at, 1))
        return line

    def _remove_marks(self) -> None:
        for button, slot in self._marks:
            # A connection keeps what it calls alive.
            button.disconnect("clicked()", slot)
        for widget in [self._ticks, *(button for button, _slot in self._marks)]:
            widget.setParent(None)
            widget.deleteLater()
        self._marks = []

    def _show(self, step: int) -> None:
        for field, value in ((self.slider, step), (self.spin_box, step / STEPS)):
            field.blockSignals(True)
            field.setValue(value)
            field.blockSignals(False)

    def _on_slider(self, step: int) -> None:
        self._show(step)
        if not self.timer.isActive():
            self._tell()

    def _on_spin_box(self, value: float) -> None:
        self._show(round(value * STEPS))
        self._tell()

    def _tell(self) -> None:
        """Call ``on_changed`` if there is something new, and not again before the time is over."""
        if self.threshold == self._told:
            return
        self._told = self.threshold
        self.timer.start()
        self._on_changed(self._told)
