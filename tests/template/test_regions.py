import re
import time
from collections.abc import Iterable
from itertools import groupby, pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from talu.template.regions import Kind, RegionParser

Piece = tuple[Kind, str]
TAGS = ["<think>", "</think>", "<|/think|>", "<tool_call>", "</tool_call>"]
CLOSES = ("</think>", "<|/think|>")
REPLY = st.lists(
    st.sampled_from([*TAGS, "<tool_call>{", "{", "}", "<", "th", "</", ">", "\n", " ", "a", "é😀"])
).map("".join)


def is_call(body: str) -> bool:
    return body.endswith("}")


def parse(pieces: Iterable[str], in_reasoning: bool = False, calls: bool = True) -> list[Piece]:
    parser = RegionParser(in_reasoning, is_call=is_call if calls else None)
    out = [part for piece in pieces for part in parser.push(piece)] + parser.finish()
    merged: list[Piece] = []
    for kind, run in groupby(out, key=lambda part: part[0]):
        texts = [text for _, text in run]
        merged += [(kind, t) for t in texts] if kind == "tool_call" else [(kind, "".join(texts))]
    return merged


def by_definition(reply: str, in_reasoning: bool, calls: bool) -> list[Piece]:
    """A slow implementation of the same rules: repeatedly cut at the first tag."""
    out: list[Piece] = []
    kind: Kind = "reasoning" if in_reasoning else "text"
    text, after_tag = "", in_reasoning  # of the region so far

    def leave(tag: str) -> None:
        shown = text.lstrip("\r\n") if after_tag else text
        out.append((kind, shown.rstrip() if tag else shown))

    while True:
        tags = CLOSES
        if kind == "text":
            tags = ("<tool_call>",) if calls else ()
            answered = "".join(t for k, t in out if k == "text") + text
            if not (answered + reply.split("<think>")[0]).strip():
                tags = (*tags, "<think>")
        at, tag = min(((reply.find(t), t) for t in tags if t in reply), default=(len(reply), ""))
        text, reply = text + reply[:at], reply[at + len(tag) :]
        if tag == "<tool_call>" and not reply.lstrip().startswith("{"):
            space = len(reply) - len(reply.lstrip())
            text, reply = text + tag + reply[:space], reply[space:]
            continue
        body, end, rest = reply.partition("</tool_call>")
        if tag == "<tool_call>" and not is_call(body.strip()):
            text, reply = text + tag + body + end, rest
            continue
        leave(tag)
        if not tag:
            return [piece for piece in out if piece[1]]
        if tag == "<tool_call>":
            out.append(("tool_call", body.strip()))
            reply = rest
        kind = "reasoning" if tag == "<think>" else "text"
        text, after_tag = "", True


@given(REPLY, st.booleans(), st.booleans(), st.sets(st.integers(0, 200)))
@example("\n<think>a</think>\n\nb", False, True, {3})
@example("a <think>b</think>", False, True, {1, 4})
@example("a \n<tool_call> b </tool_call>", False, True, {5})
@example("a \n<tool_call> {b </tool_call> c", False, True, {5})
@example("<tool_call> <tool_call>{}</tool_call>", False, True, set())
@settings(max_examples=300)
def test_the_result_does_not_depend_on_how_the_reply_is_cut(
    reply: str, in_reasoning: bool, calls: bool, cuts: set[int]
) -> None:
    borders = sorted({0, len(reply), *(cut for cut in cuts if cut < len(reply))})
    pieces = [reply[a:b] for a, b in pairwise(borders)]
    expected: list[Piece] = []
    for kind, text in by_definition(reply, in_reasoning, calls):
        if expected and kind == expected[-1][0] != "tool_call":
            expected[-1] = (kind, expected[-1][1] + text)
        else:
            expected.append((kind, text))
    assert parse(pieces, in_reasoning, calls) == expected


@given(REPLY, st.booleans())
def test_only_tags_and_white_space_are_dropped(reply: str, in_reasoning: bool) -> None:
    dropped = rf"(?:{'|'.join(map(re.escape, TAGS))}|\s)*"
    parser = RegionParser(in_reasoning, is_call=is_call)
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
        ('<tool_call>{"name": "f"', [("text", '<tool_call>{"name": "f"')]),
        ('<tool_call>{"name": "f"}', [("tool_call", '{"name": "f"}')]),
        ("one <tool_call>\n two </tool_call>\n\nthree", None),
        ("one <tool_call>\n{ two </tool_call>\n\nthree", None),
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


def test_text_comes_as_it_arrives() -> None:
    parser = RegionParser(is_call=is_call)
    assert parser.push("One") == [("text", "One")]
    assert parser.push(" two <") == [("text", " two")]
    assert parser.push("3") == [("text", " <3")]


def test_without_tools_a_tool_call_tag_streams_as_text() -> None:
    parser = RegionParser()
    assert parser.push("Use <tool_call>") == [("text", "Use <tool_call>")]
    assert parser.push(" {") == [("text", " {")]


def test_text_that_cannot_be_a_call_streams_immediately() -> None:
    parser = RegionParser(is_call=is_call)
    assert parser.push("The tag <tool_call>") == [("text", "The tag")]
    assert parser.push(" op") == [("text", " <tool_call>"), ("text", " op")]
    assert parser.push("ens.") == [("text", "ens.")]


def test_a_tag_spelled_in_letters_is_text_if_the_tag_is_a_token() -> None:
    parser = RegionParser(True, tag_text=lambda tag: "\ufdd0" + tag, mark="\ufdd0")
    pieces = ["a ", "</", "think>", " b", "\ufdd0</think>", "c \ufdd0", "<think>"]
    out = [part for piece in pieces for part in parser.push(piece)] + parser.finish()
    texts = {kind: "".join(t for k, t in out if k == kind) for kind in ("reasoning", "text")}
    assert texts == {"reasoning": "a </think> b", "text": "c <think>"}


def test_a_tool_call_comes_in_one_piece_when_it_is_complete() -> None:
    parser = RegionParser(is_call=is_call)
    assert parser.push('<tool_call>{"name":') == []
    assert parser.push('"f"}</tool_call') == []
    assert parser.push(">") == [("tool_call", '{"name":"f"}')]


@pytest.mark.parametrize(
    "reply",
    [
        *("<think>" * 10_000, "\n" * 70_000, "<tool_call>{}</tool_call>" * 3_000, "<" * 70_000),
        *("<tool_call>" + " " * 70_000, "<tool_call>" * 6_000, "<tool_call>{</tool_call>" * 3_000),
    ],
    ids=["opened", "breaks", "calls", "starts", "space in a call", "openings", "no calls"],
)
@pytest.mark.parametrize("size", [1, 100_000])
def test_a_hostile_reply_takes_linear_time(reply: str, size: int) -> None:
    started = time.process_time()
    parse(reply[i : i + size] for i in range(0, len(reply), size))
    assert time.process_time() - started < 5  # quadratic: minutes
