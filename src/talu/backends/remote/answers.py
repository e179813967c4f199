"""What the decoders of all protocols share: how an answer ends, and values of unknown JSON.

This module is pure.
"""

import math
from collections.abc import Mapping
from typing import Any, Protocol

from talu.types import Event, FinishReason, Usage

__all__ = ["Decoded", "Decoder", "Malformed", "number", "part_of", "text_of"]

MAX_NOTES = 20


class Malformed(Exception):
    """An event of a stream is not one of the protocol; the text says what was found."""


class Decoded:
    """What a decoder knows about the answer beside its text.

    Attributes:
        reason: why it ended; None before its end, which a stream without one has not reached.
        stop_sequence: the stop sequence that matched, if the server says so.
        usage: the token counts so far.
        model: the name that the server gives to the model.
        notes: what a reader of the answer has to know.
    """

    def __init__(self) -> None:
        self.reason: FinishReason | None = None
        self.stop_sequence: str | None = None
        self.usage = Usage()
        self.model: str | None = None
        self.notes: tuple[str, ...] = ()

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.notes and len(self.notes) < MAX_NOTES:
            self.notes = (*self.notes, text)


class Decoder(Protocol):
    """Decodes the answer to one request; see ``Decoded``."""

    reason: FinishReason | None
    stop_sequence: str | None
    usage: Usage
    model: str | None
    notes: tuple[str, ...]

    def note(self, text: str) -> None:
        """Add a note, once."""

    def push(self, data: Mapping[str, Any]) -> list[Event]:
        """The events of one piece of the answer, or of a whole answer that was not streamed.

        Raises:
            Malformed: it is not one.
        """


def text_of(value: object) -> str:
    """A text; that of a list of text parts; "" for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = (part for part in value if isinstance(part, Mapping) and part.get("type") == "text")
        return "".join(text_of(part.get("text")) for part in parts)
    return ""


def number(value: object) -> int | None:
    """A count of tokens; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if 0 <= value < 2**53 else None


def part_of(details: object, name: str) -> int | None:
    """A count in an object of details; None when there is none."""
    return number(details.get(name)) if isinstance(details, Mapping) else None
