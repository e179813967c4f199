"""Anthropic's messages: answers become bodies and events.

https://docs.anthropic.com/en/api/messages-streaming. An answer is a list of blocks, of which a
stream has one open at a time.
"""

from collections.abc import Sequence
from typing import Any

from talu.chat.answer import Answer
from talu.chat.builder import ReasoningPiece, Token, ToolCallPiece
from talu.json_values import json_object
from talu.server.encoders import Event, Head, about
from talu.server.failures import Failure, anthropic_error
from talu.types import FinishReason, Usage

__all__ = ["MessagesEncoder"]

REASONS = {
    FinishReason.STOP: "end_turn",
    FinishReason.TOOL_CALLS: "tool_use",
    FinishReason.CONTENT_FILTER: "refusal",
}
THINKING, TEXT = "thinking", "text"  # blocks; that of a call is open under the id of the call


class MessagesEncoder:
    """Encodes the answer to a request, whole or in pieces."""

    def __init__(self, max_tokens: int, head: Head) -> None:
        """Prepare it; ``max_tokens`` is the limit of the request."""
        self._max_tokens = max_tokens
        self._head = head
        self._blocks = 0  # that have begun
        self._open: str | None = None
        self._calls: dict[str, list[ToolCallPiece]] = {}  # pieces that wait for their block
        self._begun = False

    def whole(self, answers: Sequence[Answer[Any]]) -> dict[str, Any]:
        """The body of the whole answer."""
        (answer,) = answers
        content: list[dict[str, Any]] = []
        if answer.reasoning is not None:
            content.append({"type": THINKING, "thinking": answer.reasoning, "signature": ""})
        if answer.text:
            content.append({"type": TEXT, "text": answer.text})
        for call in answer.tool_calls or ():
            given = json_object(call.arguments)
            # The protocol wants an object; text that was cut off is kept inside one.
            given = {"arguments": call.arguments} if given is None else given
            content.append({"type": "tool_use", "id": call.id, "name": call.name, "input": given})
        return self._message(content, self._end(answer), usage_of(answer.usage)) | {
            "talu": about(answer)
        }

    def _message(
        self, content: list[Any], end: dict[str, Any], usage: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "id": f"msg_{self._head.id}",
            "type": "message",
            "role": "assistant",
            "model": self._head.model,
            "content": content,
            **end,
            "usage": usage,
        }

    def _end(self, answer: Answer[Any]) -> dict[str, Any]:
        """Why an answer has ended."""
        stop = answer.stop_sequence
        if answer.finish_reason is FinishReason.LENGTH:
            usage = answer.usage or Usage()
            full = (usage.completion_tokens or self._max_tokens) < self._max_tokens
            reason = "model_context_window_exceeded" if full else "max_tokens"
        else:
            reason = REASONS[answer.finish_reason or FinishReason.STOP]
        reason = "stop_sequence" if stop is not None and reason == "end_turn" else reason
        return {"stop_reason": reason, "stop_sequence": stop}

    def piece(self, index: int, piece: Token, answer: Answer[Any]) -> list[Event]:
        """The events of a piece of the answer."""
        events = [] if self._begun else [self._start()]
        self._begun = True
        match piece:
            case ReasoningPiece():
                events += self._delta(
                    THINKING, {"type": "thinking_delta", "thinking": piece.reasoning}
                )
            case ToolCallPiece():
                events += self._call(piece)
            case _ if piece:
                events += self._delta(TEXT, {"type": "text_delta", "text": str(piece)})
        return events

    def _start(self) -> Event:
        end = {"stop_reason": None, "stop_sequence": None}
        # The counts come with the last event: nothing is known of them before.
        message = self._message([], end, usage_of(Usage(0, 0, 0)))
        return Event({"type": "message_start", "message": message}, "message_start")

    def _delta(self, block: str, delta: dict[str, Any]) -> list[Event]:
        """A delta of the block of text or reasoning, which is begun if it is not open."""
        empty = {"type": block, block: ""} | ({"signature": ""} if block == THINKING else {})
        opened = [] if self._open == block else [*self._stop(), self._begin(block, empty)]
        return [*opened, self._change(delta)]

    def _call(self, piece: ToolCallPiece) -> list[Event]:
        """The events of a piece of a call; those of another call wait until the open one ends."""
        self._calls.setdefault(piece.call_id, []).append(piece)
        events: list[Event] = []
        while self._calls:
            call_id, pieces = next(iter(self._calls.items()))
            if self._open != call_id and pieces:
                use = {"type": "tool_use", "id": call_id, "name": pieces[0].name, "input": {}}
                events += [*self._stop(), self._begin(call_id, use)]
            events += [
                self._change({"type": "input_json_delta", "partial_json": each.arguments})
                for each in pieces
                if each.arguments
            ]
            if not (pieces and pieces[-1].complete):
                pieces.clear()
                break
            del self._calls[call_id]
        return events

    def _begin(self, key: str, block: dict[str, Any]) -> Event:
        self._open = key
        self._blocks += 1
        event = {"type": "content_block_start", "index": self._blocks - 1, "content_block": block}
        return Event(event, "content_block_start")

    def _change(self, delta: dict[str, Any]) -> Event:
        event = {"type": "content_block_delta", "index": self._blocks - 1, "delta": delta}
        return Event(event, "content_block_delta")

    def _stop(self) -> list[Event]:
        """End the open block."""
        if self._open is None:
            return []
        self._open = None
        event = {"type": "content_block_stop", "index": self._blocks - 1}
        return [Event(event, "content_block_stop")]

    def end(self, answers: Sequence[Answer[Any]]) -> list[Event]:
        """The events after the last piece."""
        (answer,) = answers
        delta = {
            "type": "message_delta",
            "delta": self._end(answer),
            "usage": usage_of(answer.usage),
            "talu": about(answer),
        }
        stop = Event({"type": "message_stop"}, "message_stop")
        return [*self._stop(), Event(delta, "message_delta"), stop]

    def failed(self, failure: Failure) -> list[Event]:
        """The last event of a stream that breaks."""
        return [Event(anthropic_error(failure), "error")]


def usage_of(usage: Usage | None) -> dict[str, Any]:
    """The token counts; those of the prompt that came from the cache are not input tokens."""
    usage = usage or Usage()
    given = usage.prompt_tokens
    if given is not None:
        given -= usage.cached_tokens or 0
    return {
        "input_tokens": given,
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": usage.completion_tokens,
    }
