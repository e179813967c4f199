"""Writes what ``Annotated`` adds to a type as keywords of JSON Schema.

Known are texts, the constraints of ``annotated_types``, and pydantic's ``Field`` and
``StringConstraints``, neither of which is imported here. What other packages put into ``Annotated``
is theirs, and left alone.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

__all__ = ["constrained", "is_field"]

Schema = dict[str, Any]
NUMBERS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
}
KEYWORDS = {  # of the types that a constraint can be about
    "array": {"min_length": "minItems", "max_length": "maxItems"},
    "integer": NUMBERS,
    "number": NUMBERS,
    "object": {"min_length": "minProperties", "max_length": "maxProperties"},
    "string": {"min_length": "minLength", "max_length": "maxLength", "pattern": "pattern"},
}
ANNOTATIONS = ("title", "description", "examples", "deprecated")
HELD_ANYWAY = ("strict", "allow_inf_nan")  # JSON has no infinity, and no value is converted
INSIDE = ("annotation", "metadata")  # of a ``Field``, which are not settings
READ = "a constraint that is not followed: put it in a pydantic model, which checks it"


def constrained(schema: Schema, metadata: Sequence[object]) -> Schema:
    """The schema of a type with what ``Annotated`` adds to it; the last description holds.

    Raises:
        ValueError: a constraint has no keyword, or is none of this type.
    """
    for name, value in _settings(metadata):
        if name in ANNOTATIONS:
            schema = {**schema, name: value}
        elif name == "json_schema_extra" and isinstance(value, dict):
            schema = {**schema, **value}
        elif name not in HELD_ANYWAY:
            schema = _limited(schema, name, value)
    return schema


def is_field(value: object) -> TypeGuard[Any]:
    """Whether this is what pydantic's ``Field(...)`` returns."""
    return type(value).__name__ == "FieldInfo" and _package(value) == "pydantic"


def _package(value: object) -> str:
    return type(value).__module__.partition(".")[0]


def _settings(metadata: Sequence[object]) -> Iterator[tuple[str, Any]]:
    """The names and values of what the parts of ``Annotated`` say."""
    for part in metadata:
        text = part if isinstance(part, str) else getattr(part, "documentation", None)
        if isinstance(text, str):
            yield "description", text
        elif is_field(part):
            yield from _settings(part.metadata)
            yield from _given(part)
        elif _package(part) in ("annotated_types", "pydantic"):
            yield from _attributes(part)


def _given(field: Any) -> Iterator[tuple[str, Any]]:
    """What a ``Field`` was given beside its constraints."""
    empty = type(field)()
    for name in field.__slots__:
        if not name.startswith("_") and name not in INSIDE:
            value = getattr(field, name, None)
            if value is not getattr(empty, name, None):
                yield name, value


def _attributes(constraint: Any) -> Iterator[tuple[str, Any]]:
    known = {*NUMBERS, *KEYWORDS["string"], *HELD_ANYWAY}
    values = (
        {each.name: getattr(constraint, each.name) for each in dataclasses.fields(constraint)}
        if dataclasses.is_dataclass(constraint)
        else getattr(constraint, "__dict__", {})
    )
    if not known.issuperset(name for name, value in values.items() if value is not None):
        unknown = next(k for k, value in values.items() if value is not None and k not in known)
        raise ValueError(f"{type(constraint).__name__.lstrip('_')}({unknown}=…) is {READ}")
    if not values:
        raise ValueError(f"{type(constraint).__name__} is {READ}")
    yield from ((name, value) for name, value in values.items() if value is not None)


def _limited(schema: Schema, name: str, value: Any) -> Schema:
    """The schema with a constraint, which is about one of its alternatives if it has some."""
    if "anyOf" in schema:
        options = [
            _limited(each, name, value) if name in _keywords_of(each) else each
            for each in schema["anyOf"]
        ]
        if options != schema["anyOf"]:
            return {**schema, "anyOf": options}
    keywords = _keywords_of(schema)
    if name not in keywords:
        known = any(name in each for each in KEYWORDS.values())
        problem = "no constraint of this type" if known else READ
        raise ValueError(f"{name}={value!r:.60} is {problem}")
    if isinstance(value, re.Pattern):
        value = value.pattern
    if name != "pattern" and not _is_finite(value):
        raise ValueError(f"{name}={value!r:.60} is no number of JSON")
    keyword = keywords[name]
    if schema.get(keyword, value) != value:
        raise ValueError(f"{name} is given twice, as {schema[keyword]!r} and {value!r}")
    return {**schema, keyword: value}


def _keywords_of(schema: Schema) -> dict[str, str]:
    kind = schema.get("type")
    return KEYWORDS.get(kind, {}) if isinstance(kind, str) and "format" not in schema else {}


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
