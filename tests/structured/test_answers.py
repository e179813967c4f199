"""Answers have the form of ``response_format``, sync and async, streamed or not."""

import copy
import json
import pickle
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

import pydantic
import pytest
from tests.conftest import Faces

from talu import (
    Choice,
    Client,
    GenerationConfig,
    Grammar,
    IncompleteJSONError,
    Profile,
    Regex,
    SchemaValidationError,
    StateError,
    StructuredOutputError,
    ValidationError,
)
from talu.structured.formats import format_of
from talu.structured.string_formats import GENERATED_FORMATS

POCKET = "talu/pocket"


@dataclass
class City:
    name: str
    capital: bool


class Place(TypedDict):
    capital: bool


class Town(pydantic.BaseModel):
    capital: bool


SCHEMA = {
    "type": "object",
    "properties": {"capital": {"type": "boolean"}, "size": {"enum": ["small", "large"]}},
    "required": ["capital", "size"],
    "additionalProperties": False,
}
FORMS: list[tuple[Any, type]] = [
    (Town, Town),
    (Place, dict),
    (SCHEMA, dict),
    (Regex("[a-z]{3,6}"), str),
    (Choice(["yes", "no"]), str),
    (Grammar('root ::= "it is " ("hot" | "cold")'), str),
    (tuple[bool, bool], tuple),
]


@pytest.fixture
def asked(faces: Faces) -> Iterator[Any]:
    client = faces.face.client_class(POCKET)
    yield client
    faces.run(client.close()) if faces.name == "async" else client.close()


@pytest.mark.parametrize(("form", "kind"), FORMS, ids=range(len(FORMS)))
def test_an_answer_has_the_form_and_its_value(
    faces: Faces, asked: Any, form: Any, kind: type
) -> None:
    answer = faces.run(
        asked.ask("Is Paris a capital?", response_format=form, seed=4, max_tokens=400)
    )
    assert isinstance(answer.parsed, kind)
    assert answer.finish_reason == "stop"
    assert answer.schema_report.enforced
    assert answer.schema_report.enforced_by == "talu"


def test_every_way_to_ask_takes_a_form(faces: Faces, asked: Any) -> None:
    settings: dict[str, Any] = {"response_format": SCHEMA, "seed": 1, "max_tokens": 60}
    chat = asked.chat()
    answers = [
        faces.run(chat.send("Hi", **settings)),
        faces.run(chat("Hi", stream=False, **settings)),
        faces.run(chat.regenerate(**settings)),
        faces.run(faces.run(asked.ask("Hi", **settings)).append("And?", **settings)),
        faces.run(asked.raw_complete("It is", **settings)),
        *faces.run(asked.ask(["Hi", "Ho"], **settings)),
        faces.run(asked.ask("Hi", config=GenerationConfig(**settings))),
        faces.run(asked.chat(config=GenerationConfig(**settings)).send("Hi")),
    ]
    assert [{*answer.parsed} for answer in answers] == [{"capital", "size"}] * len(answers)


def test_a_text_that_is_nested_too_deeply_to_be_read_has_no_value_yet() -> None:
    assert format_of({}).partial("[" * 100_000) is None


def test_a_stream_shows_the_value_as_far_as_it_is_known(faces: Faces, asked: Any) -> None:
    whole = faces.run(asked.ask("Hi", response_format=SCHEMA, seed=2, max_tokens=60))
    stream = asked.chat()("Hi", response_format=SCHEMA, seed=2, max_tokens=60)
    stream = faces.run(stream)
    assert stream.partial is None
    seen = []
    for piece in faces.read_some(stream, 12):
        seen.append(piece)
    partial = stream.partial
    assert partial == {name: whole.parsed[name] for name in partial}
    assert whole.text.startswith("".join(seen))


def test_a_stream_read_to_its_end_has_the_value_of_the_whole_answer(
    faces: Faces, asked: Any
) -> None:
    whole = faces.run(asked.ask("Hi", response_format=City, seed=2, max_tokens=400))
    stream = faces.run(asked.chat()("Hi", response_format=City, seed=2, max_tokens=400))
    pieces = faces.read(stream)
    assert "".join(pieces) == whole.text
    assert stream.parsed == whole.parsed == stream.parsed
    assert stream.schema_report == whole.schema_report


def test_a_value_before_the_end_of_a_stream_is_an_error(awaited: Faces) -> None:
    client = awaited.face.client_class(POCKET)
    stream = awaited.run(client.chat()("Hi", response_format=SCHEMA, seed=2))
    with pytest.raises(StateError, match="has not ended"):
        assert stream.parsed
    awaited.run(stream.close())
    awaited.run(client.close())


