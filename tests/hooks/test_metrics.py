"""The metrics hook counts every generation once, by model and by how it ended."""

import gc

import pytest
from tests.threads import in_threads

from talu.backends.scripted import ScriptedModel
from talu.chat.observers import Generation
from talu.client import Client
from talu.config import GenerationConfig
from talu.exceptions import GenerationError, ToolExecutionError
from talu.hooks import MetricsHook
from talu.router import ModelSpec
from talu.tools import Tool, ToolCall, ToolRun
from talu.types import Done, FinishReason, Timings, ToolCallEvent, Usage

FAST = Done(FinishReason.LENGTH, Usage(7, 3, 5), Timings(tokens_per_second=60.0), "scripted")


def generation(model: str = "m") -> Generation:
    return Generation(
        operation="chat",
        model=model,
        chat=None,
        input_text="Hi",
        messages=(),
        config=GenerationConfig(),
        stream=False,
    )


def test_a_generation_is_counted_with_its_tokens_and_its_speed(faces) -> None:
    hook = MetricsHook()
    faces.run(faces.client(["one", FAST], hooks=[hook]).ask("Hi"))
    metrics = hook.snapshot()["scripted"]
    assert (metrics.started, metrics.running, metrics.failed, metrics.cancelled) == (1, 0, 0, 0)
    assert metrics.ended[FinishReason.LENGTH] == 1
    assert (metrics.prompt_tokens, metrics.cached_tokens, metrics.completion_tokens) == (7, 5, 3)
    assert metrics.time_to_first_token.count == 1
    assert 0 < metrics.time_to_first_token.sum < 10
    assert (metrics.tokens_per_second.count, metrics.tokens_per_second.sum) == (1, 60.0)
    bucket = metrics.tokens_per_second.bounds.index(60.0)
    assert metrics.tokens_per_second.counts[bucket] == 1


def test_counts_that_the_backend_does_not_report_are_not_counted(faces) -> None:
    hook = MetricsHook()
    unknown = Done(FinishReason.STOP, Usage(), Timings(), "scripted")
    answer = faces.run(faces.client(["one", unknown], hooks=[hook]).ask("Hi"))
    metrics = hook.snapshot()["scripted"]
    assert (metrics.prompt_tokens, metrics.completion_tokens) == (0, 0)
    assert metrics.tokens_per_second.count == 0
    assert (answer.usage.total_tokens, answer.timings.total_ms) == (None, None)
    assert "total_tokens" not in repr(answer)


def test_failures_and_cancelled_streams_are_counted_separately(faces) -> None:
    hook = MetricsHook()
    client = faces.client("one two", [GenerationError("broken")], "one two", hooks=[hook])
    faces.read_some(faces.run(client.chat()("Hi")), 1)
    with pytest.raises(GenerationError):
        faces.run(client.ask("Hi"))
    running = faces.run(client.chat()("Hi"))
    metrics = hook.snapshot()["scripted"]
    assert (metrics.started, metrics.running, metrics.failed, metrics.cancelled) == (3, 1, 1, 1)
    assert metrics.time_to_first_token.count == 1
    faces.run(running.close())
    assert hook.snapshot()["scripted"].running == 0


def test_each_model_has_its_own_counts_even_when_it_fails(faces) -> None:
    hook = MetricsHook()
    good, bad = ScriptedModel("one"), ScriptedModel([GenerationError("broken")], model="bad")
    client = faces.client_of(good, bad, hooks=[hook])
    faces.run(client.ask("Hi"))
    with pytest.raises(GenerationError):
        faces.run(client.ask("Hi", model="bad"))
    failures = {model: metrics.failed for model, metrics in hook.snapshot().items()}
    assert failures == {"scripted": 0, "bad": 1}


