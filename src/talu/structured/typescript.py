"""Writes JSON Schemas as TypeScript types, which language models read well and which are short."""

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from talu.structured.keywords import ASSERTIONS, DEFINITIONS, draft_of, effective
from talu.structured.references import References, reachable

__all__ = ["typescript"]

Schema = dict[str, Any]
INDENT = "  "
IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029]")
SCALARS = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean"}
TAKEN = ("any", "boolean", "never", "null", "number", "object", "string", "type", "unknown", "void")
OF_OBJECTS = ("properties", "patternProperties", "required", "additionalProperties")
OF_ARRAYS = ("items", "prefixItems")
ABOUT = {  # what a type does not say, in the words of a comment
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "minProperties": "at least {} properties",
    "maxProperties": "at most {} properties",
    "pattern": "matches /{}/",
    "format": "format: {}",
}


def typescript(schema: Schema | bool) -> str:
    """The type of the values that a schema allows; what types cannot say is in comments.

    Args:
        schema: any schema; what is not valid in it is left out. References within it become names
            of types, which are declared first; other references are ``unknown``.
    """
    schema = _in_effect(schema)
    writer = _Writer(schema)
    whole = writer.type_of(schema, 0)
    declared = writer.declarations()
    if (name := writer.name_of(schema)) is not None:
        return "\n".join([*declared, name])
    return "\n".join([*declared, _comment(schema) + whole.text])


def _in_effect(schema: Schema | bool) -> Schema | bool:
    """The schema without the keywords that demand nothing, such as those beside a reference."""
    if not isinstance(schema, dict):
        return schema
    copy: Schema = json.loads(json.dumps(schema))
    draft = draft_of(copy)
    for node in reachable(copy).values():
        for key in node.keys() & ASSERTIONS - effective(node, draft).keys():
            del node[key]
    return copy


class _Type(NamedTuple):
    """A type, whose lines after the first are indented.

    Attributes:
        text: it.
        binding: how loosely its parts are bound: 0 for one part, 1 for ``&`` or a comment before
            it, 2 for ``|``.
    """

    text: str
    binding: int = 0

    def within(self, binding: int) -> str:
        """The type as a part of one that is bound so."""
        return f"({self.text})" if self.binding > binding else self.text


UNKNOWN, NEVER = _Type("unknown"), _Type("never")


