"""``max_rounds`` lets talu carry out the calls of a model, and go on with their results."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from talu import Hook, Profile, ScriptedModel
from talu.chat import ToolCallPiece, ToolRunPiece
from talu.exceptions import GenerationError, StateError, ValidationError
from talu.tools import Tool, tool
from talu.types import Done, FinishReason, Timings, ToolCallDelta, ToolCallEvent, Usage

TWO = [
    "Let me see.",
    ToolCallEvent("c1", "add", '{"a": 1, "b": 2}'),
    ToolCallEvent("c2", "add", '{"a": 3, "b": 4}'),
]
ONE = [ToolCallEvent("c1", "add", '{"a": 1, "b": 2}')]


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def told(chat: Any) -> list[tuple[str, str]]:
    """The roles and texts of the messages."""
    return [(message["role"], message["content"]) for message in chat.messages]


def scripted(faces: Any, *scripts: Any, **arguments: Any) -> tuple[Any, Any]:
    model = ScriptedModel(*scripts)
    return faces.client_of(model, **arguments), model


def test_the_calls_of_an_answer_are_carried_out_and_the_model_goes_on(faces) -> None:
    client, model = scripted(faces, TWO, "3 and 7.")
    chat = client.chat()
    answer = faces.run(chat.send("Sums?", tools=[add], max_rounds=3))
    assert (answer.text, answer.finish_reason, answer.tool_calls) == ("3 and 7.", "stop", None)
    assert [(run.name, run.output, run.error) for run in answer.tool_runs] == [
        ("add", "3", None),
        ("add", "7", None),
    ]
    assert told(chat) == [
        ("user", "Sums?"),
        ("assistant", "Let me see."),
        ("tool", "3"),
        ("tool", "7"),
        ("assistant", "3 and 7."),
    ]
    assert list(model.requests[1].messages) == chat.messages[:-1]
    assert [t["function"]["name"] for t in model.requests[1].tools] == ["add"]


def test_without_rounds_the_calls_are_returned_with_their_functions(faces) -> None:
    chat = faces.chat(TWO, "3 and 7.", tools=[add])
    answer = faces.run(chat.send("Sums?"))
    assert answer.finish_reason == "tool_calls"
    results = {call.id: call.execute() for call in answer.tool_calls}
    assert results == {"c1": 3, "c2": 7}
    assert faces.run(answer.submit_tool_results(results)).text == "3 and 7."
    assert [role for role, _ in told(chat)] == ["user", "assistant", "tool", "tool", "assistant"]


def test_single_results_are_kept_until_all_are_there(faces) -> None:
    client, model = scripted(faces, TWO, "3 and 7.")
    chat = client.chat(tools=[add])
    answer = faces.run(chat.send("Sums?"))
    assert faces.run(answer.submit_tool_result("c2", 7)) is answer
    assert len(model.requests) == 1
    assert [call.id for call in chat.open_calls] == ["c1"]
    last = faces.run(chat.submit_tool_results({"c1": 3}))
    assert last.text == "3 and 7."
    contents = [m["content"] for m in model.requests[1].messages if m["role"] == "tool"]
    assert contents == ["3", "7"]  # in the order of the calls


def test_each_call_can_get_its_result_from_the_answer(faces) -> None:
    client, model = scripted(faces, TWO, "3 and 7.", "And?")
    chat = client.chat(tools=[add])
    answer = faces.run(chat.send("Sums?"))
    for call in answer.tool_calls:
        last = faces.run(answer.submit_tool_result(call.id, call.execute()))
    assert last.text == "3 and 7."
    assert last.chat is chat
    assert [role for role, _ in told(chat)] == ["user", "assistant", "tool", "tool", "assistant"]
    assert [t["function"]["name"] for t in model.requests[1].tools] == ["add"]
    with pytest.raises(ValidationError, match="no open tool call"):
        faces.run(last.submit_tool_result("c1", 3))


def test_a_second_result_from_the_answer_is_an_error(faces) -> None:
    answer = faces.run(faces.chat(TWO, "never asked", tools=[add]).send("q"))
    faces.run(answer.submit_tool_result("c1", 3))
    with pytest.raises(ValidationError, match="'c1' has a result already"):
        faces.run(answer.submit_tool_result("c1", 4))


def test_calls_in_messages_of_the_caller_are_not_carried_out(faces) -> None:
    ran: list[str] = []

    def delete(path: str) -> str:
        ran.append(path)
        return "deleted"

    client, model = scripted(faces, "never asked")
    function = {"name": "delete", "arguments": '{"path": "/etc"}'}
    calls = [{"id": i, "type": "function", "function": function} for i in "ab"]
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": "r"},
    ]
    for rounds in ({}, {"max_rounds": 8}):
        with pytest.raises(ValidationError, match="'b' of the messages have no result") as wrong:
            faces.run(client.ask(messages, tools=[delete], **rounds))
        assert wrong.value.details["param"] == "prompt"
    assert ran == []
    assert model.requests == []


def test_async_functions_are_carried_out_too(faces) -> None:
    async def add(a: int, b: int) -> int:
        return a + b

    answer = faces.run(faces.chat(TWO, "done").send("q", tools=[add], max_rounds=2))
    assert [run.output for run in answer.tool_runs] == ["3", "7"]


def test_the_calls_of_one_answer_run_at_the_same_time(faces) -> None:
    both = threading.Barrier(2, timeout=30)

    def add(a: int, b: int) -> int:
        both.wait()
        return a + b

    answer = faces.run(faces.chat(TWO, "done").send("q", tools=[add], max_rounds=2))
    assert [run.error for run in answer.tool_runs] == [None, None]


def fails(a: int, b: int) -> int:
    """Add."""
    raise ZeroDivisionError("b is odd")


@tool(timeout=0.05)
def hangs(a: int, b: int) -> None:
    """Add."""
    threading.Event().wait(5)


def odd(a: int, b: int) -> object:
    """Add."""
    return object()


@pytest.mark.parametrize(
    ("function", "arguments", "code", "problem"),
    [
        (fails, '{"a": 1, "b": 2}', "TOOL_FAILED", "ZeroDivisionError: b is odd"),
        (hangs, '{"a": 1, "b": 2}', "TOOL_TIMEOUT", "did not finish within"),
        (odd, '{"a": 1, "b": 2}', "TOOL_RESULT_INVALID", "no JSON form"),
        (fails, '{"a": "x"}', "TOOL_ARGUMENTS_INVALID", "do not fit"),
        (fails, '{"a": 1', "TOOL_ARGUMENTS_INVALID", "not JSON"),
    ],
)
def test_a_failure_is_told_to_the_model_and_is_in_the_answer(
    faces, function, arguments, code, problem
) -> None:
    client, model = scripted(faces, [ToolCallEvent("c", function.__name__, arguments)], "Sorry.")
    chat = client.chat()
    answer = faces.run(chat.send("q", tools=[function], max_rounds=2))
    assert answer.text == "Sorry."
    (run,) = answer.tool_runs
    assert run.error is not None
    assert run.error.code == code
    assert problem in model.requests[1].messages[-1]["content"]
    assert chat.items[-2].status == "failed"


def test_a_call_of_an_unknown_tool_is_told_the_known_ones(faces) -> None:
    chat = faces.chat([ToolCallEvent("c", "sub", "{}")], "Sorry.")
    answer = faces.run(chat.send("q", tools=[add], max_rounds=2))
    assert answer.tool_runs[0].output == "Error: there is no tool 'sub'; there are: add"


def test_at_the_limit_the_last_calls_stay_open_and_a_note_says_so(faces) -> None:
    chat = faces.chat(ONE, ONE, "3.", tools=[add], max_rounds=2)
    answer = faces.run(chat.send("q"))
    assert (answer.finish_reason, len(answer.tool_runs)) == ("tool_calls", 1)
    assert [call.id for call in answer.tool_calls] == ["c1"]
    assert "max_rounds=2" in answer.notes[-1]
    assert faces.run(chat.resume()).text == "3."


@pytest.mark.parametrize("reason", [FinishReason.LENGTH, FinishReason.CONTENT_FILTER])
def test_an_answer_that_is_cut_off_leaves_its_whole_calls_open_and_a_note_says_so(
    faces, reason
) -> None:
    cut = [*TWO[1:2], ToolCallEvent("c2", "add", '{"a": 3'), Done(reason, Usage(), Timings(), "m")]
    chat = faces.chat(cut, "3.", tools=[add], max_rounds=2)
    answer = faces.run(chat.send("q"))
    assert (answer.finish_reason, answer.tool_runs) == (reason, [])
    assert answer.notes == (
        f"the answer was cut off ({reason}): the calls of the last answer were not carried out; "
        "resume() or submit_tool_results() goes on",
    )
    assert [call.id for call in chat.open_calls] == ["c1"]
    last = faces.run(chat.resume())
    assert (last.text, last.tool_runs[0].output) == ("3.", "3")


def test_an_answer_that_is_cut_off_within_its_only_call_leaves_none_open(faces) -> None:
    cut = [ToolCallEvent("c1", "add", '{"a"'), Done(FinishReason.LENGTH, Usage(), Timings(), "m")]
    chat = faces.chat(cut, "Hi.", tools=[add], max_rounds=2)
    assert faces.run(chat.send("q")).notes == ()
    assert faces.run(chat.send("again")).text == "Hi."


def test_usage_is_the_sum_of_all_requests(faces) -> None:
    def done(reason: FinishReason, prompt: int, completion: int) -> Done:
        return Done(reason, Usage(prompt, completion), Timings(), "m", notes=("n",))

    first = [*ONE, done(FinishReason.TOOL_CALLS, 10, 5)]
    chat = faces.chat(first, ["3", done(FinishReason.STOP, 20, 1)])
    answer = faces.run(chat.send("q", tools=[add], max_rounds=2))
    assert answer.usage == Usage(30, 6)
    assert answer.notes == ("n",)


def test_a_choice_is_for_the_first_request_and_later_ones_are_free(faces) -> None:
    client, model = scripted(faces, ONE, "3.")
    faces.run(
        client.ask(
            "q", tools=[add], tool_choice="required", parallel_tool_calls=False, max_rounds=2
        )
    )
    assert [request.tool_choice for request in model.requests] == ["required", "auto"]
    assert [request.parallel_tool_calls for request in model.requests] == [False, False]


def test_a_choice_is_not_about_the_open_calls_of_the_history(faces) -> None:
    chat = faces.chat(ONE, "3.", tools=[add])
    faces.run(chat.send("q"))
    answer = faces.run(chat.resume(tool_choice="none", max_rounds=2))
    assert (answer.text, answer.tool_runs[0].output, answer.notes) == ("3.", "3", ())


def test_a_stream_has_pieces_of_calls_and_of_results_whose_text_is_empty(faces) -> None:
    script = [
        "Let me see. ",
        ToolCallDelta("c1", "add", '{"a": 1'),
        ToolCallDelta("c1", "add", ', "b": 2}'),
        ToolCallEvent("c1", "add", '{"a": 1, "b": 2}'),
        ToolCallEvent("c2", "add", '{"a": 3, "b": 4}'),
    ]
    chat = faces.chat(script, "Done.")
    stream = faces.run(chat.send("q", tools=[add], max_rounds=2, stream=True))
    pieces = faces.read(stream)
    assert "".join(pieces) == "Let me see. Done."
    calls = [piece for piece in pieces if isinstance(piece, ToolCallPiece)]
    for call_id, whole in {"c1": '{"a": 1, "b": 2}', "c2": '{"a": 3, "b": 4}'}.items():
        own = [piece for piece in calls if piece.call_id == call_id]
        assert "".join(piece.arguments for piece in own) == whole
        assert [piece.complete for piece in own] == [False] * (len(own) - 1) + [True]
    runs = [piece.run for piece in pieces if isinstance(piece, ToolRunPiece)]
    assert [(run.call.id, run.output) for run in runs] == [("c1", "3"), ("c2", "7")]
    assert stream.text == "Done."
    reasons = [piece.finish_reason for piece in pieces]
    assert reasons == [None] * (len(pieces) - 1) + ["stop"]


def test_a_form_is_for_the_answer_after_the_calls(faces) -> None:
    chat = faces.chat(ONE, '{"sum": 3}', config=None)
    form = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    answer = faces.run(chat.send("q", tools=[add], max_rounds=2, response_format=form))
    assert answer.parsed == {"sum": 3}
    chat = faces.chat(ONE)
    answer = faces.run(chat.send("q", tools=[add], response_format=form, validation_retries=1))
    with pytest.raises(StateError, match="open"):
        answer.parsed  # noqa: B018


def test_hooks_see_every_tool_run(faces) -> None:
    seen: list[str] = []

    class Spy(Hook):
        def on_tool_run(self, chat: Any, run: Any) -> None:
            seen.append(f"{run.name} {run.output}")

        def on_generation_end(self, chat: Any, response: Any, *, error: Any = None) -> None:
            seen.append("end")

    client, _ = scripted(faces, TWO, "done", hooks=[Spy()])
    faces.run(client.ask("q", tools=[add], max_rounds=2))
    assert seen == ["add 3", "add 7", "end"]


# Approval


def test_approve_decides_on_each_call(faces) -> None:
    asked: list[str] = []
    decisions: dict[str, object] = {"c1": True, "c2": "too large"}

    def approve(call: Any) -> Any:
        asked.append(call.arguments)
        return decisions[call.id]

    chat = faces.chat(TWO, "Well.")
    answer = faces.run(chat.send("q", tools=[add], max_rounds=2, approve=approve))
    assert asked == ['{"a": 1, "b": 2}', '{"a": 3, "b": 4}']
    assert sorted((run.call.id, run.output) for run in answer.tool_runs) == [
        ("c1", "3"),
        ("c2", "Error: the call was refused: too large"),
    ]
    assert answer.tool_runs[0].error.code == "TOOL_REFUSED"


def test_an_async_approve_is_awaited_by_async_clients_and_refused_by_sync_ones(faces) -> None:
    async def approve(call: Any) -> bool:
        return False

    chat = faces.chat(ONE, "Well.")
    if faces.name == "sync":
        with pytest.raises(ValidationError, match="async"):
            chat.send("q", tools=[add], max_rounds=2, approve=approve)
        return
    answer = faces.run(chat.send("q", tools=[add], max_rounds=2, approve=approve))
    assert answer.tool_runs[0].error.code == "TOOL_REFUSED"


@tool(needs_approval=True)
def delete(a: int, b: int) -> str:
    """Delete."""
    return "deleted"


MIXED = [TWO[1], ToolCallEvent("c9", "delete", '{"a": 3, "b": 4}')]


def test_a_call_that_needs_an_approval_pauses_the_answer_after_the_others(faces) -> None:
    chat = faces.chat(MIXED, "Gone.", tools=[add, delete], max_rounds=4)
    answer = faces.run(chat.send("q"))
    assert (answer.finish_reason, answer.tool_runs[0].output) == ("tool_calls", "3")
    assert [(call.id, call.needs_approval) for call in answer.tool_calls] == [("c9", True)]
    assert "waits for an approval" in answer.notes[-1]
    last = faces.run(chat.resume(approve=lambda call: True))
    assert (last.text, [run.output for run in last.tool_runs]) == ("Gone.", ["deleted"])
    assert [text for role, text in told(chat) if role == "tool"] == ["3", "deleted"]


def test_a_paused_stream_is_resumed_as_a_stream(faces) -> None:
    chat = faces.chat(MIXED, "Gone.", tools=[add, delete], max_rounds=4)
    faces.read(faces.run(chat("q")))
    pieces = faces.read(faces.run(chat.resume(approve=lambda call: True, stream=True)))
    assert [type(piece) for piece in pieces[:1]] == [ToolRunPiece]
    assert "".join(pieces) == "Gone."


@pytest.mark.usefixtures("home")
def test_a_paused_chat_goes_on_in_another_client_of_the_profile(faces) -> None:
    chat = faces.client(MIXED, profile=Profile("work")).chat(tools=[add, delete], max_rounds=4)
    faces.run(chat.send("q"))
    other = faces.client("Gone.", profile=Profile("work"))
    again = other.chat(session_id=chat.session_id, tools=[add, delete])
    assert [(call.id, call.name) for call in again.open_calls] == [("c9", "delete")]
    assert faces.run(again.resume(approve=lambda call: True, max_rounds=2)).text == "Gone."
    assert [text for role, text in told(again) if role == "tool"] == ["3", "deleted"]
    third = faces.client(profile=Profile("work")).chat(session_id=chat.session_id)
    assert third.messages == again.messages


@pytest.mark.usefixtures("home")
def test_calls_and_results_are_stored_as_they_happen(faces) -> None:
    stored: list[list[str]] = []
    client = faces.client(ONE, "3.", profile=Profile("work"))
    chat = client.chat()

    def reader(a: int, b: int) -> str:
        record = Profile("work").database.load(chat.session_id)
        stored.append([item["type"] for item in record.items])
        return "3"

    made = Tool("add", "", {}, lambda arguments: reader(**arguments))
    faces.run(chat.send("q", tools=[made], max_rounds=2))
    assert stored == [["message", "function_call"]]


KILLED = """
import os, signal
from talu import Client, ModelSpec, Profile, ScriptedModel
from talu.tools import Tool
from talu.types import ToolCallEvent

