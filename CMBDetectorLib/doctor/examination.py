"""All checks in their order; none of them can keep the others from being made. Standard library only at first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from CMBDetectorLib.doctor import computer, folders, packages, runtime
from CMBDetectorLib.doctor.findings import PROBLEM, Finding
from CMBDetectorLib.errors import CMBDetectorError

Check = Callable[[], "Finding | Sequence[Finding]"]


def basic_checks(more_folders: Mapping[str, Path] | None = None) -> list[tuple[str, Check]]:
    """Return (name, check) of what needs no package; ``more_folders`` are looked at beside the program's own."""
    named = {**folders.own_folders(), **(more_folders or {})}
    return [
        ("Python", computer.program),
        ("Packages", packages.packages),
        ("Set-up", runtime.set_up),
        ("Memory", computer.memory),
        ("Processors", computer.processors),
        ("Graphics card", computer.graphics_card),
        *((name, lambda name=name, path=path: folders.folder(name, path)) for name, path in named.items()),
        ("Path lengths", computer.path_lengths),
        ("Clock", computer.clock),
    ]


def all_checks(
    more_folders: Mapping[str, Path] | None = None,
    registry: Path | None = None,
    with_self_test: bool = True,
    alive: Callable[[], None] = lambda: None,
) -> list[tuple[str, Check]]:
    """Return (name, check) of everything; ``alive`` is called about every 0.1 s of the self-test."""
    from CMBDetectorLib.doctor import installed, self_test

    checks = basic_checks(more_folders)
    checks += [("Models", lambda: installed.models(registry)), ("HD-BET", installed.brain_mask)]
    if with_self_test:
        checks.append((self_test.NAME, lambda: self_test.self_test(registry, alive)))
    return checks


def made(name: str, check: Check) -> list[Finding]:
    """Return what ``check`` found; that it failed is a finding, too."""
    try:
        found = check()
    except CMBDetectorError as error:
        return [Finding(name, PROBLEM, error.message, error.hint, exit_code=error.exit_code)]
    except Exception as error:
        told = f"it could not be checked ({type(error).__name__}: {str(error)[:200]})"
        return [Finding(name, PROBLEM, told, "Report this.")]
    return [found] if isinstance(found, Finding) else list(found)
