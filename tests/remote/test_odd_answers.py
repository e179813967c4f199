"""Answers with values that no protocol allows: a typed error, or a note, and never a guess."""

import asyncio
import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.remote import replies
from tests.remote.replies import DONE, delta, event, stream
from tests.remote.server import Gate, Reply, Server

from talu import (
    AnthropicBackend,
    AsyncClient,
    Client,
    CompletionOptions,
    EndpointError,
    ModelSpec,
    OpenAICompatibleBackend,
    StateError,
    ValidationError,
)
from talu.chat import FunctionCallItem
from talu.types import FinishReason

Serve = Callable[..., Server]
END = (delta(finish="stop"), DONE)


def client_of(server: Server) -> Client:
    return Client(ModelSpec("m", OpenAICompatibleBackend(server.base_url, max_retries=0)))


def part(**fields: Any) -> bytes:
    return delta(tool_calls=[fields])


@pytest.mark.parametrize("reason", ["", "null", "None", None])
def test_a_reason_that_says_nothing_is_no_end(serve: Serve, reason: Any) -> None:
    chunks = [delta("Once", finish=reason), delta(" upon", finish=reason)]
    with client_of(serve(stream(*chunks))) as client:
        chat = client.chat()
        with pytest.raises(EndpointError, match="no finish reason") as caught:
            chat.send("Hi")
    assert caught.value.code == "STREAM_BROKEN"
    assert (chat.items[-1].text, chat.items[-1].status.value) == ("Once upon", "incomplete")


@pytest.mark.parametrize(
    "reason", ["error", "abort", "insufficient_system_resource", "network_error"]
)
def test_a_reason_that_names_a_failure_is_one(serve: Serve, reason: str) -> None:
    chunks = stream(delta("Once"), delta(finish=reason), DONE)
    with client_of(serve(chunks)) as client, pytest.raises(EndpointError, match=reason) as caught:
        client.ask("Hi")
    assert (caught.value.code, caught.value.transient) == ("STREAM_BROKEN", True)
    assert caught.value.details["response"].text == "Once"


@pytest.mark.parametrize("reason", [False, 0, [], {"a": 1}])
def test_a_reason_that_is_not_text_is_refused(serve: Serve, reason: Any) -> None:
    server, what = serve(stream(delta("a", finish=reason), DONE)), "finish reason that is not text"
    with client_of(server) as client, pytest.raises(EndpointError, match=what) as caught:
        client.ask("Hi")
    assert caught.value.code == "ENDPOINT_BAD_ANSWER"


def test_a_full_context_is_the_reason_length(serve: Serve) -> None:
    with client_of(serve(stream(delta("a", finish="model_length"), DONE))) as client:
        assert client.ask("Hi").finish_reason is FinishReason.LENGTH


CALLS: dict[str, tuple[list[bytes], list[tuple[str, str, str]]]] = {
    "arguments as an object": (
        [part(index=0, id="c", function={"name": "f", "arguments": {"city": "Köln"}})],
        [("c", "f", '{"city": "Köln"}')],
    ),
    "two calls with one number": (
        [
            part(index=0, id="c1", function={"name": "f", "arguments": "{}"}),
            part(index=0, id="c2", function={"name": "g", "arguments": "{}"}),
        ],
        [("c1", "f", "{}"), ("c2", "g", "{}")],
    ),
    "the name in every part": (
        [
            part(index=0, id="c", function={"name": "f", "arguments": '{"a"'}),
            part(index=0, id="c", function={"name": "f", "arguments": ":1}"}),
        ],
        [("c", "f", '{"a":1}')],
    ),
    "the older form": (
        [delta(function_call={"name": "f", "arguments": "{}"})],
        [("call_0", "f", "{}")],
    ),
    "whole calls without numbers": (
        [
            delta(
                tool_calls=[
                    {"id": "a", "function": {"name": "f", "arguments": "{}"}},
                    {"id": "b", "function": {"name": "g", "arguments": "{}"}},
                ]
            )
        ],
        [("a", "f", "{}"), ("b", "g", "{}")],
    ),
}


@pytest.mark.parametrize("case", CALLS)
def test_tool_calls_arrive_whole_however_they_are_sent(serve: Serve, case: str) -> None:
    chunks, expected = CALLS[case]
    with client_of(serve(stream(*chunks, delta(finish="tool_calls"), DONE))) as client:
        calls = client.ask("Hi").tool_calls or []
    assert [(call.id, call.name, call.arguments) for call in calls] == expected


