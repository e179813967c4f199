"""Answers that break after their first token, of which the caller has seen nothing."""

import asyncio
from typing import Any

import pytest
from tests.router.scripted import broken, model, tried

from talu.backends.scripted import Step
from talu.chat import Hook
from talu.exceptions import EndpointError, GenerationError
from talu.router import Fallback, First, Limits, ModelSpec
from talu.types import FinishReason, ReasoningDelta, StopFlag, TextDelta, ToolCallEvent


class Recorder(Hook):
    """Records the first tokens and the attempts of a generation."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_first_token(self, chat: Any, time_ms: float) -> None:
        self.events.append("first token")

    def on_attempt(self, chat: Any, attempt: Any) -> None:
        self.events.append((attempt.model, attempt.error))


BEGUN: list[list[Step]] = [
    ["half "],
    [TextDelta("", (1,))],
    [ReasoningDelta("thinking"), "half "],
    [ToolCallEvent("call_1", "now", "{}")],
]


@pytest.mark.parametrize("begun", BEGUN, ids=["text", "token", "reasoning", "tool call"])
def test_another_model_answers_anew_and_nothing_of_the_broken_answer_is_left(
    faces: Any, begun: list[Step]
) -> None:
    hook = Recorder()
    client = faces.client_of(
        model("a", [*begun, broken()]), model("b", "whole"), policy=Fallback(), hooks=[hook]
    )
    chat = client.chat()
    answer = faces.run(chat.send("hi"))
    assert (answer.text, answer.reasoning, answer.tool_calls) == ("whole", None, None)
    assert tried(answer) == [("a", "STREAM_BROKEN"), ("b", None)]
    assert answer.notes == ("'b' answered instead of 'a': it broke",)
    assert answer.attempts[0].first_token_ms is not None
    assert [item.text for item in chat.items] == ["hi", "whole"]
    assert hook.events == ["first token", *tried(answer)]
    assert [(each.failures, each.running) for each in client.router.status().targets] == [
        (1, 0),
        (0, 0),
    ]


def test_raw_completions_and_lists_of_questions_go_on_as_well(faces: Any) -> None:
    client = faces.client_of(
        model("a", ["half ", broken()], ["half ", broken()]),
        model("b", "one", "two"),
        policy=Fallback(),
    )
    assert faces.run(client.raw_complete("x")).text == "one"
    assert [answer.text for answer in faces.run(client.ask(["y"]))] == ["two"]


def test_a_stream_is_committed_at_its_first_token(faces: Any) -> None:
    client = faces.client_of(model("a", ["half ", broken()]), model("b"), policy=Fallback())
    stream = client.stream("hi") if faces.name == "sync" else faces.run(client.stream("hi"))
    with pytest.raises(EndpointError, match="it broke"):
        faces.read(stream)


def test_when_no_model_is_left_the_part_that_had_arrived_is_in_the_error_and_the_chat(
    faces: Any,
) -> None:
    client = faces.client_of(
        model("a", ["half ", broken()]), model("b", [broken()]), policy=Fallback(wait=0)
    )
    chat = client.chat()
    with pytest.raises(EndpointError, match="'a' and 'b': it broke") as caught:
        faces.run(chat.send("hi"))
    assert caught.value.details["response"].text == "half "
    assert tried(caught.value) == [("a", "STREAM_BROKEN"), ("b", "STREAM_BROKEN")]
    assert tried(caught.value.details["response"]) == tried(caught.value)
    assert [item.text for item in chat.items] == ["hi", "half "]


@pytest.mark.parametrize("policy", [First(), Fallback(models=["a"])], ids=["first", "lone"])
def test_without_another_model_the_error_is_that_of_the_answer(faces: Any, policy: Any) -> None:
    client = faces.client_of(model("a", ["half ", broken()]), model("b"), policy=policy)
    with pytest.raises(EndpointError, match=r"^it broke$") as caught:
        faces.run(client.ask("hi"))
    assert caught.value.details["response"].text == "half "
    assert tried(caught.value) == [("a", "STREAM_BROKEN")]


def test_an_error_that_every_model_would_raise_ends_the_request(faces: Any) -> None:
    late = GenerationError("too late", "GENERATION_TIMEOUT")
    other = model("b", "never")
    client = faces.client_of(model("a", ["half ", late]), other, policy=Fallback())
    with pytest.raises(GenerationError, match="too late") as caught:
        faces.run(client.ask("hi"))
    assert caught.value.details["response"].text == "half "
    assert other.requests == []


def test_nothing_of_a_broken_answer_is_left_when_the_request_is_stopped_before_another_answers(
    faces: Any,
) -> None:
    flag = StopFlag()

    async def stop() -> None:
        flag.signal()
        await asyncio.get_running_loop().create_future()

    client = faces.client_of(model("a", ["half ", broken()]), model("b", [stop]), policy=Fallback())
    chat = client.chat()
    answer = faces.run(chat.send("hi", stop_flag=flag))
    assert (answer.text, answer.finish_reason) == ("", FinishReason.CANCELLED)
    assert answer.model == "fallback"  # as of every request that is stopped before its answer
    assert tried(answer) == [("a", "STREAM_BROKEN"), ("b", "CANCELLED")]
    assert "half" not in str(chat.items)


def test_a_request_whose_time_is_over_before_another_model_answers_names_the_broken_one(
    faces: Any,
) -> None:
    async def hang() -> None:
        await asyncio.get_running_loop().create_future()

    client = faces.client_of(model("a", ["half ", broken()]), model("b", [hang]), policy=Fallback())
    with pytest.raises(GenerationError, match="within timeout") as caught:
        faces.run(client.ask("hi", timeout=0.2))
    answer = caught.value.details["response"]
    assert (answer.text, answer.model) == ("half ", "a")
    assert tried(answer) == [("a", "STREAM_BROKEN"), ("b", "GENERATION_TIMEOUT")]


def test_a_broken_answer_leaves_its_place_to_the_next_request(faces: Any) -> None:
    limited = Limits(concurrency=1)
    specs = [
        ModelSpec("a", model("a", ["half ", broken()], "now"), limits=limited),
        ModelSpec("b", model("b", "whole"), limits=limited),
    ]
    client = faces.face.client_class(specs, policy=Fallback())
    assert faces.run(client.ask("hi", timeout=60)) == "whole"
    assert faces.run(client.ask("hi", timeout=60)) == "now"


def test_the_time_of_an_answer_that_broke_does_not_count_as_waiting(faces: Any) -> None:
    async def long() -> None:
        await asyncio.sleep(0.55)

    busy = EndpointError("later", "RATE_LIMITED", retry_after=0.01, transient=True)
    client = faces.client_of(
        model("a", ["half ", long, broken()]),
        model("b", [busy], "whole"),
        policy=Fallback(wait=0.5),
    )
    assert faces.run(client.ask("hi")) == "whole"
