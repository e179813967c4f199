"""Chats in which a model uses the tools of servers."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from tests.mcp.conftest import KEY, command, odd, tool_of

from talu import MCP, Client, ModelSpec, ScriptedModel
from talu.exceptions import ToolServerError, ValidationError
from talu.types import ToolCallEvent


def call(name: str, arguments: str = "{}", number: int = 1) -> list[ToolCallEvent]:
    return [ToolCallEvent(f"c{number}", name, arguments)]


@pytest.fixture(params=["stdio", "http"])
def shop(request: pytest.FixtureRequest) -> Iterator[MCP]:
    if request.param == "stdio":
        source = command(prefix="shop_", env={"API_KEY": KEY})
    else:
        source = MCP(request.getfixturevalue("address"), prefix="shop_")
    with source:
        yield source


def test_a_model_uses_the_tools_of_a_server(faces: Any, shop: MCP) -> None:
    model = ScriptedModel(call("shop_add", '{"a": 1, "b": 2}'), call("shop_stock"), "Done.")
    answer = faces.run(faces.client_of(model).chat().send("Go.", tools=[shop], max_rounds=8))
    assert answer.text == "Done."
    assert [(run.name, run.output) for run in answer.tool_runs] == [
        ("shop_add", "3"),
        ("shop_stock", '{"pears": 3, "figs": 0}'),
    ]
    assert model.requests[0].tools == tuple(tool.definition for tool in shop.open())


def test_a_local_model_uses_the_tools_of_a_server() -> None:
    with command(include=["add"], prefix="shop_") as shop, Client("talu/pocket") as client:
        answer = client.ask("2+2?", tools=[shop], tool_choice="shop_add", max_rounds=2, seed=1)
    [run] = answer.tool_runs
    assert (run.name, run.error) == ("shop_add", None)
    assert int(run.output) == sum(json.loads(run.call.arguments).values())


def test_an_error_of_a_tool_is_told_to_the_model(faces: Any, shop: MCP) -> None:
    model = ScriptedModel(call("shop_sell", '{"what": "figs"}'), "No figs.")
    chat = faces.client_of(model).chat()
    answer = faces.run(chat.send("Figs!", tools=[shop], max_rounds=8))
    [run] = answer.tool_runs
    assert run.error.code == "TOOL_FAILED"
    assert isinstance(run.error.__cause__, ToolServerError)
    assert "no figs are left" in model.requests[1].messages[-1]["content"]


def test_a_call_waits_for_its_approval(faces: Any) -> None:
    with command(needs_approval=["sell"], include=["sell", "add"]) as shop:
        calls = [*call("add", '{"a": 1, "b": 2}'), *call("sell", '{"what": "pears"}', 2)]
        chat = faces.chat(calls, "Sold.", tools=[shop])
        answer = faces.run(chat.send("Pears!", max_rounds=8))
        assert [run.output for run in answer.tool_runs] == ["3"]
        assert [open_call.name for open_call in chat.open_calls] == ["sell"]
        assert faces.run(chat.resume(approve=lambda _: True, max_rounds=8)).text == "Sold."


def test_a_server_that_dies_is_told_to_the_model_and_started_again(faces: Any) -> None:
    with command(env={"API_KEY": KEY}) as shop:
        scripts = call("die", '{"status": 3}'), "It died.", call("greet", '{"name": "Z"}'), "Hello."
        chat = faces.chat(*scripts, tools=[shop])
        [died] = faces.run(chat.send("Die.", max_rounds=8)).tool_runs
        assert "ended with the exit status 3" in died.output
        assert KEY not in died.output
        [greeted] = faces.run(chat.send("Greet Z.", max_rounds=8)).tool_runs
        assert greeted.output == "Hello, Z!"


def test_a_server_that_cannot_be_started_leaves_the_chat_as_it_was(faces: Any) -> None:
    chat = faces.chat("Never asked.")
    with pytest.raises(ToolServerError, match="the program was not found"):
        faces.run(chat.send("Go.", tools=[MCP("talu-no-such-program")], max_rounds=8))
    assert len(chat.items) == 0
    assert faces.run(chat.send("Go.")).text == "Never asked."


def test_tools_of_two_servers_with_one_name_are_refused(faces: Any) -> None:
    listed = {"tools/list": {"tools": [{"name": "a", "inputSchema": {"type": "object"}}]}}
    with odd(listed) as one, odd(listed) as two:
        chat = faces.chat("Never asked.")
        with pytest.raises(ValidationError, match="two tools are called 'a'"):
            faces.run(chat.send("Go.", tools=[one, two]))
        assert len(chat.items) == 0


def test_a_prefix_tells_the_tools_of_two_servers_apart(faces: Any) -> None:
    answers = {
        "tools/list": {"tools": [{"name": "a", "inputSchema": {"type": "object"}}]},
        "tools/call": {"content": [{"type": "text", "text": "yes"}]},
    }
    with odd(answers, prefix="one_") as one, odd(answers, prefix="two_") as two:
        chat = faces.chat([*call("one_a"), *call("two_a", number=2)], "Done.", tools=[one, two])
        answer = faces.run(chat.send("Go.", max_rounds=8))
        assert [run.output for run in answer.tool_runs] == ["yes", "yes"]


def test_arguments_that_do_not_fit_do_not_reach_the_server(faces: Any, shop: MCP) -> None:
    chat = faces.chat(call("shop_add", '{"a": "x"}'), "Sorry.", tools=[shop])
    [run] = faces.run(chat.send("Go.", max_rounds=8)).tool_runs
    assert run.error.code == "TOOL_ARGUMENTS_INVALID"


def test_a_call_that_is_carried_out_by_the_program(faces: Any, shop: MCP) -> None:
    chat = faces.chat(call("shop_names"), "Done.", tools=[shop])
    [found] = faces.run(chat.send("Go.")).tool_calls
    assert faces.run(execute(faces, found)) == ["pears", "figs"]


def execute(faces: Any, found: Any) -> Any:
    return found.execute() if faces.name == "sync" else found.execute_async()


def test_closing_a_client_closes_the_servers_that_it_has_used() -> None:
    shop = command(include=["where"])
    with Client(ModelSpec("scripted", ScriptedModel(call("where"), "Done."))) as client:
        [run] = client.ask("Where?", tools=[shop], max_rounds=8).tool_runs
        process = int(run.output.split()[1])
        os.kill(process, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    with shop:
        assert tool_of(shop, "where").name == "where"
