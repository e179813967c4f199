"""A real HTTP server on loopback that plays prepared replies and records every request.

A reply is data: what is written, and the gates at which the server waits until the test opens them.
Nothing sleeps: a test waits for what it needs to know (a request, a gate that is reached, a
connection that the client closed), with a limit that only a failing test reaches.
"""

import asyncio
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self

PATIENCE = 30.0  # seconds; how long a test waits for what has to happen
PIECE = 1 << 16  # bytes of a write of ``Endless``


class Gate:
    """A place in a reply where the server waits until the test opens it."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._reached = threading.Event()
        self._waiting: list[Callable[[], object]] = []
        self._lock = threading.Lock()

    def open(self) -> None:
        """Let the server go on, now and whenever it comes here again."""
        with self._lock:
            self._open.set()
            waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()

    def wait_reached(self) -> None:
        """Wait until the server waits here, so that all before it is sent."""
        assert self._reached.wait(PATIENCE), "the server has not come to the gate"

    async def passed(self) -> None:
        """Wait in the server's event loop."""
        loop, passed = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(passed.set)

        with self._lock:
            if self._open.is_set():
                return
            self._waiting.append(wake)
        self._reached.set()
        await passed.wait()


@dataclass(frozen=True)
class Raw:
    """Bytes that are written as they are, without the framing of a chunk."""

    data: bytes


@dataclass(frozen=True)
class Cut:
    """The server closes the connection here, whatever is still missing.

    Attributes:
        reset: at once, as a process that dies does it; otherwise in order, as a proxy does it.
    """

    reset: bool = True


@dataclass(frozen=True)
class Endless:
    """The same bytes again and again, until the client closes the connection."""

    data: bytes


Step = bytes | Gate | Raw | Cut | Endless


@dataclass(frozen=True)
class Reply:
    """What the server does for one request.

    Attributes:
        steps: the body; each ``bytes`` is one write, and one chunk of a chunked body.
        status: the HTTP status.
        headers: in this order, after those of the framing.
        before: steps ahead of the status line.
        framing: how the end of the body is known: ``chunked``, ``length``, or ``close`` (the end
            of the connection).
        head: sent in place of the status line and all headers.
    """

    steps: tuple[Step, ...] = ()
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    before: tuple[Step, ...] = ()
    framing: str = "length"
    head: bytes | None = None

    def starts(self) -> bytes:
        """The status line and the headers."""
        if self.head is not None:
            return self.head
        lines = [f"HTTP/1.1 {self.status} {_phrase(self.status)}"]
        if self.framing == "chunked":
            lines.append("transfer-encoding: chunked")
        elif self.framing == "length":
            length = sum(len(step) for step in self.steps if isinstance(step, bytes))
            lines.append(f"content-length: {length}")
        lines += [f"{name}: {value}" for name, value in self.headers]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


@dataclass
class Received:
    """A request, as it came.

    Attributes:
        number: of the request at this server, from 0.
        connection: of the connection at this server, from 0.
        head: the request line and the headers, to the byte.
        headers: names and values, in order, as written.
        answered: set when the whole reply was written, or the server has cut the connection.
        closed: set when the client closed the connection before the whole reply was written.
        steps_sent: how many steps of the reply had been done when either happened.
    """

    number: int
    connection: int
    head: bytes
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    answered: threading.Event = field(default_factory=threading.Event)
    closed: threading.Event = field(default_factory=threading.Event)
    steps_sent: int = 0

    @property
    def raw(self) -> bytes:
        """All bytes of the request."""
        return self.head + self.body

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def values(self, name: str) -> list[str]:
        """The values of all headers with this name."""
        return [value for each, value in self.headers if each.lower() == name.lower()]

    def wait_closed(self) -> None:
        """Wait until the client has closed the connection in the middle of the reply."""
        assert self.closed.wait(PATIENCE), "the client has not closed the connection"

    def wait_answered(self) -> None:
        """Wait until the whole reply is written."""
        assert self.answered.wait(PATIENCE), "the reply has not been written"


Maker = Callable[[Received], Reply]


