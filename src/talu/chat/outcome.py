"""The state of a turn, and what it has produced: all that an answer refers to."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

from talu.chat.builder import Builder
from talu.chat.items import Item
from talu.types import FinishReason

if TYPE_CHECKING:  # loaded when an answer is asked to have a form
    from talu.structured.formats import ResponseFormat

__all__ = ["ChatT", "Outcome", "State"]


class Continuable(Protocol):
    """A chat, as an answer sees it."""

    def _ending_with(self, past: Sequence[Item]) -> Self:
        """This chat if its history ends with the last of these items, else a fork that does."""


ChatT = TypeVar("ChatT", bound=Continuable)


class State(Enum):
    """How far a turn is; it goes through some of these states, in this order."""

    STARTING = "its model is being opened"
    UNREAD = "it has started, and no piece was read"
    READING = "its first piece was asked for"
    ENDING = "its end is decided, and is being stored and reported"
    FINISHED = "the model has finished"
    CANCELLED = "it was cancelled; what had been read was kept"
    SUPERSEDED = "it was cancelled unread, because its chat was used or edited again"
    FAILED = "it failed"


ENDED = (State.FINISHED, State.CANCELLED, State.SUPERSEDED, State.FAILED)


@dataclass(slots=True, kw_only=True, eq=False)
class Outcome(Generic[ChatT]):
    """What a turn has produced so far.

    Attributes:
        chat: the chat of the turn, None if it has none.
        model: the name of the model or the policy that was asked.
        rounds: what each round of the turn has built; the last one may still grow.
        state: how far the turn is.
        finish_reason: None until the end is decided, and when it failed without a partial answer.
        past: the history up to and including the turn; empty before the commit.
        form: the form that the answer was asked to have.
    """

    chat: ChatT | None
    model: str
    rounds: list[Builder] = field(default_factory=lambda: [Builder()])
    state: State = State.STARTING
    finish_reason: FinishReason | None = None
    past: tuple[Item, ...] = ()
    form: "ResponseFormat | None" = None

    @property
    def builder(self) -> Builder:
        """What the latest round has built."""
        return self.rounds[-1]

    @property
    def unread(self) -> bool:
        """Whether the turn has started and no piece was read."""
        return self.state is State.UNREAD

    @property
    def ended(self) -> bool:
        """Whether nothing changes any more."""
        return self.state in ENDED

    @property
    def answered_by(self) -> str:
        """The name, in the client, of the model that answered: of a policy's, the chosen one."""
        done = self.builder.done
        return done.model if done is not None and done.attempts else self.model

    def of_chat(self, chat: ChatT | None) -> "Outcome[ChatT]":
        """A copy for this chat; without a chat it has no history either."""
        return Outcome(
            chat=chat,
            model=self.model,
            rounds=self.rounds,
            state=self.state,
            finish_reason=self.finish_reason,
            past=() if chat is None else self.past,
            form=self.form,
        )
