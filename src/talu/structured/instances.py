"""Makes instances of Python types from plain JSON values."""

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin
from uuid import UUID

from talu.structured.pydantic_types import is_pydantic, pydantic_instance
from talu.structured.type_schemas import fields_of, is_described, plain_type

__all__ = ["instance_of"]

READERS: dict[object, Any] = {
    datetime: datetime.fromisoformat,
    date: date.fromisoformat,
    time: time.fromisoformat,
    UUID: UUID,
}
SCALARS = (str, int, float, bool)


def instance_of(hint: object, value: object) -> object:
    """The instance of a type that a plain value describes.

    Raises:
        ValueError: the value does not fit the type.
    """
    hint, _ = plain_type(hint)
    if isinstance(hint, type) and is_described(hint):
        return _with_fields(hint, value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _made(hint, lambda: hint(value))
    if hint in READERS:
        if not isinstance(value, str):
            raise _unfit(value, hint)
        return READERS[hint](value)
    if hint in SCALARS:
        return _scalar(hint, value)
    if hint is None or hint is type(None):
        if value is not None:
            raise _unfit(value, "null")
        return None
    return _composed(hint, value)


def _composed(hint: object, value: object) -> object:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _alternative(parts, value)
    if origin is Literal:
        for part in parts:
            if part == value and type(part) is type(value):
                return part
        raise _unfit(value, hint)
    if origin in (list, set, frozenset, tuple, Sequence):
        return _collection(list if origin is Sequence else origin, parts, value)
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise _unfit(value, "an object")
        return {name: instance_of(parts[1], each) for name, each in value.items()}
    if hint in (set, frozenset, tuple) and isinstance(value, list):
        return hint(value)
    return value


def _with_fields(kind: Any, value: object) -> object:
    if is_pydantic(kind):
        return _made(kind, lambda: pydantic_instance(kind, value))
    if not isinstance(value, dict):
        raise _unfit(value, kind)
    fields = fields_of(kind)
    missing = [name for name, (_, required) in fields.items() if required and name not in value]
    if missing:
        raise ValueError(f"{kind.__name__} lacks {', '.join(missing)}")
    known = {
        name: instance_of(hint, value[name]) for name, (hint, _) in fields.items() if name in value
    }
    if not dataclasses.is_dataclass(kind):
        return {**value, **known}
    make: Any = kind
    return _made(kind, lambda: make(**known))


def _made(kind: Any, make: Callable[[], object]) -> object:
    """The instance, unless the code of its class refuses the value, with whatever exception."""
    try:
        return make()
    except (ValueError, TypeError):
        raise
    except Exception as error:
        refused = f"{kind.__name__} refuses it: {type(error).__name__}: {error}"
        raise ValueError(refused) from error


def _scalar(hint: object, value: object) -> object:
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise ValueError("a number is out of the range of floating-point numbers") from error
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if type(value) is not hint:
        raise _unfit(value, hint)
    return value


def _alternative(parts: tuple[object, ...], value: object) -> object:
    """The first alternative that fits; ``float`` takes an integer only if ``int`` is none."""
    exact = [part for part in parts if isinstance(value, int) and plain_type(part)[0] is int]
    for part in (*exact, *parts):
        try:
            return instance_of(part, value)
        except (ValueError, TypeError):
            continue
    raise _unfit(value, " | ".join(map(_name, parts)))


def _collection(kind: Any, parts: tuple[object, ...], value: object) -> object:
    if not isinstance(value, list):
        raise _unfit(value, "an array")
    if kind is tuple and not (len(parts) == 2 and parts[1] is ...):
        if len(value) != len(parts):
            raise _unfit(value, f"an array of {len(parts)}")
        return tuple(instance_of(part, each) for part, each in zip(parts, value, strict=True))
    return kind(instance_of(parts[0], each) for each in value)


def _name(hint: object) -> str:
    return getattr(hint, "__name__", None) or str(hint)


def _unfit(value: object, hint: object) -> ValueError:
    return ValueError(f"{value!r:.100} is not {_name(hint)}")