class Server:
    """A server with a thread of its own; use it in a ``with`` statement.

    Replies are used up in the order in which they were planned; a request for which none is left
    is answered with status 500, and makes ``close`` fail.
    """

    def __init__(
        self,
        *replies: Reply,
        always: Maker | None = None,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self._replies = list(replies)
        self._always = always
        self._unplanned: list[Received] = []
        self._errors: list[BaseException] = []
        self._arrived = threading.Condition()
        self._tls = tls
        self._open: set[_Connection] = set()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, 0), family=family, backlog=1024)
        self.port = int(self._socket.getsockname()[1])
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if tls else 'http'}://{shown}:{self.port}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="loopback-server", daemon=True)
        self._listens = threading.Event()
        self._thread.start()
        assert self._listens.wait(PATIENCE), "the server has not started"

    @property
    def base_url(self) -> str:
        """The URL below which OpenAI's paths are."""
        return f"{self.url}/v1"

    def plan(self, *replies: Reply) -> None:
        """Add replies for requests to come."""
        self._replies.extend(replies)

    def wait_for(self, count: int) -> list[Received]:
        """Wait until this many requests have come; all that have."""
        with self._arrived:
            arrived = self._arrived.wait_for(lambda: len(self.requests) >= count, PATIENCE)
        assert arrived, f"{len(self.requests)} of {count} requests have come"
        return list(self.requests)

    @property
    def request(self) -> Received:
        """The only request so far; waits for it."""
        (only,) = self.wait_for(1)
        return only

    @property
    def raw(self) -> bytes:
        """All bytes of all requests."""
        return b"".join(request.raw for request in self.requests)

    def drop_connections(self) -> None:
        """Close every connection at once, as a server that restarts."""
        asyncio.run_coroutine_threadsafe(self._drop(), self._loop).result(PATIENCE)

    def close(self) -> None:
        """Stop; every connection ends at once."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(PATIENCE)
            self._socket.close()
        unplanned = [f"{each.method} {each.target}" for each in self._unplanned]
        assert not self._errors, self._errors
        assert not unplanned, f"no reply was planned for {unplanned}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self.close()
        except AssertionError:
            if kind is None:  # otherwise the test has failed for a better reason
                raise

    async def _drop(self) -> None:
        for connection in list(self._open):
            connection.abort(reset=True)

    def _run(self) -> None:
        listening = self._loop.create_server(
            lambda: _Connection(self), sock=self._socket, ssl=self._tls
        )
        server = self._loop.run_until_complete(listening)
        self._listens.set()
        try:
            self._loop.run_forever()
        finally:
            try:
                self._loop.run_until_complete(self._end(server))
            finally:
                self._loop.close()

    async def _end(self, server: asyncio.Server) -> None:
        server.close()
        await self._drop()
        playing = asyncio.all_tasks() - {asyncio.current_task()}
        for task in playing:
            task.cancel()
        await asyncio.gather(*playing, return_exceptions=True)

    def _next(self, request: Received) -> Reply:
        """Record a request; the reply to it."""
        with self._arrived:
            request.number = len(self.requests)
            self.requests.append(request)
            self._arrived.notify_all()
        if self._replies:
            return self._replies.pop(0)
        if self._always is not None:
            return self._always(request)
        self._unplanned.append(request)
        return Reply((b"no reply was planned for this request",), 500)


class _Connection(asyncio.Protocol):
    """One connection; it reads requests and plays the reply to each."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._number = -1
        self._data = bytearray()
        self._current: Received | None = None
        self._playing: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._socket: socket.socket = transport.get_extra_info("socket")
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._number = self._server.connections
        self._server.connections += 1
        self._server._open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._server._open.discard(self)
        self._writable.set()
        if self._current is not None:
            self._current.closed.set()
        if self._playing is not None:
            self._playing.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._data += data
        if self._current is None:
            self._read()

    def abort(self, *, reset: bool) -> None:
        """Close the connection; with ``reset``, what is not sent yet is lost."""
        if self._current is not None:
            self._current.answered.set()
            self._current = None
        if not reset:
            self._transport.close()
            return
        with suppress(OSError):  # the client was faster
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _read(self) -> None:
        if self._data and not self._data[:1].isalpha():  # such as the start of TLS
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
            self._transport.close()
            return
        head, found, rest = bytes(self._data).partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = [(name, value.strip()) for name, _, value in (h.partition(":") for h in lines)]
        length = sum(int(value) for name, value in headers if name.lower() == "content-length")
        if len(rest) < length:
            return
        self._data = bytearray(rest[length:])
        request = Received(-1, self._number, head + found, method, target, headers, rest[:length])
        self._current = request
        reply = self._server._next(request)
        self._playing = asyncio.get_running_loop().create_task(self._play(request, reply))
        self._playing.add_done_callback(self._played)

    async def _play(self, request: Received, reply: Reply) -> None:
        chunked = reply.framing == "chunked" and reply.head is None
        for step in reply.before:
            await self._do(step, chunked=False)
        if self._current is not request:
            return
        self._transport.write(reply.starts())
        for step in reply.steps:
            await self._do(step, chunked=chunked)
            if self._current is not request:
                return
            request.steps_sent += 1
        if chunked:
            self._transport.write(b"0\r\n\r\n")
        self._current = None
        request.answered.set()
        if reply.framing == "close" or reply.head is not None:
            self._transport.close()
        else:
            self._read()

    def _played(self, playing: asyncio.Task[None]) -> None:
        error = None if playing.cancelled() else playing.exception()
        if error is not None:
            self._server._errors.append(error)
            self.abort(reset=True)

    async def _do(self, step: Step, *, chunked: bool) -> None:
        if isinstance(step, Gate):
            await step.passed()
        elif isinstance(step, Cut):
            self.abort(reset=step.reset)
        elif isinstance(step, Endless):
            piece = step.data * max(1, PIECE // len(step.data))
            while not self._transport.is_closing():
                await self._write(piece, chunked=chunked)
        else:
            await self._write(
                step.data if isinstance(step, Raw) else step,
                chunked=chunked and not isinstance(step, Raw),
            )

    async def _write(self, data: bytes, *, chunked: bool) -> None:
        if chunked and data:
            data = b"%x\r\n%s\r\n" % (len(data), data)
        self._transport.write(data)
        await self._writable.wait()
        await asyncio.sleep(0)  # lets the loop notice a client that has gone


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
