"""Answers that deviate from their protocol: nothing of them is lost, mixed or changed silently."""

import json
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from tests.remote import replies
from tests.remote.replies import DONE, JSON, chunk, delta, event, stream, text_chunk, usage_chunk
from tests.remote.server import Cut, Gate, Raw, Reply, Server

from talu import AnthropicBackend, Client, EndpointError, ModelSpec, OpenAICompatibleBackend
from talu.chat import FunctionCallItem
from talu.exceptions import TaluError

Serve = Callable[..., Server]
KEY = "sk-canary-7d41f0-key"
END = (delta(finish="stop"), DONE)


def client_of(server: Server, **options: Any) -> Client:
    options = {"max_retries": 0, **options}
    return Client(ModelSpec("m", OpenAICompatibleBackend(server.base_url, **options)))


def anthropic(server: Server) -> Client:
    return Client(ModelSpec("m", AnthropicBackend(server.url, max_retries=0)))


def failure_of(work: Callable[[], object]) -> EndpointError:
    with pytest.raises(EndpointError) as caught:
        work()
    return caught.value


# Streams


@pytest.mark.parametrize("headers", [(), (("content-type", "text/plain"),), JSON])
def test_a_stream_without_its_type_is_streamed(remote: Any, serve: Serve, headers: Any) -> None:
    gate = Gate()
    server = serve(Reply((delta("a"), gate, delta("b"), *END), headers=headers, framing="chunked"))
    pieces = iter(remote.read_some(remote.stream(remote.client(server)), 1))
    assert "".join(pieces) == "a"
    gate.open()


@pytest.mark.parametrize(
    "first", [b"\xef\xbb\xbf", b"retry: 3000\n\n", b"event: ping\n\n", b"id: 1\n: alive\n\n"]
)
def test_the_first_piece_is_not_lost_after(serve: Serve, first: bytes) -> None:
    with client_of(serve(stream(first, delta("ab"), *END))) as client:
        assert client.ask("hi") == "ab"


HALVES = {
    "a chat": stream(
        event('{"choices": [{"delta": {"content": "fox \\ud83e"}}]}'),
        event('{"choices": [{"delta": {"content": "\\udd8a"}, "finish_reason": "stop"}]}'),
    ),
    "a chat that ends": stream(
        event('{"choices": [{"delta": {"content": "fox \\ud83e"}, "finish_reason": "stop"}]}')
    ),
}


@pytest.mark.parametrize(
    ("name", "text"), [("a chat", "fox \U0001f98a"), ("a chat that ends", "fox \ufffd")]
)
def test_halves_of_a_character_are_joined(serve: Serve, name: str, text: str) -> None:
    with client_of(serve(HALVES[name])) as client:
        assert client.ask("hi") == text


def test_halves_of_a_character_are_joined_in_raw_completions(serve: Serve) -> None:
    halves = [event(f'{{"choices": [{{"text": "{half}"}}]}}') for half in ("\\ud83e", "\\udd8a")]
    with client_of(serve(stream(*halves, text_chunk("", "stop")))) as client:
        assert client.raw_complete("hi") == "\U0001f98a"


def test_halves_of_a_character_are_joined_in_messages(serve: Serve) -> None:
    text = replies.text_block(0, "1", "2")
    halves = [text[0], *(text[n].replace(b'"%d"' % n, half) for n, half in HALF), *text[3:]]
    reply = stream(replies.message_start(), *halves, *replies.message_end())
    with anthropic(serve(reply)) as client:
        assert client.ask("hi") == "\U0001f98a"


HALF = ((1, rb'"\ud83e"'), (2, rb'"\udd8a"'))


def test_a_stream_that_is_open_at_the_end_of_the_loop_ends_without_a_word(serve: Serve) -> None:
    gate = Gate()
    server = serve(stream(delta("a"), gate, *END))
    program = f"""
import asyncio
from talu import AsyncClient
async def main():
    global stream
    stream = AsyncClient("m", base_url={server.base_url!r}).stream("hi")
    print(await anext(stream))
asyncio.run(main())
"""
    run = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("a\n", "", 0)


