"""Checks and copies values that have to be plain JSON."""

import json
from collections.abc import Iterable
from typing import Any, NoReturn

from talu.exceptions import ValidationError

__all__ = ["json_copy", "json_object"]

MAX_DEPTH = 100
TOO_DEEP = f"must be nested at most {MAX_DEPTH} levels deep"


def json_copy(name: str, value: object, *, max_length: int | None = None) -> Any:
    """A copy of the value, made by writing it as JSON and reading it back.

    Args:
        name: name of the value for error messages.
        value: any object.
        max_length: maximum length of the JSON text in characters.

    Raises:
        ValidationError: it cannot be written as JSON, is nested too deeply, or is too long.
    """
    try:
        text = json.dumps(value, allow_nan=False)
        copied = json.loads(text)
    except RecursionError:
        _refuse(name, TOO_DEEP)
    except (TypeError, ValueError) as error:
        _refuse(name, f"must be plain JSON: {error}")
    if max_length is not None and len(text) > max_length:
        _refuse(name, f"must be at most {max_length:,} characters as JSON, got {len(text):,}")
    level = [copied]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
    if level:
        _refuse(name, TOO_DEEP)
    return copied


def json_object(text: str) -> dict[str, Any] | None:
    """The object that a text is as JSON; None for another value, and for one that is cut off."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _refuse(name: str, wrong: str) -> NoReturn:
    raise ValidationError(f"{name} {wrong}", details={"param": name})
