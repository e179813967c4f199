"""The form of an answer is explained to the model, and not in the history."""

from typing import Any

import pytest

from talu import (
    Choice,
    Client,
    GenerationConfig,
    GenerationError,
    Grammar,
    Regex,
    ValidationError,
)
from talu.structured.explanation import explained
from talu.types import Request

SCHEMA = {"type": "array", "items": {"enum": ["a", "é"]}}
CONFIG = {"response_format": SCHEMA}
AS_TYPE = (
    'Answer with JSON of this TypeScript type, and nothing else:\n```typescript\n("a" | "é")[]\n```'
)
SYSTEM, USER = {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}
PARTS = [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "a"}}]


def shown(*messages: dict[str, Any], unasked: bool = True, **config: Any) -> list[Any]:
    request = Request(messages=messages, config=GenerationConfig(**{**CONFIG, **config}))
    found = explained(request, unasked=unasked).request.messages
    return [message["content"] for message in found or ()]


def test_the_end_of_the_system_message_explains_the_form() -> None:
    assert shown(SYSTEM, USER) == [f"Be kind.\n\n{AS_TYPE}", "Hi"]


def test_without_a_system_message_the_last_message_of_the_user_does() -> None:
    answer = {"role": "assistant", "content": "Yes?"}
    last = {"role": "user", "content": "List them."}
    assert shown(USER, answer, last) == ["Hi", "Yes?", f"{AS_TYPE}\n\nList them."]


@pytest.mark.parametrize("place", ["{{ schema }}", "{{schema}}"])
def test_a_place_in_the_system_message_or_the_last_of_the_user_is_filled(place: str) -> None:
    there = {"role": "system", "content": f"As {place}, please."}
    assert shown(there, USER) == [f"As {AS_TYPE}, please.", "Hi"]
    question = {"role": "user", "content": f"Write {place}!"}
    assert shown(SYSTEM, question) == ["Be kind.", f"Write {AS_TYPE}!"]


def test_all_places_are_filled_also_in_earlier_messages() -> None:
    there = {"role": "system", "content": "{{schema}}, {{  schema  }}"}
    answer = {"role": "assistant", "content": "{{ schema }}"}
    question = {"role": "user", "content": "As {{ schema }}."}
    filled = [f"{AS_TYPE}, {AS_TYPE}", f"As {AS_TYPE}.", "{{ schema }}", "Hi"]
    assert shown(there, question, answer, USER) == filled


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"response_format": None}, "not asked to have a form"),
        ({"response_format": Regex("a")}, "regular expressions and grammars are not explained"),
        ({"response_format": Grammar('root ::= "a"')}, "grammars are not explained"),
        ({"inject_schema_prompt": False}, "inject_schema_prompt=True would explain"),
    ],
)
def test_a_place_that_is_not_filled_has_a_note(config: dict[str, Any], reason: str) -> None:
    question = {"role": "user", "content": "As {{ schema }}."}
    given = GenerationConfig(**{**CONFIG, **config})
    found = explained(Request(messages=(question,), config=given), unasked=True)
    assert found.request.messages == (question,)
    (note,) = found.notes
    assert reason in note
    assert explained(Request(messages=(USER,), config=given), unasked=True).notes == ()


def test_an_answer_has_the_note_of_a_place_that_is_not_filled() -> None:
    with Client("talu/pocket") as client:
        few: dict[str, Any] = {"max_tokens": 2}
        chat = client.chat(system="Use {{schema}}.")
        assert any("as it is" in note for note in chat.send("Hi", **few).notes)
        assert any(
            "raw completion" in note for note in client.raw_complete("{{ schema }}", **few).notes
        )
        assert not any("as it is" in note for note in client.ask("Hi", **few).notes)


def test_a_place_is_filled_when_an_answer_is_asked_for_again() -> None:
    with Client("talu/pocket") as client:
        form = {
            "type": "array",
            "items": {"enum": ["a", "b"]},
            "maxItems": 2,
            "contains": {"const": 0},
        }
        answer = client.ask(
            "Use {{ schema }} Hi",
            response_format=form,
            validation_retries=1,
            temperature=0,
            max_tokens=30,
        )
        assert "asked for again" in answer.notes[-1]
        assert "schema }}" not in answer.prompt
        assert answer.prompt.count("TypeScript") == 1


