"""The scripted backend streams, records and fails as its script says."""

import asyncio
import threading

import pytest

from talu import Client, ModelSpec
from talu.backends.scripted import ScriptedModel
from talu.exceptions import GenerationError, StateError, ValidationError
from talu.protocols import Generation
from talu.types import (
    Capabilities,
    Done,
    FinishReason,
    Request,
    TextDelta,
    Timings,
    ToolCallEvent,
    Usage,
)

REQUEST = Request(messages=({"role": "user", "content": "one two"},))


def start(model: ScriptedModel, request: Request) -> Generation:
    generation = model.generate(request)
    generation.start()
    return generation


def test_a_text_is_streamed_word_by_word_and_ends_with_counts() -> None:
    events = list(start(ScriptedModel("a b", model="m"), REQUEST))
    assert events == [
        TextDelta("a", (0,)),
        TextDelta(" b", (1,)),
        Done(FinishReason.STOP, Usage(3, 2), Timings(), "m", prompt="user: one two"),
    ]


def test_events_of_a_script_are_passed_on_unchanged() -> None:
    done = Done(FinishReason.LENGTH, Usage(1, 1), Timings(), "other")
    assert list(start(ScriptedModel([done]), REQUEST)) == [done]


def test_a_tool_call_sets_the_finish_reason() -> None:
    *_, done = start(ScriptedModel([ToolCallEvent("c", "f", "{}")]), REQUEST)
    assert done.finish_reason == "tool_calls"


def test_an_exception_is_raised_at_its_place_in_the_script() -> None:
    events = start(ScriptedModel(["a", KeyError("here")]), REQUEST)
    assert next(events).text == "a"
    with pytest.raises(KeyError):
        next(events)


def test_a_function_is_called_between_the_pieces_around_it() -> None:
    gate = threading.Event()
    events = start(ScriptedModel(["a", gate.set, "b"]), REQUEST)
    next(events)
    assert not gate.is_set()
    next(events)
    assert gate.is_set()


def test_an_awaitable_is_awaited_by_astream_and_refused_by_stream() -> None:
    async def main() -> list[str]:
        gate = asyncio.Event()
        events = ScriptedModel([gate.wait, "a"]).agenerate(REQUEST)
        await events.start()
        asyncio.get_running_loop().call_soon(gate.set)
        return [event.text async for event in events if isinstance(event, TextDelta)]

    async def later() -> None:
        raise AssertionError("never run")

    assert asyncio.run(main()) == ["a"]
    with pytest.raises(ValidationError, match="use it with AsyncClient"):
        list(start(ScriptedModel([later]), REQUEST))


def test_requests_are_recorded_and_refused_after_the_last_script() -> None:
    model = ScriptedModel("a")
    list(start(model, REQUEST))
    with pytest.raises(GenerationError, match="has 1 answers, this is one more"):
        start(model, REQUEST)
    assert model.requests == [REQUEST, REQUEST]


def test_active_counts_the_streams_that_have_started_and_not_ended() -> None:
    model = ScriptedModel("a b")
    events = start(model, REQUEST)
    next(events)
    assert model.active == 1
    events.close()
    assert model.active == 0


def test_a_closed_model_refuses_requests() -> None:
    model = ScriptedModel("a")
    model.close()
    with pytest.raises(StateError, match="has been closed"):
        start(model, REQUEST)


def test_rendering_shows_messages_or_the_raw_prompt() -> None:
    model = ScriptedModel()
    assert model.render(REQUEST) == ("user: one two", [0, 1, 2])
    assert model.render(Request(prompt="a b", token_ids=(7,))) == ("a b", [7])


@pytest.mark.parametrize(
    ("setting", "capability"),
    [("tools", "tool_calling"), ("logprobs", "logprobs"), ("response_format", "json_schema")],
)
def test_capabilities_follow_from_the_settings(setting: str, capability: str) -> None:
    class Plain(ScriptedModel):
        settings = ("max_tokens",)

    class Able(ScriptedModel):
        settings = ("max_tokens", setting)

    assert not getattr(Client(ModelSpec("m", Plain())).capabilities(), capability)
    assert getattr(Client(ModelSpec("m", Able())).capabilities(), capability)
    assert not getattr(Capabilities.of([setting], generates=False), capability)
