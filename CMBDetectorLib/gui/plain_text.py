"""Texts of strangers, and names of patients, in places where Qt would take them for HTML."""

from __future__ import annotations


def plain_tip(text: str) -> str:
    """Return ``text`` for a tool tip: Qt shows it as it is, whatever is in it."""
    # Tool tips have no format to be set: what holds a tag is rich text. Without this sign there is no tag.
    return text.replace("<", "\u2039")