def test_an_answer_without_a_form_has_no_value(faces: Faces, asked: Any) -> None:
    answer = faces.run(asked.ask("Hi", max_tokens=4))
    assert (answer.parsed, answer.partial, answer.schema_report) == (None, None, None)


def test_a_number_that_a_stream_ended_with_is_known(faces: Faces, asked: Any) -> None:
    digit = {"type": "integer", "minimum": 10, "maximum": 99}
    stream = faces.run(asked.chat()("Hi", response_format=digit, seed=2, max_tokens=40))
    faces.read(stream)
    assert stream.finish_reason == "stop"
    assert stream.partial == stream.parsed


@pytest.mark.parametrize("form", [int, Regex("[0-9]+")], ids=["int", "regex"])
def test_a_number_that_was_cut_is_incomplete(faces: Faces, asked: Any, form: Any) -> None:
    answer = faces.run(asked.ask("Hi", response_format=form, seed=2, max_tokens=1))
    assert answer.finish_reason == "length"
    assert answer.partial in (None, answer.text)
    with pytest.raises(IncompleteJSONError):
        assert answer.parsed


def test_settings_of_forms_that_had_none_are_noted(faces: Faces, asked: Any) -> None:
    settings: dict[str, Any] = {"inject_schema_prompt": True, "schema_strategy": "xml_schema"}
    answer = faces.run(asked.ask("Hi", validation_retries=2, max_tokens=2, **settings))
    assert [note.partition(" did nothing")[0] for note in answer.notes] == [
        "validation_retries",
        "inject_schema_prompt",
        "schema_strategy",
    ]
    off: dict[str, Any] = {"inject_schema_prompt": False, "schema_strategy": "auto"}
    assert faces.run(asked.ask("Hi", validation_retries=0, max_tokens=2, **off)).notes == ()
    formed = asked.ask("Hi", response_format=SCHEMA, max_tokens=40, validation_retries=1)
    assert faces.run(formed).notes == ()


def test_an_answer_that_was_cut_is_incomplete(faces: Faces, asked: Any) -> None:
    answer = faces.run(asked.ask("Hi", response_format=SCHEMA, seed=2, max_tokens=5))
    with pytest.raises(IncompleteJSONError) as caught:
        assert answer.parsed
    assert (caught.value.partial_text, caught.value.finish_reason) == (answer.text, "length")
    assert isinstance(answer.partial, dict)


def test_a_keyword_that_cannot_be_generated_is_checked_afterwards(faces: Faces, asked: Any) -> None:
    schema = {"enum": ["a", "b"], "not": {"enum": ["a", "b"]}}
    answer = faces.run(asked.ask("Hi", response_format=schema, seed=1))
    assert "#/not" in answer.schema_report.checked
    with pytest.raises(SchemaValidationError) as caught:
        assert answer.parsed
    assert (caught.value.raw_text, caught.value.partial_data) == (
        answer.text,
        json.loads(answer.text),
    )