def test_a_call_after_the_finish_reason_is_not_lost(serve: Serve) -> None:
    call = part(index=0, id="c", function={"name": "f", "arguments": "{}"})
    with client_of(serve(stream(delta(finish="tool_calls"), call, DONE))) as client:
        assert [each.name for each in client.ask("Hi").tool_calls or ()] == ["f"]


def logprob(value: object) -> bytes:
    entries = {"content": [{"token": "a", "logprob": value}]}
    return event({"choices": [{"index": 0, "delta": {}, "logprobs": entries}]})


NESTED: Any = "x"
for _ in range(120):
    NESTED = [NESTED]
MALFORMED: dict[str, bytes] = {
    "id that is a number": part(index=0, id=5, function={"name": "f"}),
    "id that is a list": part(index=0, id=["x"], function={"name": "f"}),
    "arguments that are a number": part(index=0, id="c", function={"name": "f", "arguments": 5}),
    "no name": part(index=0, id="c", function=None),
    "NaN to keep": part(index=0, id="c", function={"name": "f"}, extra_content={"a": float("nan")}),
    "deep data to keep": part(index=0, id="c", function={"name": "f"}, extra_content=NESTED),
    "details with NaN": delta(reasoning_details=[float("nan")]),
    "content that is a number": delta(content=5),  # type: ignore[arg-type]
    "content that is true": delta(content=True),  # type: ignore[arg-type]
    "content that is an object": delta(content={}),  # type: ignore[arg-type]
    "index that is text": event({"choices": [{"index": "0", "delta": {"content": "a"}}]}),
    "index that is true": event({"choices": [{"index": True, "delta": {"content": "a"}}]}),
    "a delta that is text": event({"choices": [{"index": 0, "delta": "a"}]}),
    "a huge logprob": logprob(10**400),
    "a logprob that is text": logprob("x"),
    "details of the usage that are text": event(
        {"choices": [], "usage": {"prompt_tokens_details": "x"}}
    ),
    "a number of 5,000 digits": b'data: {"choices": [' + b"1" * 5000 + b"]}\n\n",
    "an event that is a list": event([1]),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_value_of_a_wrong_type_is_a_typed_error_that_keeps_the_text(
    serve: Serve, case: str
) -> None:
    chunks = stream(delta("Once"), MALFORMED[case], delta(finish="tool_calls"), DONE)
    with client_of(serve(chunks)) as client, pytest.raises(EndpointError) as caught:
        client.ask("Hi")
    assert (caught.value.code, caught.value.transient) == ("ENDPOINT_BAD_ANSWER", False)
    assert caught.value.details["response"].text == "Once"
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("case", MALFORMED)
def test_it_is_one_as_the_first_event_too(serve: Serve, case: str) -> None:
    chunks = stream(MALFORMED[case], delta(finish="tool_calls"), DONE)
    with client_of(serve(chunks)) as client, pytest.raises(EndpointError) as caught:
        client.ask("Hi")
    assert caught.value.code == "ENDPOINT_BAD_ANSWER"


def test_half_a_surrogate_pair_is_replaced_and_the_chat_goes_on(serve: Serve) -> None:
    half = b'data: {"choices": [{"index": 0, "delta": {"content": "a\\ud800b"}}]}\n\n'
    server = serve(stream(half, *END), replies.chat("fine"))
    with client_of(server) as client:
        chat = client.chat()
        assert chat.send("Hi") == "a\ufffdb"
        assert chat.send("And?") == "fine"


def test_what_is_left_out_is_noted(serve: Serve) -> None:
    odd = delta(content=[{"type": "text", "text": "Hi"}, {"type": "image", "url": "x"}])  # type: ignore[arg-type]
    second = event({"choices": [{"index": 1, "delta": {"content": "other"}}]})
    with client_of(serve(stream(odd, second, *END))) as client:
        answer = client.ask("Hi")
    assert (answer, len(answer.notes)) == ("Hi", 2)


@pytest.mark.parametrize("headers", [(), (("content-type", "text/plain"),)])
def test_an_answer_without_its_usual_type_is_read(serve: Serve, headers: Any) -> None:
    whole = replies.chat_body("Hi")
    events = b"".join(replies.chat_events("Hi", "!"))
    server = serve(Reply(whole.steps, headers=headers), Reply((events,), headers=headers))
    with client_of(server) as client:
        assert [client.ask("1"), client.ask("2")] == ["Hi", "Hi!"]


@pytest.mark.parametrize("body", [b"", b"hello", b"<html></html>"])
def test_text_that_is_no_answer_is_refused(serve: Serve, body: bytes) -> None:
    with client_of(serve(Reply((body,)))) as client, pytest.raises(EndpointError) as caught:
        client.ask("Hi")
    assert caught.value.code == "ENDPOINT_BAD_ANSWER"


def test_closing_a_client_cancels_what_it_waits_for(faces, serve: Serve) -> None:
    gate = Gate()
    server = serve(stream(delta("Once"), gate, delta(" upon"), *END))
    client = faces.face.client_class("m", base_url=server.base_url)
    answer = faces.run(client.chat()("Hi"))
    gate.wait_reached()
    faces.run(client.close())
    assert "".join(faces.read(answer)) == "Once"
    assert answer.finish_reason is FinishReason.CANCELLED


SILENT = Reply(before=(Gate(),))
BUSY = replies.failure(503, headers=[("retry-after", "60")])
WAITING = pytest.mark.parametrize("reply", [SILENT, BUSY], ids=["for a server", "to repeat"])


@WAITING
def test_closing_a_client_ends_its_embeddings_at_once(serve: Serve, reply: Reply) -> None:
    server = serve(always=lambda _: reply)
    client = Client(ModelSpec("m", OpenAICompatibleBackend(server.base_url, max_retries=5)))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.embed, "Hi")
        server.wait_for(1)
        client.close()
        with pytest.raises(StateError, match="is closed"):
            waiting.result(30)
    assert len(server.requests) == 1


