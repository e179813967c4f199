"""Schemas that cannot be used are refused before anything is computed."""

import json
from typing import Any

import pytest

from talu.exceptions import SchemaValidationError, StructuredOutputError
from talu.structured.formats import format_of
from talu.structured.values import Regex

OPEN: dict[str, Any] = {"type": "object", "properties": {"a": {"$ref": "#"}}}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def holding_itself() -> dict[str, Any]:
    schema: dict[str, Any] = {}
    schema["items"] = schema
    return schema


REFUSED = {
    "deep": (nested(100), "nested deeper"),
    "holding itself": (holding_itself(), "nested deeper"),
    "a huge enum": ({"enum": list(range(20_000))}, "enum of 20,000 values"),
    "long": ({"const": "x" * 600_000}, "characters as JSON"),
    "many subschemas": ({"anyOf": [{}] * 30_000}, "subschemas"),
    "no JSON": ({"const": {1, 2}}, "plain JSON"),
    "a number that JSON lacks": ({"minimum": float("nan")}, "plain JSON"),
    "a reference to itself": ({"$ref": "#"}, "infinite"),
    "references in a circle": (
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        "infinite",
    ),
    "an endless object": ({**OPEN, "required": ["a"]}, "infinite"),
    "an endless array": ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "infinite"),
    "endless alternatives": ({"anyOf": [{**OPEN, "required": ["a"]}] * 2}, "infinite"),
    "doubling": (
        {
            "$ref": "#/$defs/40",
            "$defs": {
                "0": {"minimum": 1},
                **{
                    str(i): {"anyOf": [{"$ref": f"#/$defs/{i - 1}"}, {"$ref": f"#/$defs/{i - 1}"}]}
                    for i in range(1, 41)
                },
            },
        },
        "checks of one value",
    ),
    "a reference to nothing": ({"$ref": "#/$defs/a"}, "where nothing is"),
    "a reference to the net": ({"$ref": "http://example.com/a"}, "nothing is downloaded"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_schema_is_refused_that_is(name: str) -> None:
    schema, reason = REFUSED[name]
    with pytest.raises(StructuredOutputError, match=reason):
        format_of(schema)


@pytest.mark.parametrize(
    "schema",
    [
        OPEN,
        {"anyOf": [{"type": "null"}, {"$ref": "#"}]},
        {"type": "array", "items": {"$ref": "#"}},
        {**OPEN, "properties": {"a": {"anyOf": [{"$ref": "#"}, True]}}, "required": ["a"]},
        nested(50),
    ],
    ids=range(5),
)
def test_a_recursive_schema_with_finite_values_is_accepted(schema: dict[str, Any]) -> None:
    assert format_of(schema).schema == schema


def test_a_pattern_that_backtracks_is_checked_in_linear_time() -> None:
    text = "a" * 200 + "b"
    for form, answer in (
        (format_of({"type": "string", "pattern": "^(a+)+$"}), f'"{text}"'),
        (format_of(Regex("(a+)+")), text),
    ):
        with pytest.raises(SchemaValidationError):
            form.read(answer, "stop")


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("b", "abc", True),
        ("^b", "abc", False),
        ("^a\\nb$", "a\nb", True),
        ("é\\u0000?", "\u0001é\u0000", True),
        ("(?=a)a$", "ba", True),
        ("(?!a)b$", "c", False),
    ],
)
def test_a_pattern_may_match_anywhere(pattern: str, text: str, fits: bool) -> None:
    form = format_of({"type": "string", "pattern": pattern})
    try:
        assert form.read(json.dumps(text), "stop") == text
        found = True
    except SchemaValidationError:
        found = False
    assert found is fits


@pytest.mark.parametrize(
    "schema",
    [{"type": "strin"}, {"minLength": -1}, {"required": "a"}, {"pattern": "("}],
    ids=["type", "minLength", "required", "pattern"],
)
def test_a_schema_that_its_draft_does_not_allow_is_refused_by_its_check(
    schema: dict[str, Any],
) -> None:
    with pytest.raises(StructuredOutputError, match="is wrong at"):
        format_of(schema).check()
