"""Anthropic's messages through the official SDK, with real servers."""

import asyncio
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic import Anthropic, AsyncAnthropic
from pydantic import BaseModel
from tests.server.compatibility import shows
from tests.server.samples import CALLS, CITY

from talu import Client
from talu.types import (
    Done,
    FinishReason,
    Timings,
    Usage,
)

MODEL = "talu/pocket"
USER: Any = {"role": "user", "content": "What is 2+2?"}
SUM: Any = [USER]
WEATHER: Any = {"name": "weather", "description": "The weather.", "input_schema": CITY}
ZERO: Any = {"temperature": 0}


def client_of(server: Any) -> Anthropic:
    return Anthropic(base_url=server.url, api_key="none", max_retries=0)


def ask(server: Any, **fields: Any) -> Any:
    given = {"model": MODEL, "messages": SUM, "max_tokens": 60, "extra_body": ZERO, **fields}
    with client_of(server) as client:
        return client.messages.create(**given)


@shows("/v1/messages", "whole answers", "cached tokens in the usage")
def test_the_sdk_gets_a_whole_message_with_usage(pocket) -> None:
    answer = ask(pocket)
    assert [block.text for block in answer.content] == ["2 + 2 = 4."]
    assert (answer.role, answer.model, answer.stop_reason) == ("assistant", MODEL, "end_turn")
    cached = answer.usage.cache_read_input_tokens
    assert (answer.usage.input_tokens + cached, answer.usage.output_tokens) == (15, 9)


@shows("/v1/messages", "streams", "the SDK's streaming helper")
def test_the_streaming_helper_of_the_sdk_accumulates_the_whole_message(pocket) -> None:
    whole = ask(pocket)
    with (
        client_of(pocket) as client,
        client.messages.stream(model=MODEL, messages=SUM, max_tokens=60, extra_body=ZERO) as stream,
    ):
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text
    assert [block.to_dict() for block in final.content] == [b.to_dict() for b in whole.content]
    assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", 9)
    assert final.usage.input_tokens + final.usage.cache_read_input_tokens == 15


@shows("/v1/messages", "the async SDK")
def test_the_async_sdk_gets_messages_and_streams(pocket) -> None:
    async def main() -> list[str]:
        async with AsyncAnthropic(base_url=pocket.url, api_key="none") as client:
            fields: Any = {"model": MODEL, "messages": SUM, "max_tokens": 60, "extra_body": ZERO}
            whole = await client.messages.create(**fields)
            async with client.messages.stream(**fields) as stream:
                streamed = await stream.get_final_text()
            counted = await client.messages.count_tokens(model=MODEL, messages=SUM)
            assert counted.input_tokens == 15
            return [whole.content[0].text, streamed]

    assert asyncio.run(main()) == ["2 + 2 = 4."] * 2


@shows("/v1/messages", "tool calls, also streamed", "reasoning")
def test_reasoning_text_and_calls_are_blocks_in_both_forms(scripted) -> None:
    _, server = scripted(CALLS, CALLS)
    fields: Any = {"model": "script", "messages": SUM, "max_tokens": 60, "tools": [WEATHER]}
    with client_of(server) as client:
        whole = client.messages.create(**fields)
        with client.messages.stream(**fields) as stream:
            kinds = [(e.type, e.index) for e in stream if e.type == "content_block_stop"]
            final = stream.get_final_message()
    assert whole.stop_reason == final.stop_reason == "tool_use"
    shown = [block.to_dict() for block in whole.content]
    assert shown == [block.to_dict() for block in final.content]
    assert [block["type"] for block in shown] == ["thinking", "text", "tool_use", "tool_use"]
    assert [block.get("input") for block in shown[2:]] == [{"city": "Rome"}, {"city": "Oslo"}]
    assert kinds == [("content_block_stop", number) for number in range(4)]


def test_a_conversation_with_blocks_reaches_the_model(scripted) -> None:
    model, server = scripted("Fine.")
    hint = {"type": "ephemeral"}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Rome?", "cache_control": hint}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": ""},
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Rome"}},
                {"type": "tool_use", "id": "b", "name": "weather", "input": {"city": "Oslo"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "21"},
                {
                    "type": "tool_result",
                    "tool_use_id": "b",
                    "is_error": True,
                    "content": [{"type": "text", "text": "no"}],
                },
                {"type": "text", "text": "And?"},
            ],
        },
    ]
    system = [{"type": "text", "text": "Be brief.", "cache_control": hint}]
    ask(server, model="script", messages=messages, system=system, tools=[WEATHER])
    (request,) = model.requests
    sent = [(m["role"], m["content"]) for m in request.messages]
    assert sent == [
        ("system", "Be brief."),
        ("user", "Rome?"),
        ("assistant", "Let me see."),
        ("tool", "21"),
        ("tool", "no"),
        ("user", "And?"),
    ]
    assert request.messages[2]["reasoning_content"] == "Hm."
    assert [call["id"] for call in request.messages[2]["tool_calls"]] == ["a", "b"]
    assert request.failed_results == {4}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, ("auto", None)),
        ({"type": "any"}, ("required", None)),
        ({"type": "none"}, ("none", None)),
        ({"type": "tool", "name": "weather"}, ("weather", None)),
        ({"type": "any", "disable_parallel_tool_use": True}, ("required", False)),
    ],
    ids=lambda value: str(value.get("type")) if isinstance(value, dict) else "",
)
def test_the_choice_of_tools_reaches_the_model(scripted, choice: Any, expected: Any) -> None:
    model, server = scripted("Fine.")
    ask(server, model="script", tools=[WEATHER], tool_choice=choice)
    (request,) = model.requests
    assert (request.tool_choice, request.parallel_tool_calls) == expected
    assert request.tools[0]["function"]["parameters"] == CITY


