"""What a key of config.json may be, and what it means when it is missing or null.

A family declares its keys in one table, name by name; ``read_keys`` reads them all. Keys that are
not in the table have no effect on the network. Where a value is missing or null, the table follows
the configuration class of transformers, in which null is not the same as missing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from talu.models.settings import Settings, shortened

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

INVALID: Final = object()  # what null means where it is an error
_MISSING: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key of the table.

    Attributes:
        missing: the value when the file lacks the key.
        null: the value when it is null; an error unless given.
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

    def check(self, settings: Settings, name: str, value: object) -> Any:
        """The value, if it is one that the key may have."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole(Key):
    """A whole number from ``low`` to ``high``; ``zero`` is what 0 means, where it is no number."""

    low: int = 1
    high: int
    zero: Any = INVALID

    def check(self, settings: Settings, name: str, value: object) -> Any:
        """The number."""
        if type(value) is int and value == 0 and self.zero is not INVALID:
            return self.zero
        return settings.integer(name, self.low, self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decimal(Key):
    """A number with a decimal point in the file, from 0 to ``high``."""

    high: float = 1.0

    def check(self, settings: Settings, name: str, value: object) -> Any:
        """The number."""
        if not isinstance(value, float) or not 0.0 <= value <= self.high:
            limits = f"must be a decimal number from 0.0 to {self.high}"
            raise settings.error(name, f"{limits}, got {shortened(value)}")
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
    """Any value, of which only Python's truth counts."""

    def check(self, settings: Settings, name: str, value: object) -> Any:
        """Its truth."""
        return bool(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Key):
    """One of the words of a table, read as what the table has for it."""

    words: Mapping[str, Any]

    def check(self, settings: Settings, name: str, value: object) -> Any:
        """What the word stands for."""
        return self.words[settings.word(name, tuple(self.words))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices(Key):
    """A list of such words."""

    words: Mapping[str, Any]

    def check(self, settings: Settings, name: str, value: object) -> Any:
        """What they stand for."""
        return [self.words[word] for word in settings.words(name, tuple(self.words))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section(Key):
    """An object; read as its ``Settings``, or as None when it is empty.

    ``falsy`` says whether false, 0 and the like count as empty too.
    """

    falsy: bool = False

    def check(self, settings: Settings, name: str, value: object) -> Any:
        """The object."""
        if self.falsy and not value:
            return None
        return settings.section(name) if value != {} else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Off(Key):
    """A key that changes the network in a way that talu cannot honour, unless it is null.

    Attributes:
        neutral: values that change nothing.
        why: what the key stands for, after "is set, which means".
    """

    null: Any = None
    neutral: Sequence[object] = ()
    why: str

    def check(self, settings: Settings, name: str, value: object) -> Any:
        """Nothing; raises where the value switches something on."""
        if not any(value is known or (value == known != 0) for known in self.neutral):
            raise settings.error(name, f"is {shortened(value)}: {self.why}")


ALL_FAMILIES: Mapping[str, Key] = {
    "compression_config": Off(neutral=({},), why="quantised weights are not supported"),
    "quantization": Off(neutral=({},), why="quantised weights (MLX) are not supported"),
    "quantization_config": Off(neutral=({},), why="quantised weights are not supported"),
    "per_layer_config": Off(neutral=({},), why="layers that differ in size are not supported"),
}


def read_keys(settings: Settings, keys: Mapping[str, Key]) -> dict[str, Any]:
    """The values of all keys of the table.

    Raises:
        ModelError: a value is not one that its key may have, or cannot be honoured.
    """
    return {name: key.read(settings, name) for name, key in keys.items()}
