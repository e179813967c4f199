"""Reads the schemas of arguments: which types they may have, and what limits a string."""

from collections.abc import Mapping
from typing import Any

__all__ = ["JSON_TYPES", "Types", "parameters_of", "resolved", "type_of", "types_of"]

JSON_TYPES = frozenset(
    ("array", "boolean", "integer", "null", "number", "object", "string"),
)
DEEPEST = 8  # references and alternatives that are followed

Schema = Mapping[str, Any]


def parameters_of(tool: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a tool's arguments, from an OpenAI-style definition.

    Arguments that it does not name are forbidden, unless it says that they are allowed: a model
    would invent some.
    """
    function = tool.get("function", tool)
    schema = function.get("parameters")
    if not isinstance(schema, Mapping) or not schema:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    closed = {} if "additionalProperties" in schema else {"additionalProperties": False}
    if "properties" not in schema or "patternProperties" in schema or "$ref" in schema:
        closed = {}
    return {"type": "object", **schema, **closed}


class Types:
    """The types of the arguments of one tool."""

    def __init__(self, parameters: Schema | None) -> None:
        """Read the schema of its arguments; None if it is not known."""
        self._root = parameters or {}
        found = self._root.get("properties")
        self._properties = found if isinstance(found, dict) else {}

    def of(self, key: str) -> frozenset[str]:
        """The JSON types that an argument may have; all if nothing is said."""
        return types_of(self._properties.get(key, {}), self._root)


def resolved(schema: Any, root: Schema) -> Schema:
    """A schema, or the one that it refers to; empty if it is none."""
    for _ in range(DEEPEST):
        if not isinstance(schema, Mapping):
            return {}
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#"):
            return schema
        found: Any = root
        for step in filter(None, reference[1:].split("/")):
            step = step.replace("~1", "/").replace("~0", "~")
            found = found.get(step) if isinstance(found, Mapping) else None
        schema = found
    return {}


def types_of(schema: Any, root: Schema, depth: int = 0) -> frozenset[str]:
    """The JSON types that a schema allows, as far as it says it plainly."""
    schema = resolved(schema, root)
    found = JSON_TYPES
    named = schema.get("type")
    if isinstance(named, str):
        named = [named]
    if isinstance(named, list):
        found &= {each for each in named if isinstance(each, str)}
        found |= {"integer"} if "number" in found else set()
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list):
        found &= frozenset().union(*map(type_of, values))
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list) and depth < DEEPEST:
            found &= frozenset().union(*(types_of(each, root, depth + 1) for each in schema[key]))
    for each in schema.get("allOf") or ():
        if depth < DEEPEST:
            found &= types_of(each, root, depth + 1)
    return found


def type_of(value: object) -> frozenset[str]:
    """The JSON types that a value has."""
    match value:
        case None:
            return frozenset({"null"})
        case bool():
            return frozenset({"boolean"})
        case int():
            return frozenset({"integer", "number"})
        case float():
            return frozenset({"number"})
        case str():
            return frozenset({"string"})
        case list():
            return frozenset({"array"})
    return frozenset({"object"})
