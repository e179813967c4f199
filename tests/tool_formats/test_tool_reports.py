"""The report on a tool calls a keyword enforced only if no call of the grammar violates it."""

import copy
import random
from typing import Any

import jsonschema
import pytest
from tests.tool_formats.test_calls_grammar import FORMS, drawn, engine, matcher
from tools.tool_formats_table import joined

from talu.backends.local.tool_reports import tool_reports
from talu.engine.engine import Engine
from talu.structured.references import resolved
from talu.structured.report import checked_report
from talu.tool_formats.reader import Reader

__all__ = ["engine"]

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "word": {"type": "string", "enum": ["a", "bb", "ccc"], "maxLength": 2},
        "name": {"type": "string", "minLength": 1, "maxLength": 3},
        "day": {"type": "string", "format": "date", "maxLength": 12},
        "code": {"type": "string", "pattern": "^(?!x)[a-z]{1,2}$", "maxLength": 9},
        "count": {"type": "integer", "minimum": 1, "maximum": 3, "not": {"const": 2}},
        "flags": {
            "type": "array",
            "items": {"type": "boolean"},
            "minItems": 2,
            "maxItems": 3,
            "uniqueItems": True,
        },
        "either": {"anyOf": [{"type": "integer", "maximum": 9}, {"type": "null"}]},
        "inner": {
            "type": "object",
            "properties": {"x": {"type": "integer", "minimum": 5, "maximum": 6}},
            "required": ["x"],
            "additionalProperties": False,
        },
    },
    "required": ["word", "count"],
    "additionalProperties": False,
    "minProperties": 3,
    "typo": 1,
}
STYLES = {form.style: name for name, form in sorted(FORMS.items(), reverse=True)}


def report_of(engine: Engine, style: str) -> Any:
    tool = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
    grammars = engine.grammars
    form = FORMS[STYLES[style]]
    return tool_reports(form, {"f": tool}, lambda schema: grammars.embedded(schema)[1])["f"]


def left(enforced: tuple[str, ...]) -> dict[str, Any]:
    """The schema with the keywords alone that are enforced."""
    kept = copy.deepcopy(SCHEMA)
    for place in sorted(checked_report(SCHEMA).checked, key=len, reverse=True):
        if place not in enforced:
            parent, _, key = place.rpartition("/")
            resolved(kept, parent)[key] = None
    return without_nothing(kept)


def without_nothing(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: without_nothing(each) for key, each in value.items() if each is not None}


@pytest.mark.parametrize("style", sorted(STYLES))
def test_what_is_called_enforced_holds_for_random_calls(engine: Engine, style: str) -> None:
    report, form = report_of(engine, style), FORMS[STYLES[style]]
    chance, schema = random.Random(style), left(report.enforced)
    for _ in range(20):
        reader = Reader(form, {"f": SCHEMA})
        text = drawn(engine, matcher(engine, form, {"f": SCHEMA}, many=False), chance)
        for _, arguments in joined([*reader.push(text), *reader.finish()]).calls:
            jsonschema.validate(arguments, schema)


@pytest.mark.parametrize("style", sorted(STYLES))
def test_every_keyword_is_in_one_list_of_a_report(engine: Engine, style: str) -> None:
    report, plain = report_of(engine, style), checked_report(SCHEMA)
    listed = (*report.enforced, *report.checked)
    assert len(set(listed)) == len(listed)
    assert set(listed) == set(plain.checked)
    assert (report.ignored, report.enforced_by) == (("#/typo",), "talu")
    assert {"#/properties/count/not", "#/properties/flags/uniqueItems"} <= {*report.checked}
    held = {"#/required", "#/properties/count/minimum", "#/properties/word/enum"}
    assert held <= {*report.enforced}
