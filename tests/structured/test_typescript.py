"""Schemas as TypeScript types."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from talu.structured.formats import format_of
from talu.structured.typescript import typescript

ROWS: dict[str, tuple[Any, str]] = {
    "anything": (True, "unknown"),
    "nothing": (False, "never"),
    "text": ({"type": "string"}, "string"),
    "a whole number": ({"type": "integer"}, "// integer\nnumber"),
    "several types": ({"type": ["string", "null"]}, "string | null"),
    "an enum": ({"enum": ["a", 1, None, "é"]}, '"a" | 1 | null | "é"'),
    "a constant": ({"const": {"a": [1]}}, '{"a": [1]}'),
    "a list": ({"type": "array", "items": {"type": "string"}}, "string[]"),
    "a list of anything": ({"type": "array"}, "unknown[]"),
    "a list of a union": ({"type": "array", "items": {"enum": [1, 2]}}, "(1 | 2)[]"),
    "a tuple": (
        {"prefixItems": [{"type": "string"}, {"type": "number"}], "items": False},
        "[string, number]",
    ),
    "an open tuple": ({"type": "array", "prefixItems": [{"const": 1}]}, "[1, ...unknown[]]"),
    "a tuple of older drafts": (
        {"type": "array", "items": [{"const": 1}], "additionalItems": {"const": 2}},
        "[1, ...2[]]",
    ),
    "an object": (
        {
            "type": "object",
            "properties": {"a": {"type": "string"}, "b c": {}},
            "required": ["a"],
            "additionalProperties": False,
        },
        '{\n  a: string;\n  "b c"?: unknown;\n}',
    ),
    "a dictionary": (
        {"type": "object", "additionalProperties": {"type": "number"}},
        "{\n  [key: string]: number;\n}",
    ),
    "an object without properties": (
        {"type": "object", "additionalProperties": False},
        "{}",
    ),
    "a nested object": (
        {"properties": {"a": {"properties": {"b": {"type": "null"}}}}},
        "{\n  a?: {\n    b?: null;\n  };\n}",
    ),
    "alternatives": ({"oneOf": [{"const": 1}, {"const": 2}, {"const": 1}]}, "1 | 2"),
    "all at once": (
        {"allOf": [{"properties": {"a": {}}}, {"anyOf": [{"type": "string"}, {"const": 1}]}]},
        "{\n  a?: unknown;\n} & (string | 1)",
    ),
    "what types do not say": (
        {"type": "integer", "description": "the\nage ", "minimum": 1, "multipleOf": 2},
        "// the age; integer; at least 1; a multiple of 2\nnumber",
    ),
    "a pattern": ({"type": "string", "pattern": "^a+$"}, "// matches /^a+$/\nstring"),
    "a reference": (
        {"$ref": "#/$defs/a-b", "$defs": {"a-b": {"description": "x", "type": "string"}}},
        "// x\ntype a_b = string;\na_b",
    ),
    "a reference to nowhere in it": ({"$ref": "https://example.com/a"}, "unknown"),
    "two definitions of one name": (
        {
            "anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/definitions/a"}],
            "$defs": {"a": {"const": 1}},
            "definitions": {"a": {"const": 2}},
        },
        "type a = 1;\ntype a_2 = 2;\na | a_2",
    ),
}


@pytest.mark.parametrize(("schema", "text"), ROWS.values(), ids=ROWS)
def test_a_schema_is_written_as_a_type(schema: Any, text: str) -> None:
    assert typescript(schema) == text


@dataclass
class Person:
    name: str
    age: Annotated[int, "in years"]
    kind: Literal["a", "b"]
    parent: "Person | None" = None


def test_a_type_that_contains_itself_is_declared_once() -> None:
    assert typescript(format_of(Person).schema or {}) == (
        "type Person = {\n  name: string;\n  // in years; integer\n  age: number;\n"
        '  kind: "a" | "b";\n  parent?: Person | null;\n};\nPerson'
    )


def test_a_reference_to_the_whole_schema_is_declared() -> None:
    schema = {"properties": {"next": {"$ref": "#"}}}
    assert typescript(schema) == "type Root = {\n  next?: Root;\n};\nRoot"
