"""Sends HTTP requests over kept connections, and again over a new one when a kept one was dead.

A server may close an idle connection at any moment, also while the next request is on its way.
That says nothing about the server, so it does not count as a failed attempt.
"""

import contextlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from importlib import import_module
from typing import Any, cast

import httpcore2
import httpx2

__all__ = ["Connections"]

MAX_CONNECTIONS = 1000
MAX_IDLE = 100
IDLE_S = 5.0  # a connection that was not used for so long is not used again
SURPLUS_S = 0.001  # wait for bytes that follow an answer, before a connection is used again
IMPORTED_LATE = "anyio._backends._asyncio"  # at the first connection, where it blocks the loop
FAILURES = (
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.TimeoutException,
    httpcore2.UnsupportedProtocol,
)


class Connections(httpx2.AsyncBaseTransport):
    """The connections to one server, perhaps through a proxy; see ``httpx2.AsyncBaseTransport``."""

    def __init__(self, tls: ssl.SSLContext, proxy: httpx2.Proxy | None) -> None:
        through = None if proxy is None else httpcore2.Proxy(_url(proxy.url), auth=proxy.raw_auth)
        self._kept = _pool(tls, through, MAX_IDLE)
        self._new = _pool(tls, through, 0)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, and once more over a new connection if the kept one was dead."""
        try:
            return await _sent(self._kept, request)
        except _DeadError:
            pass
        return await _sent(self._new, request)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._kept.aclose()
        await self._new.aclose()


def _pool(
    tls: ssl.SSLContext, proxy: httpcore2.Proxy | None, idle: int
) -> httpcore2.AsyncConnectionPool:
    """A pool of connections that keeps at most ``idle`` of them."""
    return httpcore2.AsyncConnectionPool(
        ssl_context=tls,
        proxy=proxy,
        max_connections=MAX_CONNECTIONS,
        max_keepalive_connections=idle,
        keepalive_expiry=IDLE_S,
        network_backend=_Network(),
    )


def _url(url: httpx2.URL) -> httpcore2.URL:
    return httpcore2.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )


async def _sent(pool: httpcore2.AsyncConnectionPool, request: httpx2.Request) -> httpx2.Response:
    """The answer to a request.

    Raises:
        _DeadError: the connection was kept from an earlier request, and was of no use.
    """
    sent = httpcore2.Request(
        request.method,
        _url(request.url),
        headers=request.headers.raw,
        content=cast("AsyncIterable[bytes]", request.stream),
        extensions=request.extensions,
    )
    try:
        response = await pool.handle_async_request(sent)
    except FAILURES as error:
        raise _known(error) from error
    body = _Body(response.stream)
    connection = response.extensions.get("network_stream")
    if isinstance(connection, _Connection) and not connection.has_answered:
        # The bytes came after the end of the last answer, before this request: they are not its.
        await connection.aclose()
        await body.aclose()
        raise _DeadError
    return httpx2.Response(
        response.status, headers=response.headers, stream=body, extensions=response.extensions
    )


def _known(error: Exception) -> httpx2.TransportError:
    """The error as one of the HTTP client's, whose names are the same."""
    kind: type[httpx2.TransportError] = getattr(httpx2, type(error).__name__)
    return kind(str(error))


class _Body(httpx2.AsyncByteStream):
    """The body of an answer, which raises errors of the HTTP client."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        parts: AsyncGenerator[bytes] = aiter(self._stream)
        try:
            async for part in parts:
                yield part
        except FAILURES as error:
            raise _known(error) from error
        finally:
            await parts.aclose()

    async def aclose(self) -> None:
        await self._stream.aclose()


class _DeadError(Exception):
    """A kept connection ended before it had answered a request."""


class _Network(httpcore2.AsyncNetworkBackend):
    """Opens connections that know whether they have answered."""

    def __init__(self) -> None:
        with contextlib.suppress(ImportError):
            import_module(IMPORTED_LATE)
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        opened = self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        return _Connection(await opened)


class _Connection(httpcore2.AsyncNetworkStream):
    """A connection that knows whether it has answered the last request.

    Attributes:
        has_answered: whether bytes came since the last request was sent.
    """

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self._is_kept = False
        self.has_answered = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            data = await self._stream.read(max_bytes, timeout)
        except httpcore2.ReadError:
            if self._is_kept and not self.has_answered:
                raise _DeadError from None
            raise
        if not data and self._is_kept and not self.has_answered:
            raise _DeadError
        self.has_answered = True
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self.has_answered:  # a request was sent before this one
            self._is_kept, self.has_answered = True, False
            if await self._has_more():
                await self.aclose()
                raise _DeadError
        await self._stream.write(buffer, timeout)

    async def _has_more(self) -> bool:
        """Whether something follows the last answer: bytes that are not ours, or the end."""
        try:
            await self._stream.read(1, SURPLUS_S)
        except httpcore2.ReadTimeout:
            return False
        except httpcore2.ReadError:
            return True
        return True

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        return _Connection(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
