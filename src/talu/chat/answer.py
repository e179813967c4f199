"""The base classes of all responses, which present the outcome of a turn."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar
from weakref import ref

from talu.chat.fields import ResultFields
from talu.chat.items import ContentPart, OutputText
from talu.chat.outcome import ChatT, Outcome
from talu.exceptions import StateError
from talu.first_use import loaded
from talu.other_names import no_attribute
from talu.types import Attempt, FinishReason, Timings, Usage

__all__ = ["Answer", "Latest", "WholeAnswer"]

T = TypeVar("T")


class Answer(ResultFields, Generic[ChatT]):
    """Base of all answers. Before a stream has ended, its attributes show what has arrived."""

    _outcome: Outcome[ChatT]

    def __init__(self, outcome: Outcome[ChatT]) -> None:
        self._outcome = outcome
        self._content: list[ContentPart] | None = None

    @property
    def chat(self) -> ChatT | None:
        """The chat that this answer belongs to; None for a raw completion and for a copy."""
        return self._outcome.chat

    @property
    def content(self) -> list[ContentPart]:
        """The text as content parts; once the answer has ended, always the same list."""
        if self._content is None or not self._outcome.ended:
            self._content = [OutputText(self._outcome.builder.text)]
        return self._content

    def __repr__(self) -> str:
        text = self._outcome.builder.text
        shown = [repr(text[:50] + "…" if len(text) > 50 else text)]
        if self.model is not None:
            shown.append(f"model={self.model!r}")
        usage = self._outcome.usage
        if usage is not None and usage.total_tokens is not None:
            shown.append(f"total_tokens={usage.total_tokens}")
        shown += self._state()
        return f"{type(self).__name__}({', '.join(shown)})"

    def _state(self) -> list[str]:
        return []

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """The representation in a notebook: the text, or the state when there is no text yet."""
        text = self._displayed()
        page = f'<pre style="white-space: pre-wrap">{loaded("html", "escape")(text)}</pre>'
        return {"text/plain": text, "text/html": page}

    def _displayed(self) -> str:
        return self._outcome.builder.text

    if not TYPE_CHECKING:  # a type checker would take any name for granted

        def __getattr__(self, name: str) -> NoReturn:
            raise no_attribute(self, name)

    def _set_attempts(self, attempts: tuple[Attempt, ...]) -> None:
        """Name the models that were asked together with this one."""
        builder = self._outcome.builder
        if builder.done is not None:
            model = self._outcome.answered_by
            builder.done = replace(builder.done, attempts=attempts, model=model)

    def _add_note(self, note: str) -> None:
        builder = self._outcome.builder
        if builder.done is not None:
            builder.done = replace(builder.done, notes=(*builder.done.notes, note))

    def _detach(self) -> None:
        """Drop the reference to the chat, whose client is closed."""
        self._outcome.chat = None

    def _chat_to_continue(self, *, results: bool = False) -> ChatT:
        """The chat itself if this is its latest answer, otherwise a fork that ends with it.

        Args:
            results: also if results of its calls follow the answer.
        """
        outcome = self._outcome
        if outcome.chat is None:
            raise StateError(
                "this answer does not belong to a chat, because it is a one-shot or a copy: "
                "continue an answer of client.chat() or client.ask()",
                "STATE_NO_CHAT",
            )
        if not outcome.past:
            raise StateError("this answer failed or was never read: there is nothing to continue")
        return outcome.chat._ending_with(outcome.past, results=results)


class WholeAnswer(Answer[ChatT], str):
    """A complete answer: a ``str`` with attributes that describe its generation.

    It is not iterable, so that a forgotten ``stream=True`` is noticed; ``text`` is a plain ``str``.
    """

    def __new__(cls, outcome: Outcome[ChatT]) -> Self:
        """Wrap the outcome of a turn that has ended, so that its text no longer changes."""
        return str.__new__(cls, outcome.builder.text)

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
        return type(self), (self._outcome.for_copies(),)

    @property
    def finish_reason(self) -> FinishReason:
        """Why the answer ended."""
        return self._known(self._outcome.finish_reason)

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

    @property
    def outcome(self) -> Outcome[Any] | None:
        """What the latest turn has produced."""
        if self._complete is not None:
            return self._complete[1]
        return None if self._answer is None else self._answer._outcome

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
        outcome = answer._outcome
        if outcome.ended and outcome.past and outcome.builder.done is not None:
            past, outcome = outcome.past, outcome.of_chat(None)
            outcome.past = past
            self._complete, self._answer = (ref(answer), outcome), None
