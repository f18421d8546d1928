"""What a check found, and the report that is made of all findings. Standard library only."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from CMBDetectorLib import __version__
from CMBDetectorLib.doctor.privacy import without_person

OK, WARNING, PROBLEM = "ok", "warning", "problem"
_WIDTH = 18


@dataclass(frozen=True)
class Finding:
    """What the check ``name`` found: ``state`` is ok, warning or problem, ``text`` says it, ``hint`` is the next step.

    ``values`` are plain JSON values for programs; ``exit_code`` is that of the kind of problem (:mod:`..errors`).
    """

    name: str
    state: str
    text: str
    hint: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    exit_code: int = 1


def worst(findings: Iterable[Finding]) -> str:
    """Return the gravest state among ``findings``."""
    states = {finding.state for finding in findings}
    return next((state for state in (PROBLEM, WARNING) if state in states), OK)


def exit_code(findings: Iterable[Finding]) -> int:
    """Return 0 where nothing is a problem, else the code of the first problem."""
    return next((finding.exit_code for finding in findings if finding.state == PROBLEM), 0)


def result(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return everything about ``findings`` as plain JSON values, without personal data; ``report`` is for people."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    listed = [{key: value for key, value in asdict(f).items() if key != "exit_code"} for f in findings]
    data = {
        "schema": 1,
        "program": f"cmbdetector {__version__}",
        "checked": now,
        "state": worst(findings),
        "findings": listed,
        "report": _report(findings, now),
        "exit_code": exit_code(findings),
    }
    return without_person(data)


def _report(findings: Sequence[Finding], now: str) -> str:
    counts = {state: sum(f.state == state for f in findings) for state in (PROBLEM, WARNING)}
    told = [f"{n} {state}{'s' * (n != 1)}" for state, n in counts.items() if n]
    lines = [f"CMBDetector {__version__}, checked {now}: {', '.join(told) or 'all is well'}."]
    for finding in findings:
        lines.append(f"{finding.state:<8} {finding.name:<{_WIDTH}} {finding.text}")
        if finding.hint:
            lines.append(f"{'':<8} {'':<{_WIDTH}} -> {finding.hint}")
    return "\n".join(lines)