class _Writer:
    def __init__(self, root: Schema | bool) -> None:
        schema = root if isinstance(root, dict) else {}
        self._references = References(schema, reachable(schema).values())
        self._nodes: dict[str, Schema | bool] = {}  # of the types, by reference
        self._names: dict[str, str] = {}
        self._numbers = dict.fromkeys(TAKEN, 1)  # how many types want a name
        self._open: deque[str] = deque()  # references that have no declaration yet

    def declarations(self) -> list[str]:
        """A declaration for each type that was named."""
        found = []
        while self._open:
            reference = self._open.popleft()
            node = self._nodes[reference]
            type_ = self.type_of(node, 0).text
            found.append(f"{_comment(node)}type {self._names[reference]} = {type_};")
        return found

    def name_of(self, schema: Schema | bool) -> str | None:
        """The name of a declared type that is the same, because it contains itself."""
        if not isinstance(schema, dict):
            return None
        own = {key: each for key, each in schema.items() if key not in DEFINITIONS}
        same = (self._names[ref] for ref, node in self._nodes.items() if node in (own, schema))
        return next(same, None)

    def type_of(self, schema: Schema | bool, depth: int) -> _Type:
        """The type of a schema: all that its keywords demand, at once."""
        if not isinstance(schema, dict):
            return NEVER if schema is False else UNKNOWN
        parts = [each for each in self._parts(schema, depth) if each != UNKNOWN]
        parts = list(dict.fromkeys(parts))
        if len(parts) < 2:
            return parts[0] if parts else UNKNOWN
        return _Type(" & ".join(part.within(1) for part in parts), 1)

    def _parts(self, schema: Schema, depth: int) -> Iterator[_Type]:
        if isinstance(schema.get("$ref"), str):
            yield self._named(schema)
        if "const" in schema:
            yield _literal(schema["const"])
        elif "enum" in schema:
            yield _union(map(_literal, _list(schema, "enum")))
        else:
            yield self._of_kinds(schema, depth)
        for each in _list(schema, "allOf"):
            yield self._commented(each, depth)
        for key in ("anyOf", "oneOf"):
            if options := _list(schema, key):
                yield _union(self._commented(each, depth) for each in options)

    def _of_kinds(self, schema: Schema, depth: int) -> _Type:
        """What ``type`` and the keywords of objects and arrays say."""
        kinds = schema.get("type")
        kinds = kinds if isinstance(kinds, list) else [kinds]
        known = [kind for kind in kinds if isinstance(kind, str)] or [_implied(schema)]
        if known in (["object"], ["array"]) and _is_told_elsewhere(schema):
            return UNKNOWN
        return _union(self._of_kind(kind, schema, depth) for kind in known)

    def _of_kind(self, kind: str, schema: Schema, depth: int) -> _Type:
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
        return _Type(SCALARS.get(kind, kind))

    def _object(self, schema: Schema, depth: int) -> _Type:
        inner = INDENT * (depth + 1)
        properties, required = _map(schema, "properties"), _list(schema, "required")
        unlisted = {name: True for name in required if isinstance(name, str)}
        lines = []
        for name, node in (properties | {n: True for n in unlisted if n not in properties}).items():
            if about := _about(node):
                lines.append(f"{inner}// {about}")
            key = name if IDENTIFIER.fullmatch(name) else json.dumps(name, ensure_ascii=False)
            optional = "" if name in unlisted else "?"
            lines.append(f"{inner}{key}{optional}: {self.type_of(node, depth + 1).text};")
        for pattern, node in _map(schema, "patternProperties").items():
            about = "; ".join(
                filter(None, [f"keys that match /{_visible(pattern)}/", _about(node)])
            )
            lines.append(f"{inner}// {about}")
            lines.append(f"{inner}[key: string]: {self.type_of(node, depth + 1).text};")
        others = schema.get("additionalProperties", not lines)
        if others is not False:
            if about := _about(others):
                lines.append(f"{inner}// {about}")
            lines.append(f"{inner}[key: string]: {self.type_of(others, depth + 1).text};")
        return _Type("\n".join(["{", *lines, INDENT * depth + "}"]) if lines else "{}")

    def _array(self, schema: Schema, depth: int) -> _Type:
        items, places = schema.get("items", True), _list(schema, "prefixItems")
        if isinstance(items, list):  # before draft 2020-12
            items, places = schema.get("additionalItems", True), items
        rest = f"{self._commented(items, depth).within(0)}[]"
        if not places:
            return _Type(rest)
        types = [self._commented(each, depth).text for each in places]
        if items is not False and schema.get("maxItems") != len(places):
            types.append(f"...{rest}")
        return _Type(f"[{', '.join(types)}]")

    def _commented(self, schema: Schema | bool, depth: int) -> _Type:
        """The type of a schema that has no line of its own, after a comment."""
        type_, about = self.type_of(schema, depth), _about(schema)
        if not about:
            return type_
        about = about.replace("*/", "* /")
        return _Type(f"/* {about} */ {type_.within(1)}", 1)

    def _named(self, schema: Schema) -> _Type:
        """The name of the type that a reference means; its declaration follows."""
        reference = schema["$ref"]
        if reference not in self._names:
            node = self._references.target(reference)
            if not isinstance(node, dict | bool):
                return UNKNOWN
            self._names[reference] = self._new_name(reference)
            self._nodes[reference] = node
            self._open.append(reference)
        return _Type(self._names[reference])

    def _new_name(self, reference: str) -> str:
        wanted = re.sub(r"\W", "_", reference.rsplit("/", 1)[-1].lstrip("#")) or "Root"
        wanted = f"_{wanted}" if wanted[0].isdigit() else wanted
        name = wanted
        while name in self._numbers:
            self._numbers[wanted] += 1
            name = f"{wanted}_{self._numbers[wanted]}"
        self._numbers[name] = 1
        return name


def _list(schema: Schema, key: str) -> list[Any]:
    value = schema.get(key)
    return value if isinstance(value, list) else []


def _map(schema: Schema, key: str) -> dict[str, Any]:
    value = schema.get(key)
    return value if isinstance(value, dict) else {}


def _implied(schema: Schema) -> str:
    """The type that keywords are for, if a schema names none."""
    if any(key in schema for key in OF_OBJECTS):
        return "object"
    return "array" if any(key in schema for key in OF_ARRAYS) else "unknown"


def _is_told_elsewhere(schema: Schema) -> bool:
    """Whether a schema leaves to others what its objects, or its arrays, contain."""
    others = any(key in schema for key in ("$ref", "allOf", "anyOf", "oneOf"))
    return others and not any(key in schema for key in (*OF_OBJECTS, *OF_ARRAYS))


def _union(types: Iterable[_Type]) -> _Type:
    options = list(dict.fromkeys(types))
    if len(options) < 2:
        return options[0] if options else NEVER
    return UNKNOWN if UNKNOWN in options else _Type(" | ".join(each.text for each in options), 2)


def _literal(value: object) -> _Type:
    return _Type(json.dumps(value, ensure_ascii=False))


def _comment(schema: Schema | bool) -> str:
    """A line before a type, with its end; "" if there is nothing to say."""
    about = _about(schema)
    return f"// {about}\n" if about else ""


def _about(schema: Schema | bool) -> str:
    """What a comment says of a schema: its description, and what its type does not say."""
    if not isinstance(schema, dict):
        return ""
    said = [" ".join(str(schema["description"]).split())] if schema.get("description") else []
    kinds = schema.get("type")
    if kinds == "integer" or (isinstance(kinds, list) and "integer" in kinds):
        said.append("integer")
    said += [text.format(schema[key]) for key, text in ABOUT.items() if key in schema]
    if schema.get("uniqueItems") is True:
        said.append("no item twice")
    return _visible("; ".join(said))


def _visible(text: str) -> str:
    """The text on one line, with escapes for line ends and control characters."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
