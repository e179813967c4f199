"""The format of gpt-oss, whose answers are messages with headers."""

import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talu.engine.engine import Engine
from talu.engine.registry import acquire
from talu.structured.formats import format_of
from talu.structured.values import Choice
from talu.tool_formats.derive import derive
from talu.tool_formats.grammar import calls_rule
from talu.tool_formats.harmony import HARMONY, HarmonyReader, harmony_start
from talu.tool_formats.rules import Rules
from talu.types import LocalBackend

SOURCE = (Path(sys.prefix) / "share" / "templates" / "openai-gpt-oss-120b.jinja").read_text()
THINKING = "<|channel|>analysis<|message|>Hm, <b>.<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>It is\nnoon."
CALL = '<|channel|>commentary to=functions.now <|constrain|>json<|message|>{"a": "é"}<|call|>'
IN_ROLE = ' to=functions.now<|channel|>commentary json<|message|>{"a": "é"}<|call|>'
PREAMBLE = "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant"
READ = [("name", "now"), ("arguments", '{"a": "é"}'), ("end", "")]
TOOLS = {"now": {"type": "object", "properties": {"a": {"type": "string"}}}}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    lease = acquire("talu/pocket", LocalBackend(), offline=True)
    yield lease.engine
    lease.release()


def read(*pieces: str, with_tools: bool = True) -> list[tuple[str, str]]:
    reader = HarmonyReader(with_tools=with_tools)
    parts = [part for piece in pieces for part in reader.push(piece)] + reader.finish()
    found: list[tuple[str, str]] = []
    for kind, text in parts:
        if found and found[-1][0] == kind:
            found[-1] = (kind, found[-1][1] + text)
        else:
            found.append((kind, text))
    return found


def test_the_template_is_recognised() -> None:
    assert derive(SOURCE).format == HARMONY


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (THINKING + FINAL, [("reasoning", "Hm, <b>."), ("text", "It is\nnoon.")]),
        (THINKING + CALL, [("reasoning", "Hm, <b>."), *READ]),
        (THINKING + IN_ROLE, [("reasoning", "Hm, <b>."), *READ]),
        (PREAMBLE + CALL, [("text", "I look."), *READ]),
        (FINAL, [("text", "It is\nnoon.")]),
        (CALL[:-10], [("name", "now"), ("arguments", '{"a": "é')]),
    ],
)
def test_messages_are_read_by_their_channels(answer: str, expected: list[tuple[str, str]]) -> None:
    assert read(answer) == expected
    assert read(*answer) == expected


@given(st.sets(st.integers(0, 200)))
def test_the_pieces_of_an_answer_do_not_matter(cuts: set[int]) -> None:
    answer = THINKING + PREAMBLE + CALL
    places = sorted({0, len(answer), *(cut for cut in cuts if cut < len(answer))})
    pieces = [answer[a:b] for a, b in pairwise(places)]
    assert read(*pieces) == read(answer)


@pytest.mark.parametrize(
    ("choice", "allowed", "forbidden"),
    [
        ("required", [CALL[:-8]], [FINAL, IN_ROLE]),
        ("none", [FINAL], [CALL[:-8]]),
        ("form", [CALL[:-8], "<|channel|>final<|message|>yes"], [FINAL]),
    ],
)
def test_a_choice_is_enforced(
    engine: Engine, choice: str, allowed: list[str], forbidden: list[str]
) -> None:
    """With a vocabulary in which the tags are spelled."""
    grammars = engine.grammars
    rules = Rules({}, lambda schema: grammars.embedded(schema)[0], grammars.takes_pattern)
    calls = None if choice == "none" else calls_rule(rules, HARMONY, TOOLS, many=False)
    text = {"required": None, "none": "/(?s:.*)/", "form": "@form"}[choice]
    lark = rules.text(harmony_start(rules, calls, text))
    form = format_of(Choice(["yes", "no"])) if choice == "form" else None
    for answer, fits in [(each, True) for each in allowed] + [(each, False) for each in forbidden]:
        found = grammars.of_calls(lark, form)
        ids = engine.tokenizer.encode(answer, special_tokens=False)
        read_all = found.try_consume_tokens(ids) == len(ids)
        assert (read_all and found.is_accepting()) is fits, answer
