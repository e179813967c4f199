"""Sends HTTP requests over kept connections, and again over a new one when a kept one was dead.

A server may close an idle connection at any moment, also while the next request is on its way.
That says nothing about the server, so it does not count as a failed attempt.
"""

import asyncio
import ssl
import threading
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from functools import cache
from typing import Any, cast

import httpcore2
import httpx2

from talu.backends.remote.network import Connection, DeadError, Network
from talu.threads import thread_starts

__all__ = ["Connections"]

MAX_CONNECTIONS = 1000
MAX_IDLE = 100
IDLE_S = 5.0  # a connection that was not used for so long is not used again
FAILURES = (
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.TimeoutException,
    httpcore2.UnsupportedProtocol,
)


class Connections(httpx2.AsyncBaseTransport):
    """The connections to one server, perhaps through a proxy; see ``httpx2.AsyncBaseTransport``.

    Args:
        tls: what encrypted connections trust.
        proxy: None for a direct connection.
        encrypted: whether the server speaks https.
    """

    def __init__(self, tls: ssl.SSLContext, proxy: httpx2.Proxy | None, *, encrypted: bool) -> None:
        _import_rest()
        through = None if proxy is None else httpcore2.Proxy(_url(proxy.url), auth=proxy.raw_auth)
        secure_proxy = proxy is not None and proxy.url.scheme == "https"
        network = Network(handshakes=int(encrypted) + int(secure_proxy))
        self._kept = _pool(tls, through, network, MAX_IDLE)
        self._new = _pool(tls, through, network, 0)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, and once more over a new connection if the kept one was dead."""
        try:
            return await _sent(self._kept, request)
        except DeadError:
            pass
        return await _sent(self._new, request)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._kept.aclose()
        await self._new.aclose()


@cache
def _import_rest() -> None:
    """Let the HTTP library import what it needs first on an event loop, which that would block.

    It takes 50 ms, and needs an event loop, so that it runs in a thread without one.
    """
    failures: list[OSError] = []

    def use() -> None:
        try:
            asyncio.run(httpcore2.AsyncConnectionPool().aclose())
        except OSError as error:  # the event loop needs file descriptors
            failures.append(error)

    with thread_starts():
        importing = threading.Thread(target=use, name="talu-import")
        importing.start()
    importing.join()
    if failures:
        raise failures.pop()


def _pool(
    tls: ssl.SSLContext, proxy: httpcore2.Proxy | None, network: Network, idle: int
) -> httpcore2.AsyncConnectionPool:
    """A pool of connections that keeps at most ``idle`` of them."""
    return httpcore2.AsyncConnectionPool(
        ssl_context=tls,
        proxy=proxy,
        max_connections=MAX_CONNECTIONS,
        max_keepalive_connections=idle,
        keepalive_expiry=IDLE_S,
        network_backend=network,
    )


def _url(url: httpx2.URL) -> httpcore2.URL:
    return httpcore2.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )


async def _sent(pool: httpcore2.AsyncConnectionPool, request: httpx2.Request) -> httpx2.Response:
    """The answer to a request.

    Raises:
        DeadError: the connection was kept from an earlier request, and was of no use.
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
    if isinstance(connection, Connection) and not connection.has_answered:
        # Its bytes arrived with the last answer, before this request, so they do not answer it.
        await connection.aclose()
        await body.aclose()
        raise DeadError
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
