"""Real servers, on stdio and behind an address."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from talu.mcp import MCP
from talu.tools import Tool

SERVER = Path(__file__).with_name("server.py")
ODD = Path(__file__).with_name("odd.py")
KEY = "canary-7d1f2b"


def command(**options: Any) -> MCP:
    """The server of the tests, as a program."""
    return MCP(sys.executable, args=[str(SERVER)], **options)


def odd(answers: dict[str, Any], **options: Any) -> MCP:
    """A server that answers as it is told; see ``odd.py``."""
    return MCP(sys.executable, args=[str(ODD), json.dumps(answers)], **options)


def tool_of(source: MCP, name: str) -> Tool:
    """A tool of a server, by its name here."""
    return {tool.name: tool for tool in source.open()}[name]


def called(tool: Tool, **arguments: Any) -> Any:
    """The value of a call."""

    async def call() -> Any:
        return await tool.run(arguments)

    return asyncio.run(call())


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """The address of the server of the tests, in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        port, number = opened.getsockname()[1], opened.fileno()
        arguments = [sys.executable, SERVER, str(number)]
        with subprocess.Popen(arguments, pass_fds=[number]) as process:
            yield f"http://127.0.0.1:{port}/mcp"
            process.terminate()


@pytest.fixture(scope="module", params=["stdio", "http"])
def shop(request: pytest.FixtureRequest) -> Iterator[MCP]:
    """An open server, over each of the transports."""
    if request.param == "stdio":
        source = command(env={"API_KEY": KEY})
    else:
        source = MCP(request.getfixturevalue("address"), headers={"Authorization": f"Bearer {KEY}"})
    with source:
        source.open()
        yield source
