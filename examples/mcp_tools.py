"""Gives a model the tools of an MCP server: chosen, renamed, and held back for approval."""

import sys

from mcp.server.mcpserver import MCPServer

from talu import MCP, Client, ModelSpec, ScriptedModel
from talu.types import ToolCallEvent

server = MCPServer("shop")  # this file with "serve" is the server
left = {"pears": 3, "figs": 0}
SELL = '{"fruit": "pears", "count": 2}'


@server.tool()
def stock() -> dict[str, int]:
    """How many of each fruit are left."""
    return left


@server.tool()
def sell(fruit: str, count: int) -> str:
    """Sell some of a fruit."""
    left[fruit] -= count
    return f"{count} {fruit} sold, {left[fruit]} left"


if sys.argv[1:] == ["serve"]:
    server.run("stdio")
else:
    shop = MCP(sys.executable, args=[__file__, "serve"], prefix="shop_", needs_approval=["sell"])
    # A script, so that the calls are the same each time; any model that can call tools will do.
    calls = ToolCallEvent("1", "shop_stock", "{}"), ToolCallEvent("2", "shop_sell", SELL)
    script = ScriptedModel([calls[0]], [calls[1]], "Two pears for you.")
    with Client(ModelSpec("script", script)) as client:
        chat = client.chat(tools=[shop])
        for answer in (chat.send("Two pears!", max_rounds=8), chat.resume(approve=lambda _: True)):
            for run in answer.tool_runs:
                print(f"{run.name} {run.call.arguments} -> {run.output}")
            print(answer.text or f"to approve: {answer.tool_calls}")
