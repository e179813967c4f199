"""An answer that is stopped while its calls are carried out leaves no call open silently."""

import _thread
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from tests.chat.test_interrupts import interrupted

from talu import Client, Hook, ModelSpec, Profile, ScriptedModel, StopFlag
from talu.chat import Chat, StreamingResponse
from talu.exceptions import GenerationError, StorageError, ToolExecutionError
from talu.tools import Tool
from talu.tools.execution import AT_ONCE
from talu.types import ToolCallEvent

ONE = [ToolCallEvent("c1", "add", '{"a": 1, "b": 2}')]
TWO = [*ONE, ToolCallEvent("c2", "add", '{"a": 3, "b": 4}')]
STOPPED = "the answer was stopped before the call had ended; it may have had effects"
NOT_BEGUN = "the answer was stopped before the call began"


def waiting_tool(then: Callable[[], object]) -> tuple[Tool, threading.Event]:
    """A tool that does something, and waits for the event."""
    gate = threading.Event()

    def wait(arguments: Any) -> str:
        then()
        gate.wait(30)
        return "3"

    return Tool("add", "", {}, wait), gate


def test_a_stop_flag_ends_the_wait_and_run_and_notes_say_so(faces) -> None:
    flag = StopFlag()
    stuck, gate = waiting_tool(flag.signal)
    chat = faces.chat(ONE, "Next.", tools=[stuck], max_rounds=2)
    answer = faces.run(chat.send("q", stop_flag=flag))
    gate.set()
    assert answer.finish_reason == "cancelled"
    assert (answer.tool_runs[0].error.code, answer.tool_runs[0].output) == (
        "TOOL_CANCELLED",
        f"Error: {STOPPED}",
    )
    assert answer.notes == (f"the call of 'add' was cancelled: {STOPPED}",)
    assert chat.items[-1].status == "failed"
    assert faces.run(chat.send("go on")).text == "Next."


def test_the_time_limit_of_an_answer_covers_its_tools(faces) -> None:
    stuck, gate = waiting_tool(lambda: None)
    chat = faces.chat(ONE, tools=[stuck], max_rounds=2)
    with pytest.raises(GenerationError) as late:
        faces.run(chat.send("q", timeout=0.2))
    gate.set()
    assert late.value.code == "GENERATION_TIMEOUT"
    answer = late.value.details["response"]
    assert [run.error.code for run in answer.tool_runs] == ["TOOL_CANCELLED"]
    assert answer.notes == (f"the call of 'add' was cancelled: {STOPPED}",)


def test_a_client_that_is_closed_while_a_tool_runs_ends_the_answer_with_notes(faces) -> None:
    client = faces.client(ONE)
    stuck, gate = waiting_tool(client.router.close)
    answer = faces.run(client.chat(tools=[stuck], max_rounds=2).send("q"))
    gate.set()
    assert answer.finish_reason == "cancelled"
    assert answer.notes == (
        "its client was closed while it ran",
        f"the call of 'add' was cancelled: {STOPPED}",
    )


def test_ctrl_c_in_a_tool_call_leaves_a_chat_that_can_go_on() -> None:
    stuck, gate = waiting_tool(_thread.interrupt_main)
    client = Client(ModelSpec("m", ScriptedModel(ONE, "Next.")))
    chat = client.chat(tools=[stuck], max_rounds=2)
    stream = chat("q")
    with pytest.raises(KeyboardInterrupt):
        list(stream)
    gate.set()
    assert stream.notes == (f"the call of 'add' was cancelled: {STOPPED}",)
    assert chat.items[-1].output == f"Error: {STOPPED}"
    assert chat.send("go on").text == "Next."


def test_only_calls_that_began_may_have_had_effects(faces) -> None:
    flag = StopFlag()
    began: list[int] = []

    def begin() -> None:
        began.append(1)
        if len(began) == AT_ONCE:
            flag.signal()

    stuck, gate = waiting_tool(begin)
    calls = [ToolCallEvent(f"c{number}", "add", "{}") for number in range(AT_ONCE + 3)]
    chat = faces.chat(calls, tools=[stuck], max_rounds=2)
    answer = faces.run(chat.send("q", stop_flag=flag))
    gate.set()
    outputs = Counter(run.output.removeprefix("Error: ") for run in answer.tool_runs)
    assert outputs == {STOPPED: AT_ONCE, NOT_BEGUN: 3}


