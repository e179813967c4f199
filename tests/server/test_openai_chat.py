"""OpenAI's chat completions through the official SDK, with real servers."""

import asyncio
import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel
from tests.server.compatibility import shows
from tests.server.samples import CITY, openai_client

from talu.types import (
    Done,
    FinishReason,
    ReasoningDelta,
    Timings,
    ToolCallDelta,
    ToolCallEvent,
    Usage,
)

SUM: Any = [{"role": "user", "content": "What is 2+2?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": CITY,
    },
}
CALL = [
    ReasoningDelta("A city. ", (1,)),
    ToolCallDelta("call-1", "weather", '{"city": ', (2,)),
    ToolCallDelta("call-1", "weather", '"Rome"}', (3,)),
    ToolCallEvent("call-1", "weather", '{"city": "Rome"}'),
]


def ask(server: Any, **fields: Any) -> Any:
    """An answer of talu/pocket, through the SDK; the chunks of a stream."""
    given = {"model": "talu/pocket", "messages": SUM, "temperature": 0, **fields}
    with openai_client(server) as client:
        answer = client.chat.completions.create(**given)
        return list(answer) if given.get("stream") else answer


def joined(chunks: Any) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


@shows("/v1/chat/completions", "whole answers", "cached tokens in the usage")
def test_the_sdk_gets_a_whole_answer_with_usage(pocket) -> None:
    answer = ask(pocket)
    choice = answer.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("2 + 2 = 4.", "stop")
    assert (choice.message.role, answer.model, answer.object) == (
        "assistant",
        "talu/pocket",
        "chat.completion",
    )
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens is not None


@shows("/v1/chat/completions", "streams")
def test_the_pieces_of_a_stream_are_the_whole_answer(pocket) -> None:
    chunks = ask(pocket, stream=True, stream_options={"include_usage": True})
    assert joined(chunks) == "2 + 2 = 4."
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])


@shows("/v1/chat/completions", "the SDK's streaming helper")
def test_the_streaming_helper_of_the_sdk_accumulates_the_whole_answer(pocket) -> None:
    with openai_client(pocket) as client:
        whole = client.chat.completions.create(model="talu/pocket", messages=SUM, temperature=0)
        with client.chat.completions.stream(
            model="talu/pocket", messages=SUM, temperature=0
        ) as stream:
            deltas = [e.delta for e in stream if e.type == "content.delta"]
            final = stream.get_final_completion()
    assert "".join(deltas) == final.choices[0].message.content == whole.choices[0].message.content


@shows("/v1/chat/completions", "the async SDK")
def test_the_async_sdk_gets_concurrent_answers_and_streams(pocket) -> None:
    async def main() -> list[str]:
        async with AsyncOpenAI(base_url=f"{pocket.url}/v1", api_key="none") as client:

            async def whole(n: int) -> str:
                question: Any = [{"role": "user", "content": f"What is {n}+{n}?"}]
                answer = await client.chat.completions.create(
                    model="talu/pocket", messages=question, temperature=0
                )
                return answer.choices[0].message.content or ""

            async def streamed() -> str:
                async with client.chat.completions.stream(
                    model="talu/pocket", messages=SUM, temperature=0
                ) as stream:
                    final = await stream.get_final_completion()
                return final.choices[0].message.content or ""

            return await asyncio.gather(whole(1), whole(3), streamed())

    assert asyncio.run(main()) == ["1 + 1 = 2.", "3 + 3 = 6.", "2 + 2 = 4."]


@shows("/v1/chat/completions", "JSON Schemas, and the SDK's parse helper")
def test_the_parse_helper_of_the_sdk_returns_the_object(pocket) -> None:
    class Answer(BaseModel):
        result: int

    with openai_client(pocket) as client:
        parsed = client.chat.completions.parse(
            model="talu/pocket", messages=SUM, temperature=0, response_format=Answer
        )
    assert isinstance(parsed.choices[0].message.parsed, Answer)


def test_the_form_json_object_is_that_of_any_object(scripted) -> None:
    model, server = scripted("{}", "Hi.")
    ask(server, model="script", response_format={"type": "json_object"})
    ask(server, model="script", response_format={"type": "text"})
    assert model.requests[0].config.response_format.schema == {"type": "object"}
    assert model.requests[1].config.given.get("response_format") is None


