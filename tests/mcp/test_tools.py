"""What tools of real servers return, over both transports."""

import asyncio
import threading
from typing import Any

import pytest
from tests.mcp.conftest import called, tool_of

from talu.exceptions import ToolServerError
from talu.mcp import MCP
from talu.tools import Tool, ToolSource


def test_a_server_is_a_source_of_tools(shop: MCP) -> None:
    assert isinstance(shop, ToolSource)
    assert all(isinstance(tool, Tool) and tool.is_async for tool in shop.open())


def test_a_tool_is_described_as_its_server_describes_it(shop: MCP) -> None:
    function = tool_of(shop, "add").definition["function"]
    assert (function["name"], function["description"]) == ("add", "Add two numbers.")
    assert function["parameters"]["required"] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "arguments", "value"),
    [
        ("add", {"a": 1, "b": 2}, 3),
        ("greet", {"name": 'Zoë "Z"'}, 'Hello, Zoë "Z"!'),
        ("stock", {}, {"pears": 3, "figs": 0}),
        ("names", {}, ["pears", "figs"]),
        ("large", {"size": 900_000}, "x" * 900_000),
    ],
    ids=["number", "text", "object", "list", "large"],
)
def test_a_result_is_the_value_that_the_server_returned(
    shop: MCP, name: str, arguments: dict[str, Any], value: object
) -> None:
    assert called(tool_of(shop, name), **arguments) == value


def test_a_result_whose_text_says_something_else_has_both(shop: MCP) -> None:
    value = called(tool_of(shop, "mixed"))
    assert value["structured_content"] == {"other": 1}
    assert value["text"].splitlines() == [
        "first",
        "[audio of the type audio/wav, 3 bytes, which is not shown: results of tools are text]",
        "[link to the resource file:///a.txt: a, a file]",
        "file:///b.txt:",
        "inside",
        "[resource file:///c of the type a/b, 3 bytes, which is not shown: results of tools are "
        "text]",
    ]


def test_an_image_is_described_beside_the_text(shop: MCP) -> None:
    assert called(tool_of(shop, "picture")).splitlines() == [
        "here it is",
        "[image of the type image/png, 1.00 kB, which is not shown: results of tools are text]",
    ]


def test_an_error_of_a_tool_has_its_message_and_names_the_server(shop: MCP) -> None:
    with pytest.raises(ToolServerError, match="no figs are left") as caught:
        called(tool_of(shop, "sell"), what="figs")
    assert (caught.value.code, caught.value.tool) == ("TOOL_FAILED", "sell")
    assert caught.value.server == shop.name
    assert shop.name in str(caught.value)


def test_arguments_that_do_not_fit_are_an_error_of_the_tool(shop: MCP) -> None:
    with pytest.raises(ToolServerError, match="Field required") as caught:
        called(tool_of(shop, "sell"))
    assert caught.value.code == "TOOL_FAILED"


def test_a_result_that_is_too_large_is_an_error(shop: MCP) -> None:
    with pytest.raises(ToolServerError, match="at most 1,000,000 characters") as caught:
        called(tool_of(shop, "large"), size=1_000_000)
    assert caught.value.code == "TOOL_SERVER_BAD_ANSWER"
    assert called(tool_of(shop, "add"), a=1, b=1) == 2


def test_a_name_that_servers_of_models_refuse_is_changed(shop: MCP) -> None:
    assert called(tool_of(shop, "files_read")) == "read"


def test_calls_of_one_loop_run_at_the_same_time(shop: MCP) -> None:
    wait, add = tool_of(shop, "wait"), tool_of(shop, "add")

    async def both() -> Any:
        waiting = asyncio.ensure_future(wait.run({}))
        found = await add.run({"a": 2, "b": 3})
        assert not waiting.done()
        waiting.cancel()
        return found

    assert asyncio.run(both()) == 5


def test_threads_and_loops_share_a_server(shop: MCP) -> None:
    found: list[int] = []

    def work(number: int) -> None:
        found.append(called(tool_of(shop, "add"), a=number, b=number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [2 * number for number in range(8)]


def test_an_open_server_gives_the_same_tools_again(shop: MCP) -> None:
    first = shop.open()

    async def again() -> object:
        return await shop.aopen()

    second = asyncio.run(again())
    assert isinstance(second, tuple)
    assert [a is b for a, b in zip(first, second, strict=True)] == [True] * len(first)


def test_the_headers_reach_a_server_behind_an_address(address: str) -> None:
    with MCP(address, headers={"X-Shop": "north"}) as source:
        assert called(tool_of(source, "header"), name="x-shop") == "north"
