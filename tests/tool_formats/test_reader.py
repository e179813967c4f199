"""Answers are split into text, reasoning and calls, whatever pieces they arrive in."""

import time
from collections.abc import Iterable
from itertools import groupby, pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from talu.tool_formats.description import Reasoning
from talu.tool_formats.prompted import PROMPTED
from talu.tool_formats.reader import Kind, Reader

Piece = tuple[Kind, str]
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
TAGS = ["<think>", "</think>", "<|/think|>", "<tool_call>", "</tool_call>"]
CLOSES = ("</think>", "<|/think|>")
MORE = [CALL, '<tool_call>{"name": "', '", "arguments": ', "{}", "}\n</tool_call>"]
LETTERS = ["<", "th", "</", ">", "\n", " ", "a", "é😀"]
REPLY = st.lists(st.sampled_from([*TAGS, *MORE, *LETTERS])).map("".join)
READ: list[Piece] = [("name", "f"), ("arguments", '{"a": 1}'), ("end", "")]


def parse(pieces: Iterable[str], in_reasoning: bool = False, calls: bool = True) -> list[Piece]:
    reader = Reader(PROMPTED if calls else None, in_reasoning=in_reasoning)
    out = [part for piece in pieces for part in reader.push(piece)] + reader.finish()
    return merged((part.kind, part.text) for part in out)


def merged(parts: Iterable[Piece]) -> list[Piece]:
    found: list[Piece] = []
    for kind, run in groupby(parts, key=lambda part: part[0]):
        texts = [text for _, text in run]
        found += [(kind, each) for each in texts] if kind == "end" else [(kind, "".join(texts))]
    return found


def by_definition(reply: str, in_reasoning: bool) -> list[Piece]:
    """A slow implementation of the rules without calls: repeatedly cut at the first tag."""
    out: list[Piece] = []
    kind: Kind = "reasoning" if in_reasoning else "text"
    text, after_tag = "", in_reasoning  # of the region so far
    while True:
        tags = CLOSES
        if kind == "text":
            answered = "".join(t for k, t in out if k == "text") + text
            tags = () if (answered + reply.split("<think>")[0]).strip() else ("<think>",)
        at, tag = min(((reply.find(t), t) for t in tags if t in reply), default=(len(reply), ""))
        text, reply = text + reply[:at], reply[at + len(tag) :]
        shown = text.lstrip("\r\n") if after_tag else text
        out.append((kind, shown.rstrip() if tag else shown))
        if not tag:
            return merged(piece for piece in out if piece[1])
        kind = "reasoning" if tag == "<think>" else "text"
        text, after_tag = "", True


def borders(reply: str, cuts: set[int]) -> list[str]:
    places = sorted({0, len(reply), *(cut for cut in cuts if cut < len(reply))})
    return [reply[a:b] for a, b in pairwise(places)]


@given(REPLY, st.booleans(), st.sets(st.integers(0, 200)))
@example("\n<think>a</think>\n\nb", False, {3})
@example("a <think>b</think>", False, {1, 4})
@settings(max_examples=300)
def test_text_and_reasoning_are_those_of_the_definition(
    reply: str, in_reasoning: bool, cuts: set[int]
) -> None:
    pieces = borders(reply, cuts)
    assert parse(pieces, in_reasoning, calls=False) == by_definition(reply, in_reasoning)


