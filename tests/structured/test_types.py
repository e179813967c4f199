"""A type whose answers could not be read is refused, and every other is read as its class says."""

import json
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from datetime import date
from enum import Enum
from typing import Annotated, Any, ClassVar
from uuid import UUID

import pydantic
import pytest
import typing_extensions
from pydantic import AliasChoices, AliasPath, ConfigDict, Field

from talu.exceptions import SchemaValidationError, StructuredOutputError
from talu.structured.formats import format_of


class Color(Enum):
    RED = "red"


class Strict(pydantic.BaseModel):
    model_config = ConfigDict(strict=True)
    when: date
    color: Color
    numbers: set[int]
    key: UUID
    pair: tuple[int, str]


def test_a_strict_model_takes_from_json_what_pydantic_takes_from_json() -> None:
    key = UUID(int=3)
    text = json.dumps(
        {"when": "2020-01-02", "color": "red", "numbers": [1], "key": str(key), "pair": [1, "a"]}
    )
    assert format_of(Strict).read(text, "stop") == Strict(
        when=date(2020, 1, 2), color=Color.RED, numbers={1}, key=key, pair=(1, "a")
    )


@dataclass
class Scaled:
    value: int
    factor: InitVar[int]
    offset: InitVar[int] = 0
    result: int = field(init=False, default=0)
    unit: ClassVar[str] = "m"

    def __post_init__(self, factor: int, offset: int) -> None:
        self.result = self.value * factor + offset


def test_what_only_the_constructor_takes_is_a_part_of_the_answer() -> None:
    form = format_of(Scaled)
    assert form.schema is not None
    assert {*form.schema["properties"]} == {"value", "factor", "offset"}
    assert form.schema["required"] == ["value", "factor"]
    assert form.read('{"value": 2, "factor": 3}', "stop").result == 6


class Chosen(pydantic.BaseModel):
    name: int = Field(validation_alias=AliasChoices("title", AliasPath("names", 0)))


def test_an_alias_that_is_one_of_several_is_read() -> None:
    assert format_of(Chosen).read('{"title": 3}', "stop").name == 3


class ByPath(pydantic.BaseModel):
    name: int = Field(validation_alias=AliasPath("names", 0))


@dataclass
class Plain:
    number: int


@dataclass(frozen=True)
class Frozen:
    number: int


UNREADABLE: dict[str, tuple[Any, str]] = {
    "a path": (list[ByPath], "the alias of 'name' is a path"),
    "a set of lists": (set[list[int]], "a set cannot hold list"),
    "a set of sequences": (set[Sequence[int]], "a set cannot hold Sequence"),
    "a set of instances": (frozenset[Plain], "a set cannot hold Plain"),
    "a set of alternatives": (set[Annotated[str | dict[str, int], "x"]], "a set cannot hold"),
    "a set of pairs": (set[tuple[int, list[int]]], "a set cannot hold tuple"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_type_whose_answers_cannot_be_read_is_refused(name: str) -> None:
    kind, problem = UNREADABLE[name]
    with pytest.raises(StructuredOutputError, match=problem):
        format_of(kind)


def test_a_set_holds_what_can_be_hashed() -> None:
    assert format_of(set[Frozen]).read('[{"number": 1}]', "stop") == {Frozen(1)}
    assert format_of(set[tuple[int, ...]]).read("[[1, 2]]", "stop") == {(1, 2)}
    with pytest.raises(SchemaValidationError):
        format_of(set[Any]).read("[[1]]", "stop")


def test_two_classes_of_one_name_are_told_apart_or_refused() -> None:
    class Address(pydantic.BaseModel):
        code: int

    class Middle(pydantic.BaseModel):
        address: Address

    Outer = dataclass(type("Address", (), {"__annotations__": {"middle": Middle}}))
    with pytest.raises(StructuredOutputError, match="two of its types are called 'Address'"):
        format_of(Outer)


ALTERNATIVES = [
    (date | str, '"2020-01-02"', date(2020, 1, 2)),
    (date | str, '"soon"', "soon"),
    (str | date, '"2020-01-02"', "2020-01-02"),
    (Color | str, '"red"', Color.RED),
    (float | int, "1", 1),
    (float | int, "1.5", 1.5),
    (bool | int, "true", True),
]


@pytest.mark.parametrize(("kind", "text", "value"), ALTERNATIVES, ids=range(len(ALTERNATIVES)))
def test_the_first_alternative_that_fits_is_taken(kind: Any, text: str, value: object) -> None:
    found = format_of(kind).read(text, "stop")
    assert (found, type(found)) == (value, type(value))


class Movie(typing_extensions.TypedDict):
    title: typing_extensions.ReadOnly[str]
    year: typing_extensions.NotRequired[int]


def test_a_typed_dict_of_typing_extensions_is_described() -> None:
    schema = format_of(Movie).schema
    assert schema is not None
    assert schema["properties"] == {"title": {"type": "string"}, "year": {"type": "integer"}}
    assert schema["required"] == ["title"]


@dataclass
class Checked:
    number: int

    def __post_init__(self) -> None:
        assert self.number < 9, "too large"


class Validated(pydantic.BaseModel):
    number: int

    @pydantic.field_validator("number")
    @classmethod
    def known(cls, value: int) -> int:
        raise KeyError(value)


@pytest.mark.parametrize("kind", [Checked, Validated, list[Checked], Checked | str])
def test_whatever_the_code_of_a_class_raises_says_that_the_answer_does_not_fit(kind: Any) -> None:
    text = '[{"number": 10}]' if kind == list[Checked] else '{"number": 10}'
    with pytest.raises(SchemaValidationError):
        format_of(kind).read(text, "stop")
