"""The test server, and what the bare SDKs do: the reason why talu checks every answer itself."""

import json
import ssl
from collections.abc import Callable
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from tests.remote import replies
from tests.remote.server import Cut, Endless, Gate, Raw, Reply, Server

ASKED: Any = [{"role": "user", "content": "hi"}]
GARBAGE = b"event: content_block_delta\ndata: {garbage\n\n"
HALF_CHUNK = Raw(b"ff\r\ndata: {")
Serve = Callable[..., Server]


def ask_openai(server: Server, **options: Any) -> list[Any]:
    """The chunks of a streamed chat."""
    with openai.OpenAI(base_url=server.base_url, api_key="key", **options) as client:
        return list(client.chat.completions.create(model="m", messages=ASKED, stream=True))


def ask_anthropic(server: Server, **options: Any) -> list[Any]:
    """The events of a streamed message."""
    with anthropic.Anthropic(base_url=server.url, api_key="key", **options) as client:
        return list(client.messages.create(model="m", max_tokens=9, messages=ASKED, stream=True))


BROKEN: list[Any] = [  # openai's error, anthropic's error
    pytest.param([Cut()], openai.APIConnectionError, httpx2.ReadError, id="reset"),
    pytest.param(
        [HALF_CHUNK, Cut(reset=False)],
        openai.APIConnectionError,
        httpx2.RemoteProtocolError,
        id="cut in a chunk",
    ),
    pytest.param([GARBAGE], json.JSONDecodeError, json.JSONDecodeError, id="garbage"),
]


def test_a_request_is_recorded_to_the_byte(serve: Serve) -> None:
    server = serve(replies.chat("a"))
    ask_openai(server, default_headers={"X-Mine": "Yes"})
    request = server.request
    assert request.raw.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1")
    assert request.values("X-Mine") == ["Yes"]
    assert request.json == {"messages": ASKED, "model": "m", "stream": True}


def test_a_connection_is_used_again(serve: Serve) -> None:
    server = serve(replies.models("a"), replies.models("b"))
    with openai.OpenAI(base_url=server.base_url, api_key="key") as client:
        assert [m.id for m in (*client.models.list(), *client.models.list())] == ["a", "b"]
    assert ([each.connection for each in server.requests], server.connections) == ([0, 0], 1)


def test_a_gate_holds_the_reply_and_a_closed_connection_is_seen(serve: Serve) -> None:
    gate = Gate()
    server = serve(replies.stream(replies.delta("a"), gate, replies.delta("b")))
    client = openai.OpenAI(base_url=server.base_url, api_key="key")
    chunks = client.chat.completions.create(model="m", messages=ASKED, stream=True)
    assert next(chunks).choices[0].delta.content == "a"
    gate.wait_reached()
    chunks.close()
    server.request.wait_closed()
    assert (server.request.steps_sent, server.request.answered.is_set()) == (1, False)
    client.close()


def test_a_request_without_a_planned_reply_fails_the_test() -> None:
    server = Server()
    with pytest.raises(openai.InternalServerError):
        ask_openai(server, max_retries=0)
    with pytest.raises(AssertionError, match=r"no reply was planned for \['POST /v1/chat"):
        server.close()


def test_a_server_answers_over_ipv6_and_tls(serve: Serve, tls: Any, certificate: Any) -> None:
    server = serve(replies.models("a"), host="::1", tls=tls)
    with pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx2.get(server.url)
    with httpx2.Client(verify=ssl.create_default_context(cafile=certificate)) as client:
        assert client.get(f"{server.base_url}/models").json()["data"][0]["id"] == "a"


def test_an_endless_reply_ends_when_the_client_goes(serve: Serve) -> None:
    server = serve(replies.stream(Endless(b"x")))
    with httpx2.stream("GET", server.url) as response:
        assert len(next(response.iter_raw())) > 0
    server.request.wait_closed()


def test_a_bomb_is_small_until_it_is_decompressed(serve: Serve) -> None:
    body = replies.bomb(8 << 20)
    server = serve(Reply((body,), headers=(("content-encoding", "gzip"),)))
    assert (len(body) < 20_000, len(httpx2.get(server.url).content) > 8 << 20) == (True, True)


def test_both_sdks_end_a_stream_silently_that_the_server_has_left(serve: Serve) -> None:
    left = serve(replies.stream(replies.delta("a")), replies.stream(replies.message_start()))
    assert [each.choices[0].finish_reason for each in ask_openai(left)] == [None]
    assert [each.type for each in ask_anthropic(left)] == ["message_start"]


