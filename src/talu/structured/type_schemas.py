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
    Literal,
    NotRequired,
    Required,
    TypeGuard,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)
from uuid import UUID

from talu.exceptions import StructuredOutputError

__all__ = [
    "FORMATS",
    "Schema",
    "fields_of",
    "is_described",
    "is_model",
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
FORMATS: dict[object, str] = {datetime: "date-time", date: "date", time: "time", UUID: "uuid"}


def is_model(kind: object) -> TypeGuard[Any]:
    """Whether this is a pydantic model, whose package is not imported here."""
    if not isinstance(kind, type):
        return False
    return hasattr(kind, "model_json_schema") and hasattr(kind, "model_validate")


def is_described(kind: object) -> bool:
    """Whether this is a type with fields: a pydantic model, a dataclass or a TypedDict."""
    if not isinstance(kind, type):
        return False
    return is_model(kind) or dataclasses.is_dataclass(kind) or is_typeddict(kind)


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


def fields_of(kind: type) -> dict[str, tuple[object, bool]]:
    """The fields of a dataclass or TypedDict: their types, and whether each is required."""
    try:
        hints = get_type_hints(kind, include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise _undescribed(_name(kind), f"its annotations cannot be read ({error})") from error
    if is_typeddict(kind):
        required = _required_keys(kind, hints)
        return {name: (hint, name in required) for name, hint in hints.items()}
    return {
        field.name: (hints[field.name], _is_required(field))
        for field in dataclasses.fields(kind)
        if field.init
    }


def plain_type(hint: object) -> tuple[object, str | None]:
    """A type without ``Annotated``, ``Required`` and ``NotRequired``, and its description."""
    description = None
    while get_origin(hint) in (Annotated, Required, NotRequired):
        parts = get_args(hint)
        texts = [part for part in parts[1:] if isinstance(part, str)]
        description = description or next(iter(texts), None)
        hint = parts[0]
    return hint, description


class _Described:
    """The types that were described so far, by their names in ``$defs``."""

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}
        self._names: dict[type, str] = {}

    def schema(self, hint: object, path: str) -> Schema:
        hint, description = plain_type(hint)
        found = self._schema(hint, path)
        return {**found, "description": description} if description else found

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
            whole = self._model(kind) if is_model(kind) else self._object(kind, path)
            self.definitions[name] = whole
        return {"$ref": f"#/$defs/{self._names[kind]}"}

    def _object(self, kind: type, path: str) -> Schema:
        schema = self.fields(fields_of(kind), path)
        properties = schema["properties"]
        if dataclasses.is_dataclass(kind):
            for field in dataclasses.fields(kind):
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

    def _model(self, kind: Any) -> Schema:
        try:
            schema = kind.model_json_schema(ref_template="#/$defs/{model}")
        except Exception as error:  # of pydantic, which is not imported here
            raise _undescribed(kind.__name__, f"pydantic says: {error}") from error
        definitions = schema.pop("$defs", {})
        for name, definition in definitions.items():
            # pydantic gives a recursive model a definition of its own name
            own = self.definitions.get(name)
            if own is not None and own not in ({}, _closed(definition)):
                raise _undescribed(kind.__name__, f"two of its types are called {name!r}")
            self.definitions[name] = _closed(definition)
        target = schema.get("$ref")
        if target == f"#/$defs/{kind.__name__}":
            return self.definitions[kind.__name__]
        return _closed(schema)


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
