"""Limits how many requests each key begins within a minute."""

from math import ceil
from time import monotonic

from starlette.types import ASGIApp, Receive, Scope, Send

from talu.router.limits import Gate, Limits
from talu.server.failures import Failure
from talu.server.guard import key_of
from talu.server.options import ServerOptions
from talu.server.refusals import refuse

__all__ = ["Rates"]


class Rates:
    """Lets requests through that their key may begin now; without keys, all have one limit."""

    def __init__(self, app: ASGIApp, options: ServerOptions) -> None:
        """Wrap the application."""
        limits = Limits(requests_per_minute=options.requests_per_minute)
        self._app = app
        self._gates = {number: Gate(limits) for number in (None, *range(len(options.api_keys)))}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request; only those with a body count, which ask for work."""
        if scope["type"] == "http" and scope["method"] == "POST":
            gate, now = self._gates[key_of(scope)], monotonic()
            if delay := gate.delay(now, 0):
                text = "the key has as many requests within a minute as it may: try again later"
                failure = Failure(429, "RATE_LIMITED", text, retry_after=ceil(delay))
                await refuse(failure, scope, send)
                return
            gate.begin(now, 0)
        await self._app(scope, receive, send)
