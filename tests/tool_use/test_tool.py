"""``Tool`` describes a function for a model, and refuses what no model could call."""

import json
import subprocess
import sys
from typing import Any

import pytest
from jsonschema.validators import Draft7Validator, Draft202012Validator

from talu.exceptions import ValidationError
from talu.structured.plain_schemas import ALONE, WITHIN, is_plainly_valid
from talu.tools import Tool, as_tool

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def test_the_definition_of_a_tool_is_that_of_openai() -> None:
    tool = Tool("weather", "Says how the weather is.", CITY, lambda arguments: "sunny")
    assert tool.definition == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Says how the weather is.",
            "parameters": CITY,
        },
    }


def test_a_change_of_the_given_schema_does_not_reach_the_tool() -> None:
    given = json.loads(json.dumps(CITY))
    tool = Tool("weather", "", given)
    given["properties"]["city"]["type"] = "number"
    assert tool.parameters == CITY


def test_run_gets_the_arguments() -> None:
    assert Tool("double", "", {}, lambda arguments: arguments["n"] * 2).run({"n": 2}) == 4


def test_an_async_function_makes_an_async_tool() -> None:
    async def run(arguments: dict[str, Any]) -> str:
        return "sunny"

    assert Tool("weather", "", {}, run).is_async


def test_a_definition_keeps_whether_it_is_to_be_enforced() -> None:
    given = {"type": "function", "function": {"name": "a", "parameters": CITY, "strict": True}}
    assert as_tool(given).definition["function"]["strict"] is True


@pytest.mark.parametrize("option", ["is_async", "needs_approval", "strict"])
def test_an_option_that_is_yes_or_no_is_a_bool(option: str) -> None:
    wrong: dict[str, Any] = {option: "yes"}
    with pytest.raises(ValidationError, match=f"{option} must be True"):
        Tool("weather", "", CITY, **wrong)


@pytest.mark.parametrize("name", ["", "a b", "é", "x" * 65, None, "auto", "none", "required"])
def test_a_name_that_servers_refuse_or_that_is_a_choice_is_an_error(name: Any) -> None:
    with pytest.raises(ValidationError, match="tool") as refused:
        Tool(name, "", {})
    assert refused.value.details["param"] == "tools"


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        (None, "must be a JSON Schema"),
        ({"type": "string"}, "must describe an object"),
        (nested(100), "nested deeper"),
        ({"properties": {"a": {"enum": list(range(20_000))}}}, "enum of 20,000 values"),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}}, "where nothing is"),
        ({"properties": {"a": {"type": "strin"}}}, "is wrong at '#/properties/a/type'"),
        ({"required": "a"}, "is wrong at '#/required'"),
        ({"properties": {"a": {"pattern": "("}}}, "is wrong at '#/properties/a/pattern'"),
        ({"properties": {"a": {"minimum": "1"}}}, "is wrong at '#/properties/a/minimum'"),
        (
            {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
            "infinite value",
        ),
    ],
    ids=[
        "none",
        "not an object",
        "deep",
        "large enum",
        "reference to nothing",
        "type",
        "required",
        "pattern",
        "minimum",
        "infinite",
    ],
)
def test_a_schema_that_cannot_be_used_is_an_error_that_names_the_tool(
    schema: Any, problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem) as refused:
        Tool("weather", "", schema)
    assert "'weather'" in str(refused.value)


@pytest.mark.parametrize("timeout", [0, -1, True, "1", float("nan"), 1e9])
def test_a_time_limit_is_a_number_of_seconds(timeout: Any) -> None:
    with pytest.raises(ValidationError, match="timeout of the tool 'weather'"):
        Tool("weather", "", {}, timeout=timeout)


COMMON = {"type": "object", "properties": {"a": {"type": ["string", "null"], "minLength": 1}}}


def test_a_common_schema_is_checked_without_the_package_that_checks_all() -> None:
    program = f"import sys; from talu.tools import Tool; Tool('a', '', {COMMON})"
    program += "; sys.exit('jsonschema' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_a_schema_that_is_right_by_its_form_is_right_by_every_draft() -> None:
    """What is called plainly valid in the schemas of the test suite is valid, and not all are."""
    count = 0
    for schema in plain_variants():
        if is_plainly_valid(schema):
            Draft202012Validator.check_schema(schema)
            Draft7Validator.check_schema(schema)
            count += 1
    assert count > 30


def plain_variants() -> list[Any]:
    """Every keyword with values of every kind."""
    values = [None, True, 0, 1, -1, 1.5, "a", "string", "#", [], ["a"], ["a", "a"], ["string"]]
    values += [[{}], [1], {}, {"a": {}}, {"a": 1}, {"a": True}, {"type": "object"}]
    return [{key: value} for key in (*ALONE, *WITHIN, "pattern") for value in values]
