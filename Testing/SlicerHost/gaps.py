"""Measures how long the main thread kept the event loop from running."""

from __future__ import annotations

import time

import qt


class Gaps:
    """A timer that should fire every few milliseconds, and how late it was."""

    def __init__(self, period_ms: int = 5) -> None:
        self._period = period_ms / 1000
        self._timer = qt.QTimer()
        self._timer.timerType = qt.Qt.PreciseTimer
        self._timer.interval = period_ms
        self._timer.connect("timeout()", self._tick)
        self._last = 0.0
        #: The lateness of every tick, in seconds.
        self.gaps: list[float] = []

    def start(self) -> None:
        """Begin to measure."""
        self.gaps, self._last = [], time.perf_counter()
        self._timer.start()

    def _tick(self) -> None:
        now = time.perf_counter()
        self.gaps.append(max(now - self._last - self._period, 0.0))
        self._last = now

    def stop(self) -> None:
        """End; a block that still lasts counts."""
        self._timer.stop()
        self._tick()

    @property
    def longest_s(self) -> float:
        """The longest time for which nothing could happen in the application."""
        return max(self.gaps, default=0.0)
