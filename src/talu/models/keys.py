"""Defines kinds of configuration keys: valid values, and what a missing key and null mean.

A family declares the keys that its network depends on in one table. Defaults are those of the
configuration classes of transformers, in which null is not the same as missing.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from talu.error_text import shown
from talu.sources.settings import Settings

__all__ = [
    "ALL_FAMILIES",
    "INVALID",
    "Choice",
    "Choices",
    "Decimal",
    "Flag",
    "Key",
    "Off",
    "Section",
    "Truth",
    "Whole",
    "read_keys",
]

INVALID: Final = object()  # the meaning of null where null is an error
_MISSING: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Key(ABC):
    """A key of a table.

    Attributes:
        missing: the meaning of a missing key.
        null: the meaning of null; an error by default.
    """

    missing: Any = None
    null: Any = INVALID

    def read(self, settings: Settings, name: str) -> Any:
        """The checked value; ``ModelError`` names the key."""
        value = settings.raw(name, _MISSING)
        if value is _MISSING:
            return self.missing
        if value is not None:
            return self.check(settings, name, value)
        if self.null is INVALID:
            raise settings.error(name, "is null")
        return self.null

    @abstractmethod
    def check(self, settings: Settings, name: str, value: object) -> Any:
        """Validate and convert a value that is not null."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole(Key):
    """A whole number from ``low`` to ``high``.

    Attributes:
        low, high: the limits.
        zero: the meaning of 0 if it is special.
        why: the reason for ``low``, for the error message.
    """

    low: int = 1
    high: int
    zero: Any = INVALID
    why: str = ""

    def check(self, settings: Settings, name: str, value: object) -> Any:
        """The number."""
        if type(value) is int and value == 0 and self.zero is not INVALID:
            return self.zero
        if self.why and type(value) is int and value < self.low:
            limit = f"must be from {self.low} to {self.high}, got {shown(value)}"
            raise settings.error(name, f"{limit}: {self.why}")
        return settings.integer(name, self.low, self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decimal(Key):
    """A number written with a decimal point or an exponent, from 0 to ``high``."""

    high: float = 1.0

    def check(self, settings: Settings, name: str, value: object) -> Any:
        """The number."""
        if not isinstance(value, float) or not 0.0 <= value <= self.high:
            limits = f"must be a decimal number from 0.0 to {self.high}"
            raise settings.error(name, f"{limits}, got {shown(value)}")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Number(Key):
    """A finite number greater than 0 and at most ``high``."""

    high: float = math.inf

    def check(self, settings: Settings, name: str, value: object) -> Any:
        """The number."""
        return settings.number(name, above=0.0, up_to=self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag(Key):
    """True or false."""

    def check(self, settings: Settings, name: str, value: object) -> Any:
        """The value."""
        return settings.flag(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth(Key):
    """Any value, converted by Python's truth rules."""

    def check(self, settings: Settings, name: str, value: object) -> Any:
        """Whether Python treats the value as true."""
        return bool(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Key):
    """A key of ``words``, converted to its value there."""

    words: Mapping[str, Any]

    def check(self, settings: Settings, name: str, value: object) -> Any:
        """The value of the word."""
        return self.words[settings.word(name, tuple(self.words))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices(Key):
    """A list of keys of ``words``, converted to their values."""

    words: Mapping[str, Any]

    def check(self, settings: Settings, name: str, value: object) -> Any:
        """The values of the words."""
        return [self.words[word] for word in settings.words(name, tuple(self.words))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section(Key):
    """A nested object, or None if it is empty.

    Attributes:
        falsy: false, 0 and "" count as empty.
    """

    falsy: bool = False

    def check(self, settings: Settings, name: str, value: object) -> Any:
        """The object."""
        if self.falsy and not value:
            return None
        return settings.section(name) if value != {} else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Off(Key):
    """A key that talu does not support.

    Attributes:
        neutral: values without effect.
        why: the end of the error message.
    """

    null: Any = None
    neutral: Sequence[object] = ()
    why: str

    def check(self, settings: Settings, name: str, value: object) -> Any:
        """Refuse values that are not neutral."""
        if not any(value is known or (value == known != 0) for known in self.neutral):
            raise settings.error(name, f"is {shown(value)}: {self.why}")


ALL_FAMILIES: Mapping[str, Key] = {
    "per_layer_config": Off(neutral=({},), why="layers that differ in size are not supported"),
}


def read_keys(settings: Settings, keys: Mapping[str, Key]) -> dict[str, Any]:
    """Read all keys of a table.

    Raises:
        ModelError: a value is invalid or not supported; the message names the key.
    """
    return {name: key.read(settings, name) for name, key in keys.items()}
