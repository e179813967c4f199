"""Folds the events of one generation into tokens, text and conversation items.

This module is pure. Text is collected in lists and joined when it is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from talu.chat.items import (
    FunctionCallItem,
    Item,
    ItemStatus,
    MessageItem,
    MessageRole,
    OutputText,
    ReasoningItem,
    ReasoningText,
    checked_provider_data,
)
from talu.json_values import json_object
from talu.tools.calls import ToolRun
from talu.types import (
    Done,
    Event,
    FinishReason,
    ReasoningDelta,
    ReasoningEnd,
    Restart,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallEvent,
)

__all__ = ["Builder", "ReasoningPiece", "Token", "ToolCallPiece", "ToolRunPiece"]


class Token(str):
    """A piece of streamed text: a ``str`` with attributes of the token it came from.

    Attributes:
        id: id of the last token that ended in this piece, -1 when the backend does not report it.
        logprob: log-probability of that token, when log-probabilities were requested.
        is_special: the piece is the text of a special token.
        finish_reason: set only on the last piece of a stream, whose text is empty.
    """

    __slots__ = ("finish_reason", "id", "is_special", "logprob")

    id: int
    logprob: float | None
    is_special: bool
    finish_reason: FinishReason | None

    def __new__(
        cls,
        text: str = "",
        *,
        id: int = -1,
        logprob: float | None = None,
        is_special: bool = False,
        finish_reason: FinishReason | None = None,
    ) -> Self:
        """Make a piece of this text."""
        token = super().__new__(cls, text)
        token.id = id
        token.logprob = logprob
        token.is_special = is_special
        token.finish_reason = finish_reason
        return token

    def __repr__(self) -> str:
        known = [repr(self[:20] + "…" if len(self) > 20 else str(self))]
        if self.id >= 0:
            known.append(f"id={self.id}")
        if self.logprob is not None:
            known.append(f"logprob={self.logprob:.3f}")
        if self.finish_reason is not None:
            known.append(f"finish_reason={self.finish_reason.value!r}")
        return f"Token({', '.join(known)})"


class ReasoningPiece(Token):
    """A piece of reasoning in a stream. Its text is empty, so that joined pieces are the answer.

    Attributes:
        reasoning: the next piece of the model's reasoning.
    """

    __slots__ = ("reasoning",)

    reasoning: str

    @classmethod
    def of(cls, event: ReasoningDelta) -> Self:
        """The piece of an event."""
        piece = cls(id=event.tokens[-1] if event.tokens else -1)
        piece.reasoning = event.text
        return piece

    def __repr__(self) -> str:
        return f"ReasoningPiece({self.reasoning!r:.100})"


class ToolCallPiece(Token):
    """A piece of a tool call in a stream. Its text is empty, so that joined pieces are the answer.

    Attributes:
        call_id: the id of the call, which all its pieces have.
        name: the name of the tool.
        arguments: the next piece of the JSON text of the arguments.
        complete: whether it is the last piece of the call.
    """

    __slots__ = ("arguments", "call_id", "complete", "name")

    call_id: str
    name: str
    arguments: str
    complete: bool

    @classmethod
    def of(cls, event: ToolCallDelta | ToolCallEvent, arguments: str) -> Self:
        """The piece of an event, with this part of the arguments."""
        tokens = event.tokens if isinstance(event, ToolCallDelta) else ()
        piece = cls(id=tokens[-1] if tokens else -1)
        piece.call_id, piece.name, piece.arguments = event.call_id, event.name, arguments
        piece.complete = isinstance(event, ToolCallEvent)
        return piece

    def __repr__(self) -> str:
        end = ", complete" if self.complete else ""
        return f"ToolCallPiece({self.name!r}, arguments={self.arguments!r:.100}{end})"


class ToolRunPiece(Token):
    """Tells a stream that a tool call was carried out. Its text is empty.

    Attributes:
        run: the call, and what the model gets as its result.
    """

    __slots__ = ("run",)

    run: ToolRun

    @classmethod
    def of(cls, run: ToolRun) -> Self:
        """The piece of a run."""
        piece = cls()
        piece.run = run
        return piece

    def __repr__(self) -> str:
        return f"ToolRunPiece({self.run!r:.200})"


MAX_CALLS = 128  # of one answer
TOO_MANY = f"the answer has more than {MAX_CALLS} tool calls: those after them were left out"
RENAMED = "calls of the answer had no ids of their own, and got other ones"


@dataclass(slots=True)
class _Block:
    """A block of reasoning, and what its provider wants back with it."""

    texts: list[str] = field(default_factory=list)
    provider_data: Mapping[str, Any] | None = None
    ended: bool = False

    @property
    def text(self) -> str:
        return "".join(self.texts)


class Builder:
    """Collects an answer while it is generated.

    Attributes:
        tokens: ids of all sampled tokens, including reasoning tokens.
        logprobs: one entry per token, empty when none were requested.
        calls: tool calls in order of arrival.
        done: the last event of the stream, None before it arrives.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._texts: list[str] = []
        self._has_text = False
        self._call_ids: set[str] = set()
        self._notes: tuple[str, ...] = ()
        self._streamed: set[str] = set()  # ids of calls of which pieces have come, and not the end
        self._blocks: list[_Block] = []
        self.tokens: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        self.calls: list[ToolCallEvent] = []
        self.done: Done | None = None

    def add(self, event: Event) -> Token | None:
        """Add one event and return its piece of text, if it has one."""
        match event:
            case TextDelta():
                self._texts.append(event.text)
                self._has_text |= bool(event.text) and not event.echo
                self._count(event)
                return _piece(event) if event.text else None
            case ReasoningDelta():
                self._reason(event.text, event.provider)
                self._count(event)
                return ReasoningPiece.of(event) if event.text else None
            case ReasoningEnd():
                block = self._open_block()
                block.provider_data = checked_provider_data(event.provider_data)
                block.ended = True
                return None
            case ToolCallDelta():
                self._count(event)
                if self._is_too_many(event):
                    return None
                self._streamed.add(event.call_id)
                return ToolCallPiece.of(event, event.arguments)
            case ToolCallEvent():
                if self._is_too_many(event):
                    return None
                if event.provider_data is not None:
                    data = checked_provider_data(event.provider_data)
                    event = replace(event, provider_data=data)
                streamed = event.call_id in self._streamed
                self._streamed.discard(event.call_id)
                event = self._distinct(event)
                self.calls.append(event)
                return ToolCallPiece.of(event, "" if streamed else event.arguments)
            case Restart():
                self._reset()
                return None
            case Done():
                self.done = replace(event, notes=(*event.notes, *self._notes))
                return Token(finish_reason=event.finish_reason)

    def _is_too_many(self, event: ToolCallDelta | ToolCallEvent) -> bool:
        """Whether an event belongs to a call after as many as an answer may have."""
        known = event.call_id in self._streamed
        if known or len(self.calls) + len(self._streamed) < MAX_CALLS:
            return False
        self._note(TOO_MANY)
        return True

    def _note(self, note: str) -> None:
        if note not in self._notes:
            self._notes = (*self._notes, note)

    def _distinct(self, event: ToolCallEvent) -> ToolCallEvent:
        """The call, with another id if that of an earlier one is the same, or it is empty."""
        call_id, number = event.call_id, len(self.calls) + 1
        while not call_id or call_id in self._call_ids:
            self._note(RENAMED)
            call_id, number = f"{event.call_id or 'call'}_{number}", number + 1
        self._call_ids.add(call_id)
        return event if call_id == event.call_id else replace(event, call_id=call_id)

    @property
    def started(self) -> bool:
        """Whether any event has arrived."""
        return bool(self._texts or self._blocks or self._streamed or self.calls or self.done)

    @property
    def has_content(self) -> bool:
        """Whether any text, reasoning or tool call has arrived."""
        return bool(self.calls or self._blocks or any(self._texts))

    @property
    def has_output(self) -> bool:
        """Whether the model has generated anything; an echo of the prompt does not count."""
        called = self._streamed or self.calls
        return bool(self.tokens or called or self._has_text or self.reasoning)

    def _open_block(self) -> _Block:
        """The block of reasoning that has not ended, a new one if there is none."""
        if not self._blocks or self._blocks[-1].ended:
            self._blocks.append(_Block())
        return self._blocks[-1]

    def _reason(self, text: str, provider: str | None) -> None:
        block = self._open_block()
        block.texts.append(text)
        if provider is not None:
            block.provider_data = {"provider": provider}

    def _count(self, delta: TextDelta | ReasoningDelta | ToolCallDelta) -> None:
        self.tokens += delta.tokens
        self.logprobs += delta.logprobs

    @property
    def text(self) -> str:
        """The answer so far, without reasoning and tool calls."""
        return "".join(self._texts)

    @property
    def reasoning(self) -> str:
        """The reasoning so far."""
        return "".join(block.text for block in self._blocks)

    def items(self, status: ItemStatus, generation: Mapping[str, object]) -> tuple[Item, ...]:
        """The items of the answer: reasoning, message, calls; at least one."""
        items: list[Item] = [
            ReasoningItem(
                content=(ReasoningText(block.text),),
                status=status,
                provider_data=block.provider_data,
            )
            for block in self._blocks
            if block.ended or block.text
        ]
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
            FunctionCallItem(
                name=call.name,
                call_id=call.call_id,
                arguments=call.arguments,
                status=ItemStatus.INCOMPLETE if json_object(call.arguments) is None else status,
                provider_data=call.provider_data,
            )
            for call in self.calls
        ]
        return tuple(items)


def _piece(delta: TextDelta) -> Token:
    return Token(
        delta.text,
        id=delta.tokens[-1] if delta.tokens else -1,
        logprob=delta.logprobs[-1].logprob if delta.logprobs else None,
    )
