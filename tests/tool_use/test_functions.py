"""A function's signature and docstring describe it to a model, and it gets typed arguments."""

import asyncio
import contextlib
import functools
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import date
from enum import Enum
from functools import partial
from typing import Annotated, Any, Literal

import pydantic
import pytest

from talu.exceptions import ToolExecutionError, ValidationError
from talu.tools import Tool, ToolCall, as_tool, tool


class Unit(Enum):
    C = "celsius"
    F = "fahrenheit"


@dataclass
class Place:
    city: str
    country: str = "ES"


class Order(pydantic.BaseModel):
    item: str
    count: int = pydantic.Field(ge=1)


def weather(city: str, day: date, unit: Unit = Unit.C, hours: list[int] | None = None) -> str:
    """Say how the weather will be.

    It is a forecast.

    Args:
        city: the name of the city,
            in English.
        day (date): the day.
        hours: hours of the day.

    Returns:
        A sentence.
    """
    return f"{city} {day.year} {unit.name} {hours}"


def call(function: Any, **arguments: Any) -> ToolCall:
    made = as_tool(function)
    return ToolCall("c1", made.name, json.dumps(arguments), made)


def test_the_signature_and_the_docstring_become_the_description() -> None:
    described = as_tool(weather)
    assert (described.name, described.description) == (
        "weather",
        "Say how the weather will be.\n\nIt is a forecast.",
    )
    assert described.parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "the name of the city, in English."},
            "day": {"type": "string", "format": "date", "description": "the day."},
            "unit": {"enum": ["celsius", "fahrenheit"]},
            "hours": {
                "anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "null"}],
                "description": "hours of the day.",
                "default": None,
            },
        },
        "required": ["city", "day"],
        "additionalProperties": False,
    }


def test_a_default_value_that_a_call_could_not_have_is_not_described() -> None:
    def f(
        count: int = None,  # noqa: RUF013
        word: str | None = None,
        step: float = 2,
    ) -> str:
        return f"{count} {word} {step}"

    properties = as_tool(f).parameters["properties"]
    assert properties["count"] == {"type": "integer"}
    assert properties["word"]["default"] is None
    assert properties["step"] == {"type": "number", "default": 2}
    assert call(f).execute() == "None None 2"


def test_fields_of_restructured_text_describe_parameters_too() -> None:
    def add(a: int, b: Annotated[int, "the other one"], c: Literal[1, 2] = 1) -> int:
        """Add.

        :param int a: the first
            number
        :param c: a factor
        :returns: the sum
        """
        return a + b

    properties = as_tool(add).parameters["properties"]
    assert [properties[name]["description"] for name in "abc"] == [
        "the first number",
        "the other one",
        "a factor",
    ]
    assert as_tool(add).description == "Add."


def test_the_function_gets_instances_of_its_types() -> None:
    made = call(weather, city="León", day="2026-11-29", unit="fahrenheit", hours=[1])
    assert made.execute() == "León 2026 F [1]"


def test_dataclasses_and_pydantic_models_are_arguments_and_results() -> None:
    def ship(order: Order, to: Place) -> Order:
        """Ship it."""
        assert isinstance(to, Place)
        return order

    made = call(ship, order={"item": "tea", "count": 2}, to={"city": "Paris"})
    assert made.execute() == Order(item="tea", count=2)
    with pytest.raises(ToolExecutionError, match="do not fit") as refused:
        call(ship, order={"item": "tea", "count": 0}, to={"city": "Paris"}).execute()
    assert refused.value.code == "TOOL_ARGUMENTS_INVALID"


def test_a_marked_function_stays_the_same_function() -> None:
    @tool(name="weather_of", description="Weather.", timeout=2, needs_approval=True)
    def f(city: str) -> str:
        return city

    described = as_tool(f)
    assert f("Rome") == "Rome"
    assert (described.name, described.description) == ("weather_of", "Weather.")
    assert (described.timeout, described.needs_approval) == (2, True)


def test_a_marked_method_is_read_when_it_is_bound() -> None:
    class Shop:
        @tool
        def price(self, item: str) -> int:
            """The price."""
            return len(item)

    assert list(as_tool(Shop().price).parameters["properties"]) == ["item"]
    assert call(Shop().price, item="tea").execute() == 3


def test_a_bound_method_is_marked_as_a_partial_function() -> None:
    method = Counter().__call__
    with pytest.raises(ValidationError, match="__call__ cannot be marked"):
        tool(name="price")(method)
    assert as_tool(tool(name="ask")(partial(method))).name == "ask"


