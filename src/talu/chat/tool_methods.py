"""Adds to chats and answers what goes on after tool calls, for sync and async callers alike."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, Literal, TypeVar, Unpack, overload

from talu.chat.answer import Answer
from talu.chat.answering import Answering, Draft
from talu.chat.outcome import ChatT
from talu.chat.turn import OnToken
from talu.config import GenerationConfig
from talu.tools.use import CallSettings
from talu.types import StopFlag

__all__ = ["ToolAnswer", "ToolChat"]

WholeT = TypeVar("WholeT")  # a whole answer, or an awaitable of one
StreamT = TypeVar("StreamT")


class ToolChat(Answering, Generic[WholeT, StreamT]):
    """The base of chats, whose open tool calls can be answered and carried out."""

    @overload
    def resume(
        self,
        config: GenerationConfig | None = None,
        *,
        stream: Literal[False] = False,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[CallSettings],
    ) -> WholeT: ...

    @overload
    def resume(
        self,
        config: GenerationConfig | None = None,
        *,
        stream: Literal[True],
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[CallSettings],
    ) -> StreamT: ...

    def resume(
        self,
        config: GenerationConfig | None = None,
        *,
        stream: bool = False,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[CallSettings],
    ) -> WholeT | StreamT:
        """Go on where the history ends: carry out the open tool calls, and ask the model.

        Also for a chat that was stored with open calls, with results that the model has not seen,
        or with a question that has no answer, because its process ended. ``max_rounds`` counts
        from here. Settings and tools are those of the latest answer of this object, if the history
        ends with it, and of the chat otherwise.

        Args:
            config: settings that override those.
            stream: as in ``send``; also the following arguments.
            on_token: as above.
            stop_flag: as above.
            timeout: as above.
            settings: as above; ``approve`` decides about the open calls.

        Raises:
            ValidationError: an argument is wrong, or the history ends with an answer.
            StateError: the chat is closed, or has an unfinished answer.
        """
        draft = self._continued(
            config, settings, on_token=on_token, stop_flag=stop_flag, timeout=timeout
        )
        answer: WholeT | StreamT = self._answer(self._resuming(draft), stream=stream)
        return answer

    @overload
    def submit_tool_results(
        self,
        results: Mapping[str, Any],
        config: GenerationConfig | None = None,
        *,
        stream: Literal[False] = False,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[CallSettings],
    ) -> WholeT: ...

    @overload
    def submit_tool_results(
        self,
        results: Mapping[str, Any],
        config: GenerationConfig | None = None,
        *,
        stream: Literal[True],
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[CallSettings],
    ) -> StreamT: ...

    def submit_tool_results(
        self,
        results: Mapping[str, Any],
        config: GenerationConfig | None = None,
        *,
        stream: bool = False,
        on_token: OnToken | None = None,
        stop_flag: StopFlag | None = None,
        timeout: float | None = None,
        **settings: Unpack[CallSettings],
    ) -> WholeT | StreamT:
        """Give the model the results of all open tool calls, and get its answer.

        The results are in the history, and stored, before the model is asked: if that fails,
        ``resume`` asks again.

        Args:
            results: for the id of each open call a text, a value that can be written as JSON, or an
                exception, which tells the model that the call failed.
            config: settings that override those of the answer with the calls.
            stream: as in ``send``; also the following arguments.
            on_token: as above.
            stop_flag: as above.
            timeout: as above.
            settings: as above.

        Raises:
            ValidationError: an id is not that of an open call, its call has a result already, or
                the result of an open call is missing. The chat is as it was.
            ToolExecutionError: a result has no JSON form.
        """
        draft = self._continued(
            config, settings, on_token=on_token, stop_flag=stop_flag, timeout=timeout
        )
        answer: WholeT | StreamT = self._answer(self._with_results(draft, results), stream=stream)
        return answer

    @abstractmethod
    def _answer(self, draft: Draft, *, stream: Any) -> Any:
        """The answer to a draft, or an awaitable of it."""


class ToolAnswer(Answer[ChatT], Generic[ChatT, WholeT]):
    """The base of answers, whose tool calls can be answered."""

    def submit_tool_results(
        self,
        results: Mapping[str, Any],
        config: GenerationConfig | None = None,
        **settings: Unpack[CallSettings],
    ) -> WholeT:
        """Give the model the results of all calls in ``tool_calls``, and get its answer.

        The tools and the settings are those of this answer. It continues the chat if this is its
        latest answer, and otherwise a fork, as ``append`` does. ``submit_tool_results`` of the chat
        also streams.

        Args:
            results: for the id of each call a text, a value that can be written as JSON, or an
                exception, which tells the model that the call failed.
            config: settings that override those of this answer.
            settings: as above; also ``tools`` and the like.

        Raises:
            ValidationError: an id is not that of an open call, its call has a result already, or
                the result of an open call is missing. The chat is as it was.
            ToolExecutionError: a result has no JSON form.
            StateError: the answer does not belong to a chat, or it failed.
        """
        chat: Any = self._chat_to_continue(results=True)
        draft = chat._continued(config, settings, outcome=self._outcome)
        answer: WholeT = chat._answer(chat._with_results(draft, results), stream=False)
        return answer

    def submit_tool_result(
        self,
        call_id: str,
        result: Any,
        config: GenerationConfig | None = None,
        **settings: Unpack[CallSettings],
    ) -> WholeT:
        """Give the result of one call; the model is asked once all calls have a result.

        Until then the result is kept in the chat, and this answer is returned.

        Args:
            call_id: the id of the call.
            result: as in ``submit_tool_results``; also the other arguments and the errors.
            config: as above.
            settings: as above.
        """
        chat: Any = self._chat_to_continue(results=True)
        draft = chat._continued(config, settings, outcome=self._outcome)
        if not chat._add_results({call_id: result}):
            same: WholeT = self._unchanged()
            return same
        answer: WholeT = chat._answer(chat._resuming(draft), stream=False)
        return answer

    @abstractmethod
    def _unchanged(self) -> Any:
        """This answer, or an awaitable of it."""
