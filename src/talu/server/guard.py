"""Refuses requests that come from the wrong place or without a key, before anything reads them.

A web page that a user visits can send requests to servers on his machine. It cannot choose the
``Host`` and ``Origin`` headers: a page whose name was rebound to 127.0.0.1 sends its own name as
``Host``, and every other page its ``Origin``. An IP address as ``Host`` cannot have been rebound.
"""

import hashlib
import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from talu.server.failures import Failure
from talu.server.options import ServerOptions, address_of
from talu.server.refusals import refuse

__all__ = ["Callers", "Keys", "key_of", "namespace_of"]

OPEN_PATHS = ("/health", "/docs", "/openapi.json")  # they tell nothing about models and requests
KEY_NUMBER = "talu.key"  # in the scope of a request


class Callers:
    """Lets requests through whose ``Host`` and ``Origin`` are those of this server."""

    def __init__(self, app: ASGIApp, options: ServerOptions) -> None:
        """Wrap the application."""
        self._app = app
        self._hosts = {"localhost", options.host.lower(), *map(str.lower, options.allowed_hosts)}
        self._origins = frozenset(options.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "http" and (failure := self._problem(Headers(scope=scope))):
            await refuse(failure, scope, send)
            return
        await self._app(scope, receive, send)

    def _problem(self, headers: Headers) -> Failure | None:
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        host = hosts[0] if len(hosts) == 1 else ""
        name = _host_name(host)
        if name is None or (name not in self._hosts and address_of(name) is None):
            text = "the Host header does not name this server; --allowed-host adds a name"
            return Failure(403, "HOST_NOT_ALLOWED", text)
        if len(origins) > 1 or (origins and not self._knows(origins[0], host)):
            text = "pages of this origin may not call the server; --cors-origin allows one"
            return Failure(403, "ORIGIN_NOT_ALLOWED", text)
        return None

    def _knows(self, origin: str, host: str) -> bool:
        own = (f"http://{host}".lower(), f"https://{host}".lower())
        return origin in self._origins or origin.lower() in own


def _host_name(host: str) -> str | None:
    """The name or address in a Host header, without its port; None if it has none."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


class Keys:
    """Lets requests through that have one of the keys; all of them if there is no key."""

    def __init__(self, app: ASGIApp, options: ServerOptions) -> None:
        """Wrap the application. Only hashes of the keys are kept."""
        self._app = app
        self._keys = [_digest(key) for key in options.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "http" and self._keys:
            number = self._number(Headers(scope=scope))
            if number is None and scope["path"] not in OPEN_PATHS:
                text = (
                    "the request needs a key of this server, as Authorization: Bearer KEY or "
                    "x-api-key: KEY"
                )
                await refuse(Failure(401, "AUTHENTICATION_FAILED", text), scope, send)
                return
            scope[KEY_NUMBER] = number
        await self._app(scope, receive, send)

    def _number(self, headers: Headers) -> int | None:
        """The number of the key of a request; the time does not depend on which one it is."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = headers.get("x-api-key", "")
        if scheme.lower() == "bearer" and token:
            given = token.strip()
        digest, found = _digest(given), None
        for number, key in enumerate(self._keys):
            if hmac.compare_digest(digest, key):
                found = number
        return found


def key_of(scope: Scope) -> int | None:
    """The number of the key that a request came with; None for a server without keys."""
    number: int | None = scope.get(KEY_NUMBER)
    return number


def namespace_of(scope: Scope) -> str | None:
    """The namespace of the prefix cache: one for each key, which the client does not choose."""
    number = key_of(scope)
    return None if number is None else f"key-{number}"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
