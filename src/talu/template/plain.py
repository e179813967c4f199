"""Copies the values that a template gets as plain JSON types, and limits their number and depth."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from talu.exceptions import ValidationError

__all__ = ["invalid", "plain"]

_MAX_DEPTH = 100
_MAX_VALUES = 1_000_000
_MAX_PATH = 80  # characters of a path in an error,
_MAX_KEY = 40  # and of one key
_PER_CHECK = 20_000  # values between two calls of ``check``
_SIMPLE = frozenset({str, int, float, bool, type(None)})


def plain(value: object, where: str, check: Callable[[], None] | None = None) -> Any:
    """A copy with JSON types only, so that a template gets no objects with methods.

    Args:
        value: the value.
        where: its name for errors.
        check: called from time to time; it may raise to stop the copying.

    Raises:
        ValidationError: it contains another type, or too many values; the message says where.
    """
    try:
        return _Copy(check).of(value, 0)
    except _NotPlainError as error:
        raise invalid(_path(where, error.keys[::-1]), error.problem) from None
    except _TooManyError:
        raise invalid(where, f"has more than {_MAX_VALUES:,} values") from None


def invalid(where: str, problem: str) -> ValidationError:
    """The error for a wrong value at this path."""
    param = where.partition("[")[0]
    return ValidationError(f"{where} {problem}", details={"param": param, "where": where})


class _TooManyError(Exception):
    """There are more values than a template may get."""


class _NotPlainError(Exception):
    """A value cannot be copied.

    Attributes:
        problem: what is wrong with it.
        keys: the keys and indexes that lead to it, innermost first.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.keys: list[object] = []


class _Copy:
    """Copies nested values and counts them."""

    def __init__(self, check: Callable[[], None] | None) -> None:
        self._check = check
        self._left = _MAX_VALUES - 1
        self._since_check = 0

    def of(self, value: object, depth: int) -> Any:
        """The copy of a value at this depth."""
        if type(value) in _SIMPLE:
            return value
        if isinstance(value, str):  # a subclass, without its own methods
            return str.__str__(value)
        if isinstance(value, int):
            return int.__int__(value)
        if isinstance(value, float):
            return float.__float__(value)
        is_list = isinstance(value, Sequence) and not isinstance(value, bytes | bytearray)
        if not is_list and not isinstance(value, Mapping):
            name = type(value).__name__
            raise _NotPlainError(f"is of type {name}; templates take JSON types only")
        if depth == _MAX_DEPTH:
            raise _NotPlainError(f"is nested more than {_MAX_DEPTH} levels deep")
        if isinstance(value, Mapping):
            return self._mapping(value, depth + 1)
        return self._sequence(value, depth + 1)

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[Any, Any]:
        if type(value) is not dict:
            value = dict(islice(value.items(), _MAX_VALUES))
        self._count(2 * len(value))
        copy = {}
        for key, item in value.items():
            if type(key) is not str:
                key = self._key(key)
            if type(item) in _SIMPLE:
                copy[key] = item
                continue
            try:
                copy[key] = self.of(item, depth)
            except _NotPlainError as error:
                error.keys.append(key)
                raise
        return copy

    def _key(self, key: object) -> object:
        if key is not None and not isinstance(key, str | int | float):
            name = type(key).__name__
            raise _NotPlainError(f"has a key of type {name}; templates take JSON types only")
        return self.of(key, 0)

    def _sequence(self, value: Any, depth: int) -> list[Any]:
        if type(value) not in (list, tuple):
            value = list(islice(value, _MAX_VALUES))
        self._count(len(value))
        copy: list[Any] = []
        try:
            for item in value:
                copy.append(item if type(item) in _SIMPLE else self.of(item, depth))
        except _NotPlainError as error:
            error.keys.append(len(copy))
            raise
        return copy

    def _count(self, size: int) -> None:
        """Count the values of a container before they are copied."""
        self._left -= size
        if self._left < 0:
            raise _TooManyError
        self._since_check += size
        if self._check is not None and self._since_check >= _PER_CHECK:
            self._since_check = 0
            self._check()


def _path(where: str, keys: Sequence[object]) -> str:
    """The path to a value, such as ``extra_context['a'][0]``; if long, without parts in between."""
    parts = [_part(key) for key in keys]
    size = len(where)
    for number, part in enumerate(parts):
        size += len(part)
        if size > _MAX_PATH and number < len(parts) - 1:
            return "".join([where, *parts[:number], "[…]", parts[-1]])
    return "".join([where, *parts])


def _part(key: object) -> str:
    if isinstance(key, str) and len(key) > _MAX_KEY:
        return f"[{key[:_MAX_KEY]!r}…]"
    return f"[{key!r}]" if not isinstance(key, int) or key.bit_length() < 100 else "[…]"
