"""The sync chat and its responses."""

from functools import partial
from typing import Any, Literal, Self, Unpack, cast, overload

from talu.chat.answer import WholeAnswer
from talu.chat.answering import Draft
from talu.chat.interrupts import Guard
from talu.chat.io import SyncIO
from talu.chat.sync_stream import BlockingStream
from talu.chat.tool_methods import ToolAnswer, ToolChat
from talu.chat.turn import OnToken, Turn
from talu.chat.user_message import Message
from talu.checks import check_boolean
from talu.config import GenerationConfig
from talu.tools.use import CallSettings
from talu.types import StopFlag

__all__ = ["Chat", "Response", "StreamingResponse", "presented"]


class Response(WholeAnswer["Chat"], ToolAnswer["Chat", "Response"]):
    """A complete answer. It is not iterable, so that a forgotten ``stream=True`` is noticed.

    It can be pickled and deep-copied. A copy has no chat, so it cannot be continued.
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
    ) -> "Response | StreamingResponse":
        """Continue the conversation after this answer.

        If this is the latest answer of its chat, the chat continues. Otherwise a fork of the chat
        that ends with this answer continues, and the chat is unchanged. The arguments are those of
        ``Chat.send``.

        Raises:
            StateError: the answer does not belong to a chat, or it failed.
        """
        chat = self._chat_to_continue()
        draft = chat._draft(
            message, config, settings, on_token=on_token, stop_flag=stop_flag, timeout=timeout
        )
        return chat._answer(draft, stream=stream)

    def _unchanged(self) -> Self:
        return self


class StreamingResponse(BlockingStream["Chat"], ToolAnswer["Chat", Response]):
    """An answer that is read while it is generated.

    Iterating yields each ``Token`` once; the last one is empty and has the finish reason. Leaving
    the loop early, dropping the iterator, ``close()`` and ``cancel()`` stop the generation; the
    text so far stays here and, as an incomplete item, in the chat. Usage, timings and finish reason
    are available once the stream has ended or was stopped.
    """

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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
    ) -> "Response | StreamingResponse":
        """Like ``Response.append``, streamed; reads the rest of this stream first."""
        self._read_rest()
        chat = self._chat_to_continue()
        draft = chat._draft(
            message, config, settings, on_token=on_token, stop_flag=stop_flag, timeout=timeout
        )
        return chat._answer(draft, stream=stream)

    def _unchanged(self) -> Self:
        return self


def presented(turn: Turn[Any]) -> Response | StreamingResponse:
    """The response that presents a turn of a blocking call."""
    return StreamingResponse(turn) if turn.stream else Response(turn.outcome)


class Chat(ToolChat[Response, StreamingResponse]):
    """A conversation: calling it streams the answer, ``send`` returns the complete answer.

    The user's message and the answer are added to ``items`` together, when the answer ends. A
    cancelled answer stays as an incomplete item, and so does one whose connection broke after the
    first piece; any other failure leaves the chat unchanged. A chat can be used from any thread,
    for one answer at a time; a second one raises ``StateError``.

    ``client.chat()`` makes a chat that uses the models of a client. ``Chat("talu/pocket")`` owns
    its model, which is opened on first use and released by ``close``. A chat without a model and
    without a client only holds its history.

    A chat of a client with a profile is stored: the question before the generation, the answer when
    it ends, every edit at once. A failure to store raises ``StorageError``; if that happens at the
    end of a turn, the answer is in ``last_response`` and in the error's ``details``, and the next
    change of the chat stores it as well.

    Args:
        model: a reference or a ``ModelSpec``; with a client, the name of one of its models.
        client: the source of models and hooks.
        profile: the profile that stores the chat.
        system: this and all following arguments are as in ``Client.chat``.
        messages: the history to start from.
        config: default settings of the chat.
        session_id: id of a stored chat to resume, or of a new one.
        parent_session_id: id of the chat that this one was forked from.
        marker: a label to filter listings by.
        metadata: additional data about the chat.
        chat_template: replaces the model's template.
        offline: open the model without network access.
    """

    _async_hooks = False

    @property
    def last_response(self) -> Response | StreamingResponse | None:
        """The latest answer or None; a complete stream may be returned as a whole answer."""
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
    ) -> Response | StreamingResponse:
        """Send a message and get the answer.

        Args:
            message: text, content parts, messages, or a list of them.
            config: settings that override the chat's ``config``.
            stream: return a ``StreamingResponse`` at once; an invalid request raises here, a
                failure of the generation raises while the stream is read.
            on_token: called with each piece that has text.
            stop_flag: ends the answer when signalled, from any thread.
            timeout: maximum seconds from this call to the end of the answer; after that the
                generation stops and ``GenerationError`` (code ``GENERATION_TIMEOUT``) is raised.
            settings: fields of ``GenerationConfig``, which override ``config``.

        Raises:
            ValidationError: an argument is unknown, of the wrong type or out of range.
            StateError: the chat or its client is closed, or the chat has an unfinished answer.
            GenerationError: the prompt does not fit the context, or the model failed. After the
                first piece, an ``EndpointError`` and the error of ``timeout`` have the partial
                answer in ``details["response"]``.
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
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
        **settings: Unpack[CallSettings],
    ) -> Response | StreamingResponse:
        """Answer the last user message again, or ``message`` in its place.

        Everything from that message on is replaced when the new answer ends. The other arguments
        are those of ``send``.

        Raises:
            StateError: there is no user message.
        """
        last, message = self._to_regenerate(message)
        draft = self._draft(
            message, config, settings, on_token=on_token, stop_flag=stop_flag, timeout=timeout
        )
        return self._answer(draft._replace(replaces=last), stream=stream)

    def close(self) -> None:
        """Stop an unfinished answer and close the chat; idempotent.

        The client stays open; a model that the chat owns is released.
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

    @overload
    def _answer(self, draft: Draft, *, stream: Literal[False]) -> Response: ...

    @overload
    def _answer(self, draft: Draft, *, stream: Literal[True]) -> StreamingResponse: ...

    @overload
    def _answer(self, draft: Draft, *, stream: bool) -> Response | StreamingResponse: ...

    def _answer(self, draft: Draft, *, stream: bool) -> Response | StreamingResponse:
        io, guard = SyncIO(partial(self._backend, draft.deadline, draft.stop_flag)), Guard()
        work = self._answered(draft, io, guard, presented, stream=check_boolean("stream", stream))
        return cast("Response | StreamingResponse", guard.run(work))
