"""What goes wrong at an endpoint: each failure is one typed error with what the server said."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from tests.remote import replies
from tests.remote.replies import DONE, delta, event, failure, usage_chunk
from tests.remote.server import Cut, Endless, Raw, Reply, Server

from talu.exceptions import EndpointError, TaluError

KEY = "sk-secret-0123456789"
RESET = [("x-ratelimit-reset-tokens", "20s")]
IDS = [("x-request-id", "req_7")]
ENDED = "the engine died"


@dataclass(frozen=True)
class Wrong:
    """The error that a reply should be.

    Attributes:
        says: a part of the message.
    """

    code: str
    status: int | None = None
    transient: bool = False
    says: str = ""
    retry_after: float | None = None
    request_id: str | None = None


HALF = Raw(b"ff\r\ndata: {")
NO_CONTENT = Reply((), 200, replies.JSON)
DETAIL = {"detail": [{"loc": ["body", "n"], "msg": "Field required", "type": "missing"}]}


def spent(status: int) -> Reply:
    """OpenAI's answer without credits."""
    return failure(status, "You exceeded your current quota", code="insufficient_quota")


FAILURES: dict[str, tuple[Reply, Wrong]] = {
    "400": (failure(400, "bad field"), Wrong("BAD_REQUEST", 400, says="bad field")),
    "400 of a form": (
        replies.json_reply(DETAIL, 400),
        Wrong("BAD_REQUEST", 400, says="Field required"),
    ),
    "400 as text": (
        Reply((b"what is this?",), 400, (("content-type", "text/plain"),)),
        Wrong("BAD_REQUEST", 400, says="what is this?"),
    ),
    "400 without a body": (Reply((), 400), Wrong("BAD_REQUEST", 400)),
    "400 with an id": (
        failure(400, headers=IDS),
        Wrong("BAD_REQUEST", 400, request_id="req_7"),
    ),
    "401": (failure(401, "no key"), Wrong("AUTHENTICATION_FAILED", 401, says="no key")),
    "403": (failure(403, "not you"), Wrong("AUTHENTICATION_FAILED", 403, says="not you")),
    "402": (failure(402, "no credits"), Wrong("OUT_OF_CREDITS", 402, says="no credits")),
    "404, model": (
        failure(404, "The model `m` does not exist", code="model_not_found"),
        Wrong("MODEL_NOT_FOUND", 404, says="does not exist"),
    ),
    "404, path": (
        replies.json_reply({"detail": "Not Found"}, 404),
        Wrong("ENDPOINT_BAD_ANSWER", 404, says="base_url"),
    ),
    "404, page": (replies.html(404), Wrong("ENDPOINT_BAD_ANSWER", 404, says="base_url")),
    "408": (failure(408, "too slow"), Wrong("SERVER_ERROR", 408, transient=True)),
    "409": (failure(409, "conflict"), Wrong("SERVER_ERROR", 409, transient=True)),
    "413": (failure(413, "too large"), Wrong("GENERATION_CONTEXT_OVERFLOW", 413)),
    "422": (failure(422, "bad value"), Wrong("BAD_REQUEST", 422, says="bad value")),
    "429": (
        failure(429, "slow down", headers=[("retry-after", "7"), *IDS]),
        Wrong("RATE_LIMITED", 429, True, "slow down", 7.0, "req_7"),
    ),
    "429, milliseconds": (
        failure(429, headers=[("retry-after-ms", "1500"), ("retry-after", "9")]),
        Wrong("RATE_LIMITED", 429, transient=True, retry_after=1.5),
    ),
    "429, a date in the past": (
        failure(429, headers=[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")]),
        Wrong("RATE_LIMITED", 429, transient=True, retry_after=0.0),
    ),
    "429, nonsense": (
        failure(429, headers=[("retry-after", "soon")]),
        Wrong("RATE_LIMITED", 429, transient=True),
    ),
    "429, the reset of a limit": (
        failure(429, headers=[("x-ratelimit-remaining-tokens", "0"), *RESET]),
        Wrong("RATE_LIMITED", 429, transient=True, retry_after=20.0),
    ),
    "429, a limit with something left": (
        failure(429, headers=[("x-ratelimit-remaining-tokens", "5"), *RESET]),
        Wrong("RATE_LIMITED", 429, transient=True),
    ),
    "503, the reset of a limit": (
        failure(503, headers=[("x-ratelimit-remaining-tokens", "0"), *RESET]),
        Wrong("SERVER_ERROR", 503, transient=True),
    ),
    "429, no credits": (spent(429), Wrong("OUT_OF_CREDITS", 429, says="quota")),
    "500": (failure(500, ENDED), Wrong("SERVER_ERROR", 500, True, ENDED)),
    "502, page": (replies.html(502), Wrong("SERVER_ERROR", 502, transient=True)),
    "503, loading": (
        failure(503, "Loading model", type="unavailable_error", code=503),
        Wrong("SERVER_ERROR", 503, transient=True, says="Loading model"),
    ),
    "529": (failure(529, "overloaded"), Wrong("SERVER_ERROR", 529, transient=True)),
    "500, not again": (
        failure(500, headers=[("x-should-retry", "false")]),
        Wrong("SERVER_ERROR", 500),
    ),
    "content policy": (
        failure(400, "The response was filtered", code="content_filter"),
        Wrong("CONTENT_FILTERED", 400),
    ),
    "307": (
        replies.redirect("http://other.example/v1?key=hidden"),
        Wrong("ENDPOINT_REDIRECT", 307, says="other.example"),
    ),
    "301": (replies.redirect("/v1/", 301), Wrong("ENDPOINT_REDIRECT", 301, says="/v1/")),
    "a page": (replies.html(), Wrong("ENDPOINT_BAD_ANSWER", 200, says="base_url")),
    "no body": (NO_CONTENT, Wrong("ENDPOINT_BAD_ANSWER", 200)),
    "a stream without events": (replies.stream(), Wrong("STREAM_BROKEN", transient=True)),
    "only [DONE]": (replies.stream(DONE), Wrong("STREAM_BROKEN", transient=True)),
    "an error object": (failure(200, ENDED), Wrong("SERVER_ERROR", says=ENDED)),
    "choices of null": (
        replies.json_reply({"choices": None}),
        Wrong("ENDPOINT_BAD_ANSWER", says="choices"),
    ),
    "choices of null in an event": (
        replies.stream(event({"choices": None})),
        Wrong("ENDPOINT_BAD_ANSWER", says="choices"),
    ),
    "a choice that is a text": (
        replies.stream(event({"choices": ["x"]})),
        Wrong("ENDPOINT_BAD_ANSWER"),
    ),
    "a list": (replies.stream(event([1])), Wrong("ENDPOINT_BAD_ANSWER")),
    "garbage": (replies.stream(event("{garbage")), Wrong("ENDPOINT_BAD_ANSWER", says="JSON")),
    "bytes that are no text": (
        replies.stream(b"data: \xff\xfe\n\n"),
        Wrong("ENDPOINT_BAD_ANSWER"),
    ),
    "deep JSON": (
        replies.stream(event("[" * 100_000)),
        Wrong("ENDPOINT_BAD_ANSWER"),
    ),
    "cut before the headers": (
        Reply(before=(Cut(),)),
        Wrong("ENDPOINT_UNREACHABLE", transient=True),
    ),
    "closed before the headers": (
        Reply(before=(Cut(reset=False),)),
        Wrong("ENDPOINT_UNREACHABLE", transient=True),
    ),
    "no HTTP": (replies.not_http(), Wrong("ENDPOINT_UNREACHABLE", transient=True)),
    "another protocol": (
        Reply(head=b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n", framing="close"),
        Wrong("ENDPOINT_UNREACHABLE", transient=True, says="another protocol (status 101)"),
    ),
    "a length that is none": (
        Reply(head=b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", framing="close"),
        Wrong("ENDPOINT_UNREACHABLE", transient=True, says="does not follow HTTP"),
    ),
    "compressed": (
        replies.zipped(replies.chat_body("ab")),
        Wrong("ENDPOINT_BAD_ANSWER", 200, says="compressed"),
    ),
    "huge headers": (
        replies.huge_headers(1 << 20),
        Wrong("ENDPOINT_UNREACHABLE", transient=True),
    ),
}
FAILURES |= {
    f"too long, {server}": (
        replies.json_reply(body, 400),
        Wrong("GENERATION_CONTEXT_OVERFLOW", 400),
    )
    for server, body in replies.TOO_LONG.items()
}
FAILURES |= {
    f"error event, {server}": (replies.stream(data), Wrong("SERVER_ERROR", says=ENDED))
    for server, data in replies.ERRORS_IN_EVENTS.items()
}


def failed(work: Callable[[], object]) -> EndpointError:
    """The error that it raises, which has no secret in it."""
    with pytest.raises(TaluError) as caught:
        work()
    error = caught.value
    assert isinstance(error, EndpointError), error
    shown = f"{error!r} {error} {error.details}"
    assert (KEY in shown, "hidden" in shown, len(shown) < 8_000) == (False, False, True)
    return error


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_one_typed_error(remote: Any, serve: Any, name: str) -> None:
    reply, wrong = FAILURES[name]
    server = serve(reply)
    client = remote.client(server, api_key=KEY, max_retries=0)
    error = failed(lambda: remote.run(client.ask("hi")))
    assert error.code == wrong.code
    assert (error.retry_after, error.request_id) == (wrong.retry_after, wrong.request_id)
    assert wrong.says in str(error)
    assert server.url in str(error)
    if wrong.status is not None:
        assert (error.status, error.transient) == (wrong.status, wrong.transient)


@pytest.mark.parametrize("name", replies.ERRORS_IN_EVENTS)
def test_an_error_after_the_first_token_keeps_the_text(remote: Any, serve: Any, name: str) -> None:
    server = serve(replies.stream(delta("ab"), replies.ERRORS_IN_EVENTS[name]))
    check_broken(remote, server, "SERVER_ERROR", ENDED)


BROKEN: dict[str, tuple[list[Any], str]] = {
    "the server leaves": ([], "STREAM_BROKEN"),
    "[DONE] without a finish reason": ([DONE], "STREAM_BROKEN"),
    "usage without a finish reason": ([usage_chunk(), DONE], "STREAM_BROKEN"),
    "cut": ([Cut()], "STREAM_BROKEN"),
    "closed in a chunk": ([HALF, Cut(reset=False)], "STREAM_BROKEN"),
    "garbage": ([event("{garbage")], "ENDPOINT_BAD_ANSWER"),
    "choices of null": ([event({"choices": None})], "ENDPOINT_BAD_ANSWER"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_stream_that_breaks_is_an_error_that_keeps_the_text(
    remote: Any, serve: Any, name: str
) -> None:
    rest, code = BROKEN[name]
    check_broken(remote, serve(replies.stream(delta("ab"), *rest)), code)


def check_broken(remote: Any, server: Server, code: str, says: str = "") -> None:
    """An answer breaks after its first piece: the error, and what is left of it."""
    chat = remote.client(server, api_key=KEY, max_retries=3).chat()
    stream = remote.run(chat("hi"))
    error = failed(lambda: remote.read(stream))
    assert (error.code, says in str(error)) == (code, True)
    assert (stream.text, str(stream.finish_reason)) == ("ab", "error")
    last = chat.items.last
    assert (last.text, last.status.name) == ("ab", "INCOMPLETE")
    assert len(server.requests) == 1  # never repeated after the first token


def test_an_endless_line_is_refused_in_bounded_memory(remote: Any, serve: Any) -> None:
    server = serve(replies.endless_line())
    client = remote.client(server, max_retries=0)
    assert failed(lambda: remote.run(client.ask("hi"))).code == "ENDPOINT_BAD_ANSWER"
    server.request.wait_closed()


def test_endless_comments_end_with_the_time_for_the_first_token(remote: Any, serve: Any) -> None:
    server = serve(replies.stream(Endless(b": ping\n\n")))
    client = remote.client(server, max_retries=0, first_token_timeout_ms=1000)
    assert failed(lambda: remote.run(client.ask("hi"))).code == "ENDPOINT_TIMEOUT"
    server.request.wait_closed()


def test_an_endless_error_message_is_shortened(remote: Any, serve: Any) -> None:
    server = serve(failure(400, "x" * 1_000_000))
    error = failed(lambda: remote.run(remote.client(server).ask("hi")))
    assert (error.code, len(str(error)) < 3_000) == ("BAD_REQUEST", True)


def test_a_key_that_the_server_repeats_is_not_shown(remote: Any, serve: Any) -> None:
    server = serve(failure(401, f"Incorrect API key provided: {KEY}."))
    error = failed(lambda: remote.run(remote.client(server, api_key=KEY).ask("hi")))
    assert "Incorrect API key provided: ***." in str(error)


def test_a_server_that_does_not_run_is_unreachable(remote: Any, closed_port: int) -> None:
    server: Any = type("Nobody", (), {"base_url": f"http://127.0.0.1:{closed_port}/v1"})
    error = failed(lambda: remote.run(remote.client(server, max_retries=0).ask("hi")))
    assert (error.code, error.status, error.transient) == ("ENDPOINT_UNREACHABLE", None, True)
    assert re.search("refused.*port", str(error))


def test_a_host_without_an_address_is_unreachable(remote: Any) -> None:
    server: Any = type("Nobody", (), {"base_url": "http://nobody.invalid/v1"})
    error = failed(lambda: remote.run(remote.client(server, max_retries=0).ask("hi")))
    assert (error.code, "nobody.invalid" in str(error)) == ("ENDPOINT_UNREACHABLE", True)


def test_a_certificate_that_nobody_signed_is_refused(remote: Any, serve: Any, tls: Any) -> None:
    server = serve(tls=tls)
    error = failed(lambda: remote.run(remote.client(server, api_key=KEY).ask("hi")))
    assert (error.code, error.transient) == ("ENDPOINT_TLS", False)
    assert "self-signed" in str(error)
    assert server.requests == []


def test_http_at_the_port_of_https_is_an_error(remote: Any, serve: Any) -> None:
    server = serve()
    client = remote.client(server, base_url=server.base_url.replace("http", "https"))
    assert failed(lambda: remote.run(client.ask("hi"))).code == "ENDPOINT_TLS"


def test_a_failure_of_an_embedding_is_typed_as_well(remote: Any, serve: Any) -> None:
    server = serve(failure(404, "The model `m` does not exist", headers=IDS))
    client = remote.client(server, api_key=KEY)
    error = failed(lambda: remote.embed(client, ["a"]))
    assert (error.code, error.request_id) == ("MODEL_NOT_FOUND", "req_7")


VECTORS: dict[str, Reply] = {
    "a page": replies.html(),
    "too few": replies.embeddings([1.0]),
    "several lengths": replies.embeddings([1.0], [1.0, 2.0]),
    "not finite": replies.json_reply(
        {"data": [{"index": index, "embedding": [float("nan")]} for index in range(2)]}
    ),
    "one twice": replies.json_reply({"data": [{"index": 0, "embedding": [1.0]}] * 2}),
    "nothing": replies.json_reply({}),
}


@pytest.mark.parametrize("name", VECTORS)
def test_embeddings_that_are_none_are_refused(remote: Any, serve: Any, name: str) -> None:
    client = remote.client(serve(VECTORS[name]))
    assert failed(lambda: remote.embed(client, ["a", "b"])).code == "ENDPOINT_BAD_ANSWER"