def test_annotations_that_are_texts_are_resolved() -> None:
    def f(place: "Place") -> None: ...

    assert "Place" in as_tool(f).parameters["$defs"]


def no_annotation(x) -> None: ...  # type: ignore[no-untyped-def]
def validated(x: Annotated[int, pydantic.AfterValidator(abs)]) -> None: ...
def default(x: int = pydantic.Field(1, ge=1)) -> None: ...
def many(*x: int) -> None: ...
def keywords(**x: int) -> None: ...
def nameless(x: int, /) -> None: ...
def no_form(x: complex) -> None: ...
def unknown(x: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821


def numbers(most: int) -> Iterator[int]:
    yield from range(most)


async def later(most: int) -> AsyncIterator[int]:
    yield most


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (no_annotation, "'x' has no annotation"),
        (validated, "a constraint that is not followed"),
        (default, "write x: Annotated"),
        (many, "any number of arguments"),
        (keywords, "any keywords"),
        (nameless, "no name for a caller"),
        (no_form, "no_form.x cannot be described"),
        (unknown, "cannot be read"),
        (lambda: 1, "must be 1 to 64 letters"),
        (3, "must be a function"),
        (Order, "is the class Order, which makes objects"),
        (partial(Order, 1), "is the class Order, which makes objects"),
        (numbers, "yields its results one by one"),
        (later, "yields its results one by one"),
        (partial(many, 1), "any number of arguments"),
        ({"type": "web_search"}, "a definition of a tool must be"),
        ({"name": "f", "input_schema": {}}, "a definition of a tool must be"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_no_model_could_call_is_an_error_that_says_why(entry: Any, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem) as refused:
        as_tool(entry)
    assert refused.value.details["param"] == "tools"


def test_a_definition_is_a_tool_without_a_function() -> None:
    described = as_tool({"type": "function", "function": {"name": "f", "parameters": {}}})
    assert (described.name, described.runs) == ("f", False)
    with pytest.raises(ToolExecutionError, match="no function here") as refused:
        ToolCall("c", "f", "{}", described).execute()
    assert refused.value.code == "TOOL_NOT_BOUND"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"city": NaN}', "not JSON"),
        ('{"city": 1, "day": "2026-11-29"}', "#/city"),
        ('{"city": "Rome", "day": "no day"}', "#/day"),
        ('{"city": "Rome"}', "'day' is a required property"),
        ('{"city": "R", "day": "2026-11-29", "rain": 1}', "'rain' was unexpected"),
    ],
)
def test_arguments_that_do_not_fit_are_not_passed(arguments: str, problem: str) -> None:
    with pytest.raises(ToolExecutionError, match=problem) as refused:
        ToolCall("c1", "weather", arguments, as_tool(weather)).execute()
    assert refused.value.code == "TOOL_ARGUMENTS_INVALID"


def test_what_the_function_raises_is_the_cause_of_a_typed_error() -> None:
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(ToolExecutionError, match="'fail' failed with KeyError") as failed:
        call(fail).execute()
    assert isinstance(failed.value.__cause__, KeyError)
    assert failed.value.code == "TOOL_FAILED"


@pytest.mark.parametrize(
    "value",
    [object(), {1: 2}, float("nan"), "\ud800", "x" * 1_000_001, {"a": {"b": object()}}],
    ids=["object", "key", "nan", "surrogate", "long", "nested"],
)
def test_a_result_without_a_json_form_is_a_typed_error(value: object) -> None:
    with pytest.raises(ToolExecutionError, match="result of the tool 'f'") as failed:
        ToolCall("c", "f", "{}", Tool("f", "", {}, lambda arguments: value)).execute()
    assert failed.value.code == "TOOL_RESULT_INVALID"


@pytest.mark.parametrize("ending", [StopIteration, SystemExit, KeyboardInterrupt])
def test_an_exception_that_would_end_a_loop_is_a_failure_of_the_tool(
    ending: type[BaseException],
) -> None:
    def fail() -> None:
        raise ending("x")

    with pytest.raises(ToolExecutionError, match=ending.__name__):
        asyncio.run(call(fail).execute_async())


def test_async_functions_run_for_both_kinds_of_callers() -> None:
    async def double(n: int) -> int:
        return 2 * n

    made = call(double, n=2)
    assert made.execute() == 4
    assert asyncio.run(made.execute_async()) == 4


def test_a_function_that_hangs_is_given_up_after_its_time() -> None:
    gate = threading.Event()

    @tool(timeout=0.05)
    def hang() -> None:
        gate.wait(60)

    with pytest.raises(ToolExecutionError, match=r"within 0\.05 seconds") as late:
        call(hang).execute()
    assert late.value.code == "TOOL_TIMEOUT"
    gate.set()


