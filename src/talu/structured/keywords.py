"""Knows the keywords of JSON Schema: where subschemas are, and what each is in which draft.

The drafts are 4, 6, 7, 2019-09 and 2020-12. A keyword that a draft does not have is an annotation
by the specification, except ``dependencies``: it is checked in all drafts, because schemas without
``$schema`` often have it, and mean what it was until draft 7.
"""

import re
from collections.abc import Iterator
from typing import Any, Literal, cast

__all__ = [
    "ANNOTATIONS",
    "ASSERTIONS",
    "DEFINITIONS",
    "DRAFTS",
    "GENERATED",
    "META_SCHEMAS",
    "Draft",
    "asserts",
    "declares_draft",
    "draft_of",
    "effective",
    "pointer",
    "subschemas",
]

Draft = Literal["4", "6", "7", "2019-09", "2020-12"]

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
DRAFT_4 = (GENERATED - {"const", "prefixItems"}) | {"dependencies", "not", "uniqueItems"}
DRAFT_6 = DRAFT_4 | {"const", "contains", "propertyNames"}
DRAFT_7 = DRAFT_6 | {"else", "if", "then"}
DRAFT_2019_09 = DRAFT_7 | {
    "$recursiveRef",
    "dependentRequired",
    "dependentSchemas",
    "maxContains",
    "minContains",
    "unevaluatedItems",
    "unevaluatedProperties",
}
DRAFT_2020_12 = (DRAFT_2019_09 - {"$recursiveRef", "additionalItems"}) | {
    "$dynamicRef",
    "prefixItems",
}
DRAFTS: dict[Draft, frozenset[str]] = {  # with the keywords that demand something
    "4": DRAFT_4,
    "6": DRAFT_6,
    "7": DRAFT_7,
    "2019-09": DRAFT_2019_09,
    "2020-12": DRAFT_2020_12,
}
ASSERTIONS = frozenset().union(*DRAFTS.values())
REFERENCE_ALONE = ("4", "6", "7")  # drafts in which nothing beside a reference counts
NEEDED = {  # keywords that demand nothing without one of others
    "else": ("if",),
    "if": ("then", "else"),
    "maxContains": ("contains",),
    "minContains": ("contains",),
    "then": ("if",),
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
META_SCHEMAS: dict[Draft, str] = {
    "4": "http://json-schema.org/draft-04/schema#",
    "6": "http://json-schema.org/draft-06/schema#",
    "7": "http://json-schema.org/draft-07/schema#",
    "2019-09": "https://json-schema.org/draft/2019-09/schema",
    "2020-12": "https://json-schema.org/draft/2020-12/schema",
}
META_SCHEMA = re.compile(
    "https?://json-schema[.]org/draft[-/](?P<name>[0-9-]+)/(?:hyper-)?schema#?"
)


def declares_draft(node: dict[str, Any]) -> bool:
    """Whether a schema names a draft by ``$schema``, and not a vocabulary of its own."""
    return META_SCHEMA.fullmatch(str(node.get("$schema"))) is not None


def draft_of(schema: dict[str, Any]) -> Draft:
    """The draft that a schema declares by ``$schema``, which counts for all of its subschemas.

    2020-12 if it declares none, or a vocabulary of its own.

    Raises:
        LookupError: it declares a draft that is not known.
    """
    found = META_SCHEMA.fullmatch(schema.get("$schema", ""))
    if found is None:
        return "2020-12"
    name = found["name"].removeprefix("0")
    if name not in DRAFTS:
        raise LookupError(name)
    return cast("Draft", name)


def asserts(node: dict[str, Any], key: str, draft: Draft) -> bool:
    """Whether a keyword of a schema demands anything, by the draft and what stands beside it."""
    if key not in DRAFTS[draft]:
        return False
    if draft in REFERENCE_ALONE and key != "$ref" and "$ref" in node:
        return False
    if key == "additionalItems":
        return isinstance(node.get("items"), list)
    return key not in NEEDED or any(other in node for other in NEEDED[key])


def effective(node: dict[str, Any], draft: Draft) -> dict[str, Any]:
    """The keywords of a schema that demand something."""
    return {key: value for key, value in node.items() if asserts(node, key, draft)}


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
