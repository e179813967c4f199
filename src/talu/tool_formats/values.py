"""Writes rules for values that are neither JSON nor plain text, from their schemas."""

import json
from collections.abc import Mapping
from typing import Any

from talu.tool_formats.rules import Rules, Schema
from talu.tool_formats.schemas import JSON_TYPES, resolved, types_of

__all__ = ["GemmaValues", "python_value_rule"]

SCALARS = {"integer", "number", "boolean", "null"}
KEY_NAME = "/[A-Za-z_][A-Za-z0-9_]{0,63}/"
MOST_ITEMS = 64
SINGLE_QUOTED = r"/'[^'\\\x00-\x1f]*'/"
LIMITS = frozenset(("minLength", "maxLength", "pattern", "format", "allOf", "anyOf", "oneOf"))


def python_value_rule(rules: Rules, schema: Schema, root: Schema) -> str:
    """A value of a keyword argument: JSON, or as Python writes it."""
    types, plain = types_of(schema, root), resolved(schema, root)
    options = [rules.value(schema, root)]
    values = [plain["const"]] if "const" in plain else plain.get("enum")
    if isinstance(values, list):
        options += [json.dumps(repr(each)) for each in values if _is_plain(each)]
    elif types <= {"boolean", "null"}:
        options += ['"None"'] * ("null" in types)
        options += ['"True"', '"False"'] * ("boolean" in types)
    elif types == {"string"} and LIMITS.isdisjoint(plain):
        options.append(rules.add(SINGLE_QUOTED, terminal=True))
    return f"({' | '.join(dict.fromkeys(options))})"


def _is_plain(value: object) -> bool:
    """Whether Python writes it without escapes."""
    return (
        value is None
        or isinstance(value, bool)
        or (isinstance(value, str) and repr(value) == f"'{value}'")
    )


class GemmaValues:
    """Rules for values in Gemma's notation: keys without quotes, strings between tokens."""

    def __init__(self, rules: Rules, root: Schema, quote: str) -> None:
        """Prepare for the arguments of one tool.

        Args:
            rules: where rules are added.
            root: the schema of the arguments.
            quote: the text around strings.
        """
        self._rules = rules
        self._root = root
        self._quote = quote
        self._known: dict[str, str] = {}

    def object(self, schema: Schema) -> str:
        """An object, with its braces."""
        schema = resolved(schema, self._root)
        properties = schema.get("properties")
        if not isinstance(properties, Mapping) or not properties:
            if schema.get("additionalProperties") is False or properties == {}:
                return '"{" "}"'
            member = self._rules.add(f'{KEY_NAME} ":" {self.value({})}')
            return f'"{{" ({member} ("," {member})*)? "}}"'
        required = schema.get("required") or ()
        items = [(f"{key}:", self.value(each), key in required) for key, each in properties.items()]
        return f'"{{" {self._rules.in_order(items, ",")} "}}"'

    def value(self, schema: Any) -> str:
        """The name of the rule for a value."""
        schema = resolved(schema, self._root)
        key = json.dumps(schema, sort_keys=True)
        if key not in self._known:
            name = self._known[key] = self._rules.reserve()
            self._rules.define(name, " | ".join(self._alternatives(schema)) or '""')
        return self._known[key]

    def _alternatives(self, schema: Schema) -> list[str]:
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        if isinstance(values, list):
            return [self._constant(each) for each in values]
        for key in ("anyOf", "oneOf"):
            if isinstance(schema.get(key), list):
                return [self.value(each) for each in schema[key]]
        types = types_of(schema, self._root)
        found = []
        if "string" in types:
            string = self._rules.string(schema, self._root, self._quote)
            found.append(f"{self._rules.literal(self._quote)} {string}")
        if "array" in types:
            found.append(self._array(schema))
        if "object" in types:
            found.append(self.object(schema))
        scalars = types & SCALARS
        if scalars:
            scalar: dict[str, Any] = {"type": sorted(scalars)}
            if types < JSON_TYPES:
                scalar = {"allOf": [schema, scalar]}
            found.append(self._rules.value(scalar, self._root))
        return found

    def _array(self, schema: Schema) -> str:
        item = self.value(schema.get("items") or {})
        least, most = schema.get("minItems") or 0, schema.get("maxItems")
        least = min(int(least), MOST_ITEMS)
        if most is not None and most <= 0:
            return '"[" "]"'
        more = f'("," {item})*'
        if least > 1 or most is not None:
            limit = "" if most is None else str(max(least, min(int(most), MOST_ITEMS)) - 1)
            more = f'("," {item}){{{max(0, least - 1)},{limit}}}'
        items = f"{item} {more}"
        return f'"[" {items} "]"' if least else f'"[" ({items})? "]"'

    def _constant(self, value: Any) -> str:
        if isinstance(value, str):
            return self._rules.literal(self._quote + value + self._quote)
        return json.dumps(json.dumps(value))
