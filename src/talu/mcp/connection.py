"""Holds a connection to a server open on the background loop, and sends its requests.

The SDK wants one task to open and close a connection; the tasks of its callers only use it.
"""

import asyncio
import contextlib
import logging
import os
import ssl
from collections.abc import Awaitable
from importlib.metadata import version
from typing import Any, TypeVar

from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    PARSE_ERROR,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    Implementation,
    InputRequiredResult,
    Tool,
)
from pydantic import TypeAdapter
from pydantic import ValidationError as SchemaMismatch

from talu.background import Background, Outcome, Work
from talu.exceptions import StateError, TaluError, ToolServerError, ValidationError
from talu.forks import check_process
from talu.mcp.results import result_value, text_of
from talu.mcp.servers import Command, Server, WebServer
from talu.mcp.stdio import CommandTransport
from talu.mcp.web import WebTransport

__all__ = ["Connection", "Link"]

T = TypeVar("T")
MAX_TOOLS = 1_000
MAX_PAGES = 100
MAX_SAID = 2_000  # characters of what the server says is wrong
REASON_S = 5.0  # for a connection that broke to be closed, which tells why
# The SDK writes what goes wrong to its logger; it is raised, so do not print it as well.
logging.getLogger("mcp").addHandler(logging.NullHandler())
RESULT: TypeAdapter[Any] = TypeAdapter(CallToolResult | InputRequiredResult)


class Link:
    """Keeps a connection open as long as something refers to this object."""

    def __init__(self, connection: "Connection") -> None:
        self.connection = connection

    def __del__(self) -> None:
        self.connection.close()