@WAITING
def test_closing_a_client_ends_its_awaited_embeddings_at_once(serve: Serve, reply: Reply) -> None:
    server = serve(always=lambda _: reply)
    client = AsyncClient(ModelSpec("m", OpenAICompatibleBackend(server.base_url, max_retries=5)))

    async def close() -> None:
        waiting = asyncio.ensure_future(client.aembed("Hi"))
        await asyncio.to_thread(server.wait_for, 1)
        await client.close()
        await asyncio.wait_for(waiting, 30)

    with pytest.raises(StateError, match="is closed"):
        asyncio.run(close())
    assert len(server.requests) == 1


def test_many_answers_that_break_leave_nothing_to_the_garbage_collector(serve: Serve) -> None:
    odd = stream(delta("hi"), event({"choices": None}), *END)
    with client_of(serve(always=lambda _: odd)) as client:
        for _ in range(50):
            with pytest.raises(EndpointError):
                client.ask("Hi")
        gc.collect()  # an error in a finalizer fails the test


def test_an_unused_prompt_is_not_echoed(serve: Serve) -> None:
    from_ids = {"token_ids": [1, 2], "echo_prompt": True}
    wrong = "echo_prompt needs a prompt of text"
    with client_of(serve()) as client, pytest.raises(ValidationError, match=wrong):
        client.raw_complete("hi", completion_opts=CompletionOptions(**from_ids))


def anthropic(server: Server) -> Client:
    return Client(ModelSpec("m", AnthropicBackend(server.url, max_retries=0)))


def test_a_block_whose_end_was_not_sent_is_not_lost(serve: Serve) -> None:
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    opened = replies.block(0, call, {"type": "input_json_delta", "partial_json": '{"a":1}'})[:-1]
    reply = stream(replies.message_start(), *opened, *replies.message_end("tool_use"))
    with anthropic(serve(reply)) as client:
        chat = client.chat()
        chat.send("Hi")
    assert chat.items.filter_by_type(FunctionCallItem)[0].arguments == '{"a":1}'


BLOCKS: dict[str, list[bytes]] = {
    "a block opened twice": replies.text_block(0, "a")[:-1] + replies.text_block(0, "b"),
    "text that is a number": replies.block(0, {"type": "text"}, {"type": "text_delta", "text": 5}),
    "redacted data that is a number": replies.block(0, {"type": "redacted_thinking", "data": 5}),
    "an input with NaN": replies.block(
        0, {"type": "tool_use", "id": "t", "name": "f", "input": {"a": float("nan")}}
    ),
    "a call without a name": replies.block(0, {"type": "tool_use", "id": "t", "input": {}}),
    "an id that is a number": replies.block(0, {"type": "tool_use", "id": 5, "name": "f"}),
}


@pytest.mark.parametrize("case", BLOCKS)
def test_a_malformed_block_is_a_typed_error(serve: Serve, case: str) -> None:
    reply = stream(replies.message_start(), *BLOCKS[case], *replies.message_end())
    with anthropic(serve(reply)) as client, pytest.raises(EndpointError) as caught:
        client.ask("Hi")
    assert caught.value.code == "ENDPOINT_BAD_ANSWER"