def test_other_parts_of_a_message_stay() -> None:
    image = PARTS[1]
    assert shown({"role": "user", "content": PARTS}) == [
        [{"type": "text", "text": AS_TYPE}, *PARTS]
    ]
    text = {"type": "text", "text": "See {{ schema }}"}
    assert shown({"role": "user", "content": [image, text]}) == [
        [image, {"type": "text", "text": f"See {AS_TYPE}"}]
    ]


@pytest.mark.parametrize(
    ("strategy", "text"),
    [
        ("auto", AS_TYPE),
        ("typescript", AS_TYPE),
        (
            "json_schema",
            "Answer with JSON that fits this JSON Schema, and nothing else:\n```json\n"
            '{"type": "array", "items": {"enum": ["a", "é"]}}\n```',
        ),
        (
            "xml_schema",
            "Answer with JSON that fits this JSON Schema, and nothing else:\n<schema>\n"
            '{"type": "array", "items": {"enum": ["a", "é"]}}\n</schema>',
        ),
    ],
)
def test_a_schema_is_explained_in_one_of_three_ways(strategy: str, text: str) -> None:
    assert shown(USER, schema_strategy=strategy) == [f"{text}\n\nHi"]


def test_the_options_of_a_choice_are_listed() -> None:
    options = "Answer with one of these texts, and nothing else:\n- yes\n- no"
    assert shown(USER, response_format=Choice(["yes", "no"])) == [f"{options}\n\nHi"]


@pytest.mark.parametrize("form", [Regex("a+"), Grammar('root ::= "a"')])
def test_expressions_and_grammars_are_not_explained(form: Any) -> None:
    assert shown(USER, response_format=form) == ["Hi"]


@pytest.mark.parametrize(
    ("setting", "unasked", "is_shown"),
    [(None, True, True), (None, False, False), (False, True, False), (True, False, True)],
)
def test_a_setting_decides_before_the_default(
    setting: bool | None, unasked: bool, is_shown: bool
) -> None:
    content = shown(USER, unasked=unasked, inject_schema_prompt=setting)
    assert content == ([f"{AS_TYPE}\n\nHi"] if is_shown else ["Hi"])


def test_the_prompt_of_a_local_model_explains_the_form_and_the_history_does_not() -> None:
    with Client("talu/pocket") as client:
        chat = client.chat(system="Be kind.", config=GenerationConfig(max_tokens=40, seed=1))
        answer = chat.send("Hi", response_format=SCHEMA)
        assert AS_TYPE in answer.prompt
        assert AS_TYPE in chat.preview_prompt(config=GenerationConfig(**CONFIG))
        assert [item.text for item in chat.items][:2] == ["Be kind.", "Hi"]
        assert answer.schema_report.explained == "typescript"
        bare = chat.send("Hi", response_format=SCHEMA, inject_schema_prompt=False)
        assert AS_TYPE not in bare.prompt
        assert bare.schema_report.explained is None


def test_the_error_for_a_prompt_that_is_too_long_names_the_explanation() -> None:
    form = {"enum": [f"option {number}" for number in range(3000)]}
    with Client("talu/pocket") as client:
        with pytest.raises(GenerationError, match="inject_schema_prompt=False") as long:
            client.ask("Hi", response_format=form)
        assert long.value.details["context_length"] == 1024
        bare = client.ask("Hi", response_format=form, inject_schema_prompt=False)
        assert bare.parsed in form["enum"]


@pytest.mark.parametrize("name", ["inject_schema_prompt", "schema_strategy", "allow_thinking"])
def test_a_raw_completion_has_no_place_for_an_explanation(name: str) -> None:
    value = {"schema_strategy": "auto"}.get(name, True)
    with Client("talu/pocket") as client, pytest.raises(ValidationError, match=name):
        client.raw_complete("Hi", **{name: value})
