"""Tools and models that behave badly: an error that the model is told, and a chat that goes on."""

import asyncio
import threading
from typing import Any

import pytest
from tests.conftest import Faces, SyncFace

from talu import ScriptedModel
from talu.chat.builder import MAX_CALLS, TOO_MANY
from talu.structured import checking
from talu.tools import Tool, execution
from talu.types import ToolCallDelta, ToolCallEvent

ANY: dict[str, Any] = {"type": "object"}


class OfTheUser(BaseException):
    """Neither an error nor an ending."""


class Unreadable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Text(str):
    def __str__(self) -> str:
        raise ValueError("no text")


def outcome(faces: Any, run: Any, *, is_async: bool) -> Any:
    """What becomes of a call of the tool, beside one that is well; the model answers twice."""

    async def slow(arguments: dict[str, Any]) -> Any:
        return run(arguments)

    odd = Tool("odd", "", ANY, slow if is_async else run)
    good = Tool("good", "", ANY, lambda arguments: "well")
    calls = [ToolCallEvent("a", "odd", "{}"), ToolCallEvent("b", "good", "{}")]
    chat = faces.client_of(ScriptedModel(calls, "first", "second")).chat(tools=[odd, good])
    answer = faces.run(chat.send("go", max_rounds=2))
    assert (answer.text, faces.run(chat.send("again")).text) == ("first", "second")
    runs = {run.call.id: run for run in answer.tool_runs}
    assert (runs["b"].output, runs["b"].error) == ("well", None)
    return runs["a"]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError(),
        GeneratorExit(),
        OfTheUser("hm"),
        SystemExit(3),
        Unreadable(),
        ValueError("file \ud800"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_function_raises_is_told_to_the_model(
    faces: Any, error: BaseException, is_async: bool
) -> None:
    def run(arguments: dict[str, Any]) -> Any:
        raise error

    run_of_odd = outcome(faces, run, is_async=is_async)
    assert run_of_odd.error.code == "TOOL_FAILED"
    assert type(error).__name__ in run_of_odd.output
    assert run_of_odd.output.encode()


def raise_interrupt(arguments: dict[str, Any]) -> Any:
    raise KeyboardInterrupt


def test_an_interrupt_that_a_function_raises_in_its_thread_is_told_to_the_model(faces: Any) -> None:
    assert outcome(faces, raise_interrupt, is_async=False).error.code == "TOOL_FAILED"


def test_an_interrupt_that_a_coroutine_raises_does_not_end_the_background_loop() -> None:
    for _ in range(2):
        assert (
            outcome(Faces(SyncFace()), raise_interrupt, is_async=True).error.code == "TOOL_FAILED"
        )


def test_a_text_of_an_own_class_is_its_characters(faces: Any) -> None:
    found = outcome(faces, lambda arguments: Text("plain"), is_async=False)
    assert (found.output, found.error) == ("plain", None)


@pytest.mark.parametrize("name", ["f" * 300, "a\nb", ""])
def test_a_name_that_no_tool_can_have_leaves_the_chat_usable(faces: Any, name: str) -> None:
    script = ScriptedModel([ToolCallEvent("a", name, "{}")], "first", "second")
    chat = faces.client_of(script).chat(tools=[Tool("good", "", ANY, lambda arguments: "well")])
    answer = faces.run(chat.send("go", max_rounds=2))
    assert (answer.text, answer.tool_runs[0].error.code) == ("first", "TOOL_UNKNOWN")
    assert faces.run(chat.send("again")).text == "second"


def test_calls_with_the_same_id_get_different_ones(faces: Any) -> None:
    ran = []
    tool = Tool("good", "", ANY, lambda arguments: ran.append(arguments))
    calls = [ToolCallEvent(call_id, "good", "{}") for call_id in ("a", "a", "", "")]
    chat = faces.client_of(ScriptedModel(calls, "done")).chat(tools=[tool])
    answer = faces.run(chat.send("go"))
    ids = [call.id for call in answer.tool_calls]
    assert (ids[0], len(set(ids)), "" in ids) == ("a", 4, False)
    assert any("no ids of their own" in note for note in answer.notes)
    final = faces.run(answer.submit_tool_results(dict.fromkeys(ids, "x")))
    assert (final.text, ran) == ("done", [])


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_keeps_a_bounded_number_of_calls_and_says_so(faces: Any, streamed: bool) -> None:
    tool = Tool("good", "", ANY, lambda arguments: "well")
    calls: list[Any] = []
    for number in range(100_000):
        call_id = f"c{number}"
        calls += [ToolCallDelta(call_id, "good", "{")] * streamed
        calls.append(ToolCallEvent(call_id, "good", "{}"))
    chat = faces.client_of(ScriptedModel(calls, "done")).chat(tools=[tool])
    answer = faces.run(chat.send("go", max_rounds=2))
    assert {run.call.id for run in answer.tool_runs} == {f"c{n}" for n in range(MAX_CALLS)}
    assert answer.notes == (TOO_MANY,)


def test_the_checker_of_a_tool_is_made_once(faces: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    checker = checking.checker
    monkeypatch.setattr(checking, "checker", lambda schema: made.append(1) or checker(schema))
    tool = Tool("good", "", ANY, lambda arguments: "well")
    calls = [ToolCallEvent(f"c{number}", "good", "{}") for number in range(5)]
    client = faces.client_of(ScriptedModel(calls, "done"))
    faces.run(client.ask("go", tools=[tool], max_rounds=2))
    assert len(made) == 1


def test_the_arguments_of_a_call_are_checked_once(
    faces: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[object] = []
    problem = Tool.problem
    monkeypatch.setattr(
        Tool, "problem", lambda self, found: checked.append(found) or problem(self, found)
    )
    tool = Tool("good", "", ANY, lambda arguments: "well")
    script = ScriptedModel([ToolCallEvent("a", "good", '{"b": 1}')], "done")
    client = faces.client_of(script)
    faces.run(client.ask("go", tools=[tool], max_rounds=2, approve=lambda call: True))
    assert checked == [{"b": 1}]


class Odd(dict[str, Any]):
    def items(self) -> Any:
        raise LookupError("no items")


def doubled(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (b"x", "is of the type bytes"),
        (float("nan"), "no JSON form"),
        ("x" * 1_000_001, "more than 1,000,000 characters"),
        (list(range(500_000)), "more than 1,000,000 characters"),
        (doubled(60), "more than 1,000,000 characters"),
        (Odd(a=1), "LookupError: no items"),
    ],
    ids=["bytes", "nan", "long", "many", "doubled", "odd"],
)
@pytest.mark.parametrize("is_async", [False, True])
def test_a_result_that_no_model_can_get_is_told_as_a_failure(
    faces: Any, value: Any, problem: str, is_async: bool
) -> None:
    run = outcome(faces, lambda arguments: value, is_async=is_async)
    assert run.error.code == "TOOL_RESULT_INVALID"
    assert problem in run.output


def test_a_result_is_written_beside_the_event_loop(faces: Any) -> None:
    written: list[str] = []

    class Slow(dict[str, Any]):
        def items(self) -> Any:
            written.append(threading.current_thread().name)
            return super().items()

    outcome(faces, lambda arguments: Slow(a=1), is_async=False)
    assert written[0] == "talu-tool-odd"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ('{"b": 1e999}', "1e999 is out of the range of floating-point numbers"),
        ('{"b": NaN}', "NaN is not JSON"),
        ('{"path": "a.txt", "path": "/"}', "has the property 'path' more than once"),
        ('{"b": {"c": 1, "c": 2}}', "has the property 'c' more than once"),
        ('{"b": "\\ud800"}', "half of a surrogate pair"),
    ],
)
def test_arguments_that_mean_different_things_to_others_are_refused(
    faces: Any, arguments: str, problem: str
) -> None:
    tool = Tool("good", "", ANY, lambda arguments: "well")
    script = ScriptedModel([ToolCallEvent("a", "good", arguments)], "done")
    answer = faces.run(faces.client_of(script).ask("go", tools=[tool], max_rounds=2))
    assert answer.tool_runs[0].error.code == "TOOL_ARGUMENTS_INVALID"
    assert problem in answer.tool_runs[0].output


def test_a_tool_that_hangs_does_not_fill_the_process_with_threads(
    faces: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "MOST_THREADS", 3)
    gate = threading.Event()
    tool = Tool("hangs", "", ANY, lambda arguments: gate.wait(30), timeout=0.02)
    rounds = [[ToolCallEvent(f"c{number}", "hangs", "{}")] for number in range(5)]
    client = faces.client_of(ScriptedModel(*rounds, "done"))
    answer = faces.run(client.ask("go", tools=[tool], max_rounds=9))
    gate.set()
    codes = [run.error.code for run in answer.tool_runs]
    assert codes == ["TOOL_TIMEOUT"] * 3 + ["TOOL_FAILED"] * 2
    assert "3 earlier calls of it have not returned" in answer.tool_runs[-1].output
