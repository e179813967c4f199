"""A schema means what its draft says, in grammars, checks and reports."""

import time
from typing import Any

import pytest

from talu import Client, SchemaValidationError
from talu.structured.formats import format_of
from talu.structured.keywords import DRAFTS, META_SCHEMAS, Draft

ONE = {"required": ["a"]}
KEYWORDS: dict[str, tuple[dict[str, Any], str, set[Draft]]] = {  # keyword, a violation, its drafts
    "additionalItems": ({"items": [{}], "additionalItems": False}, "[1, 2]", {"4", "6", "7"}),
    "const": ({"const": 1}, "2", {"6", "7", "2019-09", "2020-12"}),
    "contains": ({"contains": {"type": "null"}}, "[1]", {"6", "7", "2019-09", "2020-12"}),
    "dependencies": ({"dependencies": {"b": ["a"]}}, '{"b": 1}', {*DRAFTS}),
    "dependencies of a schema": ({"dependencies": {"b": ONE}}, '{"b": 1}', {*DRAFTS}),
    "dependentRequired": (
        {"dependentRequired": {"b": ["a"]}},
        '{"b": 1}',
        {"2019-09", "2020-12"},
    ),
    "dependentSchemas": ({"dependentSchemas": {"b": ONE}}, '{"b": 1}', {"2019-09", "2020-12"}),
    "if": ({"if": {}, "then": False}, "1", {"7", "2019-09", "2020-12"}),
    "maxContains": ({"contains": {}, "maxContains": 1}, "[1, 2]", {"2019-09", "2020-12"}),
    "not": ({"not": {}}, "1", {*DRAFTS}),
    "prefixItems": ({"prefixItems": [False]}, "[1]", {"2020-12"}),
    "propertyNames": (
        {"propertyNames": {"maxLength": 1}},
        '{"ab": 1}',
        {"6", "7", "2019-09", "2020-12"},
    ),
    "unevaluatedItems": ({"unevaluatedItems": False}, "[1]", {"2019-09", "2020-12"}),
    "unevaluatedProperties": ({"unevaluatedProperties": False}, '{"a": 1}', {"2019-09", "2020-12"}),
    "uniqueItems": ({"uniqueItems": True}, "[1, 1]", {*DRAFTS}),
}
ALONE = ("additionalItems", "else", "if", "maxContains", "minContains", "then")


def is_accepted(schema: dict[str, Any], text: str) -> bool:
    try:
        format_of(schema).read(text, "stop")
    except SchemaValidationError:
        return False
    return True


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("name", KEYWORDS)
def test_a_keyword_is_checked_in_the_drafts_that_have_it_and_reported_as_ignored_in_others(
    name: str, draft: Draft
) -> None:
    keywords, violation, drafts = KEYWORDS[name]
    if name == "additionalItems" and draft in ("2019-09", "2020-12"):
        keywords = {"additionalItems": False}  # a list of items is an error in 2020-12
    schema = {"$schema": META_SCHEMAS[draft], **keywords}
    report = format_of(schema).checked_report()
    place = f"#/{name.split()[0]}"
    assert (place in report.checked, place in report.ignored) == (
        draft in drafts,
        draft not in drafts,
    )
    assert is_accepted(schema, violation) is (draft not in drafts)


@pytest.mark.parametrize("draft", DRAFTS)
def test_what_stands_beside_a_reference_counts_since_2019_09(draft: Draft) -> None:
    names = {"definitions": {"a": {"type": "integer"}}, "$ref": "#/definitions/a", "maximum": 3}
    schema = {"$schema": META_SCHEMAS[draft], **names}
    counts = draft in ("2019-09", "2020-12")
    assert is_accepted(schema, "4") is not counts
    report = format_of(schema).checked_report()
    assert ("#/maximum" in report.checked, "#/maximum" in report.ignored) == (counts, not counts)


@pytest.mark.parametrize("key", ALONE)
def test_a_keyword_that_needs_another_one_is_reported_as_ignored_without_it(key: str) -> None:
    schema = {"$schema": META_SCHEMAS["2019-09"], key: 1 if "Contains" in key else False}
    assert format_of(schema).checked_report().ignored == (f"#/{key}",)


def test_a_schema_without_a_draft_is_of_the_newest_one() -> None:
    schema = {"prefixItems": [False]}
    assert format_of(schema).checked_report().checked == ("#/prefixItems",)
    assert not is_accepted(schema, "[1]")


AT_A = {"$ref": "#/definitions/a", "definitions": {"a": {"const": 2}}}
WHOLE = {"type": "integer", "enum": [1]}
MANY: list[dict[str, Any]] = [
    {"$schema": META_SCHEMAS["4"], "const": "x", "enum": [1]},
    {"$schema": META_SCHEMAS["7"], "prefixItems": [{"const": 5}], "enum": [[1]]},
    {"$schema": META_SCHEMAS["7"], **AT_A, "maximum": 0},
    {"$schema": META_SCHEMAS["4"], **WHOLE, "maximum": 2, "exclusiveMaximum": True},
    {"$schema": META_SCHEMAS["7"], **WHOLE, "if": {"const": 1}, "then": {"maximum": 1}},
    {"$schema": "https://json-schema.org/draft-07/schema", "const": 1},
]


@pytest.mark.parametrize("schema", MANY, ids=range(len(MANY)))
def test_an_answer_of_a_local_model_has_the_form_that_the_draft_of_its_schema_means(
    schema: dict[str, Any],
) -> None:
    with Client("talu/pocket") as client:
        answer = client.ask("Hi", response_format=schema, max_tokens=20, temperature=0)
    assert answer.parsed is not None
    report, expected = answer.schema_report, format_of(schema).checked_report()
    assert sorted((*report.enforced, *report.checked)) == list(expected.checked)
    assert sorted(report.ignored) == list(expected.ignored)


@pytest.mark.parametrize(
    "inner", [{"$schema": META_SCHEMAS["7"], "pattern": "^(a+)+$"}, {"$ref": "#"}]
)
def test_a_declared_draft_within_a_schema_leaves_patterns_linear(inner: dict[str, Any]) -> None:
    root = {"$schema": META_SCHEMAS["7"], "pattern": "^(a+)+$", "additionalProperties": inner}
    start = time.perf_counter()
    assert not is_accepted(root, f'{{"a": "{"a" * 40}b"}}')
    assert time.perf_counter() - start < 5  # it would be hours