@tool(timeout=0.01)
async def blocks() -> str:
    end = time.monotonic() + 0.02
    while time.monotonic() < end:
        pass
    return "late"


@tool(timeout=0.01)
async def goes_on() -> str:
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    return "late"


@tool(timeout=0.01)
async def breaks() -> str:
    try:
        await asyncio.Event().wait()
    finally:
        raise OSError("the connection is closed")


@pytest.mark.parametrize("function", [blocks, goes_on, breaks])
def test_an_async_function_that_ends_late_by_itself_has_taken_too_long(function: Any) -> None:
    with pytest.raises(ToolExecutionError, match=r"did not finish within 0\.01 seconds") as late:
        call(function).execute()
    assert late.value.code == "TOOL_TIMEOUT"


def send(to: str, text: str, urgent: bool = False) -> str:
    """Send a text.

    Args:
        to: the name of a person.
        text: what to say.
    """
    return f"{to}: {text}{'!' * urgent}"


@tool(name="send_later", timeout=3)
async def send_marked(to: str, text: str) -> str:
    """Send a text later."""
    return f"{to}: {text}"


class Counter:
    """Counts."""

    def __init__(self) -> None:
        self.total = 0

    def __call__(self, step: int = 1) -> int:
        """Count on.

        Args:
            step: how far.
        """
        self.total += step
        return self.total


@functools.lru_cache
def double(number: int) -> int:
    """Double a number."""
    return 2 * number


def run(entry: Any, arguments: str) -> Any:
    made = as_tool(entry)
    return ToolCall("c", made.name, arguments, made).execute()


def test_a_partial_function_is_its_function_with_the_parameters_that_are_left() -> None:
    made = as_tool(partial(partial(send, "Ann"), urgent=True))
    assert (made.name, made.description) == ("send", "Send a text.")
    properties = {"text": {"type": "string", "description": "what to say."}}
    assert made.parameters["properties"] == properties
    assert made.parameters["required"] == ["text"]
    assert run(partial(send, "Ann", urgent=True), '{"text": "hi"}') == "Ann: hi!"


def test_a_partial_function_is_as_its_function_was_marked_or_as_it_is_marked_itself() -> None:
    made = as_tool(partial(send_marked, "Ann"))
    assert (made.name, made.timeout, made.is_async) == ("send_later", 3, True)
    assert run(partial(send_marked, "Ann"), '{"text": "hi"}') == "Ann: hi"
    to_bob = tool(name="send_to_bob")(partial(send, "Bob"))
    assert as_tool(to_bob).name == "send_to_bob"
    assert to_bob("hi") == "Bob: hi"


def test_what_a_marked_partial_function_does_not_say_is_as_its_function_is_marked() -> None:
    delete = tool(description="Delete it.", timeout=3, needs_approval=True)(partial(send, "Bob"))
    made = as_tool(tool(name="quick", timeout=1)(partial(delete, urgent=True)))
    assert (made.name, made.timeout) == ("quick", 1)
    assert (made.description, made.needs_approval) == ("Delete it.", True)


def test_a_function_is_not_marked_again_with_other_options() -> None:
    @tool(needs_approval=True)
    def delete(path: str) -> str:
        return path

    @functools.wraps(delete)
    def logged(path: str) -> str:
        return delete(path)

    for function in (delete, logged):
        with pytest.raises(ValidationError, match="is marked as a tool with other options"):
            tool(timeout=10)(function)
        assert as_tool(function).needs_approval
    assert tool(needs_approval=True)(delete) is delete


def test_an_object_that_can_be_called_has_the_name_of_its_class() -> None:
    made = as_tool(Counter())
    assert (made.name, made.description) == ("Counter", "Count on.")
    assert made.parameters["properties"]["step"]["description"] == "how far."
    assert run(partial(Counter(), step=3), "{}") == 3


def test_a_function_behind_a_decorator_that_is_no_function_is_read() -> None:
    assert as_tool(double).description == "Double a number."
    assert run(double, '{"number": 4}') == 8


def test_constraints_of_a_parameter_are_in_the_schema_and_checked() -> None:
    def rate(stars: Annotated[int, pydantic.Field(ge=1, le=5, description="how good")] = 3) -> int:
        return stars

    made = as_tool(rate)
    assert made.parameters["properties"]["stars"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 5,
        "description": "how good",
        "default": 3,
    }
    assert run(rate, '{"stars": 5}') == 5
    with pytest.raises(ToolExecutionError, match="6 is greater than the maximum of 5"):
        run(rate, '{"stars": 6}')
