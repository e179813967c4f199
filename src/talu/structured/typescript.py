"""Writes JSON Schemas as TypeScript types, which language models read well and which are short."""

import json
import re
from typing import Any

from talu.structured.keywords import DEFINITIONS
from talu.structured.references import resolved

__all__ = ["typescript"]

Schema = dict[str, Any]
INDENT = "  "
IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
SCALARS = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean"}
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
        schema: a valid schema. References to definitions become names of types, which are declared
            first; other references are ``unknown``.
    """
    writer = _Writer(schema)
    whole = writer.type_of(schema, 0)
    declared = writer.declarations()
    if (name := writer.name_of(schema)) is not None:
        return "\n".join([*declared, name])
    return "\n".join([*declared, _comment(schema) + whole])


class _Writer:
    def __init__(self, root: Schema | bool) -> None:
        self._root = root
        self._names: dict[str, str] = {}  # of the types, by reference
        self._open: list[str] = []  # references that have no declaration yet

    def declarations(self) -> list[str]:
        """A declaration for each type that was named."""
        found = []
        while self._open:
            reference = self._open.pop(0)
            node = resolved(self._root, reference)
            name = self._names[reference]
            found.append(f"{_comment(node)}type {name} = {self.type_of(node, 0)};")
        return found

    def name_of(self, schema: Schema | bool) -> str | None:
        """The name of a declared type that is the same, because it contains itself."""
        if not isinstance(schema, dict):
            return None
        own = {key: each for key, each in schema.items() if key not in DEFINITIONS}
        same = (n for ref, n in self._names.items() if resolved(self._root, ref) == own)
        return next(same, None)

    def type_of(self, schema: Schema | bool, depth: int) -> str:
        """The type of a schema, whose lines after the first are indented."""
        if not isinstance(schema, dict):
            return "unknown" if schema else "never"
        if "$ref" in schema:
            return self._name(schema["$ref"])
        if "const" in schema:
            return _literal(schema["const"])
        if isinstance(schema.get("enum"), list):
            return " | ".join(map(_literal, schema["enum"])) or "never"
        for key, sign in (("anyOf", " | "), ("oneOf", " | "), ("allOf", " & ")):
            if schema.get(key):
                parts = [self.type_of(each, depth) for each in schema[key]]
                return sign.join(dict.fromkeys(_grouped(p) if sign == " & " else p for p in parts))
        kinds = schema.get("type")
        kinds = [kinds] if isinstance(kinds, str) else kinds or [_implied(schema)]
        return " | ".join(dict.fromkeys(self._of_kind(kind, schema, depth) for kind in kinds))

    def _of_kind(self, kind: str, schema: Schema, depth: int) -> str:
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
        return SCALARS.get(kind, kind)

    def _object(self, schema: Schema, depth: int) -> str:
        inner = INDENT * (depth + 1)
        required = schema.get("required") or ()
        lines = []
        for name, node in (schema.get("properties") or {}).items():
            if about := _about(node):
                lines.append(f"{inner}// {about}")
            key = name if IDENTIFIER.fullmatch(name) else json.dumps(name, ensure_ascii=False)
            optional = "" if name in required else "?"
            lines.append(f"{inner}{key}{optional}: {self.type_of(node, depth + 1)};")
        others = schema.get("additionalProperties", not lines)
        if others is not False:
            lines.append(f"{inner}[key: string]: {self.type_of(others, depth + 1)};")
        return "\n".join(["{", *lines, INDENT * depth + "}"]) if lines else "{}"

    def _array(self, schema: Schema, depth: int) -> str:
        items, places = schema.get("items", True), schema.get("prefixItems")
        if isinstance(items, list):  # before draft 2020-12
            items, places = schema.get("additionalItems", True), items
        if not places:
            return f"{_grouped(self.type_of(items, depth))}[]"
        types = [self.type_of(each, depth) for each in places]
        if items is not False and schema.get("maxItems") != len(places):
            types.append(f"...{_grouped(self.type_of(items, depth))}[]")
        return f"[{', '.join(types)}]"

    def _name(self, reference: object) -> str:
        """The name of the type that a reference means; its declaration follows."""
        if not isinstance(reference, str) or not re.match("#(/|$)", reference):
            return "unknown"
        if reference not in self._names:
            wanted = re.sub(r"\W", "_", reference.rsplit("/", 1)[-1].lstrip("#")) or "Root"
            name, number = wanted, 2
            while name in self._names.values():
                name, number = f"{wanted}_{number}", number + 1
            self._names[reference] = name
            self._open.append(reference)
        return self._names[reference]


def _implied(schema: Schema) -> str:
    """The type that keywords are for, if a schema names none."""
    if schema.get("properties") or "additionalProperties" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else "unknown"


def _literal(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _grouped(text: str) -> str:
    """A type that can stand before ``[]`` or ``&``."""
    is_group = text.endswith("}") and text.startswith("{") and "\n}" not in text[:-1]
    return f"({text})" if " | " in text and not is_group else text


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
    return "; ".join(said)
