"""The blocking chat and its answers.

A stream that is dropped, closed or cancelled stops its generation; the text so far stays in the
answer and in the chat.
"""

from collections.abc import Coroutine, Generator, Iterator
from dataclasses import replace
from typing import Any, Literal, Self, TypeVar, Unpack, cast, overload

from talu.chat.answer import WholeAnswer
from talu.chat.builder import Token
from talu.chat.conversation import Conversation, Draft
from talu.chat.io import Reading, SyncIO, run
from talu.chat.messages import Message
from talu.chat.stream import Stream
from talu.chat.turn import OnToken, Turn, drain
from talu.config import GenerationConfig, GenerationSettings, check_boolean
from talu.types import StopFlag

__all__ = ["Chat", "Response", "StreamingResponse"]

T = TypeVar("T")


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
        timeout: float | None = None,
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
        timeout: float | None = None,
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
        timeout: float | None = None,
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
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> "Response | StreamingResponse":
        """Continue the conversation after this answer.

        In the same chat when this is its latest answer. Otherwise in a fork of the chat that ends
        with this answer; the chat itself stays as it is. The arguments are those of ``Chat.send``.

        Raises:
            StateError: the answer belongs to no chat, or it failed.
        """
        chat = self._place_to_go_on()
        draft = chat._draft(
            message, config, settings, on_token=on_token, stop_flag=stop_flag, timeout=timeout
        )
        return chat._answer(draft, stream=stream)


class StreamingResponse(Stream["Chat"]):
    """An answer that is read while it is generated.

    Iterating gives ``Token`` pieces, once; the last one is empty and has the finish reason.
    Leaving the loop early, dropping the iterator, ``close()`` and ``cancel()`` stop the generation:
    the text so far stays here and, as an incomplete item, in the chat. Usage, timings and finish
    reason are known at the end, or when the stream was left.
    """

    _how_to_read = "print it, or loop over it"

    def __init__(self, turn: "Turn[Chat]") -> None:
        self._reading = Reading(turn.pieces())
        super().__init__(turn)

    def __iter__(self) -> Iterator[Token]:
        return self._reading.known(self._read())

    def _read(self) -> Generator[Token]:
        last: Token | None = None
        self._check_superseded()
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
        """The whole text: what has not been read is generated first.

        Raises:
            StateError: the stream was not read, and its chat was asked or edited again.
        """
        self._read_rest()
        return super().text

    def _as_text(self) -> str:
        return self.text

    def _displayed(self) -> str:
        if self._turn.unread:
            self._read_rest()
        return super()._displayed() or repr(self)

    def _read_rest(self) -> None:
        self._check_superseded()
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
        timeout: float | None = None,
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
        timeout: float | None = None,
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
        timeout: float | None = None,
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
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> "Response | StreamingResponse":
        """Like ``Response.append``, streamed; what has not been read is generated first."""
        self._read_rest()
        chat = self._place_to_go_on()
        draft = chat._draft(
            message, config, settings, on_token=on_token, stop_flag=stop_flag, timeout=timeout
        )
        return chat._answer(draft, stream=stream)


