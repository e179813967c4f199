"""Reads JSON texts strictly: every value has one meaning, and fits into Python's types.

RFC 7493 (I-JSON) is the subset of JSON that all readers understand in the same way. The reader of
Python keeps the last of several properties of one name, takes 1e999 for infinity, and reads NaN.
"""

import json
import math
from typing import Any, NoReturn

from talu.unicode import is_unicode

__all__ = ["json_value"]

MAX_DIGITS = (
    4_300  # of an integer; the limit that Python sets, because reading takes quadratic time
)


def json_value(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON, an object repeats a name, a number is out of range, or a string
            has a lone surrogate.
        RecursionError: it is nested too deeply.
    """
    value = json.loads(
        text,
        object_pairs_hook=_object,
        parse_constant=_refuse_constant,
        parse_float=_float,
        parse_int=_integer,
    )
    if "\\u" in text and not is_unicode(json.dumps(value, ensure_ascii=False)):
        raise ValueError("a string has half of a surrogate pair, which is no character")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has the property {repeated!r:.100} more than once")
    return found


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text:.40} is out of the range of floating-point numbers")
    return value


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"an integer has {len(text):,} digits; the limit is {MAX_DIGITS:,}")
    return int(text)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