WRONG: dict[str, tuple[Any, type[Exception]]] = {
    "a value": (3, ValidationError),
    "a deep schema": (
        json.loads('{"type":"array","items":' * 100 + "{}" + "}" * 100),
        StructuredOutputError,
    ),
    "an endless reference": ({"$ref": "#"}, StructuredOutputError),
    "a wrong type": ({"type": "strin"}, StructuredOutputError),
    "nothing": ({"minimum": 3, "maximum": 1, "type": "integer"}, StructuredOutputError),
    "a regular expression": (Regex("("), StructuredOutputError),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_form_that_cannot_be_used_leaves_the_chat_as_it_was(
    faces: Faces, asked: Any, name: str
) -> None:
    form, error = WRONG[name]
    chat = asked.chat("Be short.")
    with pytest.raises(error, match="response_format"):
        faces.run(chat.send("Hi", response_format=form))
    assert len(chat.items) == 1
    assert faces.run(chat.send("Hi", max_tokens=2)).text


def test_an_answer_that_nothing_constrains_is_checked(faces: Faces) -> None:
    good, bad = faces.client(json.dumps({"capital": True, "size": "large"})), faces.client("Hi")
    answer = faces.run(good.ask("Hi", response_format=SCHEMA))
    assert answer.parsed == {"capital": True, "size": "large"}
    assert answer.schema_report.enforced == ()
    assert "#/properties/size/enum" in answer.schema_report.checked
    with pytest.raises(SchemaValidationError, match="not JSON"):
        assert faces.run(bad.ask("Hi", response_format=SCHEMA)).parsed


def test_a_copy_of_an_answer_has_its_value(faces: Faces, asked: Any) -> None:
    answer = faces.run(asked.ask("Hi", response_format=Town, seed=4, max_tokens=60))
    assert copy.deepcopy(answer).parsed == answer.parsed
    assert pickle.loads(pickle.dumps(answer)).parsed == answer.parsed


def test_the_form_of_a_stored_chat_is_restored_as_its_schema(home: Any) -> None:
    with Client(POCKET, profile=Profile()) as client:
        config = GenerationConfig(response_format=Town, max_tokens=60, seed=4)
        chat = client.chat(config=config)
        first = chat.send("Hi").parsed
        again = client.chat(session_id=chat.session_id)
        assert again.config.response_format.schema == format_of(Town).schema
        assert Town(**again.regenerate().parsed) == first


def test_reasoning_comes_first_and_stays_out_of_the_value(faces: Faces, asked: Any) -> None:
    settings: dict[str, Any] = {"seed": 3, "max_thinking_tokens": 5}
    context = {"enable_thinking": True}
    answer = faces.run(
        asked.ask(
            "What is 2+2?", response_format=SCHEMA, extra_context=context, max_tokens=99, **settings
        )
    )
    assert {*answer.parsed} == {"capital", "size"}
    assert "think" not in answer.text
    if answer.reasoning:
        assert len(answer.tokens) <= 99


def random_schema(source: random.Random, depth: int = 0) -> dict[str, Any]:
    """A schema whose values are short enough to be complete."""
    kinds = ["string", "integer", "number", "enum", "boolean", "const", "format", "pattern"]
    kind = source.choice(kinds + ["object", "array", "anyOf", "ref"] * (3 - depth))
    low = source.randint(-50, 50)
    match kind:
        case "string":
            least = source.randint(0, 4)
            return {"type": "string", "minLength": least, "maxLength": least + 4}
        case "integer":
            return {"type": "integer", "minimum": low, "maximum": low + source.randint(0, 200)}
        case "number":
            return {"type": "number", "multipleOf": 0.5, "minimum": low, "maximum": low + 9}
        case "enum":
            return {"enum": source.sample([1, "é", None, True, "a b", 2.5, '"', "日本"], 3)}
        case "const":
            return {"const": source.choice([{"a": [1, None]}, "ü", [], -1])}
        case "format":
            names = sorted(GENERATED_FORMATS)
            return {"type": "string", "format": source.choice(names), "maxLength": 40}
        case "pattern":
            return {"type": "string", "pattern": source.choice(["^[A-C]{2,4}$", "^x\\d?y$"])}
        case "object":
            names = source.sample(["a", "b c", 'd"e', "ö", "name", "f"], source.randint(1, 4))
            return {
                "type": "object",
                "properties": {name: random_schema(source, depth + 1) for name in names},
                "required": source.sample(names, source.randint(0, len(names))),
                "additionalProperties": False,
            }
        case "array":
            most = source.randint(0, 3)
            items = random_schema(source, depth + 1)
            return {"type": "array", "items": items, "minItems": min(1, most), "maxItems": most}
        case "anyOf":
            return {"anyOf": [random_schema(source, depth + 1) for _ in range(2)]}
        case "ref":
            return {"$ref": "#/$defs/d", "$defs": {"d": {"type": "boolean"}}} if depth == 0 else {}
    return {"type": "boolean"}


def bounded(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without the parts that allow any value, which has no end."""
    if not schema:
        return {"type": "null"}
    for key in ("properties",):
        if key in schema:
            schema[key] = {name: bounded(each) for name, each in schema[key].items()}
    if "items" in schema:
        schema["items"] = bounded(schema["items"])
    if "anyOf" in schema:
        schema["anyOf"] = [bounded(each) for each in schema["anyOf"]]
    return schema


def test_answers_to_random_schemas_at_temperature_one_all_fit() -> None:
    source = random.Random(11)
    schemas = [bounded(random_schema(source)) for _ in range(300)]
    with Client(POCKET) as client:
        for number, schema in enumerate(schemas):
            answer = client.ask(
                "Say something.", response_format=schema, temperature=1.0, top_k=0, top_p=1.0,
                seed=number, max_tokens=900,
            )  # fmt: skip
            assert answer.finish_reason == "stop", (schema, answer.text)
            answer.parsed  # noqa: B018 - it validates
            assert answer.schema_report is not None
            assert answer.schema_report.checked == ()
