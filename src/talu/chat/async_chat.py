"""The async chat and its responses, the counterparts of those in ``sync_chat``."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import AsyncGeneratorType
from typing import Any, Literal, Self, Unpack, cast, overload
from weakref import ref

from talu.chat.answer import WholeAnswer
from talu.chat.builder import Token
from talu.chat.conversation import Conversation, Draft
from talu.chat.interrupts import Claim
from talu.chat.io import AsyncIO
from talu.chat.outcome import State
from talu.chat.stream import Stream
from talu.chat.turn import OnToken, Turn
from talu.chat.user_message import Message
from talu.config import GenerationConfig, GenerationSettings, check_boolean
from talu.exceptions import StateError
from talu.threads import beside_loop
from talu.types import StopFlag

__all__ = ["AsyncChat", "AsyncResponse", "AsyncStreamingResponse", "presented"]


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
        timeout: float | None = None,
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
        timeout: float | None = None,
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
        timeout: float | None = None,
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
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> "AsyncResponse | AsyncStreamingResponse":
        """Like ``Response.append``, awaited."""
        chat = self._chat_to_continue()
        draft = chat._draft(
            message, config, settings, on_token=on_token, stop_flag=stop_flag, timeout=timeout
        )
        return await chat._answer(draft, stream=stream)


class AsyncStreamingResponse(Stream["AsyncChat"]):
    """Like ``StreamingResponse``, read with ``async for``.

    ``text`` is the text that has arrived; ``await response`` reads the rest first. Leaving a loop
    early stops the generation at the next iteration of the event loop, and before the next request
    to its chat; ``async with`` stops it at once.
    """

    _how_to_read = "await it, or loop over it with async for"

    def __init__(self, turn: "Turn[AsyncChat]") -> None:
        super().__init__(turn)
        self._pieces = cast("AsyncGeneratorType[Token, None]", turn.pieces())
        self._closing = asyncio.Lock()
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

    @overload
    async def append(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: Literal[True] = True,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
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
        timeout: float | None = None,
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
        timeout: float | None = None,
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
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> "AsyncResponse | AsyncStreamingResponse":
        """Like ``StreamingResponse.append``, awaited."""
        await self.wait()
        chat = self._chat_to_continue()
        draft = chat._draft(
            message, config, settings, on_token=on_token, stop_flag=stop_flag, timeout=timeout
        )
        return await chat._answer(draft, stream=stream)


def presented(turn: Turn[Any]) -> AsyncResponse | AsyncStreamingResponse:
    """The response that presents a turn of an awaited call."""
    return AsyncStreamingResponse(turn) if turn.stream else AsyncResponse(turn.outcome)


class AsyncChat(Conversation):
    """Like ``Chat``, awaited; it generates one answer at a time, other chats run concurrently.

    Editing, inspection and conversion to dictionaries are plain methods, as in ``Chat``.
    """

    _async_hooks = True

    @property
    def last_response(self) -> AsyncResponse | AsyncStreamingResponse | None:
        """The latest answer or None; a complete stream may be returned as a whole answer."""
        return cast(
            "AsyncResponse | AsyncStreamingResponse | None", self._latest.get(self, AsyncResponse)
        )

    @overload
    async def __call__(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: Literal[True] = True,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> AsyncStreamingResponse: ...

    @overload
    async def __call__(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: Literal[False],
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> AsyncResponse: ...

    @overload
    async def __call__(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: bool,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> AsyncResponse | AsyncStreamingResponse: ...

    async def __call__(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: bool = True,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> AsyncResponse | AsyncStreamingResponse:
        """Like ``Chat.__call__``, awaited."""
        draft = self._draft(
            message, config, settings, on_token=on_token, stop_flag=stop_flag, timeout=timeout
        )
        return await self._answer(draft, stream=stream)

    @overload
    async def send(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: Literal[False] = False,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> AsyncResponse: ...

    @overload
    async def send(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: Literal[True],
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> AsyncStreamingResponse: ...

    @overload
    async def send(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: bool,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> AsyncResponse | AsyncStreamingResponse: ...

    async def send(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: bool = False,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> AsyncResponse | AsyncStreamingResponse:
        """Like ``Chat.send``, awaited."""
        draft = self._draft(
            message, config, settings, on_token=on_token, stop_flag=stop_flag, timeout=timeout
        )
        return await self._answer(draft, stream=stream)

    @overload
    async def regenerate(
        self,
        message: Message | None = None,
        config: GenerationConfig | None = None,
        *,
        stream: Literal[False] = False,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> AsyncResponse: ...

    @overload
    async def regenerate(
        self,
        message: Message | None = None,
        config: GenerationConfig | None = None,
        *,
        stream: Literal[True],
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> AsyncStreamingResponse: ...

    @overload
    async def regenerate(
        self,
        message: Message | None = None,
        config: GenerationConfig | None = None,
        *,
        stream: bool,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> AsyncResponse | AsyncStreamingResponse: ...

    async def regenerate(
        self,
        message: Message | None = None,
        config: GenerationConfig | None = None,
        *,
        stream: bool = False,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> AsyncResponse | AsyncStreamingResponse:
        """Like ``Chat.regenerate``, awaited."""
        last, message = self._to_regenerate(message)
        draft = self._draft(
            message, config, settings, on_token=on_token, stop_flag=stop_flag, timeout=timeout
        )
        return await self._answer(replace(draft, replaces=last), stream=stream)

    async def close(self) -> None:
        """Like ``Chat.close``, awaited."""
        self._close()
        try:
            if isinstance(self.last_response, AsyncStreamingResponse):
                await self.last_response.close()
            if self._persistence is not None:
                await beside_loop(self._save_attributes)
        finally:
            if self._own is not None:
                await beside_loop(self._own.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @overload
    async def _answer(self, draft: Draft, *, stream: Literal[False]) -> AsyncResponse: ...

    @overload
    async def _answer(self, draft: Draft, *, stream: Literal[True]) -> AsyncStreamingResponse: ...

    @overload
    async def _answer(
        self, draft: Draft, *, stream: bool
    ) -> AsyncResponse | AsyncStreamingResponse: ...

    async def _answer(
        self, draft: Draft, *, stream: bool
    ) -> AsyncResponse | AsyncStreamingResponse:
        io, claim = AsyncIO(partial(self._abackend, draft.deadline, draft.stop_flag)), Claim()
        streamed = check_boolean("stream", stream)
        if isinstance(self.last_response, AsyncStreamingResponse):
            await self.last_response._give_way()
        answer = await self._answered(draft, io, claim, presented, stream=streamed)
        return cast("AsyncResponse | AsyncStreamingResponse", answer)
