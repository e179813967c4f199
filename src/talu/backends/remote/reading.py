"""Reads the parts of an answer from its connection, and closes that in every case."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator
from typing import cast

import httpx2

from talu.backends.remote.events import Part, Parts

__all__ = ["Reading"]

STREAMED = "text/event-stream"


class Reading:
    """The parts of an answer, as they come; an async iterator.

    It must be created on the event loop of the connection.
    """

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        kind: str = response.headers.get("content-type", "").lower()
        self._parts = Parts(streamed=kind.startswith(STREAMED))
        self._ready: deque[Part] = deque()
        self._bytes: AsyncGenerator[bytes] | None = cast(
            "AsyncGenerator[bytes]", aiter(cast("httpx2.AsyncByteStream", response.stream))
        )
        connection = _Connection(response, self._bytes)
        self._connection = connection
        # A loop that ends cancels its tasks before it ends generators, in no order.
        self._guard = asyncio.get_running_loop().create_task(connection.close_at_the_end())
        self._guard._log_destroy_pending = False  # type: ignore[attr-defined]

    @property
    def ended(self) -> bool:
        """Whether the answer has said that nothing comes any more."""
        return self._parts.ended

    def __aiter__(self) -> "Reading":
        return self

    async def __anext__(self) -> Part:
        while not self._ready:
            if self._bytes is None:
                raise StopAsyncIteration
            try:
                data = await anext(self._bytes)
            except StopAsyncIteration:
                self._bytes = None
                self._ready.extend(self._parts.finish())
                continue
            for part in self._parts.feed(data):
                self._ready.append(part)
        return self._ready.popleft()

    async def aclose(self) -> None:
        """Close the connection, unless the answer was read to its end."""
        try:
            await self._connection.close()
        finally:
            self._guard.cancel()


class _Connection:
    """What has to be closed after an answer; it does not refer to the reader."""

    def __init__(self, response: httpx2.Response, reading: AsyncGenerator[bytes]) -> None:
        self._response = response
        self._reading = reading

    async def close(self) -> None:
        """Close all; a failure to close a connection concerns nobody."""
        with contextlib.suppress(httpx2.HTTPError, OSError, RuntimeError):
            await self._response.aclose()
        # Generators that are left to the garbage collector may outlive their event loop.
        with contextlib.suppress(httpx2.HTTPError, OSError, RuntimeError):  # it is being read
            await self._reading.aclose()

    async def close_at_the_end(self) -> None:
        """Wait until this task is cancelled, and close all."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self.close()
