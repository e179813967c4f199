"""The iterators that ``stream`` of the sync and the async client returns."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import suppress
from types import AsyncGeneratorType, TracebackType
from typing import Any, Self, cast

import talu.aio as aio
from talu.chat.async_chat import AsyncStreamingResponse
from talu.chat.builder import Token
from talu.chat.fields import ResultFields
from talu.chat.outcome import Outcome
from talu.chat.stream import not_json
from talu.chat.sync_chat import StreamingResponse
from talu.exceptions import StateError
from talu.types import FinishReason, Handle, StopFlag

__all__ = ["AsyncPieces", "Pieces"]


class Pieces(ResultFields, Handle, Generator[Token, None, None]):
    """The pieces of an answer, read with ``for``, ``next`` or ``"".join(pieces)``.

    Leaving the loop, ``close``, ``cancel`` and dropping the object stop the generation. It has the
    properties of an answer, such as ``usage`` and ``notes``: until it has ended they show what has
    arrived.
    """

    __slots__ = ("__weakref__", "_outcome", "_reading", "_release", "_response")
    _instead = 'read it: "".join(pieces) is plain text'
    keys = not_json

    def __init__(
        self, response: StreamingResponse, release: Callable[[], object] = lambda: None
    ) -> None:
        """Read this response; ``release`` is called when nothing is left to read."""
        self._response = response
        self._outcome = response._outcome
        self._reading = iter(response)
        self._release = release

    def __next__(self) -> Token:
        return self.send(None)

    def send(self, value: None) -> Token:
        """The next piece; the value is ignored."""
        try:
            return next(self._reading)
        except ValueError as error:
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                self._release()
                raise
        except BaseException:
            self._release()
            raise
        # Raised by the interpreter: "generator already executing".
        raise StateError("this stream is being read already", "STATE_BUSY")

    def throw(self, kind: Any, value: Any = None, traceback: TracebackType | None = None) -> Token:
        """Stop the generation and raise the exception."""
        self.close()
        raise kind if value is None else value

    def cancel(self) -> None:
        """Stop the generation, from any thread, even while another one reads the stream."""
        self._response.cancel()

    def close(self) -> None:
        """Stop the generation if it is not finished; idempotent."""
        self._response.close()
        with suppress(ValueError):  # another thread is reading, and reaches the end by itself
            self._reading.close()
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        how = 'loop over it, or "".join(it)'
        return _shown(self, self.model, self._response, how)


class AsyncPieces(ResultFields, Handle, AsyncGenerator[Token, None]):
    """The pieces of an answer, read with ``async for``.

    Awaiting it first opens the model and submits the request, so that an invalid request raises
    there and not at the first piece, when a web handler has already sent its headers. Leaving the
    loop, ``aclose``, ``cancel`` and dropping the object stop the generation. It has the properties
    of an answer, as ``Pieces`` has them.
    """

    __slots__ = (
        "__weakref__",
        "_begin",
        "_closed",
        "_outcome",
        "_reading",
        "_response",
        "_starting",
        "_stop",
    )
    _instead = "read it with async for; its pieces are text"
    keys = not_json

    def __init__(
        self, begin: Callable[[StopFlag], Awaitable[AsyncStreamingResponse]], model: str | None
    ) -> None:
        """Create a stream.

        Args:
            begin: submits the request, which the flag cancels from then on.
            model: the name of the model that is asked.
        """
        self._begin: Callable[[StopFlag], Awaitable[AsyncStreamingResponse]] | None = begin
        self._outcome: Outcome[Any] = Outcome(chat=None, model=model or "")
        self._response: AsyncStreamingResponse | None = None
        self._reading: AsyncGeneratorType[Token, None] | None = None
        self._starting = aio.Lock()
        self._stop = StopFlag()
        self._closed = False

    def __await__(self) -> Generator[Any, None, Self]:
        return self._started().__await__()

    async def _started(self) -> Self:
        """Submit the request once, whoever asks first; a closed stream submits nothing."""
        async with self._starting:
            begin, self._begin = self._begin, None
            if begin is None or self._closed:
                return self
            self._response = response = await begin(self._stop)
            self._outcome = response._outcome
            return self

    async def __aenter__(self) -> Self:
        return await self._started()

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Token:
        return await self.asend(None)

    async def asend(self, value: None) -> Token:
        """The next piece; the value is ignored.

        Raises:
            StateError: another task is waiting for a piece.
        """
        if self._reading is None:
            await self._started()
            if self._response is None:
                raise StopAsyncIteration
            reading = self._reading or _read(self._response)
            self._reading = cast("AsyncGeneratorType[Token, None]", reading)
        if self._is_being_read:
            raise StateError("this stream is being read already", "STATE_BUSY")
        return await self._reading.asend(value)

    @property
    def _is_being_read(self) -> bool:
        return self._reading is not None and self._reading.ag_running

    async def athrow(
        self,
        kind: Any,
        value: Any = None,
        traceback: TracebackType | None = None,
    ) -> Token:
        """Stop the generation and raise the exception."""
        await self.aclose()
        raise kind if value is None else value

    def cancel(self) -> None:
        """Stop the generation, from any thread, even while a task reads the stream.

        A stream that has not begun ends with its first piece.
        """
        self._stop.signal()

    async def aclose(self) -> None:
        """Stop the generation if it is not finished; idempotent.

        A task that is reading the stream, or waiting for it to begin, gets what has arrived and
        then the end.
        """
        self._closed = True
        self.cancel()
        if self._begin is not None:
            self._outcome.finish_reason = FinishReason.CANCELLED
        if self._reading is not None and not self._is_being_read:
            await self._reading.aclose()
        elif self._response is not None:
            await self._response.close()

    def __repr__(self) -> str:
        if self._closed and self._response is None:
            return f"AsyncPieces(model={self._outcome.model!r}, cancelled before it was read)"
        return _shown(self, self._outcome.model, self._response, "loop over it with async for")


async def _read(response: AsyncStreamingResponse) -> AsyncGenerator[Token, None]:
    async with response:
        async for piece in response:
            yield piece


def _shown(
    pieces: Pieces | AsyncPieces,
    model: str | None,
    response: StreamingResponse | AsyncStreamingResponse | None,
    how_to_read: str,
) -> str:
    """The class, the model and the state."""
    unread = response is None or response._outcome.unread
    state = f"pending: {how_to_read}" if response is None or unread else response._state()[0]
    return f"{type(pieces).__name__}(model={model!r}, {state})"
