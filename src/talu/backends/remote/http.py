"""Makes the HTTP client of an endpoint, which bounds what is sent there and what comes back.

The SDKs add headers of their own: keys, organisation, project and custom headers from environment
variables, and facts about the machine. The client removes every header but those of HTTP itself,
and adds the endpoint's.
"""

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from importlib.metadata import version
from typing import Generic, TypeVar, cast

import httpx2

from talu.backends.remote.connections import Connections
from talu.backends.remote.endpoint import Endpoint
from talu.backends.remote.options import RemoteBackend, Secret
from talu.backends.remote.proxies import proxy_of
from talu.descriptors import lacks_descriptors
from talu.error_text import shown
from talu.exceptions import EndpointError, ValidationError

__all__ = ["PerLoop", "http_client", "own_headers", "tls_of"]

T = TypeVar("T")
KEPT = {  # headers of HTTP itself, which the HTTP library or the SDK computes
    "accept",
    "connection",
    "content-length",
    "content-type",
    "host",
    "transfer-encoding",
}
RESERVED = {"accept-encoding", "connection", "content-length", "host", "transfer-encoding"}
ENCODINGS = ("br", "compress", "deflate", "gzip", "zstd")
ANTHROPIC_VERSION = "2023-06-01"  # of the protocol, which every server knows
MAX_HEADERS = 64
MAX_HEADER = 10_000  # characters of a value
MAX_ANSWER = 1 << 28  # bytes


def tls_of(endpoint: Endpoint) -> ssl.SSLContext:
    """What connections to an endpoint trust: the system's authorities, for ``https``.

    Reading them takes 50 to 100 ms, so it is done once, and not on an event loop.
    """
    if endpoint.origin[0] == "https":
        try:
            return httpx2.create_ssl_context()
        except (OSError, ValueError) as error:  # errors of TLS are of the system's
            if lacks_descriptors(error):
                raise
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
        raise EndpointError(_no_authorities(reason), "ENDPOINT_TLS")
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody, and is not used


def _no_authorities(reason: str | None) -> str:
    """Why no certificate can be checked."""
    names = [name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)]
    if not names:
        return f"the certificates of the system's authorities cannot be read ({reason})"
    return (
        f"the certificates in {names[0]}={shown(os.environ[names[0]])} cannot be read ({reason}): "
        "name a file of certificates in PEM form, or remove the variable"
    )


def http_client(
    endpoint: Endpoint, headers: Mapping[str, str], tls: ssl.SSLContext
) -> httpx2.AsyncClient:
    """A client that sends these headers, to this endpoint only, and follows no redirect."""
    guard = _Guard(endpoint, headers)
    return httpx2.AsyncClient(
        event_hooks={"request": [guard.sends], "response": [guard.receives]},
        follow_redirects=False,
        transport=Connections(tls, proxy_of(endpoint), encrypted=endpoint.origin[0] == "https"),
        trust_env=False,
    )


def own_headers(endpoint: Endpoint, options: RemoteBackend) -> dict[str, str]:
    """The headers of every request to an endpoint, with lower-case names.

    Raises:
        ValidationError: ``headers`` of the options are not names and values of headers.
    """
    own = {"accept-encoding": "identity", "user-agent": f"talu/{version('talu')}"}
    wrong = _fault(endpoint, options)
    if wrong is not None:
        raise ValidationError(wrong, details={"param": "headers"})
    if options.org_id is not None and not _is_value(options.org_id):
        wrong = f"org_id must be printable ASCII, at most {MAX_HEADER:,} characters"
        raise ValidationError(wrong, details={"param": "org_id"})
    if endpoint.key:
        own["authorization"] = Secret(f"Bearer {endpoint.key!s}")
    if endpoint.provider.protocol == "anthropic":
        own["anthropic-version"] = ANTHROPIC_VERSION
        if endpoint.key and endpoint.url != endpoint.provider.base_url:
            own["x-api-key"] = endpoint.key  # other servers know only this older header
    if options.org_id is not None:
        own["openai-organization"] = options.org_id
    given = {name.lower(): Secret(value) for name, value in (options.headers or {}).items()}
    return own | given


def _fault(endpoint: Endpoint, options: RemoteBackend) -> str | None:
    """What is wrong with the headers of the options; None when they can be sent."""
    headers: object = {} if options.headers is None else options.headers
    if not isinstance(headers, Mapping) or len(headers) > MAX_HEADERS:
        return f"headers must be a dictionary of at most {MAX_HEADERS} names and values"
    taken = _taken(endpoint, options)
    for name, value in headers.items():
        token = isinstance(name, str) and name.isascii() and name.replace("-", "").isalnum()
        if not token or len(name) > MAX_HEADER or not _is_value(value):
            return (
                f"header {shown(name)} must have a name of letters, digits and hyphens, and a "
                f"value of printable ASCII, at most {MAX_HEADER:,} characters"
            )
        if name.lower() in RESERVED:
            return f"header {shown(name)} is set by the connection: leave it out"
        if name.lower() in taken:
            return f"header {shown(name)} is given twice: {taken[name.lower()]}"
        taken[name.lower()] = "write it once, in upper or lower case"
    return None


