"""Reads the parts of an answer from its connection, and closes that in every case."""

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

    It must be used on the event loop of the connection. A loop that ends closes the generators
    that read the body, and with them the connection.
    """

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        kind: str = response.headers.get("content-type", "").lower()
        self._parts = Parts(streamed=kind.startswith(STREAMED))
        self._ready: deque[Part] = deque()
        self._ended = False
        self._bytes = cast(
            "AsyncGenerator[bytes]", aiter(cast("httpx2.AsyncByteStream", response.stream))
        )

    @property
    def ended(self) -> bool:
        """Whether the answer has said that nothing comes any more."""
        return self._parts.ended

    def __aiter__(self) -> "Reading":
        return self

    async def __anext__(self) -> Part:
        while not self._ready:
            if self._ended:
                raise StopAsyncIteration
            try:
                data = await anext(self._bytes)
            except StopAsyncIteration:
                self._ended = True
                self._ready.extend(self._parts.finish())
                continue
            for part in self._parts.feed(data):
                self._ready.append(part)
        return self._ready.popleft()

    async def aclose(self) -> None:
        """Close the connection, unless the answer was read to its end.

        Failures to close it are ignored.
        """
        with contextlib.suppress(httpx2.HTTPError, OSError, RuntimeError):
            await self.response.aclose()
        # Generators that are left to the garbage collector may outlive their event loop.
        with contextlib.suppress(httpx2.HTTPError, OSError, RuntimeError):  # it is being read
            await self._bytes.aclose()