@given(REPLY, st.booleans(), st.sets(st.integers(0, 200)))
@example(f"a \n{CALL} b", False, {5, 20, 40})
@example(f"<tool_call> {CALL}", False, {3, 14})
@settings(max_examples=300)
def test_the_result_does_not_depend_on_how_the_reply_is_cut(
    reply: str, in_reasoning: bool, cuts: set[int]
) -> None:
    assert parse(borders(reply, cuts), in_reasoning) == parse([reply], in_reasoning)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Hello.", [("text", "Hello.")]),
        ("\n Hello.\n", [("text", "\n Hello.\n")]),
        ("<think>\nHm.\n</think>\n\nYes.", [("reasoning", "Hm."), ("text", "Yes.")]),
        ("<think>Hm.<|/think|>Yes.", [("reasoning", "Hm."), ("text", "Yes.")]),
        ("<think>\n\n</think>\n\nYes.", [("text", "Yes.")]),
        ("<think>a</think>\n\n    code", [("reasoning", "a"), ("text", "    code")]),
        ("<think>never closed\n", [("reasoning", "never closed\n")]),
        ("Done</think> already", [("text", "Done</think> already")]),
        ("The <think> tag opens.", [("text", "The <think> tag opens.")]),
        (f"Look:\n{CALL}\n{CALL}\n", [("text", "Look:"), *READ, *READ]),
        (f"<think>a</think>{CALL}", [("reasoning", "a"), *READ]),
        (f"<think>{CALL}", [("reasoning", CALL)]),
        (f"{CALL}\n\nDone.", [*READ, ("text", "Done.")]),
        (CALL.replace("\n", "", 1), READ),
        ('<tool_call>{"name": "f"', [("text", '<tool_call>{"name": "f"')]),
        (CALL[:-5], READ),
        (CALL[: CALL.index("1")], [("name", "f"), ("arguments", '{"a": ')]),
        ("one <tool_call>\n two </tool_call>\n\nthree", None),
        ("one <tool_call>\n{ two </tool_call>\n\nthree", None),
        ('{"name": "", "arguments": {}}', None),
        ("1 <t", [("text", "1 <t")]),
    ],
)
def test_a_reply_is_split_into_reasoning_answer_and_calls(
    reply: str, expected: list[Piece] | None
) -> None:
    expected = [("text", reply)] if expected is None else expected
    assert parse([reply]) == expected
    assert parse(reply) == expected


def test_a_reply_may_begin_inside_reasoning_that_the_prompt_opened() -> None:
    assert parse(["\nHm.\n</th", "ink>\n\nYes."], in_reasoning=True) == [
        ("reasoning", "Hm."),
        ("text", "Yes."),
    ]


def test_reasoning_has_the_tags_of_the_template() -> None:
    reader = Reader(reasoning=Reasoning("[THINK]", "[/THINK]"))
    assert reader.push("[THINK]a[/THINK]b<think>") == [("reasoning", "a"), ("text", "b<think>")]


def test_text_comes_as_it_arrives() -> None:
    reader = Reader(PROMPTED)
    assert reader.push("One") == [("text", "One")]
    assert reader.push(" two <") == [("text", " two")]
    assert reader.push("3") == [("text", " <3")]


def test_without_tools_a_tool_call_tag_streams_as_text() -> None:
    reader = Reader()
    assert reader.push("Use <tool_call>") == [("text", "Use <tool_call>")]
    assert reader.push(" {") == [("text", " {")]


def test_text_that_cannot_be_a_call_streams_immediately() -> None:
    reader = Reader(PROMPTED)
    assert reader.push("The tag <tool_call>") == [("text", "The tag")]
    assert "".join(part.text for part in reader.push(" opens.")) == " <tool_call> opens."


def test_a_tag_spelled_in_letters_is_text_if_the_tag_is_a_token() -> None:
    reader = Reader(in_reasoning=True, mark_tags=lambda tag: "\ufdd0" + tag, mark="\ufdd0")
    pieces = ["a ", "</", "think>", " b", "\ufdd0</think>", "c \ufdd0", "<think>"]
    out = [part for piece in pieces for part in reader.push(piece)] + reader.finish()
    texts = {kind: "".join(t for k, t in out if k == kind) for kind in ("reasoning", "text")}
    assert texts == {"reasoning": "a </think> b", "text": "c <think>"}


@pytest.mark.parametrize(
    "reply",
    [
        *("<think>" * 10_000, "\n" * 70_000, CALL * 3_000, "<" * 70_000),
        *("<tool_call>" + " " * 70_000, "<tool_call>" * 6_000, "<tool_call>{</tool_call>" * 3_000),
    ],
    ids=["opened", "breaks", "calls", "starts", "space in a call", "openings", "no calls"],
)
@pytest.mark.parametrize("size", [1, 100_000])
def test_a_hostile_reply_takes_linear_time(reply: str, size: int) -> None:
    started = time.process_time()
    parse(reply[i : i + size] for i in range(0, len(reply), size))
    assert time.process_time() - started < 5  # quadratic: minutes
