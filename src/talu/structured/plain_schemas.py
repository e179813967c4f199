"""Recognises the schemas that are valid by their form alone, without the package that checks all.

Most schemas of tools are such, and that package takes longer to load than all of talu.
"""

from collections.abc import Callable, Mapping
from typing import TypeGuard

__all__ = ["is_plainly_valid"]

TYPES = frozenset(("array", "boolean", "integer", "null", "number", "object", "string"))


def is_plainly_valid(schema: object) -> bool:
    """Whether every keyword is a common one with a value that drafts 6 to 2020-12 allow.

    False says nothing: the schema has to be checked.
    """
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, Mapping):
            return False
        for key, value in node.items():
            if key in WITHIN:
                inner = WITHIN[key](value)
                if inner is None:
                    return False
                waiting += inner
            elif key not in ALONE or not ALONE[key](value):
                return False
    return True


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_names(value: object) -> TypeGuard[list[str]]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        return False
    return len(set(value)) == len(value)


def _is_type(value: object) -> bool:
    if isinstance(value, str):
        return value in TYPES
    return _is_names(value) and bool(value) and TYPES.issuperset(value)


def _of_map(value: object) -> list[object] | None:
    return list(value.values()) if isinstance(value, Mapping) else None


def _of_list(value: object) -> list[object] | None:
    return value if isinstance(value, list) and value else None


def _of_one(value: object) -> list[object] | None:
    return [value]


def _of_one_or_flag(value: object) -> list[object] | None:
    return [] if isinstance(value, bool) else [value]


ALONE: dict[str, Callable[[object], bool]] = {
    "$ref": lambda value: isinstance(value, str) and value.startswith("#"),
    "const": lambda value: True,
    "default": lambda value: True,
    "description": _is_text,
    "enum": lambda value: isinstance(value, list) and bool(value),
    "exclusiveMaximum": _is_number,
    "exclusiveMinimum": _is_number,
    "format": _is_text,
    "maxItems": _is_count,
    "maxLength": _is_count,
    "maximum": _is_number,
    "minItems": _is_count,
    "minLength": _is_count,
    "minimum": _is_number,
    "required": _is_names,
    "title": _is_text,
    "type": _is_type,
    "uniqueItems": _is_flag,
}
WITHIN: dict[str, Callable[[object], list[object] | None]] = {  # None for a wrong value
    "$defs": _of_map,
    "additionalProperties": _of_one_or_flag,
    "anyOf": _of_list,
    "items": _of_one,
    "properties": _of_map,
}
