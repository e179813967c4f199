"""Knows the keywords of JSON Schema: where subschemas are, and what each keyword is.

The drafts are 4 to 2020-12. A keyword that no draft has is an annotation by the specification.
"""

from collections.abc import Iterator
from typing import Any

__all__ = [
    "ANNOTATIONS",
    "ASSERTIONS",
    "DEFINITIONS",
    "GENERATED",
    "pointer",
    "reachable",
    "resolved",
    "subschemas",
]

IN_LIST = ("allOf", "anyOf", "oneOf", "prefixItems")
IN_MAP = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
DIRECT = (
    "additionalItems",
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
)
DEFINITIONS = ("$defs", "definitions")

# What the grammar of an answer can hold; some with conditions, see ``engine/grammars.py``.
GENERATED = frozenset(
    {
        "$ref",
        "additionalItems",
        "additionalProperties",
        "allOf",
        "anyOf",
        "const",
        "enum",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "multipleOf",
        "oneOf",
        "pattern",
        "patternProperties",
        "prefixItems",
        "properties",
        "required",
        "type",
    }
)
ASSERTIONS = GENERATED | {
    "$dynamicRef",
    "$recursiveRef",
    "contains",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "else",
    "if",
    "maxContains",
    "minContains",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
}
ANNOTATIONS = frozenset(
    {
        "$anchor",
        "$comment",
        "$defs",
        "$dynamicAnchor",
        "$id",
        "$recursiveAnchor",
        "$schema",
        "$vocabulary",
        "contentEncoding",
        "contentMediaType",
        "contentSchema",
        "default",
        "definitions",
        "deprecated",
        "description",
        "discriminator",
        "example",
        "examples",
        "id",
        "readOnly",
        "title",
        "writeOnly",
    }
)


def pointer(path: str, *keys: object) -> str:
    """The JSON pointer of a place below another."""
    steps = [str(key).replace("~", "~0").replace("/", "~1") for key in keys]
    return "/".join([path, *steps])


def subschemas(schema: dict[str, Any]) -> Iterator[tuple[tuple[object, ...], Any]]:
    """The subschemas of a schema with their keys; those of definitions, too."""
    for key in IN_LIST:
        if isinstance(schema.get(key), list):
            yield from (((key, i), each) for i, each in enumerate(schema[key]))
    for key in IN_MAP:
        if isinstance(schema.get(key), dict):
            yield from (((key, name), each) for name, each in schema[key].items())
    for key in DIRECT:
        value = schema.get(key)
        if key == "items" and isinstance(value, list):  # before draft 2020-12
            yield from (((key, i), each) for i, each in enumerate(value))
        elif isinstance(value, dict | bool):
            yield (key,), value
    dependencies = schema.get("dependencies")
    if isinstance(dependencies, dict):
        for name, each in dependencies.items():
            if isinstance(each, dict | bool):
                yield ("dependencies", name), each


def resolved(root: Any, reference: str) -> Any:
    """What a reference such as ``#/$defs/name`` refers to.

    Raises:
        LookupError: there is nothing at this place.
    """
    found = root
    for step in reference.removeprefix("#").split("/")[1:]:
        key = _unquoted(step).replace("~1", "/").replace("~0", "~")
        found = found[int(key)] if isinstance(found, list) and key.isdigit() else found[key]
    return found


def _has_names(root: dict[str, Any]) -> bool:
    """Whether a reference is by another name than a place, so that any definition may be meant."""
    waiting: list[Any] = [root]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, dict):
            continue
        for key in ("$ref", "$dynamicRef", "$recursiveRef"):
            name = node.get(key)
            if isinstance(name, str) and name != "#" and not name.startswith("#/"):
                return True
        waiting += [each for _, each in subschemas(node)]
    return False


def _unquoted(step: str) -> str:
    """A step of a pointer without the percent encoding of URIs."""
    if "%" not in step:
        return step
    parts = step.split("%")
    encoded = bytearray(parts[0].encode())
    for part in parts[1:]:
        try:
            encoded += bytes([int(part[:2], 16)]) + part[2:].encode()
        except ValueError:
            encoded += b"%" + part.encode()
    return encoded.decode("utf-8", "replace")


def reachable(root: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The schemas that take part in a check, by their pointers; each definition once."""
    found: dict[str, dict[str, Any]] = {}
    waiting: list[tuple[str, Any]] = [("#", root)]
    every = _has_names(root)
    while waiting:
        path, node = waiting.pop()
        if not isinstance(node, dict) or path in found:
            continue
        found[path] = node
        waiting += [
            (pointer(path, *keys), each)
            for keys, each in subschemas(node)
            if every or keys[0] not in DEFINITIONS
        ]
        reference = node.get("$ref")
        if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
            waiting.append((reference, resolved(root, reference)))
    return found
