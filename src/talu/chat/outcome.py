"""What an answer shows of its turn, during and after it.

Knows no backend, no store and no observer, so that it is a value once the turn has ended.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from talu.chat.builder import Builder
from talu.chat.items import Item
from talu.types import FinishReason

if TYPE_CHECKING:
    from talu.chat.answer import Answer
    from talu.chat.conversation import Conversation

__all__ = ["ChatT", "Outcome"]

ChatT = TypeVar("ChatT", bound="Conversation")


@dataclass(slots=True, kw_only=True, eq=False)
class Outcome(Generic[ChatT]):
    """What has come of a turn.

    Attributes:
        chat: whose turn it is, None for a raw completion.
        model: the model's name until the backend tells its own.
        answer: the response that shows this turn.
        past: the history up to and including this turn; empty before the commit.
        finish_reason: None until the turn has ended, and when it failed.
    """

    chat: ChatT | None
    model: str
    builder: Builder = field(default_factory=Builder)
    answer: "Answer[ChatT] | None" = None
    past: tuple[Item, ...] = ()
    finish_reason: FinishReason | None = None
    ended: bool = False

    def alone(self) -> "Outcome[ChatT]":
        """The same without the chat and its history."""
        return Outcome(
            chat=None,
            model=self.model,
            builder=self.builder,
            finish_reason=self.finish_reason,
            ended=self.ended,
        )