class Chat(Conversation):
    """A conversation: calling it streams the answer, ``send`` gives it whole.

    The user's message and the answer are added to ``items`` together, when the answer ends. A
    cancelled answer stays as an incomplete item; a failed one leaves the chat as it was. A chat
    may be used from any thread, for one answer at a time: a second one is a ``StateError``.

    ``client.chat()`` makes one with the models of a client. ``Chat("talu/pocket")`` has a model of
    its own, opened on first use and given back by ``close``; one without a model and without a
    client only holds its history.

    A chat of a client with a profile is stored: the question before the generation, the answer when
    it ends, every edit at once. What cannot be stored raises ``StorageError``; when that happens at
    the end of a turn, the answer is in ``last_response`` and in the error's ``details``, and the
    next change of the chat stores it as well.

    Args:
        model: a reference or a ``ModelSpec``; with a client the name of one of its models.
        client: where models and hooks come from.
        profile: where the chat is stored.
        system: this and all that follow are as in ``Client.chat``.
        messages: a history to go on from.
        config: defaults of the chat's answers.
        session_id: of a stored chat to go on from, or of a new one.
        parent_session_id: of the chat that this one comes from.
        marker: what a listing can be filtered by.
        metadata: anything else about the chat.
        chat_template: replaces the model's.
        offline: open the model without network.
    """

    _async_hooks = False

    @property
    def last_response(self) -> Response | StreamingResponse | None:
        """The latest answer, None before the first; a complete stream may come back whole."""
        return cast("Response | StreamingResponse | None", self._latest.get(self, Response))

    @overload
    def __call__(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: Literal[True] = True,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> StreamingResponse: ...

    @overload
    def __call__(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: Literal[False],
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> Response: ...

    @overload
    def __call__(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: bool,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> Response | StreamingResponse: ...

    def __call__(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: bool = True,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> Response | StreamingResponse:
        """Like ``send``, but streamed unless ``stream=False``."""
        draft = self._draft(
            message, config, settings, on_token=on_token, stop_flag=stop_flag, timeout=timeout
        )
        return self._answer(draft, stream=stream)

    @overload
    def send(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: Literal[False] = False,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> Response: ...

    @overload
    def send(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: Literal[True],
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> StreamingResponse: ...

    @overload
    def send(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: bool,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> Response | StreamingResponse: ...

    def send(
        self,
        message: Message,
        config: GenerationConfig | None = None,
        *,
        stream: bool = False,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> Response | StreamingResponse:
        """Send a message and get the answer.

        Args:
            message: text, content parts, messages, or a list of them.
            config: wins over the chat's ``config`` where it is set.
            stream: give a ``StreamingResponse`` at once; a request that is wrong in itself raises
                here, what goes wrong while generating raises while it is read.
            on_token: called with each piece that has text.
            stop_flag: ends the answer, from any thread, when it is signalled.
            timeout: seconds from this call to the end of the answer; when they are over, the
                generation stops and ``GenerationError`` (code ``GENERATION_TIMEOUT``) is raised.
            settings: fields of ``GenerationConfig``; they win over ``config``.

        Raises:
            ValidationError: an argument is of a wrong type, name or range.
            StateError: chat or client is closed, or an answer of this chat is not finished.
            GenerationError: the prompt does not fit the context, or the model failed.
        """
        draft = self._draft(
            message, config, settings, on_token=on_token, stop_flag=stop_flag, timeout=timeout
        )
        return self._answer(draft, stream=stream)

    @overload
    def regenerate(
        self,
        message: Message | None = None,
        config: GenerationConfig | None = None,
        *,
        stream: Literal[False] = False,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> Response: ...

    @overload
    def regenerate(
        self,
        message: Message | None = None,
        config: GenerationConfig | None = None,
        *,
        stream: Literal[True],
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> StreamingResponse: ...

    @overload
    def regenerate(
        self,
        message: Message | None = None,
        config: GenerationConfig | None = None,
        *,
        stream: bool,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> Response | StreamingResponse: ...

    def regenerate(
        self,
        message: Message | None = None,
        config: GenerationConfig | None = None,
        *,
        stream: bool = False,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> Response | StreamingResponse:
        """Answer the last user message again, or ``message`` in its place.

        Everything from that message on is replaced, when the new answer ends; the other arguments
        are those of ``send``.

        Raises:
            StateError: there is no user message.
        """
        last, asked = self._again(message)
        draft = self._draft(
            asked, config, settings, on_token=on_token, stop_flag=stop_flag, timeout=timeout
        )
        return self._answer(replace(draft, replaces=last), stream=stream)

    def close(self) -> None:
        """Stop an unfinished answer and refuse further use; idempotent.

        The client stays open; a model of the chat's own is given back.
        """
        self._close()
        try:
            if isinstance(self.last_response, StreamingResponse):
                self.last_response.close()
            self._save_attributes()
        finally:
            if self._own is not None:
                self._own.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, draft: Draft, *, stream: bool) -> Response | StreamingResponse:
        streamed = check_boolean("stream", stream)
        return self._streamed(draft) if streamed else self._whole(draft)

    def _run(self, io: SyncIO, work: Coroutine[Any, Any, T]) -> T:
        try:
            return io.run(work)
        except BaseException:
            if self._turn is not None:
                self._turn.settle()
            raise

    def _streamed(self, draft: Draft) -> StreamingResponse:
        io = SyncIO(self._backend())
        return self._run(io, self._opened(draft, io))

    async def _opened(self, draft: Draft, io: SyncIO) -> StreamingResponse:
        turn = await self._begin(draft, io, stream=True)
        response = StreamingResponse(turn)
        reading = response._reading
        turn.reading = reading
        self._latest.set(response)
        return response

    def _whole(self, draft: Draft) -> Response:
        io = SyncIO(self._backend())
        return self._run(io, self._completed(draft, io))

    async def _completed(self, draft: Draft, io: SyncIO) -> Response:
        turn = await self._begin(draft, io, stream=False)
        turn.make_answer = Response
        try:
            await drain(turn)
        except BaseException:
            if turn.past:  # it could not be stored
                self._latest.set(Response.of(turn))
            raise
        response = Response.of(turn)
        self._latest.set(response)
        return response