@pytest.mark.parametrize("end", [(), (DONE,), (Cut(),), (event("{garbage"),)])
def test_text_that_could_begin_a_stop_sequence_is_in_the_answer_that_breaks_off(
    serve: Serve, end: tuple[Any, ...]
) -> None:
    server = serve(stream(delta("abX"), *end))
    error = failure_of(lambda: client_of(server).ask("hi", stop_sequences=["XYZ"]))
    assert error.details["response"].text == "abX"


# Several answers, and parts that are not read

SEVERAL = {
    "a chat without numbers": stream(
        chunk(
            [
                {"delta": {"content": "a"}, "finish_reason": "stop"},
                {"delta": {"content": "b"}, "finish_reason": "stop"},
            ]
        ),
        DONE,
    ),
    "a completion": stream(
        event({"choices": [{"index": 0, "text": "a"}, {"index": 1, "text": "b"}]}),
        event({"choices": [{"index": 1, "text": "c"}]}),
        text_chunk("", "stop"),
        DONE,
    ),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_only_the_first_of_several_answers_is_read(serve: Serve, name: str) -> None:
    with client_of(serve(SEVERAL[name])) as client:
        answer = client.ask("hi") if "chat" in name else client.raw_complete("hi")
    assert answer == "a"
    assert answer.notes == ("the server gave several answers: only the first one was read",)


@pytest.mark.parametrize(
    "fields",
    [
        {"images": [{"image_url": {"url": "data:"}}]},
        {"audio": {"data": "xx"}},
        {"annotations": [{"type": "url_citation"}]},
        {"reasoning": "A", "reasoning_content": "B"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_field_that_is_left_out_is_noted(serve: Serve, fields: dict[str, Any]) -> None:
    with client_of(serve(stream(delta("a", **fields), *END))) as client:
        answer = client.ask("hi")
    (note,) = answer.notes
    assert (answer, repr(next(iter(fields))) in note, "left out" in note) == ("a", True, True)


def test_fields_without_content_are_not_noted(serve: Serve) -> None:
    empty = {"audio": None, "images": [], "tool_calls": None, "prefix": False, "x": ""}
    with client_of(serve(stream(delta("a", **empty), *END))) as client:
        assert client.ask("hi").notes == ()


def test_an_answer_of_another_protocol_is_named(serve: Serve) -> None:
    raw = stream(text_chunk("four", "stop"), DONE)
    assert "raw completion" in str(failure_of(lambda: client_of(serve(raw)).ask("hi")))
    chat = stream(delta("four"), *END)
    assert "a chat" in str(failure_of(lambda: client_of(serve(chat)).raw_complete("hi")))
    error = failure_of(lambda: anthropic(serve(replies.chat("a"))).ask("hi"))
    assert "use OpenAICompatibleBackend" in str(error)
    error = failure_of(lambda: client_of(serve(replies.message("a"))).ask("hi"))
    assert "use AnthropicBackend" in str(error)


def test_an_incomplete_tool_call_is_noted_and_not_sent_back(serve: Serve) -> None:
    call = replies.tool_delta(0, '{"path": "/tm', id="c", name="rm")
    server = serve(stream(call, delta(finish="length"), DONE), replies.chat("fine"))
    with client_of(server) as client:
        chat = client.chat()
        answer = chat.send("hi")
        (item,) = chat.items.filter_by_type(FunctionCallItem)
        assert (item.status.value, item.arguments) == ("incomplete", '{"path": "/tm')
        assert answer.notes == (
            "the tool call 'rm' is incomplete: its arguments are not a JSON object; "
            "max_tokens cut the answer",
        )
        chat.send("And?")
    assert "rm" not in server.requests[1].body.decode()


def test_later_counts_do_not_erase_earlier_ones(serve: Serve) -> None:
    chunks = [usage_chunk(), usage_chunk({}), usage_chunk({"prompt_tokens": None})]
    with client_of(serve(stream(delta("a"), *chunks, *END))) as client:
        usage = client.ask("hi").usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (7, 3)


# Answers that are not streamed


def test_a_whole_answer_that_is_not_utf_8_is_refused(serve: Serve) -> None:
    body = b'{"choices": [{"message": {"content": "a\xff"}, "finish_reason": "stop"}]}'
    error = failure_of(lambda: client_of(serve(Reply((body,), headers=JSON))).ask("hi"))
    assert (error.code, "not UTF-8" in str(error)) == ("ENDPOINT_BAD_ANSWER", True)


@pytest.mark.parametrize("text", ["see\u2028data: x", "a\u0085b", "\ndata: x"])
def test_line_separators_within_json_are_text(serve: Serve, text: str) -> None:
    choice = {"message": {"content": text}, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice]}, ensure_ascii=False, indent=1).encode()
    with client_of(serve(Reply((body,), headers=JSON))) as client:
        assert client.ask("hi") == text


# Text that cannot be sent

ODD = "ab\ud800"
NO_TEXTS: dict[str, Callable[[Any], object]] = {
    "prompt": lambda client: client.raw_complete(ODD),
    "text": lambda client: client.embed(ODD),
    "the prompt of texts": lambda client: client.embed("x", prompt=ODD),
    "stop_sequences": lambda client: client.ask("x", stop_sequences=["y", ODD]),
    "extra_body": lambda client: client.ask("x", extra_body={"a": [ODD]}),
}


@pytest.mark.parametrize("name", NO_TEXTS)
def test_a_lone_surrogate_is_refused_before_anything_is_sent(serve: Serve, name: str) -> None:
    server = serve()
    with client_of(server) as client, pytest.raises(TaluError, match="lone surrogate"):
        NO_TEXTS[name](client)
    assert server.requests == []


# Errors in answers of status 200

IN_ANSWERS: dict[str, tuple[dict[str, Any], str, bool]] = {
    "filtered": ({"code": "content_filter"}, "CONTENT_FILTERED", False),
    "out of credits": ({"code": "insufficient_quota"}, "OUT_OF_CREDITS", False),
    "out of credits, by type": ({"type": "insufficient_quota"}, "OUT_OF_CREDITS", False),
    "no such model": ({"code": "model_not_found"}, "MODEL_NOT_FOUND", False),
    "a wrong prompt": ({"code": "invalid_prompt"}, "BAD_REQUEST", False),
    "too long": ({"code": "context_length_exceeded"}, "GENERATION_CONTEXT_OVERFLOW", False),
    "a number": ({"code": 404}, "MODEL_NOT_FOUND", False),
    "busy": ({"code": 503}, "SERVER_ERROR", True),
    "unnamed": ({}, "SERVER_ERROR", True),
}


@pytest.mark.parametrize("name", IN_ANSWERS)
@pytest.mark.parametrize("streamed", [False, True])
def test_an_error_in_an_answer_has_its_code_and_the_status_of_the_answer(
    serve: Serve, name: str, streamed: bool
) -> None:
    fields, code, transient = IN_ANSWERS[name]
    body = {"error": {"message": "it is broken", **fields}}
    reply = stream(event(body)) if streamed else replies.json_reply(body)
    error = failure_of(lambda: client_of(serve(reply)).ask("hi"))
    assert (error.code, error.status, error.transient) == (code, 200, transient)
    assert "it is broken" in str(error)


BROKEN = {"code": 502, "message": "upstream died"}
WORDS = {
    "in a choice": chunk([{"index": 0, "delta": {}, "finish_reason": "error", "error": BROKEN}]),
    "in a choice that stops": chunk(
        [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop", "error": BROKEN}]
    ),
    "in an event of text": b"event: error\ndata: upstream died\n\n",
    "as a detail": event({"detail": "upstream died"}),
    "as details": event({"detail": [{"msg": "upstream died"}]}),
}


@pytest.mark.parametrize("name", WORDS)
def test_the_words_of_a_server_are_in_the_error(serve: Serve, name: str) -> None:
    error = failure_of(lambda: client_of(serve(stream(WORDS[name], DONE))).ask("hi"))
    assert (error.code, "upstream died" in str(error)) == ("SERVER_ERROR", True)


def test_the_words_of_a_server_are_in_the_error_of_an_embedding(serve: Serve) -> None:
    reply = replies.json_reply({"object": "error", "message": "no such model", "code": 404})
    error = failure_of(lambda: client_of(serve(reply)).embed("hi"))
    assert (error.code, "no such model" in str(error)) == ("MODEL_NOT_FOUND", True)


# Connections


def test_a_silent_port_of_https_is_a_time_out(remote: Any) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/v1"
        backend = OpenAICompatibleBackend(url, connect_timeout_ms=300, max_retries=0)
        error = failure_of(lambda: remote.run(remote.client_of(ModelSpec("m", backend)).ask("hi")))
    assert (error.code, error.transient) == ("ENDPOINT_TIMEOUT", True)
    assert "connect_timeout_ms" in str(error)


FAULTS: dict[str, tuple[Reply, str, str]] = {
    "a wrong chunk": (stream(Raw(b"ZZ\r\n")), "STREAM_BROKEN", "malformed chunk"),
    "a body that is cut": (
        Reply(
            (Raw(b'{"a'), Cut(reset=False)), headers=(*JSON, ("content-length", "9")), framing=""
        ),
        "STREAM_BROKEN",
        "the connection was cut",
    ),
    "no HTTP": (
        Reply(head=b"220 mail ESMTP\r\n\r\n", framing="close"),
        "ENDPOINT_UNREACHABLE",
        "does not speak HTTP",
    ),
    "unmodified": (Reply(status=304), "ENDPOINT_BAD_ANSWER", "status 304"),
    "a page of a proxy": (replies.html(403), "ENDPOINT_BAD_ANSWER", "a proxy or firewall"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_connection_is_said_in_plain_words(serve: Serve, name: str) -> None:
    reply, code, says = FAULTS[name]
    error = failure_of(lambda: client_of(serve(reply)).ask("hi"))
    assert (error.code, says in str(error)) == (code, True), str(error)
    assert not any(text in str(error) for text in ("bytearray", "https://", "redirects", "no key"))


def test_a_time_out_names_the_option_that_was_given(serve: Serve) -> None:
    server = serve(always=lambda _: Reply(before=(Gate(),)))
    for option in ("timeout_ms", "first_token_timeout_ms"):
        client = client_of(server, **{option: 100})
        assert f"({option})" in str(failure_of(lambda client=client: client.ask("hi")))
    error = failure_of(lambda: client_of(server, first_token_timeout_ms=100).embed("hi"))
    assert "(first_token_timeout_ms)" in str(error)


# Keys that a server repeats

ECHOES: dict[str, Reply] = {
    "an error in an answer": replies.json_reply({"error": {"message": f"bad {KEY}"}}),
    "an error in an event": stream(event({"error": {"message": f"bad {KEY}"}})),
    "an error after a piece": stream(delta("a"), event({"error": {"message": f"bad {KEY}"}})),
    "a page": Reply((f"<html><title>{KEY}</title>".encode(),)),
    "text": Reply((KEY.encode(),)),
    "not JSON": Reply((f'{{"a": {KEY}'.encode(),)),
    "a status": replies.failure(401, f"bad {KEY}"),
    "another form": replies.json_reply({"choices": KEY, "data": KEY}),
    "another form of an event": stream(event({"choices": [KEY]})),
    "wrong vectors": replies.json_reply({"data": [{"embedding": [KEY]}]}),
}


def frames(error: BaseException) -> str:
    """All variables of the frames of talu and its libraries."""
    lines = []
    for each in (error, error.__cause__, error.__context__):
        if each is not None:
            summary = traceback.TracebackException.from_exception(each, capture_locals=True)
            lines += [str(f.locals) for f in summary.stack if "tests" not in f.filename]
    return "".join(lines)


@pytest.mark.parametrize("name", ECHOES)
def test_a_key_that_a_server_repeats_is_not_in_a_traceback(
    remote: Any, serve: Serve, name: str
) -> None:
    server = serve(always=lambda _: ECHOES[name])
    client = remote.client(server, api_key=KEY, max_retries=0)
    for work in (
        lambda: remote.run(client.ask("hi")),
        lambda: remote.read(remote.stream(client)),
        lambda: remote.embed(client, ["hi"]),
    ):
        error = failure_of(work)
        assert (KEY in str(error), KEY in frames(error)) == (False, False)
