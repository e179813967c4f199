import re
import time
from collections.abc import Iterable
from itertools import groupby, pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from talu.template.regions import Kind, RegionParser

Piece = tuple[Kind, str]
TAGS = ["<think>", "</think>", "<|/think|>", "<tool_call>", "</tool_call>"]
CLOSES = {"reasoning": ("</think>", "<|/think|>"), "tool_call": ("</tool_call>",)}
REPLY = st.lists(st.sampled_from([*TAGS, "<", "th", "</", ">", "\n", " ", "a", "é😀"])).map("".join)


def parse(pieces: Iterable[str], in_reasoning: bool = False) -> list[Piece]:
    parser = RegionParser(in_reasoning)
    out = [part for piece in pieces for part in parser.push(piece)] + parser.finish()
    merged: list[Piece] = []
    for kind, run in groupby(out, key=lambda part: part[0]):
        texts = [text for _, text in run]
        merged += [(kind, t) for t in texts] if kind == "tool_call" else [(kind, "".join(texts))]
    return merged


def by_definition(reply: str, in_reasoning: bool) -> list[Piece]:
    """The rules of the class, said again the slow way: cut at the tag that comes first."""
    out: list[Piece] = []
    kind: Kind = "reasoning" if in_reasoning else "text"
    after_tag = in_reasoning
    while True:
        answered = any(k == "text" and text.strip() for k, text in out)
        opens = ["<tool_call>"]
        before = reply.split("<think>")[0]
        if not answered and not before.strip():
            opens.append("<think>")
        places = [(reply.find(t), t) for t in CLOSES.get(kind, opens) if t in reply]
        at, tag = min(places, default=(len(reply), ""))
        text = reply[:at]
        if after_tag:
            text = text.lstrip("\r\n")
        if kind == "tool_call":
            out.append((kind, reply[:at].strip()))
        elif tag and text.strip():
            out.append((kind, text.rstrip()))
        elif not tag and text:
            out.append((kind, text))
        if not tag:
            return out
        reply = reply[at + len(tag) :]
        kind = {"<think>": "reasoning", "<tool_call>": "tool_call"}.get(tag, "text")
        after_tag = True


@given(REPLY, st.booleans(), st.sets(st.integers(0, 200)))
@example("\n<think>a</think>\n\nb", False, {3})
@example("a <think>b</think>", False, {1, 4})
def test_any_cut_into_pieces_gives_what_the_rules_say(
    reply: str, in_reasoning: bool, cuts: set[int]
) -> None:
    borders = sorted({0, len(reply), *(cut for cut in cuts if cut < len(reply))})
    pieces = [reply[a:b] for a, b in pairwise(borders)]
    expected: list[Piece] = []
    for kind, text in by_definition(reply, in_reasoning):
        if expected and kind == expected[-1][0] != "tool_call":
            expected[-1] = (kind, expected[-1][1] + text)
        else:
            expected.append((kind, text))
    assert parse(pieces, in_reasoning) == expected


@given(REPLY, st.booleans())
def test_nothing_is_lost_but_tags_and_white_space(reply: str, in_reasoning: bool) -> None:
    dropped = rf"(?:{'|'.join(map(re.escape, TAGS))}|\s)*"
    parser = RegionParser(in_reasoning)
    kept = [re.escape(text) for _, text in parser.push(reply) + parser.finish()]
    assert re.fullmatch(dropped + dropped.join([*kept, ""]), reply)


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
        (
            'Look:\n<tool_call>\n{"name": "f"}\n</tool_call>\n<tool_call>{}</tool_call>\n',
            [("text", "Look:"), ("tool_call", '{"name": "f"}'), ("tool_call", "{}")],
        ),
        (
            "<think>a</think><tool_call>{}</tool_call>",
            [("reasoning", "a"), ("tool_call", "{}")],
        ),
        ("<think><tool_call>{}</tool_call>", [("reasoning", "<tool_call>{}</tool_call>")]),
        ('<tool_call>{"name": "f"', [("tool_call", '{"name": "f"')]),
        ("1 <t", [("text", "1 <t")]),
    ],
)
def test_a_reply_is_split_into(reply: str, expected: list[Piece]) -> None:
    assert parse([reply]) == expected
    assert parse(reply) == expected


def test_a_reply_may_begin_inside_reasoning_that_the_prompt_opened() -> None:
    assert parse(["\nHm.\n</th", "ink>\n\nYes."], in_reasoning=True) == [
        ("reasoning", "Hm."),
        ("text", "Yes."),
    ]


def test_text_comes_as_it_arrives() -> None:
    parser = RegionParser()
    assert parser.push("One") == [("text", "One")]
    assert parser.push(" two <") == [("text", " two")]
    assert parser.push("3") == [("text", " <3")]


def test_a_tool_call_comes_in_one_piece_when_it_is_complete() -> None:
    parser = RegionParser()
    assert parser.push('<tool_call>{"name":') == []
    assert parser.push('"f"}</tool_call') == []
    assert parser.push(">") == [("tool_call", '{"name":"f"}')]


@pytest.mark.parametrize(
    "reply",
    ["<think>" * 10_000, "\n" * 70_000, "<tool_call></tool_call>" * 3_000, "<" * 70_000],
    ids=["opened", "breaks", "calls", "starts"],
)
@pytest.mark.parametrize("size", [1, 100_000])
def test_a_hostile_reply_takes_linear_time(reply: str, size: int) -> None:
    started = time.process_time()
    parse(reply[i : i + size] for i in range(0, len(reply), size))
    assert time.process_time() - started < 5  # quadratic: minutes
