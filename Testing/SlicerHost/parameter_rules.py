"""What ``Annotated`` may say about a parameter: its default, and rules that its values keep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Default:
    """The value of a parameter that was never set."""

    value: Any


@dataclass(frozen=True)
class Decimals:
    """How many decimals the widget shows."""

    value: int


@dataclass(frozen=True)
class SingleStep:
    """The step of the widget."""

    value: float


class Rule:
    """A condition on values."""

    def validate(self, value: Any) -> None:
        """Raise ``ValueError`` where ``value`` breaks the rule."""
        raise NotImplementedError


Validator = Rule


@dataclass(frozen=True)
class WithinRange(Rule):
    """Not below ``minimum`` and not above ``maximum``."""

    minimum: float
    maximum: float

    def validate(self, value: Any) -> None:
        """Raise outside the range."""
        _demand(self.minimum <= value <= self.maximum, f"{value} is not within {self.minimum} to {self.maximum}")


@dataclass(frozen=True)
class Minimum(Rule):
    """Not below ``minimum``."""

    minimum: float

    def validate(self, value: Any) -> None:
        """Raise below it."""
        _demand(value >= self.minimum, f"{value} is below {self.minimum}")


@dataclass(frozen=True)
class Maximum(Rule):
    """Not above ``maximum``."""

    maximum: float

    def validate(self, value: Any) -> None:
        """Raise above it."""
        _demand(value <= self.maximum, f"{value} is above {self.maximum}")


@dataclass(frozen=True)
class Choice(Rule):
    """One of ``choices``."""

    choices: Sequence[Any]

    def validate(self, value: Any) -> None:
        """Raise for anything else."""
        _demand(value in self.choices, f"{value!r} is none of {list(self.choices)}")


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def check(rules: Iterable[Rule], value: Any) -> None:
    """Raise ``ValueError`` for the first rule that ``value`` breaks."""
    for rule in rules:
        rule.validate(value)


def first(annotations: Iterable[Any], kind: type | tuple[type, ...], then: Callable[[Any], Any]) -> Any:
    """``then`` of the first annotation of that kind, or None."""
    return next((then(found) for found in annotations if isinstance(found, kind)), None)
