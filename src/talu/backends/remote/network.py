"""Opens network connections for the HTTP library, on top of asyncio's transports.

A connection knows at any time whether unread bytes have arrived. That shows, without waiting,
whether a kept connection can take another request.
"""

import asyncio
import selectors
import socket
import ssl
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import httpcore2

from talu.backends.remote.time_limits import TimeLimit
from talu.threads import in_daemon_thread

__all__ = ["Connection", "DeadError", "Network"]

MAX_UNREAD = 1 << 18  # bytes that have arrived; more are not taken from the socket
MAX_ADDRESSES = 16  # of a host
SOCKS = (b"\x01", b"\x05")  # the first bytes of what is sent to a SOCKS proxy itself
NEXT_ADDRESS_S = 0.25  # before the next address of a host is tried as well
Found = list[tuple[Any, ...]]  # the addresses of a host
Connected = tuple[asyncio.Transport, "_Arrivals"]


class DeadError(Exception):
    """A kept connection ended, or received unexpected bytes, before it had answered a request."""


class Network(httpcore2.AsyncNetworkBackend):
    """Opens connections; see ``httpcore2.AsyncNetworkBackend``.

    The time limit of a connection is for everything until the first request can be sent: also what
    a proxy does, and the handshakes of TLS.

    Args:
        handshakes: of TLS before the first request: with the server, and with a proxy.
    """

    def __init__(self, handshakes: int = 0) -> None:
        self._handshakes = handshakes
        self._look_ups: dict[tuple[str, int], asyncio.Task[Found]] = {}  # that are going on

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to a host."""
        due = None if timeout is None else asyncio.get_running_loop().time() + timeout
        with _errors(httpcore2.ConnectError, httpcore2.ConnectTimeout):
            async with TimeLimit(timeout):
                found = _numeric(host, port) or await self._looked_up(host, port)
                transport, arrivals = await _connected(found[:MAX_ADDRESSES], port)
            for option in socket_options or ():
                transport.get_extra_info("socket").setsockopt(*option)
        return Connection(transport, arrivals, _Setup(due, self._handshakes))

    async def _looked_up(self, host: str, port: int) -> Found:
        """The addresses of a host; connections that want the same ones share a look-up.

        The program can end during it: nothing waits for its thread.
        """
        task = self._look_ups.get((host, port))
        if task is None:
            look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
            task = asyncio.ensure_future(in_daemon_thread("talu-lookup", look_up))
            self._look_ups[host, port] = task
            task.add_done_callback(partial(self._end, (host, port)))
        return await asyncio.shield(task)

    def _end(self, key: tuple[str, int], task: "asyncio.Task[Found]") -> None:
        self._look_ups.pop(key, None)
        if not task.cancelled():
            task.exception()  # known to be read, also if nobody waits for it any more


@dataclass(frozen=True, slots=True)
class _Setup:
    """What has to happen before a connection takes its first request.

    Attributes:
        due: until when, by the loop's clock; None for no limit.
        handshakes: of TLS that are still to come.
    """

    due: float | None = None
    handshakes: int = 0

    def ends_with(self, sent: bytes) -> bool:
        """Whether what is sent is the first request, and nothing for a proxy."""
        return self.handshakes == 0 and sent[:1] not in SOCKS

    def left(self) -> float | None:
        """The seconds that are left."""
        return None if self.due is None else self.due - asyncio.get_running_loop().time()


class Connection(httpcore2.AsyncNetworkStream):
    """A connection that knows whether it has answered the last request.

    Attributes:
        has_answered: whether bytes were read since the last request was sent.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        arrivals: "_Arrivals",
        setup: "_Setup | None" = None,
    ) -> None:
        self._setup = setup  # None once it is done
        self._transport = transport
        self._arrivals = arrivals
        self._is_kept = False
        self.has_answered = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes; none at the end.

        Raises:
            DeadError: it ended before an answer, and has answered an earlier request.
        """
        late: type[Exception] = httpcore2.ReadTimeout
        if self._setup is not None:
            timeout, late = self._setup.left(), httpcore2.ConnectTimeout
        try:
            with _errors(httpcore2.ReadError, late):
                if self._arrivals.is_empty:
                    async with TimeLimit(timeout):
                        await self._arrivals.wait()
                data = self._arrivals.take(max_bytes)
        except httpcore2.ReadError:
            if self._is_kept and not self.has_answered:
                raise DeadError from None
            raise
        if not data and self._is_kept and not self.has_answered:
            raise DeadError
        self.has_answered = True
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes.

        Raises:
            DeadError: something follows the answer to the last request.
        """
        if self._setup is not None and self._setup.ends_with(buffer):
            self._setup = None
        if self.has_answered:  # a request was sent before this one
            self._is_kept, self.has_answered = True, False
            if self._is_readable:
                await self.aclose()
                raise DeadError
        with _errors(httpcore2.WriteError, httpcore2.WriteTimeout):
            self._transport.write(buffer)
            async with TimeLimit(timeout):
                await self._arrivals.written()

    @property
    def _is_readable(self) -> bool:
        """Whether bytes or the end have arrived, perhaps only in the socket."""
        opened = self._transport.get_extra_info("socket")
        if not self._arrivals.is_empty or opened is None or opened.fileno() < 0:
            return True
        with Selector() as selector:
            selector.register(opened.fileno(), selectors.EVENT_READ)
            return bool(selector.select(0))

    async def aclose(self) -> None:
        """Close it at once, also when not everything was sent.

        It does not suspend, so that a loop that ends can close the generators of an answer, which
        lie inside each other, in any order.
        """
        self._transport.abort()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """The same connection, encrypted from now on."""
        loop, setup = asyncio.get_running_loop(), self._setup
        if setup is not None:
            timeout = setup.left()
        try:
            with _errors(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                async with TimeLimit(timeout):
                    transport = await loop.start_tls(
                        self._transport,
                        self._arrivals,
                        ssl_context,
                        server_hostname=server_hostname,
                    )
                if transport is None:
                    raise ConnectionAbortedError("the connection was closed")
        except BaseException:
            self._transport.abort()
            raise
        self._arrivals.transport = transport
        rest = None if setup is None else replace(setup, handshakes=max(0, setup.handshakes - 1))
        return Connection(transport, self._arrivals, rest)

    def get_extra_info(self, info: str) -> Any:
        """A fact that the HTTP library wants to know."""
        if info == "is_readable":
            return self._is_readable
        names = {"client_addr": "sockname", "server_addr": "peername"}
        return self._transport.get_extra_info(names.get(info, info))


class _Arrivals(asyncio.Protocol):
    """The bytes that have arrived on a connection and were not read."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._data = bytearray()
        self._ended = False
        self._failure: Exception | None = None
        self._changed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._paused = False

    @property
    def is_empty(self) -> bool:
        """Whether neither bytes nor the end have arrived."""
        return not self._data and not self._ended

    async def wait(self) -> None:
        """Wait for bytes or the end."""
        self._changed.clear()
        await self._changed.wait()

    def take(self, most: int) -> bytes:
        """Some of the bytes; none at the end. Raises what ended the connection."""
        data = bytes(self._data[:most])
        del self._data[:most]
        if self._paused and len(self._data) < MAX_UNREAD:
            self._paused = False
            self.transport.resume_reading()
        if not data and self._failure is not None:
            raise self._failure
        return data

    async def written(self) -> None:
        """Wait until more can be sent. Raises what ended the connection."""
        await self._writable.wait()
        if self._failure is not None:
            raise self._failure
        if self._ended and self.transport.is_closing():
            raise ConnectionResetError("the connection was closed")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        self._changed.set()
        if len(self._data) >= MAX_UNREAD and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def eof_received(self) -> None:
        self._ended = True
        self._changed.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._ended = True
        self._failure = error
        self._changed.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()


Selector: type[selectors.BaseSelector] = getattr(
    selectors, "PollSelector", selectors.SelectSelector
)  # opens no file of its own


@contextmanager
def _errors(failed: type[Exception], late: type[Exception]) -> Generator[None]:
    """Raise the HTTP library's errors in place of the system's."""
    try:
        yield
    except TimeoutError as error:
        raise late(str(error)) from error
    except (OSError, RuntimeError) as error:  # RuntimeError: the transport was closed
        raise failed(str(error)) from error


def _numeric(host: str, port: int) -> Found | None:
    """The address that a host is; None if it is a name, which has to be looked up."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return None


async def _connected(found: Found, port: int) -> Connected:
    """Connect to the first of the addresses of a host that answers.

    An address that does not answer soon is not given up: the next one is tried beside it.
    """
    loop = asyncio.get_running_loop()
    attempts: list[asyncio.Task[Connected]] = []
    running: set[asyncio.Task[Connected]] = set()
    try:
        for family, _, protocol, _, address in found:
            attempt = loop.create_connection(
                _Arrivals, str(address[0]), port, family=family, proto=protocol
            )
            if len(found) == 1:
                return await attempt
            attempts.append(loop.create_task(attempt))
            running.add(attempts[-1])
            _, running = await asyncio.wait(
                running, timeout=NEXT_ADDRESS_S, return_when=asyncio.FIRST_COMPLETED
            )
            if (first := _first_of(attempts)) is not None:
                return first
        while running:
            _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            if (first := _first_of(attempts)) is not None:
                return first
    finally:
        await _given_up(attempts, _first_of(attempts))
    errors = [attempt.exception() for attempt in attempts]
    raise next((error for error in errors if error), OSError("the host has no address"))


def _first_of(attempts: Iterable[asyncio.Task[Connected]]) -> Connected | None:
    """The first connection that was made."""
    for attempt in attempts:
        if attempt.done() and not attempt.cancelled() and attempt.exception() is None:
            return attempt.result()
    return None


async def _given_up(attempts: list[asyncio.Task[Connected]], used: Connected | None) -> None:
    """End the attempts that are not needed any more."""
    for attempt in attempts:
        attempt.cancel()
    for made in await asyncio.gather(*attempts, return_exceptions=True):
        if not isinstance(made, BaseException) and made is not used:
            made[0].abort()
