"""What ``Annotated`` adds to a type is in its schema, or an error names the field."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import annotated_types
import pydantic
import pydantic.dataclasses
import pytest
from pydantic import Field

from talu import Client
from talu.exceptions import SchemaValidationError, StructuredOutputError
from talu.structured.formats import format_of


class Doc:
    """As ``typing_extensions.Doc``."""

    documentation = "a text"


KEYWORDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "limits": (Annotated[int, Field(ge=1, lt=5)], {"minimum": 1, "exclusiveMaximum": 5}),
    "annotated_types": (Annotated[int, annotated_types.Gt(1)], {"exclusiveMinimum": 1}),
    "an interval": (Annotated[float, annotated_types.Interval(ge=0, le=1)], {"minimum": 0}),
    "a multiple": (Annotated[int, Field(multiple_of=5)], {"multipleOf": 5}),
    "a length": (Annotated[str, Field(max_length=10)], {"type": "string", "maxLength": 10}),
    "a pattern": (Annotated[str, Field(pattern="^a$")], {"pattern": "^a$"}),
    "a compiled pattern": (
        Annotated[str, pydantic.StringConstraints(pattern=re.compile("^a$"))],
        {"pattern": "^a$"},
    ),
    "a number of items": (Annotated[list[int], Field(min_length=2)], {"minItems": 2}),
    "a number of properties": (
        Annotated[dict[str, int], annotated_types.Len(1, 2)],
        {"minProperties": 1, "maxProperties": 2},
    ),
    "items": (
        list[Annotated[int, Field(ge=100)]],
        {"items": {"type": "integer", "minimum": 100}},
    ),
    "an alternative": (
        Annotated[int | None, Field(ge=1)],
        {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]},
    ),
    "a named constraint": (pydantic.PositiveInt, {"exclusiveMinimum": 0}),
    "a constrained type": (pydantic.conlist(int, max_length=3), {"maxItems": 3}),
    "a description": (Annotated[int, Field(description="years")], {"description": "years"}),
    "a documentation": (Annotated[int, Doc()], {"description": "a text"}),
    "the last description": (Annotated[int, "age", "years"], {"description": "years"}),
    "a title": (Annotated[int, Field(title="Age")], {"title": "Age"}),
    "strict": (Annotated[int, Field(strict=True)], {"type": "integer"}),
    "more of the schema": (
        Annotated[int, Field(json_schema_extra={"examples": [3]})],
        {"examples": [3]},
    ),
    "something of another package": (Annotated[int, object()], {"type": "integer"}),
}  # fmt: skip


@pytest.mark.parametrize("name", KEYWORDS)
def test_the_schema_has_what_annotated_adds(name: str) -> None:
    kind, keywords = KEYWORDS[name]
    schema = format_of(kind).schema
    assert schema is not None
    assert schema.items() >= keywords.items()


class Part(pydantic.BaseModel):
    number: int


REFUSED: dict[str, tuple[Any, str]] = {
    "a limit of a text": (Annotated[str, Field(ge=1)], "ge=1 is no constraint of this type"),
    "a length of a class": (Annotated[Part, Field(min_length=1)], "min_length=1"),
    "a validator": (Annotated[int, pydantic.AfterValidator(abs)], "AfterValidator"),
    "a predicate": (Annotated[int, annotated_types.Predicate(bool)], "Predicate"),
    "a conversion": (Annotated[str, pydantic.StringConstraints(to_upper=True)], "to_upper"),
    "an alias": (Annotated[int, Field(alias="other")], "alias='other'"),
    "a default": (Annotated[int, Field(default=3)], "default=3"),
    "digits": (Annotated[float, Field(max_digits=3)], "max_digits"),
    "two limits": (Annotated[int, Field(ge=1), Field(ge=2)], "given twice"),
    "an infinite limit": (Annotated[float, Field(le=float("inf"))], "no number of JSON"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_constraint_without_a_keyword_is_an_error_that_names_the_field(name: str) -> None:
    kind, problem = REFUSED[name]
    Holder = TypedDict("Holder", {"part": kind})  # noqa: UP013
    with pytest.raises(StructuredOutputError, match=r"Holder\.part ") as caught:
        format_of(Holder)
    assert problem in str(caught.value)


def test_the_default_of_a_dataclass_is_no_field_of_pydantic() -> None:
    @dataclass
    class Review:
        stars: int = Field(ge=1)

    with pytest.raises(StructuredOutputError, match=r"Review\.stars .*Annotated"):
        format_of(Review)


@dataclass
class Review:
    stars: Annotated[int, Field(ge=1, le=5, description="one to five")]
    summary: Annotated[str, Field(max_length=10)]


def test_an_answer_of_a_local_model_keeps_the_constraints_of_fields() -> None:
    with Client("talu/pocket") as client:
        answer = client.ask("Hi", response_format=Review, seed=3, max_tokens=60)
    assert 1 <= answer.parsed.stars <= 5
    assert len(answer.parsed.summary) <= 10
    assert {"#/properties/stars/maximum", "#/properties/summary/maxLength"} <= {
        *answer.schema_report.enforced
    }
    assert "one to five" in answer.prompt


@pydantic.dataclasses.dataclass
class Sized:
    size: int = Field(ge=1, le=3)
    number: int = Field(alias="No.", default=3)


@pydantic.dataclasses.dataclass(slots=True, frozen=True)
class Slotted:
    size: int = Field(ge=1, le=3)


def test_a_pydantic_dataclass_is_described_and_read_by_pydantic() -> None:
    form = format_of(Sized)
    assert form.schema is not None
    assert form.schema["required"] == ["size"]
    assert form.schema["properties"]["size"].items() >= {"minimum": 1, "maximum": 3}.items()
    assert form.schema["additionalProperties"] is False
    assert form.read('{"size": 2, "No.": 4}', "stop") == Sized(size=2, **{"No.": 4})
    assert format_of(list[Slotted]).read('[{"size": 2}]', "stop") == [Slotted(size=2)]
    for text in ("{}", '{"size": 4}', '{"size": 2, "number": 4}'):
        with pytest.raises(SchemaValidationError):
            form.read(text, "stop")
