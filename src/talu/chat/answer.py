"""The base classes of all responses, and the outcome of a turn, which they present."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, Self, TypeVar
from weakref import ref

from talu.chat.builder import Builder
from talu.chat.fields import ResultFields, answered_by
from talu.chat.items import ContentPart, Item, OutputText
from talu.exceptions import StateError
from talu.other_names import no_attribute
from talu.types import Attempt, FinishReason, Timings, Usage

__all__ = ["Answer", "ChatT", "Latest", "Outcome", "WholeAnswer"]

T = TypeVar("T")


class Continuable(Protocol):
    """A chat, as an answer sees it."""

    def _ending_with(self, past: Sequence[Item]) -> Self:
        """This chat if its history ends with the last of these items, else a fork that does."""


ChatT = TypeVar("ChatT", bound=Continuable)


@dataclass(slots=True, kw_only=True, eq=False, weakref_slot=True)
class Outcome(Generic[ChatT]):
    """The state of a turn.

    Attributes:
        chat: the chat of the turn, None for a raw completion.
        model: the name of the model or the policy that was asked.
        answer: the response that presents this turn; a whole one once the text is complete.
        past: the history up to and including this turn; empty before the commit.
        finish_reason: None until the turn has ended, and when it failed without a partial answer.
    """

    chat: ChatT | None
    model: str
    builder: Builder = field(default_factory=Builder)
    answer: "Answer[ChatT] | None" = None
    past: tuple[Item, ...] = ()
    finish_reason: FinishReason | None = None
    ended: bool = False

    def without_chat(self) -> "Outcome[ChatT]":
        """A copy without the chat and its history."""
        return self.of_chat(None)

    def of_chat(self, chat: ChatT | None) -> "Outcome[ChatT]":
        """A copy for this chat; without a chat it has no history either."""
        return Outcome(
            chat=chat,
            model=self.model,
            builder=self.builder,
            past=() if chat is None else self.past,
            finish_reason=self.finish_reason,
            ended=self.ended,
        )


class Answer(ResultFields, Generic[ChatT]):
    """Base of all answers. Before a stream has ended, its attributes show what has arrived."""

    _turn: Outcome[ChatT]

    def __init__(self, turn: Outcome[ChatT]) -> None:
        self._turn = turn
        self._content: list[ContentPart] | None = None
        turn.answer = self

    @property
    def chat(self) -> ChatT | None:
        """The chat that this answer belongs to; None for a raw completion and for a copy."""
        return self._turn.chat

    @property
    def content(self) -> list[ContentPart]:
        """The text as content parts; once the answer has ended, always the same list."""
        if self._content is None or not self._turn.ended:
            self._content = [OutputText(self._turn.builder.text)]
        return self._content

    def __repr__(self) -> str:
        text = self._turn.builder.text
        shown = [repr(text[:50] + "…" if len(text) > 50 else text)]
        if self.model is not None:
            shown.append(f"model={self.model!r}")
        done = self._turn.builder.done
        if done is not None and done.usage.total_tokens is not None:
            shown.append(f"total_tokens={done.usage.total_tokens}")
        shown += self._state()
        return f"{type(self).__name__}({', '.join(shown)})"

    def _state(self) -> list[str]:
        return []

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """The representation in a notebook: the text, or the state when there is no text yet."""
        text = self._displayed()
        page = f'<pre style="white-space: pre-wrap">{escape(text)}</pre>'
        return {"text/plain": text, "text/html": page}

    def _displayed(self) -> str:
        return self._turn.builder.text

    if not TYPE_CHECKING:  # a type checker would take any name for granted

        def __getattr__(self, name: str) -> NoReturn:
            raise no_attribute(self, name)

    def _set_attempts(self, attempts: tuple[Attempt, ...]) -> None:
        """Name the models that were asked together with this one."""
        model = answered_by(self._turn)
        if (done := self._turn.builder.done) is not None:
            self._turn.builder.done = replace(done, attempts=attempts, model=model)

    def _add_note(self, note: str) -> None:
        if (done := self._turn.builder.done) is not None:
            self._turn.builder.done = replace(done, notes=(*done.notes, note))

    def _detach(self) -> None:
        """Drop the reference to the chat, whose client is closed."""
        self._turn.chat = None

    def _chat_to_continue(self) -> ChatT:
        """The chat itself if this is its latest answer, otherwise a fork that ends with it."""
        turn = self._turn
        if turn.chat is None:
            raise StateError(
                "this answer does not belong to a chat, because it is a one-shot or a copy: "
                "continue an answer of client.chat() or client.ask()",
                "STATE_NO_CHAT",
            )
        if not turn.past:
            raise StateError("this answer failed or was never read: there is nothing to continue")
        return turn.chat._ending_with(turn.past)


class WholeAnswer(Answer[ChatT], str):
    """A complete answer: a ``str`` with attributes that describe its generation.

    It is not iterable, so that a forgotten ``stream=True`` is noticed; ``text`` is a plain ``str``.
    """

    def __new__(cls, turn: Outcome[ChatT]) -> Self:
        """Wrap a turn that has ended, so that its text no longer changes."""
        return str.__new__(cls, turn.builder.text)

    @classmethod
    def of(cls, turn: Outcome[ChatT]) -> Self:
        """The answer of this turn, created now unless the turn already has one.

        The turn drops its reference, so that there is no reference cycle.
        """
        answer = turn.answer if isinstance(turn.answer, cls) else cls(turn)
        turn.answer = None
        return answer

    def __iter__(self) -> NoReturn:
        raise TypeError(
            "a whole answer is not iterable: ask with stream=True to read it in pieces, or take "
            "the characters of its text"
        )

    def __contains__(self, part: Any) -> bool:
        return (part.text if isinstance(part, Answer) else part) in self.text

    def __copy__(self) -> Self:
        return self  # immutable

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._turn.without_chat(),)

    @property
    def finish_reason(self) -> FinishReason:
        """Why the answer ended."""
        return self._known(self._turn.finish_reason)

    @property
    def usage(self) -> Usage:
        """Token counts."""
        return self._known(super().usage)

    @property
    def timings(self) -> Timings:
        """Durations."""
        return self._known(super().timings)

    def _known(self, value: T | None) -> T:
        """The value, which only a failed or interrupted answer may lack."""
        if value is None:
            raise StateError(
                "this answer failed or was interrupted before the model reported how it ended"
            )
        return value


class Latest:
    """The latest answer of a chat.

    An answer refers to its chat. To avoid a reference cycle, the chat keeps only the outcome of a
    complete answer, and creates the answer again if nothing else refers to it.
    """

    def __init__(self) -> None:
        self._answer: Answer[Any] | None = None
        self._complete: tuple[ref[Answer[Any]], Outcome[Any]] | None = None

    def set(self, answer: Answer[Any] | None) -> None:
        """Replace the latest answer."""
        self._answer, self._complete = answer, None
        self.loosen()

    def get(self, chat: Any, whole: type["WholeAnswer[Any]"]) -> Answer[Any] | None:
        """The latest answer; a stream that nothing else refers to is returned as a whole answer."""
        if self._complete is None:
            return self._answer
        reference, outcome = self._complete
        answer = reference()
        if answer is None:
            answer = whole(outcome.of_chat(chat))
            self._complete = ref(answer), outcome
        return answer

    def loosen(self) -> None:
        """Release a complete answer, keeping only its outcome."""
        if (answer := self._answer) is None:
            return
        turn = answer._turn
        if turn.ended and turn.past and turn.builder.done is not None:
            outcome = turn.of_chat(None)
            outcome.past = turn.past
            self._complete, self._answer = (ref(answer), outcome), None
