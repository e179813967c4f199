"""Anthropic's protocol: what is sent, and what becomes of the events."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.remote import replies
from tests.remote.server import Reply, Server

from talu import AnthropicBackend, Client, EndpointError, ModelSpec, ValidationError
from talu.chat import FunctionCallItem, ItemStatus, ReasoningItem
from talu.types import Usage

Serve = Callable[..., Server]


def client_of(server: Server, **options: Any) -> Client:
    backend = AnthropicBackend(base_url=server.url, max_retries=0, **options)
    return Client(ModelSpec("m", backend))


def test_a_question_is_sent_in_the_protocols_form(serve: Serve) -> None:
    server = serve(replies.message("Hi", " there."))
    with client_of(server, api_key="mine") as client:
        answer = client.ask("Hello?", system="Be brief.", max_tokens=9, stop_sequences=["END"])
    assert answer == "Hi there."
    assert server.request.target == "/v1/messages"
    assert server.request.json == {
        "model": "m",
        "system": "Be brief.",
        "max_tokens": 9,
        "stop_sequences": ["END"],
        "stream": True,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello?"}]}],
    }
    assert server.request.values("x-api-key") == ["mine"]
    assert server.request.values("authorization") == ["Bearer mine"]
    assert server.request.values("anthropic-version") == ["2023-06-01"]


def test_the_maximum_of_tokens_is_always_sent(serve: Serve) -> None:
    server = serve(replies.message("Hi"))
    with client_of(server) as client:
        client.ask("Hello?")
    assert server.request.json["max_tokens"] == 256


def test_the_counts_of_all_events_are_added_up(serve: Serve) -> None:
    start = replies.message_start(cache_read_input_tokens=5, cache_creation_input_tokens=2)
    server = serve(
        replies.stream(start, *replies.text_block(0, "Hi"), *replies.message_end(tokens=4))
    )
    with client_of(server) as client:
        assert client.ask("Hello?").usage == Usage(7 + 5 + 2, 4, 5)


def test_the_tokens_of_thinking_are_counted_apart(serve: Serve) -> None:
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    usage = {"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 6}}
    reply = replies.stream(
        replies.message_start(),
        *replies.text_block(0, "Hi"),
        replies.named({**end, "usage": usage}),
        replies.named({"type": "message_stop"}),
    )
    with client_of(serve(reply)) as client:
        assert client.ask("Hello?").usage == Usage(7, 9, None, 6)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("pause_turn", "stop"),
        ("something_new", "stop"),
    ],
)
def test_every_reason_has_a_meaning(serve: Serve, reason: str, expected: str) -> None:
    with client_of(serve(replies.message("Hi", stop=reason))) as client:
        answer = client.ask("Hello?", max_tokens=9)
    assert answer.finish_reason == expected
    assert bool(answer.notes) == (reason in ("pause_turn", "something_new"))


def test_the_stop_sequence_that_matched_is_reported(serve: Serve) -> None:
    end = replies.message_end("stop_sequence", stop_sequence="END")
    server = serve(replies.stream(replies.message_start(), *replies.text_block(0, "Hi"), *end))
    with client_of(server) as client:
        assert client.ask("Hello?").stop_sequence == "END"


def thinking(*text: str) -> Reply:
    tool = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
    parts = [{"type": "input_json_delta", "partial_json": part} for part in ('{"a"', ":1}")]
    return replies.stream(
        replies.message_start(),
        *replies.thinking_block(0, "sig-1", "I ", "think."),
        *replies.block(1, {"type": "redacted_thinking", "data": "opaque"}),
        *replies.text_block(2, *text),
        *replies.block(3, tool, *parts),
        *replies.message_end("tool_use"),
    )


def test_thinking_is_kept_with_its_signature_and_sent_back_first_and_unchanged(
    serve: Serve,
) -> None:
    server = serve(thinking("Let me look."), replies.message("Found."))
    with client_of(server) as client:
        chat = client.chat(messages=[{"role": "user", "content": "Where?"}])
        first = chat.regenerate()
        assert (first.reasoning, first.text, first.finish_reason) == (
            "I think.",
            "Let me look.",
            "tool_calls",
        )
        assert [call.arguments for call in first.tool_calls or ()] == ['{"a":1}']
        restored = client.chat(messages=json.loads(chat.to_json()))
        restored.submit_tool_results({"toolu_1": "here"})
    sent = server.requests[1].json["messages"]
    assert sent[1] == {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "I think.", "signature": "sig-1"},
            {"type": "redacted_thinking", "data": "opaque"},
            {"type": "text", "text": "Let me look."},
            {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"a": 1}},
        ],
    }


def test_the_results_of_tools_are_sent_together_in_one_message(serve: Serve) -> None:
    server = serve(replies.message("Sunny."))
    call = {"type": "function", "function": {"name": "look", "arguments": '{"at": "x"}'}}
    with client_of(server) as client:
        client.ask(
            [
                {"role": "user", "content": "Weather?"},
                {"role": "assistant", "tool_calls": [{"id": "a", **call}, {"id": "b", **call}]},
                {"role": "tool", "tool_call_id": "a", "content": "sun"},
                {"role": "tool", "tool_call_id": "b", "content": "wind"},
            ]
        )
    *_, last = server.request.json["messages"]
    assert last == {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "a", "content": "sun"},
            {"type": "tool_result", "tool_use_id": "b", "content": "wind"},
        ],
    }


def test_arguments_of_the_history_that_are_no_object_are_sent_as_text_with_a_note(
    serve: Serve,
) -> None:
    server = serve(replies.message("Sunny."))
    call = {"type": "function", "function": {"name": "look", "arguments": "not JSON"}}
    with client_of(server) as client:
        answer = client.ask(
            [
                {"role": "user", "content": "Weather?"},
                {"role": "assistant", "tool_calls": [{"id": "a", **call}]},
                {"role": "tool", "tool_call_id": "a", "content": "it failed"},
            ]
        )
    sent = server.request.json["messages"][1]["content"][0]["input"]
    assert sent == {"arguments": "not JSON"}
    assert any("sent as the text of one argument" in note for note in answer.notes)


def test_a_stream_without_its_last_event_is_broken_and_its_text_is_kept(serve: Serve) -> None:
    server = serve(replies.stream(replies.message_start(), *replies.text_block(0, "Hi")))
    with client_of(server) as client:
        chat = client.chat()
        with pytest.raises(EndpointError, match="broke off: it has no finish reason") as caught:
            chat.send("Hello?")
    assert caught.value.code == "STREAM_BROKEN"
    assert [item.status for item in chat.items][-1] is ItemStatus.INCOMPLETE
    assert chat.items[-1].text == "Hi"


def test_an_error_event_is_the_error_it_names(serve: Serve) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    broken = replies.stream(
        replies.message_start(), *replies.text_block(0, "Hi"), replies.named(error)
    )
    with client_of(serve(broken)) as client, pytest.raises(EndpointError) as caught:
        client.ask("Hello?")
    assert (caught.value.code, caught.value.status, caught.value.transient) == (
        "SERVER_ERROR",
        200,
        True,
    )


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (401, "authentication_error", "AUTHENTICATION_FAILED"),
        (404, "not_found_error", "MODEL_NOT_FOUND"),
        (429, "rate_limit_error", "RATE_LIMITED"),
        (529, "overloaded_error", "SERVER_ERROR"),
        (400, "invalid_request_error", "BAD_REQUEST"),
    ],
)
def test_a_failure_has_its_code_and_the_servers_words(
    serve: Serve, status: int, kind: str, code: str
) -> None:
    server = serve(replies.message_failure(status, kind, "about the model"))
    with client_of(server) as client, pytest.raises(EndpointError, match="about the mod") as caught:
        client.ask("Hello?")
    assert (caught.value.code, caught.value.request_id) == (code, "req_1")


def test_settings_that_the_provider_does_not_have_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "x")
    with Client("anthropic::claude") as client:
        with pytest.raises(ValidationError, match="has no temperature and no seed"):
            client.ask("Hello?", temperature=0, seed=1)
        with pytest.raises(ValidationError, match="has no raw completions"):
            client.raw_complete("Once")


def test_a_server_of_another_takes_sampling_settings(serve: Serve) -> None:
    server = serve(replies.message("Hi"))
    with client_of(server) as client:
        client.ask("Hello?", temperature=0, top_k=3)
    assert (server.request.json["temperature"], server.request.json["top_k"]) == (0, 3)


def test_what_was_left_out_is_noted(serve: Serve) -> None:
    citations = replies.block(0, {"type": "server_tool_use", "id": "x", "name": "search"})
    end = replies.message_end()
    reply = replies.stream(replies.message_start(), *citations, *replies.text_block(1, "Hi"), *end)
    with client_of(serve(reply), on_unsupported="warn") as client:
        answer = client.ask("Hello?", seed=4)
    assert answer.notes == (
        "anthropic_compatible has no seed: it was left out",
        "the answer has a part of type 'server_tool_use', which is left out",
    )


def test_the_items_of_thinking_name_their_provider(serve: Serve) -> None:
    with client_of(serve(thinking("Hm."))) as client:
        chat = client.chat()
        chat.send("Where?")
    thoughts = chat.items.filter_by_type(ReasoningItem)
    assert [dict(item.provider_data or {}) for item in thoughts] == [
        {"provider": "anthropic_compatible", "signature": "sig-1"},
        {"provider": "anthropic_compatible", "redacted": "opaque"},
    ]
    assert chat.items.filter_by_type(FunctionCallItem)[0].call_id == "toolu_1"
