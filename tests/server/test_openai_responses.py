"""OpenAI's responses through the official SDK, with real servers."""

import asyncio
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel
from tests.server.compatibility import shows
from tests.server.samples import CALLS, CITY, openai_client

from talu.types import ReasoningDelta

MODEL = "talu/pocket"
QUESTION = "What is 2+2?"
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather.",
    "strict": True,
    "parameters": CITY,
}


def ask(server: Any, **fields: Any) -> Any:
    given = {"model": MODEL, "input": QUESTION, "temperature": 0, **fields}
    with openai_client(server) as client:
        answer = client.responses.create(**given)
        return list(answer) if given.get("stream") else answer


def essence(item: Any) -> list[Any]:
    """What an item says, without its id."""
    texts = [part.text for part in getattr(item, "content", None) or ()]
    call = [getattr(item, name, None) for name in ("call_id", "name", "arguments")]
    return [item.type, item.status, texts, *call]


@shows("/v1/responses", "whole answers", "cached tokens in the usage")
def test_the_sdk_gets_a_whole_response_with_usage(pocket) -> None:
    answer = ask(pocket, metadata={"run": "7"})
    assert answer.output_text == "2 + 2 = 4."
    assert (answer.status, answer.model, answer.store) == ("completed", MODEL, False)
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (15, 9)
    assert answer.usage.total_tokens == 24
    assert answer.usage.input_tokens_details.cached_tokens >= 0
    assert answer.metadata == {"run": "7"}


