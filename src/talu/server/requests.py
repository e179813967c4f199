"""Reads the bodies of requests within limits, and stops the work for a client that has gone."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from talu.server.failures import Failure
from talu.server.options import ServerOptions
from talu.server.refusals import refuse

__all__ = ["Requests"]

GRACE = 10.0  # seconds after the deadline of an answer, in which its error is sent


class Gone(Exception):
    """The client closed the connection before its body was complete."""


class Requests:
    """Hands on requests with whole bodies; cancels the work when the client disconnects."""

    def __init__(self, app: ASGIApp, options: ServerOptions) -> None:
        """Wrap the application."""
        self._app = app
        self._options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            body = await self._body(scope, receive)
        except Failure as failure:
            await refuse(failure, scope, send)
        except Gone:
            return
        else:
            await self._work(_Exchange(body, receive, send), scope)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        if scope["method"] != "POST":  # no path takes a body with another method
            return b""
        _check_head(Headers(scope=scope), self._options.max_body)
        body = bytearray()
        try:
            async with asyncio.timeout(self._options.body_timeout):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Gone
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > self._options.max_body:
                        raise _too_large(self._options.max_body)
        except TimeoutError:
            text = f"the body did not arrive within {self._options.body_timeout:g} seconds"
            raise Failure(408, "BODY_TIMEOUT", text) from None
        return bytes(body)

    async def _work(self, exchange: "_Exchange", scope: Scope) -> None:
        work = asyncio.ensure_future(self._app(scope, exchange.receive, exchange.send))
        watch = asyncio.create_task(exchange.watch(work))
        try:
            async with asyncio.timeout(self._options.timeout + GRACE) as limit:
                await work
        except TimeoutError:
            if not limit.expired():
                raise
            if not exchange.begun:  # else a reader takes nothing: the connection is closed
                text = f"the request was not answered within {self._options.timeout:g} seconds"
                await refuse(Failure(504, "REQUEST_TIMEOUT", text), scope, exchange.send)
        except asyncio.CancelledError:
            if not exchange.gone.is_set():
                raise
        finally:
            for task in (work, watch):
                task.cancel()
            await asyncio.gather(work, watch, return_exceptions=True)


def _check_head(headers: Headers, most: int) -> None:
    length = headers.get("content-length", "")
    if length in ("", "0") and "transfer-encoding" not in headers:
        return  # there is no body
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        text = "the body must be JSON, with the header Content-Type: application/json"
        raise Failure(415, "UNSUPPORTED_MEDIA_TYPE", text)
    if length.isdecimal() and int(length[:20]) > most:
        raise _too_large(most)


def _too_large(most: int) -> Failure:
    return Failure(413, "BODY_TOO_LARGE", f"the body has more than {most:,} bytes")


class _Exchange:
    """The messages of one request: its whole body, then the end of the connection."""

    def __init__(self, body: bytes, receive: Receive, send: Send) -> None:
        self.gone = asyncio.Event()
        self._body: bytes | None = body
        self._receive = receive
        self._send = send
        self.begun = False
        self._ended = False

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.begun = True
        body = message["type"] == "http.response.body"
        self._ended = self._ended or (body and not message.get("more_body"))
        await self._send(message)

    async def watch(self, work: "asyncio.Future[None]") -> None:
        """Cancel the work when the client disconnects before the end of its answer."""
        message: Message = {"type": ""}
        while message["type"] != "http.disconnect":  # a GET may have a body, which is not read
            message = await self._receive()
        if not self._ended:
            self.gone.set()
            work.cancel()
