"""Sends answers: whole as JSON, or their pieces as server-sent events."""

import time
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from fastapi import Response
from starlette.types import Receive, Scope, Send

from talu.server.asked import Asked
from talu.server.encoders import Encoder, Head, json_bytes
from talu.server.failures import failure_of
from talu.server.logs import log_failure
from talu.server.refusals import Described
from talu.server.service import Service

__all__ = ["STREAMED", "Json", "new_head", "respond"]

STREAMED: Described = {
    200: {
        "description": "The answer; with stream=true its pieces as server-sent events.",
        "content": {"application/json": {}, "text/event-stream": {}},
    }
}
EVENTS = {  # the headers of a stream, which no proxy should collect
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
}


class Json(Response):
    """A body of JSON."""

    media_type = "application/json"

    def __init__(
        self, content: object, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """Encode the content."""
        super().__init__(json_bytes(content), status, headers)


class EventStream(Response):
    """A stream of server-sent events, whose source is closed when it is not read to its end."""

    def __init__(self, source: AsyncGenerator[bytes]) -> None:
        """Take over the source."""
        super().__init__(headers=EVENTS)
        del self.headers["content-length"]
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events as they come."""
        async with aclosing(self._source) as source:
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            async for data in source:
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


def new_head(model: str) -> Head:
    """What the bodies of an answer have that begins now."""
    return Head(uuid.uuid4().hex, int(time.time()), model)


async def respond(service: Service, asked: Asked, encoder: Encoder) -> Response:
    """The response to a request, which has begun: an error until then has a status of its own.

    Raises:
        Failure: the request cannot be answered.
    """
    try:
        if not asked.stream:
            return Json(encoder.whole(await service.answers(asked)))
        source = _events(service, asked, encoder)
        first = await anext(source)
    except Exception as error:
        raise failure_of(error, asked.names) from error
    return EventStream(_joined(first, source))


async def _joined(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with aclosing(rest):
        yield first
        async for data in rest:
            yield data


async def _events(service: Service, asked: Asked, encoder: Encoder) -> AsyncGenerator[bytes]:
    """The encoded pieces of the answers; once one was sent, an error is an event."""
    begun = False
    answers: dict[int, Any] = {}
    try:
        async with aclosing(service.pieces(asked)) as pieces:
            async for index, piece, answer in pieces:
                answers[index] = answer
                data = b"".join(e.encoded() for e in encoder.piece(index, piece, answer))
                if data:
                    yield data
                    begun = True
        ended = [answers[index] for index in sorted(answers)]
        yield b"".join(event.encoded() for event in encoder.end(ended))
    except Exception as error:
        if not begun:
            raise
        failure = failure_of(error, asked.names)
        log_failure(failure, error)
        yield b"".join(event.encoded() for event in encoder.failed(failure))