def test_an_interrupt_in_approve_says_that_no_call_began() -> None:
    def approve(call: Any) -> bool:
        if call.id == "c2":
            raise KeyboardInterrupt
        return True

    tool = Tool("add", "", {}, lambda arguments: "3")
    chat = Client(ModelSpec("m", ScriptedModel(TWO, "Next."))).chat(tools=[tool], max_rounds=2)
    with pytest.raises(KeyboardInterrupt):
        chat.send("q", approve=approve)
    assert [item.output for item in chat.items[-2:]] == [f"Error: {NOT_BEGUN}"] * 2
    assert chat.send("go on").text == "Next."


@pytest.mark.parametrize("kind", [LookupError, ToolExecutionError])
def test_calls_stay_open_when_approve_raises_and_resume_carries_them_out(
    faces, kind: type[Exception]
) -> None:
    def approve(call: Any) -> bool:
        raise kind(call.id)

    tool = Tool("add", "", {}, lambda arguments: "3")
    chat = faces.chat(TWO, "3.", tools=[tool], max_rounds=2)
    with pytest.raises(kind, match="c1"):
        faces.run(chat.send("q", approve=approve))
    assert [call.id for call in chat.open_calls] == ["c1", "c2"]
    answer = faces.run(chat.resume(approve=lambda call: True))
    assert ([run.output for run in answer.tool_runs], answer.text) == (["3", "3"], "3.")


@pytest.mark.usefixtures("home")
def test_a_call_that_began_gets_a_result_when_another_process_changes_the_chat(faces) -> None:
    client = faces.client(TWO, profile=Profile("work"))
    chat, gate, begun = client.chat(), threading.Event(), threading.Event()

    def change(arguments: Any) -> str:
        if arguments["a"] == 3:
            begun.set()
            gate.wait(30)
        else:
            begun.wait(30)
            other = Client(ModelSpec("scripted", ScriptedModel()), profile=Profile("work"))
            other.chat(session_id=chat.session_id).pop()
        return "3"

    with pytest.raises(StorageError):
        faces.run(chat.send("q", tools=[Tool("add", "", {}, change)], max_rounds=2))
    gate.set()
    assert [item.output for item in chat.items[-2:]] == ["3", f"Error: {STOPPED}"]


class Watch(Hook):
    """Records the ids of the tool calls that it is told of."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def on_tool_run(self, chat: Any, run: Any) -> None:
        self.told.append(run.call.id)


def send(chat: Chat) -> None:
    chat.send("question", max_rounds=2, approve=lambda call: call.id != "c2" or "no")


def read(chat: Chat) -> None:
    for _ in chat("question", max_rounds=2):
        pass


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(("use", "stored"), [(send, True), (read, False)])
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_at_any_point_leaves_every_call_with_one_result(
    use: Callable[[Chat], None], stored: bool
) -> None:
    point = 0
    tool = Tool("add", "", {}, lambda arguments: "3")
    with suppress(EOFError):
        for point in count(1):
            hook = Watch()
            model = ModelSpec("m", ScriptedModel(TWO, *["done"] * 2))
            profile = Profile("work") if stored else None
            chat = Client(model, profile=profile, hooks=[hook]).chat(tools=[tool])
            interrupted(use, chat, point)
            latest = chat.last_response
            if isinstance(latest, StreamingResponse):
                latest.close()  # it was perhaps interrupted between two pieces
            items = [item for item in chat.items if item.type == "function_call"]
            before = [item.call_id for item in items if item.status != "incomplete"]
            assert chat.open_calls == [], point
            assert chat.send("next").finish_reason in ("stop", "tool_calls"), point
            results = [item.call_id for item in chat.items if item.type == "function_call_output"]
            assert sorted(results) == before, point
            assert hook.told == results, point
    assert point > 100