@shows("/v1/responses", "the SDK's streaming helper")
def test_the_streaming_helper_of_the_sdk_accumulates_the_whole_response(pocket) -> None:
    whole = ask(pocket)
    with (
        openai_client(pocket) as client,
        client.responses.stream(model=MODEL, input=QUESTION, temperature=0) as stream,
    ):
        deltas = [e.delta for e in stream if e.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == whole.output_text
    assert (final.status, final.usage.output_tokens) == ("completed", 9)


@shows("/v1/responses", "the async SDK")
def test_the_async_sdk_gets_responses_and_streams(pocket) -> None:
    async def main() -> list[str]:
        async with AsyncOpenAI(base_url=f"{pocket.url}/v1", api_key="none") as client:
            whole = await client.responses.create(model=MODEL, input=QUESTION, temperature=0)
            async with client.responses.stream(
                model=MODEL, input=QUESTION, temperature=0
            ) as stream:
                final = await stream.get_final_response()
            return [whole.output_text, final.output_text]

    assert asyncio.run(main()) == ["2 + 2 = 4."] * 2


@shows("/v1/responses", "tool calls, also streamed", "reasoning")
def test_reasoning_text_and_calls_are_items_in_both_forms(scripted) -> None:
    _, server = scripted(CALLS, CALLS)
    fields: Any = {"model": "script", "input": "Rome and Oslo?", "tools": [WEATHER]}
    with openai_client(server) as client:
        whole = client.responses.create(**fields)
        with client.responses.stream(**fields) as stream:
            events = list(stream)
            final = stream.get_final_response()
    kinds = [item.type for item in whole.output]
    assert kinds == ["reasoning", "message", "function_call", "function_call"]
    assert [essence(item) for item in final.output] == [essence(item) for item in whole.output]
    assert [item.arguments for item in whole.output[2:]] == ['{"city": "Rome"}', '{"city": "Oslo"}']
    assert [item.status for item in whole.output] == ["completed"] * 4
    numbers = [event.sequence_number for event in events]
    assert numbers == list(range(len(numbers)))


@shows("/v1/responses", "streams")
def test_the_events_of_a_stream_come_in_the_order_of_the_protocol(scripted) -> None:
    _, server = scripted([ReasoningDelta("Hm."), "Hi."])
    names = [event.type for event in ask(server, model="script", stream=True)]
    assert names == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


def test_the_items_of_an_answer_can_be_sent_back_with_results(scripted) -> None:
    model, server = scripted(CALLS, "Fine.")
    first = ask(server, model="script", instructions="Be brief.", tools=[WEATHER])
    results = [
        {"type": "function_call_output", "call_id": item.call_id, "output": "21"}
        for item in first.output
        if item.type == "function_call"
    ]
    history = [{"role": "user", "content": QUESTION}, *(i.to_dict() for i in first.output)]
    ask(server, model="script", input=[*history, *results], tools=[WEATHER])
    messages = model.requests[1].messages
    assert [m["role"] for m in messages] == ["user", "assistant", "tool", "tool"]
    assert messages[1]["reasoning_content"] == "Two cities. "
    assert [call["id"] for call in messages[1]["tool_calls"]] == ["a", "b"]
    assert model.requests[0].messages[0] == {"role": "system", "content": "Be brief."}


def test_messages_may_consist_of_parts(scripted) -> None:
    model, server = scripted("Fine.")
    parts = [{"type": "input_text", "text": "Hel"}, {"type": "input_text", "text": "lo"}]
    items = [
        {"type": "message", "role": "developer", "content": "Be brief."},
        {"role": "user", "content": parts},
    ]
    ask(server, model="script", input=items)
    assert [m["content"] for m in model.requests[0].messages] == ["Be brief.", "Hello"]


@shows("/v1/responses", "JSON Schemas, and the SDK's parse helper")
def test_the_parse_helper_of_the_sdk_returns_the_object(scripted) -> None:
    class Answer(BaseModel):
        result: int

    model, server = scripted('{"result": 4}')
    with openai_client(server) as client:
        parsed = client.responses.parse(model="script", input=QUESTION, text_format=Answer)
    assert parsed.output_parsed == Answer(result=4)
    assert model.requests[0].config.response_format.schema["type"] == "object"


@shows("/v1/responses", "a choice of tools that is enforced")
def test_a_forced_call_fits_its_schema(pocket) -> None:
    named = {"type": "function", "name": "weather"}
    answer = ask(pocket, tools=[WEATHER], tool_choice=named)
    assert [item.type for item in answer.output] == ["function_call"]
    assert answer.output[0].name == "weather"


@shows("/v1/responses", "limits of tokens")
def test_an_answer_that_was_cut_is_incomplete_in_both_forms(pocket) -> None:
    whole = ask(pocket, max_output_tokens=3)
    *_, last = ask(pocket, max_output_tokens=3, stream=True)
    assert last.type == "response.incomplete"
    for answer in (whole, last.response):
        assert (answer.status, answer.incomplete_details.reason) == (
            "incomplete",
            "max_output_tokens",
        )
        assert answer.output[-1].status == "incomplete"


@shows("/v1/responses", "log-probabilities")
def test_log_probabilities_come_when_they_are_included(pocket) -> None:
    fields: Any = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    whole = ask(pocket, **fields)
    entries = whole.output[0].content[0].logprobs
    assert len(entries) == whole.usage.output_tokens
    assert len(entries[0].top_logprobs) == 2
    events = ask(pocket, **fields, stream=True)
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert deltas[0].logprobs[0].token == entries[0].token


def test_settings_reach_the_model_under_talus_names(scripted) -> None:
    model, server = scripted("Hi.")
    ask(
        server,
        model="script",
        temperature=0.5,
        top_p=0.8,
        max_output_tokens=9,
        parallel_tool_calls=False,
        tools=[WEATHER],
        tool_choice="required",
        reasoning={"effort": "none"},
        include=["reasoning.encrypted_content"],
        store=False,
        user="u",
    )
    (request,) = model.requests
    assert request.config.given == {
        "temperature": 0.5,
        "top_p": 0.8,
        "max_tokens": 9,
        "allow_thinking": False,
    }
    assert (request.tool_choice, request.parallel_tool_calls) == ("required", False)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"max_tool_calls": 3}, "max_tool_calls"),
        ({"prompt": {"id": "x"}}, "prompt"),
        ({"include": ["file_search_call.results"]}, "include[0]"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"temperature": -1}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort"),
        ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"role": "assistant", "content": "x"}]}, "input"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0]",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_supported_is_an_error_that_names_the_field(
    pocket, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as wrong:
        ask(pocket, **fields)
    assert wrong.value.param == param


@shows("/v1/responses", "errors that the SDK raises in a stream")
def test_an_error_in_the_middle_of_a_stream_is_an_event_and_raises(scripted) -> None:
    _, server = scripted(["Hello", RuntimeError("secret prompt")])
    seen: list[Any] = []

    def read() -> None:
        with openai_client(server) as client:
            for event in client.responses.create(model="script", input=QUESTION, stream=True):
                seen.append(event)

    with pytest.raises(openai.APIError) as wrong:
        read()
    assert seen[-1].type == "response.failed"
    assert seen[-1].response.error.code == wrong.value.code == "INTERNAL_ERROR"
    assert "secret" not in str(wrong.value)
