"""Derives JSON Schemas from Python types: dataclasses, TypedDicts, pydantic models and their parts.

Objects are closed: an answer has no other properties than the fields of the type.
"""

import dataclasses
import json
import types
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from enum import Enum
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NotRequired,
    Required,
    TypeGuard,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)
from uuid import UUID

from talu.exceptions import StructuredOutputError
from talu.structured.constraints import constrained, is_field
from talu.structured.pydantic_types import is_model, is_pydantic, pydantic_schema

__all__ = [
    "FORMATS",
    "Schema",
    "fields_of",
    "is_described",
    "object_schema",
    "plain_type",
    "schema_of",
]

Schema = dict[str, Any]
SCALARS: dict[object, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
    None: "null",
}
QUALIFIERS = (Annotated, Required, NotRequired)
FORMATS: dict[object, str] = {datetime: "date-time", date: "date", time: "time", UUID: "uuid"}


def is_described(kind: object) -> bool:
    """Whether this is a type with fields: a pydantic model, a dataclass or a TypedDict."""
    if not isinstance(kind, type):
        return False
    return is_model(kind) or dataclasses.is_dataclass(kind) or is_typed_dict(kind)


def is_typed_dict(kind: object) -> TypeGuard[Any]:
    """Whether this is a ``TypedDict``, of ``typing`` or of ``typing_extensions``."""
    return isinstance(kind, type) and issubclass(kind, dict) and hasattr(kind, "__required_keys__")


def schema_of(kind: object) -> Schema:
    """The JSON Schema of a type, whose named types are in ``$defs``.

    Raises:
        StructuredOutputError: a part of the type has no JSON form; the message names it.
    """
    described = _Described()
    root = described.schema(kind, _name(kind))
    definitions = described.definitions
    if not definitions:
        return root
    name = root.get("$ref", "").removeprefix("#/$defs/")
    if name in definitions:  # servers want an object, and no reference, at the root
        root = {**definitions[name], **{k: v for k, v in root.items() if k != "$ref"}}
        if f'"#/$defs/{name}"' not in json.dumps(definitions):
            definitions = {key: each for key, each in definitions.items() if key != name}
    return {**root, "$defs": definitions} if definitions else root


def object_schema(name: str, fields: Mapping[str, tuple[object, bool]]) -> Schema:
    """The JSON Schema of a closed object with these fields.

    Args:
        name: what the object is, for errors.
        fields: the type of each field, and whether it is required.

    Raises:
        StructuredOutputError: a type has no JSON form; the message names the field.
    """
    described = _Described()
    root = described.fields(fields, name)
    return {**root, "$defs": described.definitions} if described.definitions else root


