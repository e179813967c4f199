"""A response format describes Python types and schemas, and reads answers by them."""

import pickle
from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pydantic
import pytest

from talu.exceptions import (
    IncompleteJSONError,
    SchemaValidationError,
    StructuredOutputError,
    ValidationError,
)
from talu.structured.formats import format_of
from talu.structured.values import Choice, Grammar, Regex


class Color(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Address:
    street: str
    code: Annotated[int, "the post code"]


@dataclass
class Person:
    name: str
    age: int = field(metadata={"description": "in years"})
    address: Address | None = None
    born: date | None = None
    tags: list[str] = field(default_factory=list)
    color: Color = Color.RED
    children: "list[Person]" = field(default_factory=list)


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class Node(pydantic.BaseModel):
    value: int
    next: "Node | None" = None


class Pair(pydantic.BaseModel):
    first: Node
    second: Node


KINDS = [
    (Person, '{"name": "A", "age": 3}', Person("A", 3)),
    (
        Person,
        '{"name": "A", "age": 3, "address": {"street": "S", "code": 1}, "born": "2020-02-03",'
        ' "color": "blue", "children": [{"name": "B", "age": 1}]}',
        Person(
            "A", 3, Address("S", 1), date(2020, 2, 3), color=Color.BLUE, children=[Person("B", 1)]
        ),
    ),
    (Movie, '{"title": "T"}', {"title": "T"}),
    (Node, '{"value": 1, "next": {"value": 2}}', Node(value=1, next=Node(value=2))),
    (
        Pair,
        '{"first": {"value": 1}, "second": {"value": 2}}',
        Pair(first=Node(value=1), second=Node(value=2)),
    ),
    (list[Movie], '[{"title": "T", "year": 1}]', [{"title": "T", "year": 1}]),
    (tuple[int, str], '[1, "a"]', (1, "a")),
    (dict[str, set[int]], '{"a": [1, 1]}', {"a": {1}}),
    (int | str, '"a"', "a"),
    (Literal["a", 1], "1", 1),
    (Color, '"red"', Color.RED),
    ({"type": "integer", "minimum": 3}, "3", 3),
    ({"multipleOf": 0.1}, "14.7", 14.7),
    ({"multipleOf": 1e-8}, "12391239123", 12391239123),
    (Regex("[ab]+"), "abba", "abba"),
    (Choice(["yes", "no"]), "no", "no"),
    (Choice(Color), "blue", Color.BLUE),
    (Grammar('start: "a"+'), "aa", "aa"),
]


@pytest.mark.parametrize(("kind", "text", "value"), KINDS, ids=range(len(KINDS)))
def test_an_answer_is_read_as_an_instance_of_its_format(kind: Any, text: str, value: Any) -> None:
    assert format_of(kind).read(text, "stop") == value


@pytest.mark.parametrize(("kind", "text", "value"), KINDS, ids=range(len(KINDS)))
def test_a_format_can_be_pickled(kind: Any, text: str, value: Any) -> None:
    copy = pickle.loads(pickle.dumps(format_of(kind)))
    assert copy == format_of(kind)
    assert copy.read(text, "stop") == value


@pytest.mark.parametrize(("kind", "text", "value"), KINDS, ids=range(len(KINDS)))
def test_a_format_is_restored_from_its_plain_form(kind: Any, text: str, value: Any) -> None:
    copy = format_of(format_of(kind).to_dict())
    assert (copy.kind, copy.source) == (format_of(kind).kind, format_of(kind).source)


def test_the_schema_of_a_dataclass_has_descriptions_and_closed_objects() -> None:
    schema = format_of(Address).schema
    assert schema is not None
    assert schema == {
        "type": "object",
        "properties": {
            "street": {"type": "string"},
            "code": {"type": "integer", "description": "the post code"},
        },
        "required": ["street", "code"],
        "additionalProperties": False,
    }


def test_the_objects_of_a_pydantic_model_are_closed_unless_it_allows_more() -> None:
    class Open(pydantic.BaseModel, extra="allow"):
        a: int

    closed, opened = format_of(Node).schema, format_of(Open).schema
    assert closed is not None
    assert opened is not None
    assert (
        closed["additionalProperties"] is closed["$defs"]["Node"]["additionalProperties"] is False
    )
    assert opened["additionalProperties"] is True


def test_the_root_of_a_schema_is_no_reference() -> None:
    schema = format_of(Person).schema
    assert schema is not None
    assert schema["type"] == "object"
    assert {*schema["$defs"]} == {"Person", "Address"}
    assert format_of(Address).name == "Address"


MISFITS = [
    (Person, '{"name": "A"}', SchemaValidationError),
    (Person, '{"name": "A", "age": "3"}', SchemaValidationError),
    (Person, '{"name": "A", "age": 3, "more": 1}', SchemaValidationError),
    (Person, '{"name": "A", "ag', IncompleteJSONError),
    (Person, "Sure! {", SchemaValidationError),
    ({"not": {"type": "string"}}, '"a"', SchemaValidationError),
    ({"type": "number"}, "NaN", SchemaValidationError),
    ({"multipleOf": 0.1}, "14.75", SchemaValidationError),
    ({"multipleOf": 0.5}, "[1e400]", SchemaValidationError),
    ({"type": "string", "format": "date"}, '"2020-13-01"', SchemaValidationError),
    (int, "24", IncompleteJSONError),
    ({"type": "integer", "minimum": 1000}, "230", IncompleteJSONError),
    ({"enum": [12, 123456]}, "12", IncompleteJSONError),
    (Regex("[0-9]+"), "12", IncompleteJSONError),
    (Regex("a(?=b)|a"), "a", IncompleteJSONError),
    (Choice(["hello", "hello world"]), "hello", IncompleteJSONError),
    (Grammar('root ::= "a"+'), "a", IncompleteJSONError),
    (Regex("a"), "b", IncompleteJSONError),
    (Choice(["a"]), "b", IncompleteJSONError),
    (Grammar('start: "a"'), "", IncompleteJSONError),
]


@pytest.mark.parametrize(("kind", "text", "error"), MISFITS, ids=range(len(MISFITS)))
def test_an_answer_of_another_form_is_a_typed_error(
    kind: Any, text: str, error: type[StructuredOutputError]
) -> None:
    with pytest.raises(error) as caught:
        format_of(kind).read(text, "length")
    assert pickle.loads(pickle.dumps(caught.value)).details == caught.value.details


@pytest.mark.parametrize("finish_reason", ["stop_sequence", "cancelled", "content_filter"])
def test_an_answer_that_was_not_ended_by_the_model_may_be_a_beginning(finish_reason: str) -> None:
    with pytest.raises(IncompleteJSONError):
        format_of(Choice(["hello", "hello world"])).read("hello", finish_reason)


CUT_AT_THE_END = [
    ({"type": "integer", "minimum": 0, "maximum": 9}, "7", 7),
    ({"enum": [12, 123456]}, "123456", 123456),
    (bool, "true", True),
    (list[int], "[1]", [1]),
    (Regex("[0-9]{2}"), "12", "12"),
    (Choice(["hello", "bye"]), "bye", "bye"),
    (Grammar('root ::= "a" | "bc"'), "bc", "bc"),
]


@pytest.mark.parametrize(("kind", "text", "value"), CUT_AT_THE_END, ids=range(len(CUT_AT_THE_END)))
def test_an_answer_that_was_cut_where_nothing_could_follow_is_whole(
    kind: Any, text: str, value: Any
) -> None:
    assert format_of(kind).read(text, "length") == value


UNCHECKED = Grammar('start: "a" <|end|>')
LIMITED = Grammar('start: word "."\nword[max_tokens=2]: /[a-z]+/')


NUMBERED = Grammar('start: "a" <[1]>')


@pytest.mark.parametrize(
    "grammar",
    [UNCHECKED, LIMITED, NUMBERED],
    ids=["names tokens", "counts tokens", "numbers tokens"],
)
def test_a_grammar_over_the_tokens_of_a_model_is_not_said_to_be_checked(grammar: Grammar) -> None:
    form = format_of(grammar)
    assert (form.checked_report().checked, form.checked_report().ignored) == ((), ("#",))
    assert form.read("any text", "stop") == "any text"
    with pytest.raises(IncompleteJSONError):
        form.read("any text", "length")


@pytest.mark.parametrize(
    "grammar", [Grammar('root ::= "a" | "b"'), Grammar('start: "a" | "b"')], ids=["gbnf", "lark"]
)
def test_an_answer_that_no_grammar_constrained_is_checked(grammar: Grammar) -> None:
    assert format_of(grammar).checked_report().checked == ("#",)
    with pytest.raises(SchemaValidationError, match="no text of the grammar"):
        format_of(grammar).read("c", "stop")


def test_a_wrong_regular_expression_is_refused_by_the_check() -> None:
    format_of(Regex("a(?=b)")).check()
    with pytest.raises(StructuredOutputError, match="regular expression"):
        format_of(Regex("(")).check()


AMBIGUOUS = {
    "a name twice": ({}, '{"a": "x", "a": 2}', "'a' more than once"),
    "an infinite number": (float, "1e999", "out of the range"),
    "half a character": (str, r'"\ud800"', "surrogate"),
    "an integer beyond floats": (float, "1" * 600, "out of the range"),
    "a part beyond floats": (list[float], f"[{'1' * 600}]", "out of the range"),
    "thousands of digits": (int, "1" * 5000, "5,000 digits"),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_json_without_one_meaning_in_python_does_not_fit(name: str) -> None:
    kind, text, problem = AMBIGUOUS[name]
    with pytest.raises(SchemaValidationError, match=problem):
        format_of(kind).read(text, "stop")


def test_an_escaped_pair_of_surrogates_is_a_character() -> None:
    assert format_of(str).read(r'"\ud83d\ude00"', "stop") == "😀"


@pytest.mark.parametrize(
    "wrong", [5, "text", [], object, complex, Person("A", 3), lambda: 1], ids=range(7)
)
def test_a_value_of_another_kind_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError, match="response_format must be"):
        format_of(wrong)


def test_a_field_without_json_form_is_named() -> None:
    @dataclass
    class Holder:
        number: complex

    with pytest.raises(StructuredOutputError, match=r"Holder\.number .*complex"):
        format_of(Holder)


def test_a_pydantic_model_that_has_no_schema_is_a_typed_error() -> None:
    class Strange(pydantic.BaseModel, arbitrary_types_allowed=True):
        a: Any
        b: type(lambda: 1)  # type: ignore[valid-type]

    with pytest.raises(StructuredOutputError, match="Strange"):
        format_of(Strange)


@pytest.mark.parametrize(
    "request_form",
    [
        {"type": "json_schema", "json_schema": {"schema": {}}},
        {"name": "answer", "schema": {"type": "integer"}, "strict": True},
    ],
    ids=["whole", "inner"],
)
def test_the_form_of_a_request_is_not_mistaken_for_a_schema(request_form: Any) -> None:
    with pytest.raises(StructuredOutputError, match="give the schema itself"):
        format_of(request_form)


@pytest.mark.parametrize("kind", [Choice, Grammar, Regex])
def test_the_class_of_a_form_is_no_form(kind: type) -> None:
    with pytest.raises(ValidationError, match=rf"give {kind.__name__}\("):
        format_of(kind)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Regex(""),
        lambda: Choice([]),
        lambda: Choice(["a", "a"]),
        lambda: Choice("ab"),
        lambda: Choice([1]),  # type: ignore[list-item]
        lambda: Grammar("a", "ebnf"),  # type: ignore[arg-type]
    ],
    ids=range(6),
)
def test_a_malformed_form_is_refused_at_once(make: Any) -> None:
    with pytest.raises(ValidationError):
        make()
