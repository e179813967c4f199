"""The tools of a server, as an entry of ``tools=``."""

import contextlib
import re
import ssl
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Self

import talu.aio as aio
from talu.background import CLOSING_SECONDS, on_background
from talu.bridge import await_in_background, run_in_background
from talu.deadline import Deadline
from talu.error_text import shown
from talu.exceptions import (
    DependencyError,
    GenerationError,
    StateError,
    ToolServerError,
    ValidationError,
)
from talu.forks import import_whole
from talu.mcp.listing import Selection, chosen_tools
from talu.mcp.servers import WebServer, server_of
from talu.threads import beside_loop
from talu.tools import Tool
from talu.tools.definition import checked_seconds
from talu.types import Handle

if TYPE_CHECKING:
    from talu.mcp.connection import Link

__all__ = ["MCP"]

PREFIX = re.compile(r"[A-Za-z0-9_-]{0,32}")
MAX_NAMES = 1_000


class MCP(Handle):
    """The tools of an MCP server, as an entry of ``tools=``.

    ``MCP("uvx mcp-server-time")`` starts a program and speaks with it on its standard input and
    output. ``MCP("https://host/mcp")`` connects to a server by streamable HTTP. The connection is
    made when the tools are first needed, by this object, a chat or a client, and is kept until
    ``close``, or until nothing refers to the object or its tools. It can be used by any number of
    threads, event loops and chats at the same time.

    A tool that cannot be used, such as one with a wrong schema, is left out, and ``notes`` and the
    answers say so; one that ``include`` names is an error.

    The tools are listed again at each opening, so that a server can change them. A connection that
    has ended is made again at the next opening, and never during a call: the server may have lost
    what it knew, or may have done what it was asked.

    The result of a tool is its text, or its structured content; if both say something else, it is
    ``{"text": ..., "structured_content": ...}``. Images, audio and binary resources are described
    in the text and not shown to the model. A result that the server calls an error, and everything
    that goes wrong with a call, is a ``ToolServerError``, whose message the model gets.

    Requires ``pip install "talu[mcp]"``.

    Attributes:
        name: the program, or the address without path and query; messages and ``repr`` have it.
    """

    _instead = "make another one in the other process"

    def __init__(
        self,
        server: str,
        *,
        args: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        headers: Mapping[str, str] | None = None,
        allow_insecure: bool = False,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        prefix: str = "",
        needs_approval: bool | Sequence[str] = False,
        timeout: float | None = 60.0,
    ) -> None:
        """Describe a server and the tools to use; nothing is started or connected.

        Args:
            server: an address with ``https://`` or ``http://``, or a command. A command is split
                into words as by a shell, but not run by one; with ``args`` it is the program only.
            args: the arguments of the program.
            env: variables for the program, added to ``HOME``, ``LOGNAME``, ``PATH``, ``SHELL``,
                ``TERM`` and ``USER``, which are all that it gets of this environment.
            cwd: the folder in which the program runs; None is that of this process.
            headers: headers of all requests, such as ``Authorization``.
            allow_insecure: let headers with a key travel over plain ``http`` to another machine.
            include: the server's names of the tools to use; None for all.
            exclude: the server's names of tools to leave out.
            prefix: put before the names of the tools, at most 32 letters, digits, ``_`` and ``-``.
                In the names, ``.`` and ``/`` become ``_``, because servers of models refuse them.
            needs_approval: whether calls wait for an approval; or the server's names of the tools
                whose calls do.
            timeout: maximum seconds to open the server, and of each call; None is no limit.

        Raises:
            ValidationError: an argument is wrong.
        """
        self._server = server_of(server, args, env, cwd, headers, allow_insecure)
        self.name = self._server.name
        self._selection = Selection(
            include=None if include is None else _names("include", include),
            exclude=_names("exclude", exclude),
            prefix=_prefix(prefix),
            needs_approval=(
                needs_approval
                if isinstance(needs_approval, bool)
                else _names("needs_approval", needs_approval)
            ),
            timeout=checked_seconds(timeout, partial(_wrong, "timeout")),
        )
        self._tls: ssl.SSLContext | None = None
        self._link: Link | None = None
        self._known: tuple[Link, object, tuple[Tool, ...]] | None = None
        self._notes: tuple[str, ...] = ()

    def open(self) -> tuple[Tool, ...]:
        """Connect to the server, if it is not connected, and list its tools.

        Returns:
            The tools that are used; the same objects as before if the server lists the same.

        Raises:
            ToolServerError: the server cannot be used; the message says why.
            DependencyError: the SDK of MCP is not installed.
            StateError: it was closed meanwhile.
        """
        sdk = self._prepared()
        return run_in_background(lambda: self._opened(sdk))

    async def aopen(self) -> tuple[Tool, ...]:
        """Like ``open``, awaited."""
        sdk = await beside_loop(self._prepared)
        return await await_in_background(lambda: self._opened(sdk))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the last opening has left out: a sentence for each tool that cannot be used."""
        return self._notes

    def close(self) -> None:
        """End the connection, and the program; waits for that, for at most five seconds.

        Calls that are running fail. The server is connected again when it is opened again. In the
        thread of an event loop it does not wait, which would block the loop: await ``aclose``.
        """
        link, self._link, self._known = self._link, None, None
        if link is None:
            return
        connection = link.connection
        usable = connection.background is not None and connection.background.usable
        connection.close()
        if usable and not _runs_loop():
            with contextlib.suppress(GenerationError, StateError):
                run_in_background(connection.wait_closed, Deadline.after(CLOSING_SECONDS))

    async def aclose(self) -> None:
        """Like ``close``, awaited."""
        await beside_loop(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"MCP({self.name})"

    def _prepared(self) -> ModuleType:
        """Load what takes long, which would block an event loop."""
        try:
            sdk = import_whole("talu.mcp.connection")
        except ModuleNotFoundError as missing:
            if (missing.name or "").startswith("talu"):
                raise
            raise DependencyError(
                "MCP servers need the SDK of MCP in version 2, which is not installed: "
                "pip install 'talu[mcp]'"
            ) from missing
        if isinstance(self._server, WebServer) and self._tls is None:
            http = import_whole("talu.backends.remote.http")
            self._tls = http.tls_of(self._server.endpoint)
        return sdk

    async def _opened(self, sdk: ModuleType) -> tuple[Tool, ...]:
        """The tools. On the background loop, so that two callers make one connection."""
        link = self._link
        if link is not None and link.connection.usable:
            try:
                return self._chosen(link, await link.connection.tools())
            except ToolServerError as error:
                if error.code != "TOOL_SERVER_ENDED":
                    raise
        if link is self._link:  # nobody else has connected meanwhile
            background = on_background()
            connection = sdk.Connection(background, self._server, self._tls, self._timeout)
            self._link = link = sdk.Link(connection)
            connection.start()
        else:
            link = self._link
        if link is None:
            raise StateError(f"the MCP server {self.name} was closed", "STATE_CLOSED")
        return self._chosen(link, await link.connection.tools())

    @property
    def _timeout(self) -> float | None:
        return self._selection.timeout

    def _chosen(self, link: "Link", listed: list[Any]) -> tuple[Tool, ...]:
        """The tools that are used, as objects that belong to a connection."""
        content = [(tool.name, tool.description, tool.title, tool.input_schema) for tool in listed]
        if self._known is not None and self._known[0] is link and self._known[1] == content:
            return self._known[2]

        def make_run(name: str) -> Any:
            async def run(arguments: dict[str, Any]) -> Any:
                return await await_in_background(lambda: link.connection.call(name, arguments))

            return run

        tools, self._notes = chosen_tools(self.name, listed, self._selection, make_run)
        if self._link is link:
            self._known = link, content, tools
        return tools


def _runs_loop() -> bool:
    """Whether an event loop runs in this thread."""
    try:
        aio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _wrong(param: str, problem: str) -> ValidationError:
    return ValidationError(f"{param} {problem}", details={"param": param})


def _names(param: str, names: object) -> tuple[str, ...]:
    several = isinstance(names, list | tuple | set | frozenset) and len(names) <= MAX_NAMES
    if several and isinstance(names, Iterable) and all(isinstance(each, str) for each in names):
        return tuple(names)
    also = "True, False or " if param == "needs_approval" else ""
    wanted = f"{also}a list of at most {MAX_NAMES:,} names of tools"
    raise _wrong(param, f"must be {wanted}, got {shown(names)}")


def _prefix(prefix: object) -> str:
    if not isinstance(prefix, str) or not PREFIX.fullmatch(prefix):
        wanted = "at most 32 letters (A-Z, a-z), digits, _ and -"
        raise _wrong("prefix", f"must be {wanted}, got {shown(prefix)}")
    return prefix
