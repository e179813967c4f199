"""Schemas that cannot be used are refused before anything is computed."""

import json
import warnings
from typing import Any

import pytest

from talu import Client
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
    "a draft before 4": ({"$schema": "http://json-schema.org/draft-03/schema#"}, "known are 4,"),
    "a draft that is no text": ({"$schema": []}, "must be text"),
    "a reference to what is no schema": ({"$ref": "#/title", "title": "a"}, "no schema is"),
    "empty between limits": (
        {"type": "integer", "minimum": 5, "maximum": 3},
        "minimum is 5 and maximum is 3",
    ),
    "empty in what is required": (
        {
            **OPEN,
            "properties": {"a": {"type": "string", "minLength": 2, "maxLength": 1}},
            "required": ["a"],
        },
        "no value at '#/properties/a'",
    ),
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
        {"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#"}}]},
        {"type": "array", "items": {"$ref": "#"}},
        {"$dynamicAnchor": "a", "additionalProperties": {"$dynamicRef": "#a"}},
        {**OPEN, "properties": {"a": {"anyOf": [{"$ref": "#"}, True]}}, "required": ["a"]},
        nested(50),
        {**OPEN, "properties": {"a": {"type": "integer", "minimum": 5, "maximum": 3}}},
        {"minimum": 5, "maximum": 3},
    ],
    ids=range(8),
)
def test_a_recursive_schema_with_finite_values_is_accepted(schema: dict[str, Any]) -> None:
    assert format_of(schema).schema == schema


ITSELF = {"$ref": "#"}
CIRCLES: dict[str, dict[str, Any]] = {
    "a negation": {"not": ITSELF},
    "a condition": {"if": ITSELF, "then": True},
    "an alternative": {"anyOf": [{"type": "null"}, ITSELF]},
    "one of several": {"oneOf": [ITSELF, {"type": "null"}]},
    "a dependency": {"dependentSchemas": {"a": ITSELF}},
    "a dependency of older drafts": {"dependencies": {"a": ITSELF}},
    "a definition": {"$ref": "#/$defs/a", "$defs": {"a": {"not": {"$ref": "#/$defs/a"}}}},
    "a place of no keyword": {"$ref": "#/a", "a": {"not": {"$ref": "#/a"}}},
    "an anchor": {"$anchor": "a", "not": {"$ref": "#a"}},
    "a dynamic anchor": {"$dynamicAnchor": "a", "not": {"$dynamicRef": "#a"}},
    "an identifier": {"$id": "a.json", "not": {"$ref": "a.json"}},
    "a recursive reference": {
        "$schema": "https://json-schema.org/draft/2019-09/schema",
        "not": {"$recursiveRef": "#"},
    },
}


@pytest.mark.parametrize("name", CIRCLES)
def test_a_schema_is_refused_that_refers_back_to_itself_for_the_same_value_by(name: str) -> None:
    with pytest.raises(StructuredOutputError, match="back to itself for the same value"):
        format_of(CIRCLES[name])


def test_a_circle_by_relative_identifiers_is_an_answer_that_cannot_be_checked() -> None:
    form = format_of({"$id": "http://example.com/a.json", "not": {"$ref": "a.json"}})
    with pytest.raises(SchemaValidationError, match="too deeply to be checked"):
        form.read("2", "stop")


def test_what_stands_beside_a_reference_makes_no_circle_until_draft_7() -> None:
    schema = {"$ref": "#/definitions/a", "definitions": {"a": {}}, "not": ITSELF}
    form = format_of({"$schema": "http://json-schema.org/draft-07/schema#", **schema})
    assert form.read("2", "stop") == 2


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


WRONG: list[dict[str, Any]] = [
    {"type": "strin"},
    {"type": 5},
    {"type": [5]},
    {"type": ["string", None]},
    {"minLength": -1},
    {"required": "a"},
    {"required": True, "properties": {"a": {}}},
    {"properties": "a"},
    {"prefixItems": 5},
    {"anyOf": 5},
    {"allOf": True},
    {"pattern": "("},
    {"$ref": "#/a", "a": {"type": 5}},
]


@pytest.mark.parametrize(
    "schema",
    WRONG,
    ids=range(len(WRONG)),
)
def test_a_schema_that_its_draft_does_not_allow_is_refused_by_its_check(
    schema: dict[str, Any],
) -> None:
    with pytest.raises(StructuredOutputError, match="is wrong at"):
        format_of(schema).check()


@pytest.mark.parametrize("schema", WRONG, ids=range(len(WRONG)))
@pytest.mark.parametrize("strategy", ["typescript", "json_schema", None])
def test_a_wrong_schema_is_refused_by_the_call_however_it_is_explained(
    schema: dict[str, Any], strategy: str | None
) -> None:
    how: dict[str, Any] = {"schema_strategy": strategy} if strategy else {}
    with Client("talu/pocket") as client, pytest.raises(StructuredOutputError, match="is wrong at"):
        client.ask("Hi", response_format=schema, inject_schema_prompt=bool(strategy), **how)


@pytest.mark.parametrize("pattern", [r"^\p{L}+$", "(?<year>[0-9]{4})", "[[]", "a(?=b)"])
def test_a_pattern_that_rust_or_python_reads_is_valid(pattern: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Python warns of [[]
        format_of({"type": "string", "pattern": pattern}).check()
        form = format_of({"format": "regex"})
        assert form.read(json.dumps(pattern), "stop") == pattern


def test_a_pattern_that_nobody_reads_is_refused() -> None:
    with pytest.raises(StructuredOutputError, match="pattern"):
        format_of({"pattern": "(", "not": {}}).check()
