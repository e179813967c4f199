"""A real MCP server with tools for the tests, on stdio or at a socket that it is given."""

import asyncio
import os
import socket
import sys

import uvicorn
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

server = MCPServer("shop")
sold: list[str] = []


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def greet(name: str) -> str:
    """Greet somebody."""
    return f"Hello, {name}!"


@server.tool()
def stock() -> dict[str, int]:
    """What is there."""
    return {"pears": 3, "figs": 0}


@server.tool()
def names() -> list[str]:
    """The names of the goods."""
    return ["pears", "figs"]


@server.tool()
def sell(what: str) -> str:
    """Sell something."""
    if what == "figs":
        raise ToolError("no figs are left")
    sold.append(what)
    return f"{len(sold)} sold"


@server.tool(structured_output=False)
def picture() -> list[object]:
    """A picture and a text."""
    return ["here it is", Image(data=b"\x89PNG" + bytes(996), format="png")]


@server.tool()
def mixed() -> CallToolResult:
    """All kinds of content."""
    return CallToolResult(
        content=[
            TextContent(text="first"),
            AudioContent(data="AAAA", mime_type="audio/wav"),
            ResourceLink(uri="file:///a.txt", name="a", description="a file"),
            EmbeddedResource(resource=TextResourceContents(uri="file:///b.txt", text="inside")),
            EmbeddedResource(
                resource=BlobResourceContents(uri="file:///c", blob="AAAA", mime_type="a/b")
            ),
        ],
        structured_content={"other": 1},
    )


@server.tool()
def environment(name: str) -> str:
    """A variable of the server's environment."""
    return os.environ.get(name, "not set")


@server.tool()
def where() -> str:
    """The folder and the process of the server."""
    return f"{os.getcwd()} {os.getpid()}"


@server.tool()
def large(size: int) -> str:
    """A text of this size."""
    return "x" * size


@server.tool()
async def wait() -> str:
    """Never answer."""
    await asyncio.Event().wait()
    return ""


@server.tool()
def die(status: int) -> str:
    """End the server."""
    sys.stderr.write(f"my key is {os.environ.get('API_KEY')}\n")
    sys.stderr.flush()
    os._exit(status)


@server.tool()
def change() -> str:
    """Offer another tool from now on, and not ``names``."""
    server.remove_tool("names")

    @server.tool()
    def prices() -> str:
        """The prices."""
        return "1"

    return "changed"


@server.tool(name="files.read")
def read() -> str:
    """Read a file; servers of models refuse the name."""
    return "read"


@server.tool()
def header(name: str, context: Context) -> str:
    """A header of the request."""
    request = context.request_context.request
    return str(request.headers.get(name)) if request is not None else "no request"


@server.tool()
def refuse(context: Context) -> str:
    """Repeat the key of the request in an error."""
    request = context.request_context.request
    key = "none" if request is None else request.headers.get("authorization")
    raise ToolError(f"wrong key: {str(key).removeprefix('Bearer ')}")


def serve_http(opened: socket.socket) -> None:
    """Serve at a listening socket until the process is ended."""
    config = uvicorn.Config(server.streamable_http_app(), log_level="error")
    uvicorn.Server(config).run(sockets=[opened])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve_http(socket.socket(fileno=int(sys.argv[1])))
    else:
        server.run("stdio")