def _taken(endpoint: Endpoint, options: RemoteBackend) -> dict[str, str]:
    """The names of headers that other options set, and what to do about them."""
    taken = {}
    if endpoint.key:
        advice = "leave it out, or give api_key='' to send no other key"
        taken["authorization"] = advice
        if endpoint.provider.protocol == "anthropic":
            taken["x-api-key"] = advice
    if options.org_id is not None:
        taken["openai-organization"] = "leave it out, or leave out org_id"
    return taken


def _is_value(value: object) -> bool:
    """Whether it can be the value of a header."""
    text = isinstance(value, str) and value.isascii() and value.isprintable()
    return text and len(str(value)) <= MAX_HEADER


class _Guard:
    """Sees every request before it is sent, and every answer before it is read."""

    def __init__(self, endpoint: Endpoint, headers: Mapping[str, str]) -> None:
        self._endpoint = endpoint
        self._headers = dict(headers)

    async def sends(self, request: httpx2.Request) -> None:
        url = request.url
        host = url.host.rstrip(".")
        origin = (url.scheme, host, url.port or {"http": 80, "https": 443}.get(url.scheme, 0))
        if origin != self._endpoint.origin:
            wrong = f"a request of {shown(self._endpoint.url)} would go to {shown(url.host)}"
            raise EndpointError(wrong, "ENDPOINT_REDIRECT")
        kept = {name: value for name, value in request.headers.items() if name.lower() in KEPT}
        request.headers = httpx2.Headers(kept | self._headers)

    async def receives(self, response: httpx2.Response) -> None:
        encoding = response.headers.get("content-encoding", "identity")
        if encoding.strip().lower() != "identity":
            known = encoding.strip().lower()  # another text may be a key that the server repeats
            how = f" ({known})" if known in ENCODINGS else ""
            wrong = f"the server at {self._endpoint.url} compressed its answer{how}, "
            wrong += "which was not asked for"
            del encoding, known
            raise EndpointError(wrong, "ENDPOINT_BAD_ANSWER", status=response.status_code)
        stream = cast("httpx2.AsyncByteStream", response.stream)  # as the client is an async one
        response.stream = _Bounded(stream, self._endpoint.url)


class _Bounded(httpx2.AsyncByteStream):
    """The body of an answer, which raises when it gets too long."""

    def __init__(self, stream: httpx2.AsyncByteStream, url: str) -> None:
        self._stream = stream
        self._url = url

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = 0
        parts = aiter(self._stream)
        try:
            async for part in parts:
                read += len(part)
                if read > MAX_ANSWER:
                    raise EndpointError(
                        f"the server at {self._url} sent more than {MAX_ANSWER:,} bytes",
                        "ENDPOINT_BAD_ANSWER",
                    )
                yield part
        finally:
            if isinstance(parts, AsyncGenerator):
                await parts.aclose()

    async def aclose(self) -> None:
        await self._stream.aclose()


class PerLoop(Generic[T]):
    """An object for each event loop, because connections belong to the loop that opened them.

    A forked child makes its own: its parent goes on using the connections that both have.

    The first object is made at once, because the first takes long, which would block the loop.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._spare: list[T] = [make()]
        self._made: dict[asyncio.AbstractEventLoop, T] = {}
        self._process = os.getpid()

    def get(self) -> T:
        """The object of the running loop, made on first use."""
        self._forget()
        loop = asyncio.get_running_loop()
        if loop not in self._made:
            self._made[loop] = self._spare.pop() if self._spare else self._make()
        return self._made[loop]

    def drain(self) -> list[tuple[asyncio.AbstractEventLoop, T]]:
        """All objects whose loops can still run, with their loops; they are forgotten."""
        self._forget()
        made = list(self._made.items())
        self._made.clear()
        return made

    def _forget(self) -> None:
        """Drop what can no longer be used: of loops that have ended, or of the parent process."""
        if self._process != os.getpid():
            self._process = os.getpid()
            _inherited.extend(self._made.values())
            self._made.clear()
        for loop in [loop for loop in list(self._made) if loop.is_closed()]:
            self._made.pop(loop, None)


_inherited: list[object] = []  # from a parent; their end would close connections that are in use
