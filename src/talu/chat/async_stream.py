"""The reading of streamed answers by awaiting callers."""

from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import suppress
from types import AsyncGeneratorType
from typing import Any, Self, cast
from weakref import ref

import talu.aio as aio
from talu.chat.builder import Token
from talu.chat.outcome import ChatT, State
from talu.chat.stream import Stream
from talu.chat.turn import Turn
from talu.exceptions import StateError

__all__ = ["AwaitedStream"]


class AwaitedStream(Stream[ChatT]):
    """The base of ``AsyncStreamingResponse``, which can be read, stopped and closed."""

    _how_to_read = "await it, or loop over it with async for"

    def __init__(self, turn: Turn[ChatT]) -> None:
        super().__init__(turn)
        self._pieces = cast("AsyncGeneratorType[Token, None]", turn.pieces())
        self._closing = aio.Lock()
        self._reader: ref[AsyncGenerator[Token, None]] | None = None

    def __aiter__(self) -> AsyncIterator[Token]:
        reader = self._read()
        if not self._pieces.ag_running:  # otherwise the new reader gets an error, not the old one
            self._reader = ref(reader)
        return reader

    async def _read(self) -> AsyncGenerator[Token, None]:
        last: Token | None = None
        self._check_superseded()
        self._check_unread()
        try:
            async for last in self._pieces:
                yield last
                self._check_unread()
        finally:
            await self._stop()
        for piece in self._end_piece(last):
            yield piece

    def __await__(self) -> Generator[Any, Any, Self]:
        return self.wait().__await__()

    async def wait(self) -> Self:
        """Read the rest and return this answer; there is no rest once a loop was left early."""
        await self._settle()
        self._check_superseded()
        self._check_unread()
        async for _ in self._pieces:
            pass
        return self

    def _check_unread(self) -> None:
        if self._pieces.ag_running:
            raise StateError("this stream is being read already", "STATE_BUSY")

    def cancel(self) -> None:
        """Stop the generation, from any thread; until ``close``, the text so far can be read."""
        self._turn.stop.signal()

    async def close(self) -> None:
        """Stop the generation if it is not finished; idempotent.

        A task that is reading the stream gets what has arrived, and then the end.
        """
        self.cancel()
        await self._stop()
        await self._turn.cancel()

    async def _end(self) -> None:
        await self.close()

    async def _end_at_exit(self) -> None:
        await super()._end_at_exit()
        reader = None if self._reader is None else self._reader()
        if reader is not None:  # otherwise Python warns that nothing awaits its end
            with suppress(RuntimeError):  # it waits for an event loop
                await reader.aclose()

    async def _give_way(self) -> None:
        """End, because the chat is used again, unless a reader goes on reading."""
        await self._settle()
        if self._outcome.unread:
            await self._turn.cancel(State.SUPERSEDED)

    async def _settle(self) -> None:
        """Stop a generation whose loop was left, without waiting for the event loop to do it."""
        gone = self._reader is not None and self._reader() is None
        if gone and not self._outcome.unread:
            await self._stop()

    def _as_text(self) -> str:
        self._check_superseded()
        if self._outcome.unread:
            wrong = "this answer has not been read: await it first, as in print(await response)"
            raise StateError(wrong, "STATE_UNREAD")
        return self.text

    def _displayed(self) -> str:
        return super()._displayed() or repr(self)

    async def _stop(self) -> None:
        """Close the pieces, under a lock: a loop that was left also closes them while saving."""
        async with self._closing:
            if not self._pieces.ag_running:
                await self._pieces.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