def fields_of(kind: Any) -> dict[str, tuple[object, bool]]:
    """The fields of a dataclass or TypedDict: their types, and whether each is required."""
    try:
        hints = get_type_hints(kind, include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise _undescribed(_name(kind), f"its annotations cannot be read ({error})") from error
    if is_typed_dict(kind):
        required = _required_keys(kind, hints)
        return {name: (hint, name in required) for name, hint in hints.items()}
    fields: dict[str, tuple[object, bool]] = {}
    for field in kind.__dataclass_fields__.values():  # also those that only __init__ takes
        hint = hints[field.name]
        if not field.init or ClassVar in (hint, get_origin(hint)):
            continue
        if is_field(field.default):
            problem = "its default is Field(…), which only pydantic reads: put it into Annotated"
            raise _undescribed(f"{_name(kind)}.{field.name}", problem)
        fields[field.name] = (_without_init_var(hint), _is_required(field))
    return fields


def plain_type(hint: object) -> tuple[object, tuple[object, ...]]:
    """A type without ``Annotated`` and the like, and what ``Annotated`` adds, inner parts first."""
    metadata: tuple[object, ...] = ()
    while (origin := get_origin(hint)) in QUALIFIERS or _is_read_only(origin):
        hint, *added = get_args(hint)
        metadata = (*added, *metadata) if origin is Annotated else metadata
    return hint, metadata


class _Described:
    """The types that were described so far, by their names in ``$defs``."""

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}
        self._names: dict[type, str] = {}

    def schema(self, hint: object, path: str) -> Schema:
        hint, metadata = plain_type(hint)
        found = self._schema(hint, path)
        try:
            return constrained(found, metadata)
        except ValueError as error:
            raise _undescribed(path, str(error)) from error

    def _schema(self, hint: object, path: str) -> Schema:
        if hint is Any or hint is object:
            return {}
        if isinstance(hint, type) and is_described(hint):
            return self._reference(hint, path)
        if isinstance(hint, type) and issubclass(hint, Enum):
            return {"enum": [self._constant(member.value, path) for member in hint]}
        if hint in FORMATS:
            return {"type": "string", "format": FORMATS[hint]}
        if hint in SCALARS:
            return {"type": SCALARS[hint]}
        return self._composed(hint, path)

    def _composed(self, hint: object, path: str) -> Schema:
        origin, parts = get_origin(hint), get_args(hint)
        if origin is Literal:
            return {"enum": [self._constant(part, path) for part in parts]}
        if origin in (Union, types.UnionType):
            return {"anyOf": [self.schema(part, path) for part in parts]}
        if hint in (list, set, frozenset, tuple):
            return {"type": "array"}
        if origin in (list, set, frozenset, Sequence):
            if origin in (set, frozenset) and not _is_hashable(parts[0]):
                raise _undescribed(path, f"a set cannot hold {_name(parts[0])}: make it a list")
            return {"type": "array", "items": self.schema(parts[0], f"{path}[]")}
        if origin is tuple:
            return self._tuple(parts, path)
        if hint in (dict, Mapping):
            return {"type": "object"}
        if origin in (dict, Mapping) and parts[0] is str:
            return {"type": "object", "additionalProperties": self.schema(parts[1], f"{path}{{}}")}
        raise _undescribed(path, f"the type {hint!r:.100} has no JSON form")

    def _tuple(self, parts: tuple[object, ...], path: str) -> Schema:
        if len(parts) == 2 and parts[1] is ...:
            return {"type": "array", "items": self.schema(parts[0], f"{path}[]")}
        if parts == ((),):  # tuple[()] of older Pythons
            parts = ()
        size = len(parts)
        places = [self.schema(part, f"{path}[{i}]") for i, part in enumerate(parts)]
        whole: Schema = {"type": "array", "minItems": size, "maxItems": size}
        return {**whole, "prefixItems": places} if places else whole

    def _constant(self, value: object, path: str) -> object:
        if value is None or isinstance(value, str | int | float | bool):
            return value.value if isinstance(value, Enum) else value
        raise _undescribed(path, f"the constant {value!r:.100} has no JSON form")

    def _reference(self, kind: type, path: str) -> Schema:
        """A reference to a type with fields, which is described once."""
        if kind not in self._names:
            name, number = kind.__name__, 2
            while name in self.definitions:
                name, number = f"{kind.__name__}_{number}", number + 1
            self._names[kind] = name
            self.definitions[name] = {}  # for types that contain themselves
            whole = self._of_pydantic(kind) if is_pydantic(kind) else self._object(kind, path)
            self.definitions[name] = whole
        return {"$ref": f"#/$defs/{self._names[kind]}"}

    def _object(self, kind: type, path: str) -> Schema:
        schema = self.fields(fields_of(kind), path)
        properties = schema["properties"]
        if dataclasses.is_dataclass(kind):
            for field in kind.__dataclass_fields__.values():
                text = field.metadata.get("description")
                if field.name in properties and isinstance(text, str):
                    properties[field.name] = {**properties[field.name], "description": text}
        return schema

    def fields(self, fields: Mapping[str, tuple[object, bool]], path: str) -> Schema:
        """The schema of a closed object with these fields: their types, and which are required."""
        return {
            "type": "object",
            "properties": {
                name: self.schema(hint, f"{path}.{name}") for name, (hint, _) in fields.items()
            },
            "required": [name for name, (_, required) in fields.items() if required],
            "additionalProperties": False,
        }

    def _of_pydantic(self, kind: Any) -> Schema:
        try:
            schema = pydantic_schema(kind)
        except ValueError as error:
            raise _undescribed(kind.__name__, str(error)) from error
        root = f"#/$defs/{kind.__name__}"
        is_recursive = schema.get("$ref") == root and self._names[kind] == kind.__name__
        for name, definition in schema.pop("$defs", {}).items():
            own = self.definitions.get(name)
            is_itself = is_recursive and name == kind.__name__
            if own is not None and own != _closed(definition) and not is_itself:
                raise _undescribed(kind.__name__, f"two of its types are called {name!r}")
            self.definitions[name] = _closed(definition)
        return self.definitions[kind.__name__] if is_recursive else _closed(schema)


def _closed(schema: Schema) -> Schema:
    """The definition of a model, whose objects have no other properties than its fields."""
    if "properties" in schema and "additionalProperties" not in schema:
        return {**schema, "additionalProperties": False}
    return schema


def _required_keys(kind: Any, hints: Mapping[str, object]) -> frozenset[str]:
    """The required keys, also if the annotations are texts (``from __future__``)."""
    required = set(kind.__required_keys__)
    for name, hint in hints.items():
        outer = get_origin(hint)
        if outer is NotRequired:
            required.discard(name)
        elif outer is Required:
            required.add(name)
    return frozenset(required)


def _is_read_only(origin: object) -> bool:
    """Whether this is ``ReadOnly`` of ``typing_extensions``, or of Python 3.13."""
    return getattr(origin, "_name", None) == "ReadOnly"


def _without_init_var(hint: Any) -> object:
    return hint.type if isinstance(hint, dataclasses.InitVar) else hint


def _is_hashable(hint: object) -> bool:
    """Whether the instances of a type can be in a set; True if only they can tell."""
    hint, _ = plain_type(hint)
    origin, parts = get_origin(hint) or hint, get_args(hint)
    if origin is Sequence:
        return False
    if origin in (Union, types.UnionType, tuple):
        return all(_is_hashable(part) for part in parts if part is not ...)
    return not isinstance(origin, type) or origin.__hash__ is not None


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _name(kind: object) -> str:
    return getattr(kind, "__name__", None) or repr(kind)[:100]


def _undescribed(where: str, problem: str) -> StructuredOutputError:
    undescribed = f"{where} cannot be described as JSON Schema: {problem}"
    return StructuredOutputError(
        f"response_format: {undescribed}",
        details={"param": "response_format", "where": where, "problem": undescribed},
    )
