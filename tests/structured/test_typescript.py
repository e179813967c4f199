"""Schemas as TypeScript types."""

import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from talu.structured.formats import format_of
from talu.structured.keywords import ASSERTIONS, META_SCHEMAS
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
        {"$schema": META_SCHEMAS["7"], "items": [{"const": 1}], "additionalItems": {"const": 2}},
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
    "a reference to a name": (
        {"$ref": "#a", "$defs": {"b": {"$anchor": "a", "type": "string"}}},
        "type a = string;\na",
    ),
    "limits of items": (
        {"type": "array", "items": {"type": "integer", "maximum": 5, "description": "score"}},
        "(/* score; integer; at most 5 */ number)[]",
    ),
    "limits of an alternative": (
        {"anyOf": [{"type": "string", "maxLength": 3}, {"type": "null"}]},
        "/* at most 3 characters */ string | null",
    ),
    "described options": (
        {"oneOf": [{"const": 1, "description": "a */ b"}, {"const": 2}]},
        "/* a * / b */ 1 | 2",
    ),
    "limits of a place": (
        {"type": "array", "prefixItems": [{"type": "string", "pattern": "a"}], "items": False},
        "[/* matches /a/ */ string]",
    ),
    "alternatives beside properties": (
        {
            "type": "object",
            "properties": {"a": {"type": "string"}},
            "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
        },
        "{\n  a?: string;\n} & ({\n  a: unknown;\n} | {\n  b: unknown;\n})",
    ),
    "more properties": (
        {
            "properties": {"a": {"type": "string"}},
            "allOf": [{"properties": {"b": {"const": 1}}, "required": ["b"]}],
        },
        "{\n  a?: string;\n} & {\n  b: 1;\n}",
    ),
    "a kind of alternatives": (
        {"type": "object", "anyOf": [{"properties": {"a": True}}, {"properties": {"b": True}}]},
        "{\n  a?: unknown;\n} | {\n  b?: unknown;\n}",
    ),
    "more than a reference": (
        {"$ref": "#/$defs/a", "required": ["b"], "$defs": {"a": {"properties": {"a": True}}}},
        "type a = {\n  a?: unknown;\n};\na & {\n  b: unknown;\n}",
    ),
    "a reference alone until draft 7": (
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "$ref": "#/definitions/a",
            "minimum": 3,
            "definitions": {"a": {"type": "number"}},
        },
        "type a = number;\na",
    ),
    "a property that is required only": ({"required": ["a"]}, "{\n  a: unknown;\n}"),
    "keys of a pattern": (
        {"patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": False},
        "{\n  // keys that match /^x/; integer\n  [key: string]: number;\n}",
    ),
    "lines in a pattern": (
        {"type": "string", "pattern": "a\nb", "description": "x\u2028y"},
        "// x y; matches /a\\nb/\nstring",
    ),
    "a vertical bar in an option": ({"items": {"const": "a | b"}}, '"a | b"[]'),
    "definitions with the names of types": (
        {
            "anyOf": [{"$ref": "#/$defs/number"}, {"$ref": "#/$defs/3d"}],
            "$defs": {"number": {"type": "string"}, "3d": {"type": "null"}},
        },
        "type number_2 = string;\ntype _3d = null;\nnumber_2 | _3d",
    ),
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


WRONG: list[Any] = [5, "a", None, True, [], {}, [5], ["a"], {"a": 5}, {"a": None}]


@pytest.mark.parametrize("key", sorted(ASSERTIONS - {"$ref"}))
def test_any_value_of_a_keyword_is_written_or_left_out(key: str) -> None:
    for value in WRONG:
        assert typescript({"properties": {"a": {key: value}}, key: value})


def test_many_references_with_one_name_are_written_in_time() -> None:
    names = range(3000)
    schema = {
        "$defs": {f"g{i}": {"properties": {"id": {"maximum": i}}} for i in names},
        "prefixItems": [{"$ref": f"#/$defs/g{i}/properties/id"} for i in names],
    }
    start = time.perf_counter()
    assert "type id_3000 = unknown;" in typescript(schema)
    assert time.perf_counter() - start < 5  # it would be minutes