@shows("/v1/chat/completions", "a choice of tools that is enforced")
def test_a_required_call_is_a_tool_call_whose_arguments_fit(pocket) -> None:
    question = [{"role": "user", "content": "How is the weather in Paris?"}]
    answer = ask(pocket, messages=question, tools=[WEATHER], tool_choice="required")
    choice = answer.choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    (call,) = choice.message.tool_calls
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments).keys() == {"city"}


def test_the_choice_none_gives_text_and_a_name_gives_its_call(pocket) -> None:
    question = [{"role": "user", "content": "How is the weather in Paris?"}]
    named = {"type": "function", "function": {"name": "weather"}}
    text = ask(pocket, messages=question, tools=[WEATHER], tool_choice="none", max_tokens=20)
    call = ask(pocket, messages=question, tools=[WEATHER], tool_choice=named)
    assert text.choices[0].message.tool_calls is None
    assert call.choices[0].message.tool_calls[0].function.name == "weather"


def test_a_conversation_with_a_tool_result_goes_on(scripted) -> None:
    model, server = scripted("It is 21 degrees.")
    messages = [
        *SUM,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "a",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "21"},
    ]
    answer = ask(server, model="script", messages=messages, tools=[WEATHER])
    assert answer.choices[0].message.content == "It is 21 degrees."
    assert [m["role"] for m in model.requests[0].messages] == ["user", "assistant", "tool"]


@shows("/v1/chat/completions", "tool calls, also streamed", "reasoning")
def test_reasoning_and_calls_are_streamed_as_they_are_written(scripted) -> None:
    _, server = scripted(CALL)
    chunks = ask(server, model="script", tools=[WEATHER], stream=True)
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert deltas[0].reasoning_content == "A city. "
    calls = [delta.tool_calls[0] for delta in deltas if delta.tool_calls]
    assert [call.function.arguments for call in calls] == ['{"city": ', '"Rome"}']
    assert [(call.id, call.index) for call in calls] == [("call-1", 0), (None, 0)]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_a_stream_accumulates_to_the_message_of_the_whole_answer(scripted) -> None:
    _, server = scripted(CALL, CALL)
    fields: Any = {"model": "script", "messages": SUM, "tools": [WEATHER]}
    with openai_client(server) as client:
        whole = client.chat.completions.create(**fields).choices[0].message
        with client.chat.completions.stream(**fields) as stream:
            final = stream.get_final_completion().choices[0].message
    (call,), (called,) = final.tool_calls, whole.tool_calls
    assert (call.id, call.function.name) == (called.id, called.function.name)
    assert call.function.arguments == called.function.arguments
    assert (final.content, final.reasoning_content) == (whole.content, whole.reasoning_content)


@shows("/v1/chat/completions", "several answers", "seeds")
def test_several_choices_differ_by_their_seeds_and_repeat(pocket) -> None:
    fields: dict[str, Any] = {"n": 3, "seed": 7, "temperature": 1.5, "max_tokens": 12}
    first, again = (ask(pocket, **fields) for _ in range(2))
    alone = ask(pocket, **{**fields, "n": 1, "seed": 8})
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in again.choices]
    assert texts[1] == alone.choices[0].message.content
    assert [choice.talu["seed"] for choice in first.choices] == [7, 8, 9]
    streamed = ["", "", ""]
    for chunk in ask(pocket, **fields, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts


@shows("/v1/chat/completions", "log-probabilities")
def test_log_probabilities_have_one_entry_for_each_token(pocket) -> None:
    fields: dict[str, Any] = {"logprobs": True, "top_logprobs": 2}
    answer = ask(pocket, **fields)
    entries = answer.choices[0].logprobs.content
    assert len(entries) == answer.usage.completion_tokens
    assert len(entries[0].top_logprobs) == 2
    assert bytes(entries[0].bytes).decode() == entries[0].token
    streamed = [
        entry
        for chunk in ask(pocket, **fields, stream=True)
        for entry in chunk.choices[0].logprobs.content
    ]
    assert streamed == entries


@shows("/v1/chat/completions", "stop sequences")
def test_a_stop_sequence_ends_the_answer_and_is_not_part_of_it(pocket) -> None:
    answer = ask(pocket, stop="=")
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (
        "2 + 2 ",
        "stop",
    )
    assert answer.choices[0].talu["stop_sequence"] == "="


@shows("/v1/chat/completions", "limits of tokens")
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_of_tokens_cuts_the_answer(pocket, name: str) -> None:
    answer = ask(pocket, **{name: 3})
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 3)


