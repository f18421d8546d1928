"""Stand-in for ``slicer.i18n``: every text stays English."""

from __future__ import annotations


def tr(text: str) -> str:
    """Return ``text``, as Slicer does where no translation is installed."""
    return text


def translate(context: str, text: str) -> str:
    """Return ``text``; ``context`` is the name of the module."""
    return text


def getContext(source: str) -> str:
    """The context of a source file: its name without folder and ending."""
    return source.replace("\\", "/").rpartition("/")[2].partition(".")[0]
