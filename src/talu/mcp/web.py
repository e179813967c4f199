"""Connects to a server by HTTP, with bounds for what is sent and what comes back."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any, cast

import httpx2
from mcp.client.streamable_http import streamable_http_client

from talu.backends.remote.proxies import proxy_of
from talu.exceptions import TaluError, ToolServerError
from talu.mcp.servers import WebServer
from talu.mcp.stdio import MAX_MESSAGE

__all__ = ["Guarded", "WebTransport"]

# The address that the SDK and the HTTP library know, and write to logs; the real path and query
# may be secrets, and are put into the request right before it is sent.
PLACE = "/mcp-server"
DENIED = (401, 403, 407)
TIMEOUTS = ("connect", "read", "write", "pool")
DELETE_S = 2.0


class WebTransport:
    """A connection to a server behind an address, as long as this context.

    Attributes:
        fault: what it did wrong; None if nothing is known.
        status: that of the last answer if it is an error.
    """

    def __init__(self, server: WebServer, tls: ssl.SSLContext, timeout: float | None) -> None:
        self._server = server
        self._tls = tls
        self._timeout = timeout
        self.fault: TaluError | None = None
        self.status: int | None = None

    async def __aenter__(self) -> Any:
        url = self._server.endpoint.url + PLACE
        async with AsyncExitStack() as stack:
            client = httpx2.AsyncClient(
                transport=Guarded(self, self._server, self._tls),
                timeout=httpx2.Timeout(self._timeout, read=None),  # calls have limits of their own
                follow_redirects=False,
                trust_env=False,
            )
            await stack.enter_async_context(client)
            streams = await stack.enter_async_context(
                streamable_http_client(url, http_client=client, max_sse_event_size=MAX_MESSAGE)
            )
            self._stack = stack.pop_all()
        return streams

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, traceback)

    async def ended(self) -> ToolServerError:
        """Why it does not answer any more."""
        how = "" if self.status is None else f" (status {self.status})"
        what = f"ended the connection before an answer{how}"
        return server_error(self._server, what, "TOOL_SERVER_ENDED")


def server_error(server: WebServer, what: str, code: str) -> ToolServerError:
    """An error of a server."""
    return ToolServerError(f"the MCP server {server.name} {what}", code, server=server.name)


class Guarded(httpx2.AsyncBaseTransport):
    """Adds what is secret to requests, and refuses answers that are not to be read.

    Nothing is sent twice: a tool may have been run when its connection breaks.
    """

    def __init__(self, owner: WebTransport, server: WebServer, tls: ssl.SSLContext) -> None:
        self._owner = owner
        self._server = server
        self._inner = httpx2.AsyncHTTPTransport(verify=tls, proxy=proxy_of(server.endpoint))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, and read the head of its answer."""
        url = request.url
        port = url.port or {"http": 80, "https": 443}.get(url.scheme, 0)
        if (url.scheme, url.host.rstrip("."), port) != self._server.endpoint.origin:
            what = "redirects to another address"
            raise self._refused(request, what, "TOOL_SERVER_REFUSED")
        request.headers.update(self._server.headers)
        if request.method == "DELETE":  # the end of a session, for which nobody should wait long
            request.extensions["timeout"] = dict.fromkeys(TIMEOUTS, DELETE_S)
        if url.path == PLACE:
            request.url = url.copy_with(raw_path=str(self._server.target).encode())
        try:
            response = await self._inner.handle_async_request(request)
        except httpx2.TransportError as error:
            raise self._unreachable(request, error) from None
        finally:
            request.url = url
        status = response.status_code
        if request.method == "POST":
            self._owner.status = status if status >= 400 else None
        if status in DENIED:
            await response.aclose()
            what = f"refuses the request (status {status}): check headers="
            raise self._refused(request, what, "TOOL_SERVER_REFUSED")
        if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
            await response.aclose()
            what = "compressed its answer, which was not asked for"
            raise self._refused(request, what, "TOOL_SERVER_BAD_ANSWER")
        if not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            stream = cast("httpx2.AsyncByteStream", response.stream)
            response.stream = _Bounded(stream, partial(self._too_large, request))
        return response

    def _unreachable(self, request: httpx2.Request, error: httpx2.TransportError) -> TaluError:
        said = self._server.hide(str(error)) or type(error).__name__
        if isinstance(error, httpx2.ConnectError | httpx2.ProxyError | httpx2.ConnectTimeout):
            what, code = "cannot be reached", "TOOL_SERVER_UNREACHABLE"
        else:
            what, code = "ended the connection before an answer", "TOOL_SERVER_ENDED"
        return self._refused(request, f"{what}: {said}", code)

    def _too_large(self, request: httpx2.Request) -> TaluError:
        what = f"sent a message of more than {MAX_MESSAGE:,} bytes"
        return self._refused(request, what, "TOOL_SERVER_BAD_ANSWER")

    def _refused(self, request: httpx2.Request, what: str, code: str) -> TaluError:
        fault = server_error(self._server, what, code)
        if request.method == "POST":  # servers need not offer the others
            self._owner.fault = fault
        return fault

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class _Bounded(httpx2.AsyncByteStream):
    """A body that raises when it gets too long; those of event streams are bounded by event."""

    def __init__(self, stream: httpx2.AsyncByteStream, too_large: Callable[[], TaluError]) -> None:
        self._stream = stream
        self._too_large = too_large

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = 0
        async for part in self._stream:
            read += len(part)
            if read > MAX_MESSAGE:
                raise self._too_large()
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()
