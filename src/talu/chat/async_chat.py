"""The async chat and its responses, the counterparts of those in ``sync_chat``."""

from collections.abc import Awaitable
from functools import partial
from typing import Any, Literal, Self, Unpack, cast, overload

from talu.chat.answer import WholeAnswer
from talu.chat.answering import Draft
from talu.chat.async_stream import AwaitedStream
from talu.chat.interrupts import Claim
from talu.chat.io import AsyncIO
from talu.chat.tool_methods import ToolAnswer, ToolChat
from talu.chat.turn import OnToken, Turn
from talu.chat.user_message import Message
from talu.checks import check_boolean
from talu.config import GenerationConfig
from talu.threads import beside_loop
from talu.tools.use import CallSettings
from talu.types import StopFlag

__all__ = ["AsyncChat", "AsyncResponse", "AsyncStreamingResponse", "presented"]


class AsyncResponse(WholeAnswer["AsyncChat"], ToolAnswer["AsyncChat", "Awaitable[AsyncResponse]"]):
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
    ) -> "AsyncResponse | AsyncStreamingResponse":
        """Like ``Response.append``, awaited."""
        chat = self._chat_to_continue()
        draft = chat._draft(
            message, config, settings, on_token=on_token, stop_flag=stop_flag, timeout=timeout
        )
        return await chat._answer(draft, stream=stream)

    async def _unchanged(self) -> Self:
        return self


class AsyncStreamingResponse(
    AwaitedStream["AsyncChat"], ToolAnswer["AsyncChat", Awaitable[AsyncResponse]]
):
    """Like ``StreamingResponse``, read with ``async for``.

    ``text`` is the text that has arrived; ``await response`` reads the rest first. Leaving a loop
    early stops the generation at the next iteration of the event loop, and before the next request
    to its chat; ``async with`` stops it at once.
    """

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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
    ) -> "AsyncResponse | AsyncStreamingResponse":
        """Like ``StreamingResponse.append``, awaited."""
        await self.wait()
        chat = self._chat_to_continue()
        draft = chat._draft(
            message, config, settings, on_token=on_token, stop_flag=stop_flag, timeout=timeout
        )
        return await chat._answer(draft, stream=stream)

    async def _unchanged(self) -> Self:
        return self


def presented(turn: Turn[Any]) -> AsyncResponse | AsyncStreamingResponse:
    """The response that presents a turn of an awaited call."""
    return AsyncStreamingResponse(turn) if turn.stream else AsyncResponse(turn.outcome)


class AsyncChat(ToolChat[Awaitable[AsyncResponse], Awaitable[AsyncStreamingResponse]]):
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
    ) -> AsyncResponse | AsyncStreamingResponse:
        """Like ``Chat.regenerate``, awaited."""
        last, message = self._to_regenerate(message)
        draft = self._draft(
            message, config, settings, on_token=on_token, stop_flag=stop_flag, timeout=timeout
        )
        return await self._answer(draft._replace(replaces=last), stream=stream)

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
