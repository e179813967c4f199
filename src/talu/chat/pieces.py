"""The async iterator that ``AsyncClient.stream`` returns."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Self

from talu.chat.async_chat import AsyncStreamingResponse

__all__ = ["AsyncPieces"]


class AsyncPieces(AsyncGenerator[str, None]):
    """The pieces of an answer, read with ``async for``.

    Awaiting it first opens the model and submits the request, so that an invalid request raises
    there and not at the first piece, when a web handler has already sent its headers. Leaving the
    loop, calling ``aclose`` or dropping the object stops the generation.
    """

    def __init__(self, begin: Callable[[], Awaitable[AsyncStreamingResponse]]) -> None:
        """Create a stream whose request ``begin`` submits."""
        self._begin = begin
        self._response: AsyncStreamingResponse | None = None
        self._reading: AsyncGenerator[str, None] | None = None
        self._closed = False

    def __await__(self) -> Generator[Any, None, Self]:
        return self._started().__await__()

    async def _started(self) -> Self:
        if self._response is None and not self._closed:
            self._response = await self._begin()
        return self

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        return await self.asend(None)

    async def asend(self, value: None) -> str:
        """The next piece; the value is ignored."""
        if self._reading is None:
            await self._started()
            if self._response is None:
                raise StopAsyncIteration
            self._reading = _read(self._response)
        return await self._reading.asend(value)

    async def athrow(
        self,
        kind: Any,
        value: Any = None,
        traceback: TracebackType | None = None,
    ) -> str:
        """Stop the generation and raise the exception."""
        await self.aclose()
        raise kind if value is None else value

    async def aclose(self) -> None:
        """Stop the generation if it is not finished; idempotent."""
        self._closed = True
        if self._reading is not None:
            await self._reading.aclose()
        elif self._response is not None:
            await self._response.close()


async def _read(response: AsyncStreamingResponse) -> AsyncGenerator[str, None]:
    async with response:
        async for piece in response:
            yield piece
