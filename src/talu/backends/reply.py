"""Converts the text of a local model to events: answer, reasoning and tool calls.

A tool call is a JSON object with a name and arguments, as in the Hermes models. Anything else is
text.
"""

import json
from collections.abc import Callable, Iterator

from talu.engine.ticket import Piece
from talu.first_use import loaded
from talu.template.regions import Kind, RegionParser
from talu.types import Event, ReasoningDelta, TextDelta, TokenLogprob, ToolCallEvent

__all__ = ["ChatReply", "RawReply", "parse_tool_call"]


class RawReply:
    """Passes text through, for prompts without a template."""

    notes: tuple[str, ...] = ()
    called = False

    def add(self, piece: Piece) -> list[Event]:
        """The events of one piece."""
        return [TextDelta(piece.text, piece.tokens, piece.logprobs)]

    def finish(self) -> list[Event]:
        """No events, because no text is held back."""
        return []


class ChatReply:
    """Splits text into regions.

    Attributes:
        called: whether the model called a tool.
        notes: unusable parts of the model's reply.
    """

    def __init__(
        self,
        *,
        in_reasoning: bool,
        with_tools: bool,
        tag_text: Callable[[str], str] = str,
        mark: str = "",
    ) -> None:
        """Start a reply.

        Args:
            in_reasoning: the prompt ends with an open ``<think>``.
            with_tools: tools were offered; otherwise tool calls are text.
            tag_text: the text of a tag in the pieces.
            mark: a character in front of some tags that is not part of the text.
        """
        self.called = False
        self.notes: tuple[str, ...] = ()
        self._parser = RegionParser(
            in_reasoning,
            is_call=self._is_call if with_tools else None,
            tag_text=tag_text,
            mark=mark,
        )
        self._kind: Kind = "reasoning" if in_reasoning else "text"

    def add(self, piece: Piece) -> list[Event]:
        """The events of one piece; the first one that can hold tokens has its tokens."""
        parts = self._parser.push(piece.text)
        return list(self._events(parts, piece.tokens, piece.logprobs))

    def finish(self) -> list[Event]:
        """The events of the text that was held back."""
        return list(self._events(self._parser.finish(), (), ()))

    def _events(
        self,
        parts: list[tuple[Kind, str]],
        tokens: tuple[int, ...],
        logprobs: tuple[TokenLogprob, ...],
    ) -> Iterator[Event]:
        for kind, text in parts:
            self._kind = kind
            if kind == "tool_call":
                call = f"call_{loaded('uuid', 'uuid4')().hex}"
                yield ToolCallEvent(call, *(parse_tool_call(text) or ("", "")))
                continue
            yield _delta(kind, text, tokens, logprobs)
            tokens, logprobs = (), ()
        if tokens:
            yield _delta(self._kind, "", tokens, logprobs)

    def _is_call(self, body: str) -> bool:
        if parse_tool_call(body) is not None:
            self.called = True
            return True
        note = (
            "a <tool_call> of the model is not a JSON object with a name and arguments: it is text"
        )
        self.notes = (*self.notes, note)
        return False


def parse_tool_call(body: str) -> tuple[str, str] | None:
    """Name of the tool and JSON text of the arguments, as written; None if it is not a call."""
    try:
        call = json.loads(body)
        texts = dict(_members(body)) if isinstance(call, dict) else {}
    except (ValueError, RecursionError):
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str) or not call["name"]:
        return None
    if not isinstance(call.get("arguments", {}), dict):
        return None
    return call["name"], texts.get("arguments", "{}")


def _members(text: str) -> Iterator[tuple[str, str]]:
    """Keys of a valid JSON object, each with the text of its value."""
    decode = json.JSONDecoder().raw_decode
    position = _skip(text, text.index("{") + 1)
    while text[position] != "}":
        key, position = decode(text, position)
        start = _skip(text, position)
        _, position = decode(text, start)
        yield key, text[start:position]
        position = _skip(text, position)


def _skip(text: str, position: int) -> int:
    """The next position that is neither white space nor a colon or comma."""
    while text[position] in " \t\r\n:,":
        position += 1
    return position


def _delta(
    kind: Kind, text: str, tokens: tuple[int, ...], logprobs: tuple[TokenLogprob, ...]
) -> TextDelta | ReasoningDelta:
    delta = ReasoningDelta if kind == "reasoning" else TextDelta
    return delta(text, tokens, logprobs)