def step(arguments):
    if arguments:
        os.kill(os.getpid(), signal.SIGKILL)
    return "first"

calls = [ToolCallEvent("c1", "step", "{}")], [ToolCallEvent("c2", "step", '{"n": 1}')]
client = Client(ModelSpec("scripted", ScriptedModel(*calls)), profile=Profile("work"))
client.chat(session_id="s", tools=[Tool("step", "", {}, step)], max_rounds=9).send("q")
"""


def test_a_process_that_is_killed_in_a_tool_loses_nothing_before(faces, home) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED], env={**os.environ, "HOME": str(home)})
    assert ended.returncode == -signal.SIGKILL
    client = faces.client("Done.", profile=Profile("work"))
    chat = client.chat(session_id="s", tools=[Tool("step", "", {}, lambda arguments: "second")])
    assert [text for role, text in told(chat) if role == "tool"] == ["first"]
    assert [call.id for call in chat.open_calls] == ["c2"]
    assert faces.run(chat.resume()).text == "Done."
    assert [text for role, text in told(chat) if role == "tool"] == ["first", "second"]


def test_a_failure_of_a_later_request_keeps_what_was_carried_out(faces) -> None:
    chat = faces.chat(ONE, [GenerationError("no")], "3.", tools=[add], max_rounds=2)
    with pytest.raises(GenerationError):
        faces.run(chat.send("q"))
    assert told(chat) == [("user", "q"), ("assistant", ""), ("tool", "3")]
    assert faces.run(chat.resume()).text == "3."


def test_a_call_without_a_function_waits_for_its_result(faces) -> None:
    definition = {"type": "function", "function": {"name": "add", "parameters": {}}}
    chat = faces.chat(ONE, "3.", tools=[definition], max_rounds=3)
    answer = faces.run(chat.send("q"))
    assert "no function here" in answer.notes[-1]
    assert faces.run(answer.submit_tool_results({"c1": 3})).text == "3."


# Wrong input


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"tools": [add, add]}, "two tools are called 'add'"),
        ({"tools": "add"}, "must be a list"),
        ({"tools": [add], "tool_choice": "ad"}, "did you mean 'add'"),
        ({"tools": [add], "tool_choice": 1}, "tool_choice must be"),
        ({"tool_choice": "required"}, "tool_choice needs tools"),
        ({"max_rounds": 2}, "max_rounds needs tools"),
        ({"approve": lambda call: True, "max_rounds": 2}, "needs tools"),
        ({"tools": [], "parallel_tool_calls": False}, "needs tools"),
        ({"tools": [add], "parallel_tool_calls": 1}, "parallel_tool_calls must be"),
        ({"tools": [add], "max_rounds": 0}, "max_rounds must be"),
        ({"tools": [add], "max_rounds": True}, "max_rounds must be"),
        ({"tools": [add], "approve": "yes", "max_rounds": 2}, "approve must be"),
        ({"tools": [add], "approve": lambda call: True}, "approve needs max_rounds"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_argument_is_an_error_and_the_chat_is_as_it_was(faces, arguments, problem) -> None:
    chat = faces.chat("never asked")
    with pytest.raises(ValidationError, match=problem):
        faces.run(chat.send("q", **arguments))
    assert told(chat) == []


def test_a_message_without_tools_takes_none_of_the_defaults_for_tools(faces) -> None:
    chat = faces.chat("a", tools=[add], max_rounds=3, approve=lambda call: True)
    assert faces.run(chat.send("q", tools=[])).text == "a"
    with pytest.raises(ValidationError, match="approve needs tools"):
        faces.chat("never asked", approve=lambda call: True)


@pytest.mark.usefixtures("home")
def test_open_calls_are_not_resumed_without_any_function(faces) -> None:
    chat = faces.client(TWO, profile=Profile("work")).chat(tools=[add])
    faces.run(chat.send("q"))
    again = faces.client("3.", profile=Profile("work")).chat(session_id=chat.session_id)
    with pytest.raises(ValidationError, match="'add', 'add' have no functions: give tools="):
        faces.run(again.resume())
    assert [call.id for call in again.open_calls] == ["c1", "c2"]
    assert faces.run(again.resume(tools=[add], max_rounds=2)).text == "3."


def test_a_decision_that_is_none_is_an_error_and_the_calls_stay_open(faces) -> None:
    chat = faces.chat(ONE, "3.", tools=[add], max_rounds=2)
    with pytest.raises(ValidationError, match="approve must return"):
        faces.run(chat.send("q", approve=lambda call: 1))
    assert [call.id for call in chat.open_calls] == ["c1"]
    assert faces.run(chat.resume()).text == "3."


@pytest.mark.parametrize(
    ("results", "problem"),
    [
        ({"c1": 3, "c2": 7, "c3": 0}, "no open tool call 'c3'"),
        ({"c1": 3}, "lacks those of the open calls 'c2'"),
        ({}, "lacks those of the open calls 'c1', 'c2'"),
        ([3, 7], "must be a dictionary"),
        ({1: 3}, "no open tool call 1"),
    ],
    ids=["unknown", "missing", "none", "list", "number"],
)
def test_results_that_do_not_fit_the_open_calls_change_nothing(faces, results, problem) -> None:
    chat = faces.chat(TWO, "never asked", tools=[add])
    answer = faces.run(chat.send("q"))
    before = list(chat.items)
    with pytest.raises(ValidationError, match=problem):
        faces.run(answer.submit_tool_results(results))
    assert list(chat.items) == before


def test_a_second_result_of_a_call_is_an_error(faces) -> None:
    chat = faces.chat(TWO, "3 and 7.", tools=[add])
    answer = faces.run(chat.send("q"))
    faces.run(answer.submit_tool_result("c1", 3))
    with pytest.raises(ValidationError, match="'c1' has a result already"):
        faces.run(chat.submit_tool_results({"c1": 4, "c2": 7}))


def test_an_exception_as_a_result_tells_the_model_of_a_failure(faces) -> None:
    chat = faces.chat(ONE, "Sorry.", tools=[add])
    answer = faces.run(chat.send("q"))
    faces.run(answer.submit_tool_results({"c1": OSError("disk full")}))
    assert told(chat)[-2] == ("tool", "Error: OSError: disk full")


def test_another_question_is_refused_while_calls_are_open(faces) -> None:
    chat = faces.chat(ONE, tools=[add])
    faces.run(chat.send("q"))
    with pytest.raises(StateError, match="'c1' wait for a result") as refused:
        faces.run(chat.send("something else"))
    assert refused.value.code == "STATE_OPEN_CALLS"


def test_an_answered_chat_cannot_be_resumed(faces) -> None:
    chat = faces.chat("a")
    faces.run(chat.send("q"))
    with pytest.raises(ValidationError, match="must end with a user message or a tool result"):
        faces.run(chat.resume())


class Source:
    """Two tools of a server that counts what happens to it."""

    def __init__(self, *tools: Tool) -> None:
        self.tools = tools
        self.log: list[str] = []

    def open(self) -> tuple[Tool, ...]:
        self.log.append("open")
        return self.tools

    async def aopen(self) -> tuple[Tool, ...]:
        return self.open()

    def close(self) -> None:
        self.log.append("close")


def test_a_source_is_opened_for_a_call_and_closed_with_the_client(faces) -> None:
    source = Source(Tool("add", "", {}, lambda arguments: 3))
    client, model = scripted(faces, ONE, "3.", "4.")
    chat = client.chat(tools=[source], max_rounds=2)
    faces.run(chat.send("q"))
    faces.run(chat.send("q"))
    assert [t["function"]["name"] for t in model.requests[0].tools] == ["add"]
    faces.run(client.close())
    assert source.log == ["open", "open", "close"]


def test_a_tool_of_a_source_with_a_known_name_is_an_error(faces) -> None:
    source = Source(Tool("add", "", {}))
    chat = faces.chat("never asked", tools=[add, source])
    with pytest.raises(ValidationError, match="two tools are called 'add'"):
        faces.run(chat.send("q"))
    assert told(chat) == []


def test_an_answer_with_calls_and_runs_is_json_and_can_be_copied(faces) -> None:
    chat = faces.chat(ONE, ONE, tools=[Tool("add", "", {}, lambda arguments: 3)], max_rounds=2)
    answer = faces.run(chat.send("q"))
    plain = json.loads(json.dumps(answer.to_dict()))
    assert plain["tool_runs"][0]["output"] == "3"
    again = pickle.loads(pickle.dumps(answer))
    assert again.to_dict() == answer.to_dict()
    assert again.tool_calls[0].tool is None