@pytest.mark.parametrize(("steps", "openai_error", "anthropic_error"), BROKEN)
def test_a_broken_stream_is_another_error_in_each_sdk(
    serve: Serve, steps: list[Any], openai_error: type, anthropic_error: type
) -> None:
    server = serve(
        replies.stream(replies.delta("a"), *steps),
        replies.stream(replies.message_start(), *steps),
    )
    with pytest.raises(openai_error):
        ask_openai(server)
    with pytest.raises(anthropic_error):
        ask_anthropic(server)


def test_a_stalled_stream_is_another_error_in_each_sdk(serve: Serve) -> None:
    server = serve(always=lambda _: replies.stream(Gate()))
    with pytest.raises(openai.APITimeoutError):
        ask_openai(server, timeout=0.1)
    with pytest.raises(httpx2.ReadTimeout):
        ask_anthropic(server, timeout=0.1)


def test_an_error_in_an_event_has_no_status_in_one_sdk_and_status_200_in_the_other(
    serve: Serve,
) -> None:
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    server = serve(
        replies.stream(replies.ERRORS_IN_EVENTS["openai"]),
        replies.stream(replies.named(overloaded)),
    )
    with pytest.raises(openai.APIError) as caught:
        ask_openai(server)
    assert not isinstance(caught.value, openai.APIStatusError)
    with pytest.raises(anthropic.APIStatusError) as other:
        ask_anthropic(server)
    assert other.value.status_code == 200


def test_an_error_event_of_vllm_is_an_ordinary_chunk_for_the_sdk(serve: Serve) -> None:
    server = serve(replies.stream(replies.ERRORS_IN_EVENTS["vllm"]))
    (chunk,) = ask_openai(server)
    assert (chunk.choices, chunk.message) == (None, "the engine died")


def test_a_page_is_a_text_and_an_error_object_is_an_answer_without_choices(serve: Serve) -> None:
    server = serve(replies.html(), replies.failure(200))
    with openai.OpenAI(base_url=server.base_url, api_key="key") as client:
        answers: list[Any] = [
            client.chat.completions.create(model="m", messages=ASKED) for _ in range(2)
        ]
    assert answers[0] == replies.HTML.decode()
    assert (answers[1].choices, answers[1].error["message"]) == (None, "it failed")


def test_redirects_are_followed_with_other_key_headers_unless_switched_off(serve: Serve) -> None:
    other = serve(replies.chat("a"))
    server = serve(*[replies.redirect(f"{other.base_url}/chat/completions")] * 2)
    ask_openai(server, default_headers={"api-key": "secret"})
    assert [other.request.values(name) for name in ("authorization", "api-key")] == [
        [],
        ["secret"],
    ]
    with pytest.raises(openai.APIStatusError) as caught:
        ask_openai(server, http_client=openai.DefaultHttpx2Client(follow_redirects=False))
    assert caught.value.status_code == 307


def test_one_sdk_cannot_be_made_without_a_key_and_the_other_fails_late(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, home: Any
) -> None:
    server = serve()
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for key in (None, ""):
        with pytest.raises(openai.OpenAIError):
            openai.OpenAI(base_url=server.base_url, api_key=key)
    client: Any = anthropic.Anthropic(base_url=server.url)
    with pytest.raises(TypeError):
        client.messages.create(model="m", max_tokens=9, messages=ASKED)


def test_the_sdks_send_what_belongs_to_their_own_service_to_any_server(
    serve: Serve, canaries: dict[str, str]
) -> None:
    server = serve(replies.chat("a"), replies.message("a"))
    ask_openai(server)
    ask_anthropic(server)
    first, second = server.requests
    assert first.values("openai-organization") == [canaries["OPENAI_ORG_ID"]]
    assert first.values("openai-project") == [canaries["OPENAI_PROJECT_ID"]]
    assert [each.values("x-canary") != [] for each in (first, second)] == [True, True]


def test_the_sdks_ask_the_proxy_even_for_a_server_on_this_machine(
    serve: Serve, proxies: Server
) -> None:
    server = serve()
    with pytest.raises(openai.InternalServerError):
        ask_openai(server, max_retries=0)
    assert proxies.request.values("authorization") == ["Bearer key"]


def test_a_long_retry_after_is_not_waited_for(serve: Serve) -> None:
    server = serve(replies.failure(429, headers=[("retry-after", "121")]))
    with pytest.raises(openai.RateLimitError):
        ask_openai(server)
    assert len(server.requests) == 1
