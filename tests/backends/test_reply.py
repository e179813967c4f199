import pytest
from hypothesis import given
from hypothesis import strategies as st

from talu.backends.reply import ChatReply, RawReply
from talu.engine.ticket import Piece
from talu.tool_formats.prompted import PROMPTED
from talu.tool_formats.reader import Reader
from talu.types import (
    Event,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallEvent,
)

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2.50}}\n</tool_call>'


def events_of(
    *texts: str, in_reasoning: bool = False, with_tools: bool = True
) -> tuple[ChatReply, list[Event]]:
    """The events of a reply in these pieces; token n ends in piece n."""
    reply = ChatReply(Reader(PROMPTED if with_tools else None, in_reasoning=in_reasoning))
    events = [event for n, text in enumerate(texts) for event in reply.add(Piece(text, (n,)))]
    return reply, events + reply.finish()


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def thought_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, ReasoningDelta))


def tokens_of(events: list[Event]) -> list[int]:
    deltas = [
        event for event in events if isinstance(event, TextDelta | ReasoningDelta | ToolCallDelta)
    ]
    return [token for event in deltas for token in event.tokens]


def calls_of(events: list[Event]) -> list[tuple[str, str]]:
    return [(each.name, each.arguments) for each in events if isinstance(each, ToolCallEvent)]


def test_a_raw_reply_is_the_text_of_the_model() -> None:
    logprobs = (TokenLogprob(1, "<", -1.0),)
    piece = Piece("<think>", (1,), logprobs)
    assert RawReply().add(piece) == [TextDelta("<think>", (1,), logprobs)]
    assert RawReply().finish() == []


def test_reasoning_and_answer_are_separated() -> None:
    _, events = events_of("<thi", "nk>\nHm.", "</think>", "\n\nFour", ".")
    assert (thought_of(events), text_of(events)) == ("Hm.", "Four.")


def test_reasoning_that_the_prompt_opened_continues() -> None:
    _, events = events_of("Hm.", "</think>Four.", in_reasoning=True)
    assert (thought_of(events), text_of(events)) == ("Hm.", "Four.")


def test_a_call_keeps_its_arguments_as_the_model_wrote_them() -> None:
    reply, events = events_of("I add.", CALL)
    assert calls_of(events) == [("add", '{"a": 1, "b": 2.50}')]
    assert text_of(events) == "I add."
    assert (reply.called, reply.notes) == (True, ())


def test_each_call_has_its_own_id() -> None:
    _, events = events_of(CALL, "\n", CALL)
    ids = [event.call_id for event in events if isinstance(event, ToolCallEvent)]
    assert len(set(ids)) == 2


@pytest.mark.parametrize(
    "body", ["{name: add}", '{"arguments": {}}', '{"name": 3}', '{"name": "f", "argu', "[1]", ""]
)
def test_text_that_is_not_a_call_is_unchanged(body: str) -> None:
    reply, events = events_of("So: ", "<tool_call>\n", body, "\n </tool_call>\n", "!")
    assert text_of(events) == f"So: <tool_call>\n{body}\n </tool_call>\n!"
    assert calls_of(events) == []
    assert not reply.called
    assert len(reply.notes) == 1


def test_without_tools_a_call_is_text() -> None:
    reply, events = events_of(f"So: {CALL}\n\n", with_tools=False)
    assert text_of(events) == f"So: {CALL}\n\n"
    assert (reply.called, reply.notes, calls_of(events)) == (False, (), [])


@given(st.lists(st.integers(1, 30), max_size=12), st.booleans())
def test_every_token_is_in_exactly_one_event(cuts: list[int], with_tools: bool) -> None:
    whole = f"<think>Hm.</think>So: {CALL} and <tool_call>no</tool_call>"
    pieces, start = [], 0
    for cut in cuts:
        pieces.append(whole[start : start + cut])
        start += cut
    pieces.append(whole[start:])
    _, events = events_of(*pieces, with_tools=with_tools)
    assert tokens_of(events) == list(range(len(pieces)))
    assert thought_of(events) == "Hm."


def test_the_pieces_of_a_call_join_to_its_arguments() -> None:
    _, events = events_of(*CALL)
    pieces = [event for event in events if isinstance(event, ToolCallDelta)]
    (call,) = [event for event in events if isinstance(event, ToolCallEvent)]
    assert "".join(piece.arguments for piece in pieces) == call.arguments
    assert {(piece.call_id, piece.name) for piece in pieces} == {(call.call_id, call.name)}
    assert pieces[0].arguments == ""


def test_an_answer_that_ends_within_a_call_has_none_and_says_so() -> None:
    reply, events = events_of(CALL[: CALL.index("2.50")])
    assert calls_of(events) == []
    assert not reply.called
    assert len(reply.notes) == 1
