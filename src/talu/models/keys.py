"""Defines kinds of configuration keys: valid values, and what a missing key and null mean.

A family declares the keys that its network depends on in one table. Defaults are those of the
configuration classes of transformers, in which null is not the same as missing.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
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


class Key(ABC):
    """A key of a table.

    Attributes:
        missing: the meaning of a missing key.
        null: the meaning of null; an error by default.
    """

    __slots__ = ("missing", "null")

    def __init__(self, *, missing: Any = None, null: Any = INVALID) -> None:
        """Declare the key."""
        self.missing = missing
        self.null = null

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


class Whole(Key):
    """A whole number from ``low`` to ``high``.

    Attributes:
        low, high: the limits.
        zero: the meaning of 0 if it is special.
        why: the reason for ``low``, for the error message.
    """

    __slots__ = ("high", "low", "why", "zero")

    def __init__(
        self, *, high: int, low: int = 1, zero: Any = INVALID, why: str = "", **absent: Any
    ) -> None:
        """Declare the key; ``absent`` is what it means if it is missing or null."""
        super().__init__(**absent)
        self.low, self.high = low, high
        self.zero = zero
        self.why = why

    def check(self, settings: Settings, name: str, value: object) -> Any:
        """The number."""
        if type(value) is int and value == 0 and self.zero is not INVALID:
            return self.zero
        if self.why and type(value) is int and value < self.low:
            limit = f"must be from {self.low} to {self.high}, got {shown(value)}"
            raise settings.error(name, f"{limit}: {self.why}")
        return settings.integer(name, self.low, self.high)


class Decimal(Key):
    """A number written with a decimal point or an exponent, from 0 to ``high``."""

    __slots__ = ("high",)

    def __init__(self, *, high: float = 1.0, **absent: Any) -> None:
        """Declare the key; ``absent`` as in ``Whole``."""
        super().__init__(**absent)
        self.high = high

    def check(self, settings: Settings, name: str, value: object) -> Any:
        """The number."""
        if not isinstance(value, float) or not 0.0 <= value <= self.high:
            limits = f"must be a decimal number from 0.0 to {self.high}"
            raise settings.error(name, f"{limits}, got {shown(value)}")
        return value


class Number(Key):
    """A finite number greater than 0 and at most ``high``."""

    __slots__ = ("high",)

    def __init__(self, *, high: float = math.inf, **absent: Any) -> None:
        """Declare the key; ``absent`` as in ``Whole``."""
        super().__init__(**absent)
        self.high = high

    def check(self, settings: Settings, name: str, value: object) -> Any:
        """The number."""
        return settings.number(name, above=0.0, up_to=self.high)


class Flag(Key):
    """True or false."""

    __slots__ = ()

    def check(self, settings: Settings, name: str, value: object) -> Any:
        """The value."""
        return settings.flag(name)


class Truth(Key):
    """Any value, converted by Python's truth rules."""

    __slots__ = ()

    def check(self, settings: Settings, name: str, value: object) -> Any:
        """Whether Python treats the value as true."""
        return bool(value)


class Choice(Key):
    """A key of ``words``, converted to its value there."""

    __slots__ = ("words",)

    def __init__(self, *, words: Mapping[str, Any], **absent: Any) -> None:
        """Declare the key; ``absent`` as in ``Whole``."""
        super().__init__(**absent)
        self.words = words

    def check(self, settings: Settings, name: str, value: object) -> Any:
        """The value of the word."""
        return self.words[settings.word(name, tuple(self.words))]


class Choices(Key):
    """A list of keys of ``words``, converted to their values."""

    __slots__ = ("words",)

    def __init__(self, *, words: Mapping[str, Any], **absent: Any) -> None:
        """Declare the key; ``absent`` as in ``Whole``."""
        super().__init__(**absent)
        self.words = words

    def check(self, settings: Settings, name: str, value: object) -> Any:
        """The values of the words."""
        return [self.words[word] for word in settings.words(name, tuple(self.words))]


class Section(Key):
    """A nested object, or None if it is empty.

    Attributes:
        falsy: false, 0 and "" count as empty.
    """

    __slots__ = ("falsy",)

    def __init__(self, *, falsy: bool = False, **absent: Any) -> None:
        """Declare the key; ``absent`` as in ``Whole``."""
        super().__init__(**absent)
        self.falsy = falsy

    def check(self, settings: Settings, name: str, value: object) -> Any:
        """The object."""
        if self.falsy and not value:
            return None
        return settings.section(name) if value != {} else None


class Off(Key):
    """A key that talu does not support.

    Attributes:
        neutral: values without effect.
        why: the end of the error message.
    """

    __slots__ = ("neutral", "why")

    def __init__(self, *, why: str, neutral: Sequence[object] = (), null: Any = None) -> None:
        """Declare the key."""
        super().__init__(null=null)
        self.neutral = neutral
        self.why = why

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