class Connection(Work):
    """A connection to a server. Its coroutines are for the background loop."""

    def __init__(
        self,
        background: Background,
        server: Server,
        tls: ssl.SSLContext | None,
        timeout: float | None,
    ) -> None:
        super().__init__(background)
        self._process = os.getpid()
        self._server = server
        self._timeout = timeout
        self._transport: CommandTransport | WebTransport
        if isinstance(server, Command):
            self._transport = CommandTransport(server)
        else:
            assert isinstance(server, WebServer)
            assert tls is not None
            self._transport = WebTransport(server, tls, timeout)
        self._client: Client | None = None
        self._failure: BaseException | None = None
        self._opened = asyncio.Event()  # or failed
        self._leave = asyncio.Event()
        self._ended = asyncio.Event()
        self._waiting = 0  # callers, for it to open

    @property
    def usable(self) -> bool:
        """Whether it is open, or being opened, in this process."""
        over = self.stopped or self._failure is not None or self._ended.is_set()
        return self._process == os.getpid() and not over

    def start(self) -> None:
        """Begin to connect. On the loop."""
        assert self.background is not None
        self.background.spawn(self._hold, self)

    def close(self) -> None:
        """Ask it to end; from any thread, signal handler or finalizer."""
        self.stopped = True
        if self.background is not None:
            self.background.post_if_open(self._let_end)

    async def wait_closed(self) -> None:
        """Wait until nothing of it is left."""
        await self._ended.wait()

    def finish(self, outcome: Outcome[Any]) -> None:
        """Remember why it ended."""
        self._failure = self._failure or outcome.error
        self._client = None
        self._opened.set()
        self._ended.set()

    async def tools(self) -> list[Tool]:
        """All tools of the server, once it is connected.

        Raises:
            ToolServerError: it cannot be connected, or does not list its tools.
        """
        self._waiting += 1
        try:
            return await self._answer(self._listed(), "list its tools")
        except asyncio.CancelledError:
            if self._client is None and self._waiting == 1:  # nobody else waits
                self.close()
            raise
        finally:
            self._waiting -= 1

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """The value of the result of a tool.

        Raises:
            ToolServerError: the tool reported an error, or the server did not answer.
            StateError: the connection was closed, or opened before this process was forked.
        """
        what = f"the MCP server {self._server.name} was opened"
        check_process(self._process, what, "open it again in this process")
        result = await self._answer(self._called(name, arguments), f"answer the call of {name!r}")
        if isinstance(result, InputRequiredResult):
            what = f"wants to ask the user before it runs {name!r}, which talu does not offer"
            raise self._error(what, "TOOL_SERVER_REFUSED", name)
        if result.is_error:
            said = self._said(text_of(result.content)) or "the server gives no reason"
            wrong = f"the tool {name!r} of the MCP server {self._server.name} failed: {said}"
            raise ToolServerError(wrong, "TOOL_FAILED", server=self._server.name, tool=name)
        try:
            return result_value(result.content, result.structured_content)
        except ValidationError as error:
            what = f"answered the call of {name!r} with what cannot be used: {error}"
            raise self._error(what, "TOOL_SERVER_BAD_ANSWER", name) from None

    async def _hold(self) -> None:
        """Connect, and keep the connection until it is asked to end."""
        about = Implementation(name="talu", version=version("talu"))
        transport: Any = self._transport  # the SDK's protocol has private types
        async with Client(transport, client_info=about) as client:
            self._client = client
            self._opened.set()
            await self._leave.wait()

    def _let_end(self) -> None:
        """End it in order; one that is still being opened is cancelled."""
        if self._client is None and not self._leave.is_set():
            self._cancel_task()
        self._leave.set()

    async def _open_client(self) -> Client:
        await self._opened.wait()
        if self._client is None:
            raise await self._reason()
        return self._client

    async def _listed(self) -> list[Tool]:
        client = await self._open_client()
        found: list[Tool] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            page = await client.list_tools(cursor=cursor)
            found += page.tools
            cursor = page.next_cursor
            if len(found) > MAX_TOOLS:
                break
            if cursor is None:
                return found
        what = f"lists more than {MAX_TOOLS:,} tools, or sends them in more than {MAX_PAGES} pages"
        raise self._error(what, "TOOL_SERVER_BAD_ANSWER")

    async def _called(self, name: str, arguments: dict[str, Any]) -> Any:
        client = await self._open_client()
        # ``call_tool`` of the SDK would compare the result with the server's schema by Python's
        # regular expressions, with which a server could block the loop.
        params = CallToolRequestParams(name=name, arguments=arguments)
        return await client.session.send_request(CallToolRequest(params=params), RESULT)

    async def _answer(self, request: Awaitable[T], what: str) -> T:
        """The answer to a request; raises typed errors in place of the SDK's."""
        try:
            async with asyncio.timeout(self._timeout):
                return await request
        except TaluError:
            raise
        except TimeoutError:
            late = f"did not {what} within timeout={self._timeout:g} seconds"
            error = self._error(late, "TOOL_SERVER_TIMEOUT")
            if self._client is None:  # it hangs before it is of any use
                self._failure = error
                self._let_end()
            raise error from None
        except MCPError as error:
            raise await self._typed(error, what) from None
        except SchemaMismatch as error:
            wrong = f"did not {what} in the form of the protocol: {_first(error)}"
            raise self._error(wrong, "TOOL_SERVER_BAD_ANSWER") from None

    async def _typed(self, error: MCPError, what: str) -> TaluError:
        """The error for what went wrong with a request to an open server."""
        if str(error) == SESSION_LOST or (error.code == CONNECTION_CLOSED and str(error) == CLOSED):
            return await self._reason()
        if self._transport.fault is not None:
            return _again(self._transport.fault)
        if error.code == CONNECTION_CLOSED:  # only of this request
            return await self._transport.ended()
        return self._error(f"did not {what}: {self._refusal(error)}", _code_of(error))

    async def _reason(self) -> TaluError:
        """Why the connection is of no use any more; it ends, if it has not."""
        if self.stopped:
            return StateError(f"the MCP server {self._server.name} was closed", "STATE_CLOSED")
        if isinstance(self._transport, CommandTransport) and self._client is not None:
            self._failure = self._failure or self._transport.fault or await self._transport.ended()
        self._let_end()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), REASON_S)
        if self._transport.fault is not None:
            return _again(self._transport.fault)
        return await self._of(self._failure)

    async def _of(self, failure: BaseException | None) -> TaluError:
        """A failure of the connection as a typed error."""
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        match failure:
            case TaluError():
                return _again(failure)
            case MCPError() if failure.code != CONNECTION_CLOSED:
                wrong = f"refuses the connection: {self._refusal(failure)}"
                return self._error(wrong, _code_of(failure))
            case SchemaMismatch():
                wrong = f"did not answer in the form of the protocol: {_first(failure)}"
                return self._error(wrong, "TOOL_SERVER_BAD_ANSWER")
            case MCPError() | None:
                return await self._transport.ended()
        said = self._said(f"{type(failure).__name__}: {failure}")
        return self._error(f"cannot be used: {said}", "TOOL_SERVER_ENDED")

    def _refusal(self, error: MCPError) -> str:
        status = self._transport.status
        return self._said(str(error)) + ("" if status is None else f" (status {status})")

    def _said(self, text: str) -> str:
        """What the server says, for a message."""
        hidden = self._server.hide(text)
        return hidden if len(hidden) <= MAX_SAID else f"{hidden[:MAX_SAID]} …"

    def _error(self, what: str, code: str, tool: str | None = None) -> ToolServerError:
        name = self._server.name
        return ToolServerError(f"the MCP server {name} {what}", code, server=name, tool=tool)


CLOSED = "Connection closed"  # how the SDK says that the whole connection is
SESSION_LOST = "Session terminated"  # and that a server behind an address has forgotten it
OTHER_CONTENT = "Unexpected content type"  # and that it is none of the protocol


def _code_of(error: MCPError) -> str:
    """The code for an error that the server sent, or that the SDK sends in its place."""
    bad = error.code == PARSE_ERROR or str(error).startswith(OTHER_CONTENT)
    return "TOOL_SERVER_BAD_ANSWER" if bad else "TOOL_SERVER_REFUSED"


def _first(error: SchemaMismatch) -> str:
    """Where an answer is wrong first, and how."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"


def _again(error: TaluError) -> TaluError:
    """The same error as a new object, as several callers may raise it."""
    if isinstance(error, ToolServerError):
        return ToolServerError(str(error), error.code, server=error.server, tool=error.tool)
    return type(error)(str(error), error.code, error.details)
