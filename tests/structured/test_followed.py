"""Forms of local models that are hard to follow: special tokens, numbers, sizes."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from talu import Choice, Client, Grammar, SchemaValidationError, StructuredOutputError
from talu.engine.held_keywords import _near, _spellings

GEMMA = Path(sys.prefix) / "share" / "models" / "gemma-3-270m-q4_k_m.gguf"
PLAIN = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
SETTINGS: dict[str, Any] = {"temperature": 1.0, "inject_schema_prompt": False, "max_tokens": 300}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Client("talu/pocket") as opened:
        yield opened


def closed(*names: str) -> dict[str, Any]:
    properties = {name: {"type": "boolean"} for name in names}
    whole = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**whole, "required": list(names)}


@pytest.mark.parametrize(
    ("form", "values"),
    [
        (Grammar('root ::= "a<|im_end|>b"'), ["a<|im_end|>b"]),
        (Choice(["<|im_end|>", "x<|im_end|>y"]), ["<|im_end|>", "x<|im_end|>y"]),
        ({"enum": ["a<|im_end|>b"]}, ["a<|im_end|>b"]),
        ({"const": "<think>x</think>"}, ["<think>x</think>"]),
        ({"const": "日本é😀\n<|im_start|>"}, ["日本é😀\n<|im_start|>"]),
        (closed("<|endoftext|>"), [{"<|endoftext|>": True}, {"<|endoftext|>": False}]),
    ],
    ids=range(6),
)
def test_text_that_spells_special_tokens_is_text(
    client: Client, form: Any, values: list[Any]
) -> None:
    for seed in range(4):
        answer = client.ask("Hi", response_format=form, seed=seed, **SETTINGS)
        assert answer.parsed in values
        assert answer.finish_reason == "stop"


@pytest.mark.parametrize("text", ["<bos>hi", "<pad>", "<unk>", "<eos>", "<mask>"])
def test_a_tokenizer_with_a_vocabulary_of_its_special_tokens_writes_them(text: str) -> None:
    with Client(str(GEMMA)) as client:
        form = {"const": {text: text}}
        answer = client.ask("Hi", response_format=form, chat_template=PLAIN, **SETTINGS)
        assert answer.parsed == {text: text}


@pytest.mark.parametrize(
    "limits",
    [
        {"exclusiveMinimum": 0, "exclusiveMaximum": 0.5},
        {"exclusiveMinimum": 0, "maximum": 0.9},
        {"exclusiveMinimum": 3, "exclusiveMaximum": 3.5},
        {"exclusiveMinimum": 99, "exclusiveMaximum": 99.9},
        {"minimum": -0.5, "exclusiveMaximum": 0},
        {"exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"exclusiveMinimum": -1.25, "exclusiveMaximum": 7},
    ],
    ids=str,
)
def test_an_exclusive_limit_is_never_written(client: Client, limits: dict[str, Any]) -> None:
    form = {"type": "number", **limits}
    for seed in range(8):
        answer = client.ask("0 3 99 0", response_format=form, seed=seed, **SETTINGS)
        answer.parsed  # noqa: B018 - it validates
        assert answer.schema_report.checked == ()


def test_the_limits_beside_exclusive_ones_are_near_to_them() -> None:
    assert (_near(0, 1), _near(0.5, -1), _near(3, 1)) == (1e-06, 0.4999999, 3.000001)
    assert _spellings(0.5) == ["0.5", "0.50"]
    assert _spellings(3.0) == ["3", "3.0"]
    assert "-0" in _spellings(0)


@pytest.mark.parametrize(
    ("form", "checked"),
    [
        (Literal[1234567890123456789, 1234567890123456788], "#/enum"),
        ({"const": 2**53 + 1}, "#/const"),
        ({"type": "integer", "minimum": 1234567890123456789}, "#/minimum"),
        ({"type": "integer", "minimum": -(10**30), "maximum": 5}, "#/minimum"),
        ({"type": "number", "minimum": 0, "maximum": 1e308}, "#/maximum"),
        ({"type": "number", "multipleOf": 0.0007, "maximum": 1}, "#/multipleOf"),
    ],
    ids=str,
)
def test_numbers_that_no_grammar_holds_exactly_are_checked(
    client: Client, form: Any, checked: str
) -> None:
    answer = client.ask("0", response_format=form, seed=1, **SETTINGS)
    assert checked in answer.schema_report.checked
    assert checked not in answer.schema_report.enforced


def test_a_large_number_that_is_another_one_is_refused(client: Client) -> None:
    answer = client.ask("0", response_format=Literal[2**60 + 1], seed=1, **SETTINGS)
    with pytest.raises(SchemaValidationError, match="is not one of"):
        answer.parsed  # noqa: B018


def test_a_choice_may_have_ten_thousand_options(client: Client) -> None:
    options = [f"option {number}" for number in range(10_000)]
    answer = client.ask("Hi", response_format=Choice(options), seed=3, **SETTINGS)
    assert answer.parsed in options


def test_an_object_may_have_many_optional_properties(client: Client) -> None:
    properties = {f"p{number}": {"type": "boolean"} for number in range(1_000)}
    form = {"type": "object", "properties": properties, "additionalProperties": False}
    answer = client.ask("Hi", response_format=form, seed=3, **{**SETTINGS, "max_tokens": 12})
    assert answer.partial is not None


def test_a_grammar_that_never_ends_is_refused_by_the_call(client: Client) -> None:
    with pytest.raises(StructuredOutputError, match="cannot be followed"):
        client.ask("Hi", response_format=Grammar('root ::= "a" root'), **SETTINGS)