def test_without_a_limit_an_answer_may_take_the_rest_of_the_context(pocket) -> None:
    answer = ask(pocket, stop=None, extra_body={"stop_token_ids": []})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.total_tokens == 1024


def test_settings_reach_the_model_under_talus_names(scripted) -> None:
    model, server = scripted("Hi.")
    ask(
        server,
        model="script",
        temperature=0.5,
        top_p=0.8,
        seed=3,
        stop=["a", "b"],
        logit_bias={"5": -100},
        presence_penalty=1.0,
        frequency_penalty=-1.0,
        max_completion_tokens=9,
        parallel_tool_calls=False,
        tools=[WEATHER],
        reasoning_effort="none",
        extra_body={
            "top_k": 4,
            "min_p": 0.1,
            "repetition_penalty": 1.1,
            "stop_token_ids": [6],
            "chat_template_kwargs": {"mood": "good"},
        },
    )
    (request,) = model.requests
    assert request.config.given == {
        "temperature": 0.5,
        "top_p": 0.8,
        "top_k": 4,
        "min_p": 0.1,
        "presence_penalty": 1.0,
        "frequency_penalty": -1.0,
        "repetition_penalty": 1.1,
        "seed": 3,
        "stop_sequences": ["a", "b"],
        "stop_token_ids": [6],
        "logit_bias": {5: -100.0},
        "max_tokens": 9,
        "allow_thinking": False,
        "extra_context": {"mood": "good"},
    }
    assert request.parallel_tool_calls is False
    assert request.tools[0]["function"]["name"] == "weather"


def test_notes_of_the_answer_reach_the_client(scripted) -> None:
    done = Done(FinishReason.STOP, Usage(3, 1), Timings(), "script", notes=("It was cut.",))
    _, server = scripted(["Hi.", done], ["Hi.", done])
    whole = ask(server, model="script")
    *_, last = ask(server, model="script", stream=True)
    assert whole.choices[0].talu["notes"] == last.choices[0].talu["notes"] == ["It was cut."]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"extra_body": {"foo": 1}}, "foo"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": "high"}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"stop": [""]}, "stop"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"store": True}, "store"),
        ({"modalities": ["audio"]}, "modalities[0]"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": [*SUM, {"role": "tool", "content": "x"}]}, "messages[1].tool_call_id"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0].type",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"$ref": "#/no"}},
                }
            },
            "response_format",
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
    assert wrong.value.type == "invalid_request_error"
    assert param.partition("[")[0].partition(".")[0] in str(wrong.value)


def test_an_unknown_model_is_not_found(pocket) -> None:
    with pytest.raises(openai.NotFoundError) as wrong:
        ask(pocket, model="../../etc/passwd")
    assert (wrong.value.code, wrong.value.param) == ("MODEL_NOT_FOUND", "model")


def test_a_prompt_that_does_not_fit_is_an_error_before_the_stream_begins(pocket) -> None:
    with pytest.raises(openai.BadRequestError) as wrong:
        ask(pocket, messages=[{"role": "user", "content": "word " * 3000}], stream=True)
    assert wrong.value.code == "GENERATION_CONTEXT_OVERFLOW"


def test_an_error_before_the_first_piece_of_a_stream_has_its_own_status(scripted) -> None:
    _, server = scripted([RuntimeError("secret prompt")])
    with pytest.raises(openai.InternalServerError) as wrong:
        ask(server, model="script", stream=True)
    assert wrong.value.code == "INTERNAL_ERROR"
    assert "secret" not in str(wrong.value)


@shows("/v1/chat/completions", "errors that the SDK raises in a stream")
def test_an_error_in_the_middle_of_a_stream_raises_in_the_sdk(scripted) -> None:
    _, server = scripted(["Hello", RuntimeError("secret prompt")])
    seen = []

    def read() -> None:
        with openai_client(server) as client:
            for chunk in client.chat.completions.create(model="script", messages=SUM, stream=True):
                seen.append(chunk.choices[0].delta.content)

    with pytest.raises(openai.APIError) as wrong:
        read()
    assert seen == ["Hello"]
    assert wrong.value.code == "INTERNAL_ERROR"


def test_the_models_are_listed_and_described(pocket) -> None:
    with openai_client(pocket) as client:
        assert [model.id for model in client.models.list()] == ["talu/pocket"]
        assert client.models.retrieve("talu/pocket").object == "model"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("other")
