"""Converts the text of a local model to events: answer, reasoning and tool calls."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from talu.engine.ticket import Piece
from talu.first_use import loaded
from talu.tool_formats.reader import Read, Reader
from talu.types import (
    Event,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallEvent,
)

if TYPE_CHECKING:  # loaded for models that write it
    from talu.tool_formats.harmony import HarmonyReader

__all__ = ["ChatReply", "RawReply"]

ID_LENGTH = 9  # as Mistral's templates demand; others take any


class RawReply:
    """Passes text through, for prompts without a template."""

    notes: tuple[str, ...] = ()
    called = False

    def add(self, piece: Piece) -> list[Event]:
        """The events of one piece."""
        return [TextDelta(piece.text, piece.tokens, piece.logprobs)]

    def finish(self, *, cut: bool = False) -> list[Event]:
        """No events, because no text is held back."""
        return []


class ChatReply:
    """Makes events of what a reader finds.

    Attributes:
        called: whether the model called a tool.
    """

    def __init__(self, reader: "Reader | HarmonyReader") -> None:
        """Start an answer that this reader splits."""
        self.called = False
        self._reader = reader
        self._call = ("", "")  # id and name of the call that is being written
        self._arguments: list[str] = []

    @property
    def notes(self) -> tuple[str, ...]:
        """Unusable parts of the model's reply."""
        return self._reader.notes

    def add(self, piece: Piece) -> list[Event]:
        """The events of one piece; the first one that can hold tokens has its tokens."""
        parts = self._reader.push(piece.text)
        return list(self._events(parts, piece.tokens, piece.logprobs))

    def finish(self, *, cut: bool = False) -> list[Event]:
        """The events of the text that was held back; ``cut`` if not the model ended the answer."""
        return list(self._events(self._reader.finish(cut=cut), (), ()))

    def _events(
        self, parts: list[Read], tokens: tuple[int, ...], logprobs: tuple[TokenLogprob, ...]
    ) -> Iterator[Event]:
        for kind, text in parts:
            if kind == "end":
                self.called = True
                yield ToolCallEvent(*self._call, "".join(self._arguments))
                continue
            if kind == "name":
                self._call = loaded("uuid", "uuid4")().hex[:ID_LENGTH], text
                self._arguments = []
                text = ""
            elif kind == "arguments":
                self._arguments.append(text)
            yield self._delta(kind, text, tokens, logprobs)
            tokens, logprobs = (), ()
        if tokens:
            yield self._delta(self._reader.kind, "", tokens, logprobs)

    def _delta(
        self, kind: str, text: str, tokens: tuple[int, ...], logprobs: tuple[TokenLogprob, ...]
    ) -> Event:
        if kind == "reasoning":
            return ReasoningDelta(text, tokens, logprobs)
        if kind == "text":
            return TextDelta(text, tokens, logprobs)
        return ToolCallDelta(*self._call, text, tokens, logprobs)
