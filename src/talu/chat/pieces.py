"""The stream of an async client: begun by awaiting it, or by the first piece."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Self

from talu.chat.async_chat import AsyncStreamingResponse

__all__ = ["AsyncPieces"]


class AsyncPieces(AsyncGenerator[str, None]):
    """The pieces of an answer, read with ``async for``.

    Awaiting it first opens the model and submits the request, so that a wrong request raises there
    and not at the first piece, when a web handler has sent its headers already. Leaving the loop,
    ``aclose`` and dropping it stop the generation.
    """

    def __init__(self, begin: Callable[[], Awaitable[AsyncStreamingResponse]]) -> None:
        """Hold a request that ``begin`` submits."""
        self._begin = begin
        self._response: AsyncStreamingResponse | None = None
        self._reading: AsyncGenerator[str, None] | None = None
        self._closed = False

    def __await__(self) -> Generator[Any, None, Self]:
        return self._begun().__await__()

    async def _begun(self) -> Self:
        if self._response is None and not self._closed:
            self._response = await self._begin()
        return self

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        return await self.asend(None)

    async def asend(self, value: None) -> str:
        """The next piece; the value is not used."""
        if self._reading is None:
            await self._begun()
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
        """Stop the generation and raise this."""
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
