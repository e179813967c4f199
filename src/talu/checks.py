"""Checks values that callers give, and names the parameter of a wrong one."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from numbers import Integral, Real
from typing import Any, Protocol, runtime_checkable

from talu.error_text import kind_of, nearest, shown
from talu.exceptions import ValidationError
from talu.json_values import json_copy
from talu.unicode import is_unicode

__all__ = [
    "MAX_IDS",
    "between",
    "check_bias",
    "check_body",
    "check_boolean",
    "check_context",
    "check_namespace",
    "check_strings",
    "check_token_id",
    "check_token_ids",
    "choice_check",
    "number_check",
    "whole_check",
    "wrong_value",
]

MAX_TOKEN_ID = 2**31 - 1
MAX_IDS = 10_000  # in stop_token_ids and logit_bias; sampling checks each id at every token
MAX_PROMPT_IDS = 2**22  # more than any context
MAX_STOPS = 64
MAX_STOP_LENGTH = 1000
MAX_BIAS = 1e6
MAX_NAMESPACE = 256  # characters
MAX_BODY = 1_000_000  # characters of extra_body as JSON


def wrong_value(name: str, value: object, expected: str) -> ValidationError:
    """The error for a wrong value of a parameter."""
    message = f"{name} must be {expected}, got {shown(value)}"
    return ValidationError(message, details={"param": name, "value": value, "expected": expected})


def whole_check(low: int, high: int | None = None) -> Callable[[str, object], int]:
    """A check for whole numbers in a range, which returns them as ``int``."""
    expected = f"a whole number of at least {low}" + (f" and at most {high}" if high else "")

    def check(name: str, value: object) -> int:
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise wrong_value(name, value, expected)
        number = int(value)
        if number < low or (high is not None and number > high):
            raise wrong_value(name, value, expected)
        return number

    return check


def number_check(expected: str, fits: Callable[[float], bool]) -> Callable[[str, object], float]:
    """A check for finite numbers, which returns them as ``float``.

    Args:
        expected: what fits, for the error.
        fits: whether a number is allowed.
    """

    def check(name: str, value: object) -> float:
        if not isinstance(value, Real) or isinstance(value, bool):
            raise wrong_value(name, value, expected)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number) or not fits(number):
            raise wrong_value(name, value, expected)
        return number

    return check


def between(low: float, high: float) -> Callable[[float], bool]:
    """Whether a number is in a range, its ends included."""
    return lambda x: low <= x <= high


def choice_check(*choices: str) -> Callable[[str, object], str]:
    """A check for one of a few texts."""

    def check(name: str, value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            close = nearest(value, choices) if isinstance(value, str) else ""
            raise wrong_value(name, value, f"one of {', '.join(choices)}{close}")
        return value

    return check


def check_boolean(name: str, value: object) -> bool:
    """The value; ``ValidationError`` if it is not True or False."""
    if not isinstance(value, bool):
        raise wrong_value(name, value, "True or False")
    return value


def check_strings(name: str, value: object) -> list[str]:
    """A list of a few short texts."""
    expected = f"a list of at most {MAX_STOPS} texts of 1 to {MAX_STOP_LENGTH} characters"
    if isinstance(value, str):
        raise wrong_value(name, value, f"{expected} (write [{shown(value)}] for a single one)")
    if not isinstance(value, list | tuple) or len(value) > MAX_STOPS:
        raise wrong_value(name, value, expected)
    if not all(isinstance(text, str) and 0 < len(text) <= MAX_STOP_LENGTH for text in value):
        raise wrong_value(name, value, expected)
    return list(value)


def check_namespace(name: str, value: object) -> str:
    """The name of a part of the prefix cache."""
    expected = f"a text of 1 to {MAX_NAMESPACE} characters, or None for the shared cache"
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAMESPACE:
        raise wrong_value(name, value, expected)
    if not is_unicode(value):
        raise wrong_value(name, value, f"{expected}, without lone surrogates")
    return value


def _too_many(name: str, count: int, expected: str) -> ValidationError:
    message = f"{name} must be {expected}, got {count:,}"
    return ValidationError(message, details={"param": name, "count": count, "expected": expected})


def check_token_ids(
    name: str, value: object, *, ordered: bool = False, most: int = MAX_PROMPT_IDS
) -> list[int]:
    """The ids as a list; ``ValidationError`` if it is not a list of token ids.

    Args:
        name: name of the argument for error messages.
        value: a sequence or an array with one dimension, or a set.
        ordered: the order matters, so a set is an error.
        most: maximum number of ids.
    """
    expected = "a list of token ids, whole numbers of at least 0"
    is_array = isinstance(value, _Array) and value.ndim == 1
    is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)
    is_set = isinstance(value, Set) and not ordered
    if not isinstance(value, Collection) or not (is_array or is_list or is_set):
        raise wrong_value(name, value, expected)
    if len(value) > most:
        raise _too_many(name, len(value), f"a list of at most {most:,} token ids")
    tokens = value.tolist() if isinstance(value, _Array) else value
    return [check_token_id(name, token, expected) for token in tokens]


@runtime_checkable
class _Array(Protocol):
    """An array of NumPy or another package."""

    ndim: int

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[object]: ...
    def __contains__(self, entry: object, /) -> bool: ...
    def tolist(self) -> list[object]: ...


def check_token_id(
    name: str, token: object, expected: str = "a token id, a whole number of at least 0"
) -> int:
    """The id as an ``int``; ``ValidationError`` if it is not a token id."""
    if not isinstance(token, Integral) or isinstance(token, bool):
        raise wrong_value(name, token, expected)
    if not 0 <= int(token) <= MAX_TOKEN_ID:
        raise wrong_value(name, token, expected)
    return int(token)


def check_bias(name: str, value: object) -> dict[int, float]:
    """Numbers by token ids."""
    expected = "a dictionary from token ids to numbers between -1,000,000 and 1,000,000"
    if not isinstance(value, Mapping):
        raise wrong_value(name, value, expected)
    if len(value) > MAX_IDS:
        few = "to allow only a few tokens, give each a large bias instead of banning all others"
        raise _too_many(name, len(value), f"a dictionary of at most {MAX_IDS:,} token ids ({few})")
    number = number_check(expected, between(-MAX_BIAS, MAX_BIAS))
    return {check_token_id(name, token, expected): number(name, b) for token, b in value.items()}


def check_context(name: str, value: object) -> dict[str, object]:
    """Variables by names."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise wrong_value(name, value, "a dictionary from variable names to values")
    return dict(value)


def check_body(name: str, value: object) -> dict[str, Any]:
    """A copy of fields with plain JSON values."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        expected = "a dictionary from names of fields to plain JSON values"
        wrong = f"{name} must be {expected}, got {kind_of(value)}"  # it may be a key
        raise ValidationError(wrong, details={"param": name, "expected": expected})
    copied: dict[str, Any] = json_copy(name, dict(value), max_length=MAX_BODY)
    return copied
