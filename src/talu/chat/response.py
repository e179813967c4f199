"""Answers: read at once or piece by piece, blocking or awaited.

A streamed answer that is dropped, closed or cancelled stops the generation; what has come stays,
in the answer and in the chat.
"""

import asyncio
from collections.abc import AsyncIterator, Generator, Iterator
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, cast, overload
from weakref import ref

from talu.chat.answer import WholeAnswer
from talu.chat.io import run
from talu.chat.messages import Message
from talu.chat.reading import Reading
from talu.chat.stream import Stream
from talu.chat.token import Token
from talu.chat.turn import OnToken, Turn
from talu.config import GenerationConfig, GenerationSettings
from talu.exceptions import StateError
from talu.types import StopFlag

if TYPE_CHECKING:
    from talu.chat.session import AsyncChat, Chat

__all__ = ["AsyncResponse", "AsyncStreamingResponse", "Response", "StreamingResponse"]


class Response(WholeAnswer["Chat"]):
    """A whole answer. It is not iterable, so that a forgotten ``stream=True`` is noticed.

    It can be pickled and deep-copied: the copy has everything but the chat, so that nothing can be
    appended to it.
    """

    @overload
    def append(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: Literal[False] = False,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> "Response": ...

    @overload
    def append(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: Literal[True],
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> "StreamingResponse": ...

    @overload
    def append(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: bool,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> "Response | StreamingResponse": ...

    def append(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: bool = False,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> "Response | StreamingResponse":
        """Continue the conversation after this answer.

        In the same chat when this is its latest answer. Otherwise in a fork of the chat that ends
        with this answer; the chat itself stays as it is. The arguments are those of ``Chat.send``.

        Raises:
            StateError: the answer belongs to no chat, or it failed.
        """
        chat = self._place_to_go_on()
        draft = chat._draft(message, config, settings, on_token=on_token, stop_flag=stop_flag)
        return chat._answer(draft, stream=stream)


class StreamingResponse(Stream["Chat"]):
    """An answer that is read while it is generated.

    Iterating gives ``Token`` pieces, once; the last one is empty and has the finish reason.
    Leaving the loop early, dropping the iterator, ``close()`` and ``cancel()`` stop the generation:
    the text so far stays here and, as an incomplete item, in the chat. Usage, timings and finish
    reason are known at the end, or when the stream was left.
    """

    def __init__(self, turn: "Turn[Chat]") -> None:
        self._reading = Reading(turn.pieces())
        super().__init__(turn)

    def __iter__(self) -> Iterator[Token]:
        return self._reading.known(self._read())

    def _read(self) -> Generator[Token]:
        last: Token | None = None
        while (piece := self._next()) is not None:
            last = piece
            try:
                yield piece
            except BaseException:  # the loop was left
                self.cancel()
                raise
        yield from self._end_piece(last)

    def _next(self) -> Token | None:
        try:
            return self._reading.next()
        except BaseException:
            self._turn.settle()
            raise

    @property
    def text(self) -> str:
        """The whole text: what has not been read is generated first."""
        self._read_rest()
        return super().text

    def _read_rest(self) -> None:
        if not self._turn.ended:
            for _ in self:
                pass

    def cancel(self) -> None:
        """Stop the generation; from any thread, also while another one reads the stream."""
        self._turn.request.stop.signal()
        self._reading.close(unread=self._abandon)
        self._turn.settle()

    def _abandon(self) -> None:
        run(self._turn.abandon())

    def close(self) -> None:
        """Do what ``cancel`` does; idempotent."""
        self.cancel()

    def __del__(self) -> None:
        if self._turn.unread:  # pieces that were begun end with their generator
            super().__del__()

    async def _end(self) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @overload
    def append(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: Literal[True] = True,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> "StreamingResponse": ...

    @overload
    def append(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: Literal[False],
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> Response: ...

    @overload
    def append(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: bool,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> "Response | StreamingResponse": ...

    def append(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: bool = True,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> "Response | StreamingResponse":
        """Like ``Response.append``, streamed; what has not been read is generated first."""
        self._read_rest()
        chat = self._place_to_go_on()
        draft = chat._draft(message, config, settings, on_token=on_token, stop_flag=stop_flag)
        return chat._answer(draft, stream=stream)


class AsyncResponse(WholeAnswer["AsyncChat"]):
    """Like ``Response``, from an ``AsyncClient``."""

    @overload
    async def append(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: Literal[False] = False,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> "AsyncResponse": ...

    @overload
    async def append(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: Literal[True],
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> "AsyncStreamingResponse": ...

    @overload
    async def append(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: bool,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> "AsyncResponse | AsyncStreamingResponse": ...

    async def append(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: bool = False,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> "AsyncResponse | AsyncStreamingResponse":
        """Like ``Response.append``, awaited."""
        chat = self._place_to_go_on()
        draft = chat._draft(message, config, settings, on_token=on_token, stop_flag=stop_flag)
        return await chat._answer(draft, stream=stream)


class AsyncStreamingResponse(Stream["AsyncChat"]):
    """Like ``StreamingResponse``, read with ``async for``.

    ``text`` is what has arrived; ``await response`` reads the rest first. Leaving a loop early
    stops the generation at the next turn of the event loop, and before anything else is asked of
    its chat; ``async with`` stops it at once.
    """

    def __init__(self, turn: "Turn[AsyncChat]") -> None:
        super().__init__(turn)
        self._pieces = cast("AsyncGeneratorType[Token, None]", turn.pieces())
        self._closing = asyncio.Lock()
        self._reader: ref[AsyncIterator[Token]] | None = None

    def __aiter__(self) -> AsyncIterator[Token]:
        reader = self._read()
        if not self._pieces.ag_running:  # otherwise this one is refused, and the other goes on
            self._reader = ref(reader)
        return reader

    async def _read(self) -> AsyncIterator[Token]:
        last: Token | None = None
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
        """Read what is left, and give the answer itself; nothing is left when a loop was left."""
        await self._settle()
        self._check_unread()
        async for _ in self._pieces:
            pass
        return self

    def _check_unread(self) -> None:
        if self._pieces.ag_running:
            raise StateError("this stream is being read already", "STATE_BUSY")

    def cancel(self) -> None:
        """Stop the generation, from any thread; what has come can be read, ``close`` drops it."""
        self._turn.request.stop.signal()

    async def close(self) -> None:
        """Stop the generation if it is not finished; idempotent.

        A task that reads it just now reads what has come, and then its end.
        """
        self.cancel()
        await self._stop()
        await self._turn.abandon()

    async def _end(self) -> None:
        await self.close()

    async def _settle(self) -> None:
        """Stop at once what a loop that was left would stop at a later turn of the event loop."""
        gone = self._reader is not None and self._reader() is None
        if gone and not self._turn.unread:
            await self._stop()

    async def _stop(self) -> None:
        """Close the pieces; a loop that was left does so as well, and storing takes a while."""
        async with self._closing:
            if not self._pieces.ag_running:
                await self._pieces.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @overload
    async def append(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: Literal[True] = True,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> "AsyncStreamingResponse": ...

    @overload
    async def append(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: Literal[False],
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> AsyncResponse: ...

    @overload
    async def append(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: bool,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> "AsyncResponse | AsyncStreamingResponse": ...

    async def append(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: bool = True,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> "AsyncResponse | AsyncStreamingResponse":
        """Like ``StreamingResponse.append``, awaited."""
        await self.wait()
        chat = self._place_to_go_on()
        draft = chat._draft(message, config, settings, on_token=on_token, stop_flag=stop_flag)
        return await chat._answer(draft, stream=stream)