@shows("/v1/messages", "a choice of tools that is enforced")
def test_a_forced_call_fits_its_schema(pocket) -> None:
    answer = ask(pocket, tools=[WEATHER], tool_choice={"type": "tool", "name": "weather"})
    assert answer.stop_reason == "tool_use"
    assert answer.content[-1].input.keys() == {"city"}


def test_settings_reach_the_model_under_talus_names(scripted) -> None:
    model, server = scripted("Hi.")
    ask(
        server,
        model="script",
        stop_sequences=["a"],
        thinking={"type": "enabled", "budget_tokens": 1024},
        metadata={"user_id": "u"},
        service_tier="auto",
        extra_body={"temperature": 0.5, "top_p": 0.8, "top_k": 4},
    )
    assert model.requests[0].config.given == {
        "max_tokens": 60,
        "stop_sequences": ["a"],
        "temperature": 0.5,
        "top_p": 0.8,
        "top_k": 4,
        "allow_thinking": True,
        "max_thinking_tokens": 1024,
    }


@shows("/v1/messages", "JSON Schemas, and the SDK's parse helper")
def test_the_parse_helper_of_the_sdk_returns_the_object(scripted) -> None:
    class Answer(BaseModel):
        result: int

    model, server = scripted('{"result": 4}')
    with client_of(server) as client:
        parsed = client.messages.parse(
            model="script", messages=SUM, max_tokens=60, output_format=Answer
        )
    assert parsed.parsed_output == Answer(result=4)
    schema = model.requests[0].config.response_format.schema
    assert schema["properties"]["result"]["type"] == "integer"


@shows("/v1/messages", "limits of tokens", "stop sequences")
def test_the_end_of_an_answer_has_anthropics_reasons(pocket, scripted) -> None:
    cut = ask(pocket, max_tokens=3)
    stopped = ask(pocket, stop_sequences=["="])
    _, server = scripted(["Once", Done(FinishReason.LENGTH, Usage(3, 1), Timings(), "script")])
    full = ask(server, model="script", max_tokens=5_000)
    assert cut.stop_reason == "max_tokens"
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "=")
    assert full.stop_reason == "model_context_window_exceeded"


def test_tokens_are_counted_as_the_prompt_has_them(pocket) -> None:
    with client_of(pocket) as client, Client(MODEL) as local:
        plain = client.messages.count_tokens(model=MODEL, messages=SUM)
        full = client.messages.count_tokens(
            model=MODEL, messages=SUM, system="Be brief.", tools=[WEATHER]
        )
        assert plain.input_tokens == local.count_tokens(SUM)
    answer = ask(pocket, system="Be brief.", tools=[WEATHER])
    usage = answer.usage
    assert full.input_tokens == usage.input_tokens + usage.cache_read_input_tokens


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"extra_body": {"foo": 1}}, "foo"),
        ({"extra_body": {"temperature": -1}}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [USER | {"content": [{"type": "image"}]}]}, "messages[0].content[0]"),
        ({"messages": [*SUM, {"role": "assistant", "content": "2"}]}, "messages"),
        ({"messages": [USER | {"content": [{"type": "thinking", "thinking": ""}]}]}, "messages"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool"}}, "tool_choice"),
        ({"thinking": {"type": "between_tools"}}, "thinking.type"),
        ({"output_config": {"effort": "high"}}, "output_config.effort"),
        ({"service_tier": "fast"}, "service_tier"),
        ({"stop_sequences": [""]}, "stop_sequences"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_not_supported_is_an_error_that_names_the_field(
    pocket, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(anthropic.BadRequestError) as wrong:
        ask(pocket, **fields)
    assert wrong.value.body["error"]["details"]["param"] == param
    assert (wrong.value.type, wrong.value.request_id is None) == ("invalid_request_error", False)


def test_errors_have_anthropics_form(scripted) -> None:
    _, server = scripted(api_keys=("a-key-of-the-tests",))
    with pytest.raises(anthropic.AuthenticationError) as wrong:
        ask(server)
    assert (wrong.value.type, wrong.value.error_code) == (
        "authentication_error",
        "AUTHENTICATION_FAILED",
    )
    answer = httpx2.post(f"{server.url}/v1/messages/count_tokens", json={})
    assert answer.json()["type"] == "error"


def test_the_sdk_sends_its_key_as_the_server_wants_it(scripted) -> None:
    key = "a-key-of-the-tests"
    _, server = scripted("Hi.", api_keys=(key,))
    with Anthropic(base_url=server.url, api_key=key, max_retries=0) as client:
        answer = client.messages.create(model="script", messages=SUM, max_tokens=9)
    assert answer.content[0].text == "Hi."


def test_an_unknown_model_is_not_found(pocket) -> None:
    with pytest.raises(anthropic.NotFoundError) as wrong:
        ask(pocket, model="claude-opus")
    assert wrong.value.error_code == "MODEL_NOT_FOUND"


@shows("/v1/messages", "errors that the SDK raises in a stream")
def test_an_error_in_the_middle_of_a_stream_raises_in_the_sdk(scripted) -> None:
    _, server = scripted(["Hello", RuntimeError("secret prompt")])
    seen = []

    def read() -> None:
        with (
            client_of(server) as client,
            client.messages.stream(model="script", messages=SUM, max_tokens=9) as stream,
        ):
            seen.extend(stream.text_stream)

    with pytest.raises(anthropic.APIStatusError) as wrong:
        read()
    assert (wrong.value.error_code, "secret" in str(wrong.value)) == ("INTERNAL_ERROR", False)
