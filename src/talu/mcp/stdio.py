"""Starts a server as a program, and exchanges lines of JSON with it.

The transport of the SDK keeps a line of any length, ends with the first byte that is no UTF-8, and
knows neither how the program ended nor what it said. It is replaced by this one, which bounds what
a server can send, and gives the reasons.
"""

import asyncio
import contextlib
import os
import signal
from types import TracebackType

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from talu.descriptors import descriptor_opens
from talu.error_text import reason, shown
from talu.exceptions import TaluError, ToolServerError
from talu.mcp.servers import Command

__all__ = ["MAX_MESSAGE", "CommandTransport"]

MAX_MESSAGE = 1 << 24  # bytes
MAX_STRAYS = 1_000  # lines that are no messages
KEPT = 2_000  # bytes of what it said last
SAID = 500  # characters of it in a message
EXIT_S = 1.0  # for a program that closed its output to end
GRACE_S = {signal.SIGTERM: 2.0, signal.SIGKILL: 1.0}  # to end before it gets the signal

Streams = tuple[
    MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]
]


class CommandTransport:
    """A program that runs as long as this context.

    Attributes:
        fault: what it did wrong; None if nothing is known.
        status: None, as it speaks no HTTP.
    """

    status: int | None = None
    _process: asyncio.subprocess.Process

    def __init__(self, server: Command) -> None:
        self._server = server
        self.fault: TaluError | None = None
        self._said = b""
        self._stray = b""
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Streams:
        self._process = await self._start()
        into, self._received = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        self._sent, outof = anyio.create_memory_object_stream[SessionMessage](0)
        work = [self._read(into), self._write(outof, into), self._listen()]
        self._tasks = [asyncio.create_task(coroutine) for coroutine in work]
        return self._received, self._sent

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._received.close()
        self._sent.close()
        try:
            await self._end()
        finally:
            self._signal(signal.SIGKILL)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            # Otherwise it stays open while another process has the pipes.
            transport = getattr(self._process, "_transport", None)
            if transport is not None:
                transport.close()

    async def ended(self) -> ToolServerError:
        """Why it does not answer any more; waits shortly for the program to end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), EXIT_S)
        status = self._process.returncode
        if status is None:
            how = "closed its output"
        elif status < 0:
            how = f"was ended by the signal {_signal_name(-status)}"
        else:
            how = f"ended with the exit status {status}"
        how += self._words("; it said: ", self._said)
        how += self._words("; it printed what is not the protocol: ", self._stray)
        return self._error(how, "TOOL_SERVER_ENDED")

    async def _start(self) -> asyncio.subprocess.Process:
        server = self._server
        try:
            with descriptor_opens():
                return await asyncio.create_subprocess_exec(
                    server.program,
                    *server.arguments,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    env=get_default_environment() | {n: str(v) for n, v in server.env.items()},
                    cwd=server.cwd,
                    start_new_session=True,  # Ctrl-C is for this program, and not for the server
                    limit=MAX_MESSAGE,
                )
        except TaluError:
            raise
        except (OSError, ValueError) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            if isinstance(error, FileNotFoundError):
                folder = server.cwd is not None and not os.path.isdir(server.cwd)
                why = "the folder cwd does not exist" if folder else "the program was not found"
            raise self._error(f"cannot be started: {why}", "TOOL_SERVER_NOT_STARTED") from None

    async def _read(self, into: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        """Read messages until the output or the connection ends."""
        output = self._process.stdout
        assert output is not None
        strays = 0
        with contextlib.closing(into):
            while self.fault is None:
                try:
                    line = await output.readuntil()
                except asyncio.IncompleteReadError:
                    return
                except asyncio.LimitOverrunError:
                    what = f"sent a message of more than {MAX_MESSAGE:,} bytes"
                    self.fault = self._error(what, "TOOL_SERVER_BAD_ANSWER")
                    return
                try:
                    message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValueError:
                    strays += bool(line.strip())
                    self._judge(line, strays)
                    continue
                try:
                    await into.send(SessionMessage(message))
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    return

    def _judge(self, line: bytes, strays: int) -> None:
        """Pass over what a program prints beside the protocol, but not a message that is broken."""
        self._stray = self._stray or line.strip()
        what = ""
        if b'"jsonrpc"' in line:
            what = f"sent a message that is not valid: {shown(line[:100])}"
        elif strays > MAX_STRAYS:
            what = f"printed more than {MAX_STRAYS:,} lines that are not the protocol"
        if what:
            self.fault = self._error(what, "TOOL_SERVER_BAD_ANSWER")

    async def _write(
        self,
        outof: MemoryObjectReceiveStream[SessionMessage],
        into: MemoryObjectSendStream[SessionMessage | Exception],
    ) -> None:
        """Write messages until the connection ends; a program that reads none has ended it."""
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.closing(outof):
            try:
                async for sent in outof:
                    text = sent.message.model_dump_json(by_alias=True, exclude_unset=True)
                    pipe.write(text.encode() + b"\n")
                    await pipe.drain()
            except OSError:
                into.close()

    async def _listen(self) -> None:
        """Keep the end of what it says on standard error."""
        output = self._process.stderr
        assert output is not None
        while text := await output.read(KEPT):
            self._said = (self._said + text)[-KEPT:]

    async def _end(self) -> None:
        """Let the program end by itself, else ask it to."""
        pipe = self._process.stdin
        assert pipe is not None
        pipe.close()
        for number, seconds in GRACE_S.items():
            try:
                await asyncio.wait_for(self._process.wait(), seconds)
            except TimeoutError:
                self._signal(number)
            else:
                return

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to the program and to what it started, if it runs."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _words(self, before: str, said: bytes) -> str:
        """The end of what it said, for a message."""
        text = self._server.hide(said.decode(errors="replace").strip())
        text = "".join(mark if mark.isprintable() or mark == "\n" else " " for mark in text)
        return f"{before}{text[-SAID:]}" if text else ""

    def _error(self, what: str, code: str) -> ToolServerError:
        name = self._server.name
        return ToolServerError(f"the MCP server {name} {what}", code, server=name)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
