"""Says which schemas OpenAI enforces. This module is pure.

https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from collections.abc import Mapping
from typing import Any

from talu.structured.references import reachable

__all__ = ["is_strict", "strict_problem"]

# Others exist that it refuses, also such as models take: they would be an error.
TAKEN = frozenset(
    {
        "$defs",
        "$ref",
        "additionalProperties",
        "anyOf",
        "const",
        "description",
        "enum",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "items",
        "maximum",
        "maxItems",
        "minimum",
        "minItems",
        "multipleOf",
        "pattern",
        "properties",
        "required",
        "title",
        "type",
    }
)
KINDS = ("$ref", "anyOf", "type")  # one of which every schema has to have


def strict_problem(schema: Mapping[str, Any]) -> str | None:
    """Why a schema is none that OpenAI enforces; None if it is one.

    It enforces an object whose objects are closed and have required properties only.
    """
    if schema.get("type") != "object" or "anyOf" in schema:
        return "its root is no object"
    for path, node in reachable(dict(schema)).items():
        if node.get("type") != "object" and "properties" not in node:
            continue
        if node.get("additionalProperties") is not False:
            return f"{path} allows additional properties"
        if {*node.get("properties", ())} - {*node.get("required", ())}:
            return f"{path} has properties that are not required"
    return None


def is_strict(parameters: Mapping[str, Any]) -> bool:
    """Whether the arguments of a tool can be enforced, so that asking for it is no error."""
    if strict_problem(parameters) is not None:
        return False
    nodes = reachable(dict(parameters)).values()
    return all(node.keys() <= TAKEN and any(kind in node for kind in KINDS) for node in nodes)