def test_a_real_generation_has_speed_and_tokens(faces) -> None:
    hook = MetricsHook()
    client = faces.face.client_class("talu/pocket", hooks=[hook])
    answer = faces.run(client.ask("Hi", max_tokens=4))
    metrics = hook.snapshot()["talu/pocket"]
    assert metrics.prompt_tokens == answer.usage.prompt_tokens
    assert metrics.completion_tokens == answer.usage.completion_tokens
    assert metrics.tokens_per_second.sum == answer.timings.tokens_per_second
    assert metrics.time_to_first_token.sum * 1000 >= answer.timings.time_to_first_token_ms


def test_times_are_in_seconds_and_a_bound_belongs_to_the_bucket_below_it() -> None:
    hook = MetricsHook()
    for time_ms in (250.0, 250.1, 1e6):
        hook.for_generation(generation()).on_first_token(None, time_ms)
    seen = hook.snapshot()["m"].time_to_first_token
    assert seen.sum == pytest.approx(1000.5001)
    bucket = seen.bounds.index(0.25)
    assert seen.counts[bucket : bucket + 2] == (1, 1)
    assert (seen.counts[-1], seen.count) == (1, 3)


def test_a_snapshot_does_not_change() -> None:
    hook = MetricsHook()
    hook.for_generation(generation()).on_generation_start(None, "Hi")
    before = hook.snapshot()
    hook.for_generation(generation()).on_generation_start(None, "Hi")
    assert before["m"].started == 1
    assert hook.snapshot()["m"].started == 2


def test_counts_are_exact_across_threads() -> None:
    def count(_: object) -> None:
        for _ in range(2000):
            hook.for_generation(generation()).on_generation_start(None, "Hi")

    hook = MetricsHook()
    in_threads(count, range(8))
    assert hook.snapshot()["m"].started == 16_000


def test_a_stream_that_ends_while_the_hook_is_counting_is_counted_without_waiting() -> None:
    """The garbage collector can end a dropped stream at any point."""
    hook = MetricsHook()
    model = ModelSpec("m", ScriptedModel("one two"))
    with hook._gate.lock:
        pieces = Client(model, hooks=[hook]).stream("Hi")
        next(pieces)
        del pieces
        gc.collect()
    assert hook.snapshot()["m"].cancelled == 1


def well() -> str:
    """Be well."""
    return "well"


def fails() -> None:
    """Fail with a code of its own."""
    raise ToolExecutionError("no", "MY_CODE")


def test_tool_calls_are_counted_by_tool_and_outcome_with_their_durations(faces) -> None:
    hook = MetricsHook()
    names = ["well", "fails", "well", "invented-1", "invented-2"]
    calls = [ToolCallEvent(f"c{n}", name, "{}") for n, name in enumerate(names)]
    client = faces.client(calls, "done", hooks=[hook])
    refused = {"c2": False}
    faces.run(
        client.ask(
            "q", tools=[well, fails], max_rounds=2, approve=lambda call: refused.get(call.id, True)
        )
    )
    tools = hook.snapshot()["scripted"].tools
    assert {name: tool.outcomes for name, tool in tools.items()} == {
        "(unknown)": {"TOOL_UNKNOWN": 2},
        "well": {"ok": 1, "TOOL_REFUSED": 1},
        "fails": {"TOOL_FAILED": 1},
    }
    assert {name: tool.duration.count for name, tool in tools.items()} == {
        "(unknown)": 0,
        "well": 1,
        "fails": 1,
    }
    assert 0 < tools["well"].duration.sum < 10


def test_the_names_of_tools_that_are_told_apart_are_bounded() -> None:
    hook = MetricsHook()
    observer = hook.for_generation(generation())
    for number in range(300):
        made = Tool(f"t{number}", "", {}, lambda arguments: "")
        observer.on_tool_run(None, ToolRun(ToolCall("c", made.name, "{}", made), "", None, 0, 1.0))
    tools = hook.snapshot()["m"].tools
    assert len(tools) == 201
    assert tools["(other)"].outcomes == {"ok": 100}
