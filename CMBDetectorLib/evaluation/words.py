"""Figures as words of a table and as plain JSON values; what does not exist (NaN, ``None``) is "-" or null."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def number_words(value: float | None, style: str, unit: str = "") -> str:
    """Return ``value`` in the format ``style`` with its unit."""
    return f"{value:{style}}{unit}" if value is not None and np.isfinite(value) else "-"


def interval_words(limits: tuple[float, float]) -> str:
    """Return the interval of two shares (0..1) in per cent."""
    return f"{100 * limits[0]:.0f}-{100 * limits[1]:.0f} %" if np.isfinite(limits[0]) else "-"


def text_table(rows: Sequence[Sequence[str]], text_columns: Sequence[int] = ()) -> str:
    """Return rows of words in columns of one width for a terminal; ``text_columns`` align left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if number in text_columns else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(lines)


def plain_json(value: Any) -> Any:
    """Return ``value`` (mappings, sequences, arrays, numbers) as plain JSON values of 6 decimals."""
    if isinstance(value, dict):
        return {key: plain_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain_json(entry) for entry in value]
    if isinstance(value, float | np.floating):
        return round(float(value), 6) if np.isfinite(value) else None
    return value
