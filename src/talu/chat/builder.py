"""Folds the events of one generation into what answer and history are made of.

Pure: values in, values out. Text is collected in lists and joined when it is read.
"""

from collections.abc import Mapping

from talu.chat.items import (
    FunctionCallItem,
    Item,
    ItemStatus,
    MessageItem,
    MessageRole,
    OutputText,
    ReasoningItem,
    ReasoningText,
)
from talu.chat.token import Token
from talu.types import Done, Event, ReasoningDelta, TextDelta, TokenLogprob, ToolCallEvent

__all__ = ["Builder"]


class Builder:
    """What has come of an answer so far.

    Attributes:
        tokens: ids of all sampled tokens, reasoning included.
        logprobs: one entry a token, empty when none were asked for.
        calls: calls of tools in the order in which they came.
        done: the last event of the stream, None before it came.
    """

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self.tokens: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        self.calls: list[ToolCallEvent] = []
        self.done: Done | None = None

    def add(self, event: Event) -> Token | None:
        """Take one event; gives the piece to show, if the event has one."""
        match event:
            case TextDelta():
                self._texts.append(event.text)
                self._count(event)
                return _piece(event) if event.text else None
            case ReasoningDelta():
                self._thoughts.append(event.text)
                self._count(event)
                return None
            case ToolCallEvent():
                self.calls.append(event)
                return None
            case Done():
                self.done = event
                return Token(finish_reason=event.finish_reason)

    @property
    def begun(self) -> bool:
        """Whether anything has come."""
        return bool(self._texts or self._thoughts or self.calls or self.done)

    def _count(self, delta: TextDelta | ReasoningDelta) -> None:
        self.tokens += delta.tokens
        self.logprobs += delta.logprobs

    @property
    def text(self) -> str:
        """The answer so far, without reasoning and tool calls."""
        return "".join(self._texts)

    @property
    def reasoning(self) -> str:
        """What the model thought so far."""
        return "".join(self._thoughts)

    def items(self, status: ItemStatus, generation: Mapping[str, object]) -> tuple[Item, ...]:
        """The items of the answer: reasoning, message, calls; never none at all."""
        items: list[Item] = []
        if self.reasoning:
            items.append(ReasoningItem(content=(ReasoningText(self.reasoning),), status=status))
        if self.text or not self.calls:
            content = (OutputText(self.text),)
            items.append(
                MessageItem(
                    role=MessageRole.ASSISTANT,
                    content=content,
                    status=status,
                    generation=generation,
                )
            )
        items += [
            FunctionCallItem(name=call.name, call_id=call.call_id, arguments=call.arguments)
            for call in self.calls
        ]
        return tuple(items)


def _piece(delta: TextDelta) -> Token:
    return Token(
        delta.text,
        id=delta.tokens[-1] if delta.tokens else -1,
        logprob=delta.logprobs[-1].logprob if delta.logprobs else None,
    )
