"""What the decoders of all protocols share: how an answer ends, and values of unknown JSON.

A value of a wrong type is never guessed at: it raises ``Malformed``. This module is pure.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from talu.exceptions import ValidationError
from talu.json_values import json_copy, json_object
from talu.types import Event, FinishReason, Usage

__all__ = [
    "TEXT_PARTS",
    "Decoded",
    "Decoder",
    "Ended",
    "Joined",
    "Malformed",
    "check_number_of_calls",
    "count",
    "json_text",
    "kept",
    "member",
    "raw",
    "real",
    "string",
    "text_of",
    "whole",
]

MAX_NOTES = 20
MAX_NOTE = 10_000  # characters, more than a key has
MAX_KEPT = 900_000  # characters of what a provider wants back, as JSON
MAX_COUNT = 2**53
MAX_CALLS = 1_000  # of tools; the builder of the answer keeps fewer, with a note
TEXT_PARTS = ("text", "output_text")
REASONS = {  # of all protocols
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "tool_use": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
    "refusal": FinishReason.CONTENT_FILTER,
}
UNFINISHED = ("", "null", "none")
FAILED = ("error", "abort", "cancel", "insufficient", "network", "timeout", "fail")  # beginnings


class Malformed(Exception):
    """An event of a stream is not one of the protocol; the text says what was found."""


class Ended(Exception):
    """The server says that it ended the answer because something failed."""


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
        """Add a note, once; it is shortened for the user when no secret is in it any more."""
        text = text[:MAX_NOTE]
        if text not in self.notes and len(self.notes) < MAX_NOTES:
            self.notes = (*self.notes, text)

    def take_usage(self, usage: Usage) -> None:
        """Take counts, which are cumulative; those that are unknown stay as they were."""
        known = {
            name: value
            for name in ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")
            if (value := getattr(usage, name)) is not None
        }
        self.usage = replace(self.usage, **known)

    @property
    def was_cut(self) -> bool:
        """Whether the model did not end the answer itself."""
        stopped = self.stop_sequence is not None
        return stopped or self.reason in (FinishReason.LENGTH, FinishReason.CONTENT_FILTER)

    def check_call(self, name: str, arguments: str) -> None:
        """Note that a tool call cannot be used, because its arguments are not a JSON object."""
        if json_object(arguments) is None:
            cut = "; max_tokens cut the answer" if self.reason is FinishReason.LENGTH else ""
            wrong = f"is incomplete: its arguments are not a JSON object{cut}"
            self.note(f"the tool call {name!r} {wrong}")

    def finished(self, reason: object) -> None:
        """Take a finish reason, unless it says that the answer goes on.

        Raises:
            Malformed: it is not text.
            Ended: it names a failure.
        """
        name = string(reason, "a finish reason")
        if name.lower() in UNFINISHED:
            return
        if name.lower().startswith(FAILED):
            raise Ended(f"the server ended it with {name[:MAX_NOTE]!r}")
        self.reason = REASONS.get(name.lower())
        if self.reason is None:
            self.reason = FinishReason.STOP
            self.note(f"the server named the finish reason {name!r}")


class Decoder(Protocol):
    """Decodes the answer to one request; see ``Decoded``."""

    reason: FinishReason | None
    stop_sequence: str | None
    usage: Usage
    model: str | None
    notes: tuple[str, ...]

    def push(self, data: Mapping[str, Any]) -> list[Event]:
        """The events of one piece of the answer, or of a whole answer that was not streamed.

        Raises:
            Malformed: it is not one.
            Ended: the server says that something failed.
        """

    def finish(self) -> list[Event]:
        """The events that are complete only at the end of the stream.

        Raises:
            Malformed: one of them is not complete.
        """

    def note(self, text: str) -> None:
        """Add a note, once."""


def check_number_of_calls(number: int) -> None:
    """``Malformed`` if another call would be more than any request can want."""
    if number >= MAX_CALLS:
        raise Malformed(f"more than {MAX_CALLS:,} tool calls")


class Joined:
    """Joins the pieces of a text: a server may cut a surrogate pair between two of them."""

    def __init__(self) -> None:
        self._half = ""

    def add(self, piece: str) -> str:
        """The piece as valid text, without a half at its end, which begins the next one."""
        piece, self._half = self._half + piece, ""
        if piece and "\ud800" <= piece[-1] <= "\udbff":
            piece, self._half = piece[:-1], piece[-1]
        return whole(piece)

    def rest(self) -> str:
        """What is left at the end of the text: a replaced half, or nothing."""
        half, self._half = self._half, ""
        return whole(half)


def whole(text: str) -> str:
    """The text with joined surrogate pairs; single halves, which no text has, are replaced."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def raw(value: object, what: str) -> str:
    """A text, "" for null, which may have halves of surrogate pairs.

    Raises:
        Malformed: it is anything else.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"{what} that is not text")
    return value


def string(value: object, what: str) -> str:
    """A valid text, "" for null.

    Raises:
        Malformed: it is anything else.
    """
    return whole(raw(value, what))


def text_of(value: object, what: str = "content") -> str:
    """A raw text, "" for null; that of a list of text parts, without the parts of other types.

    Raises:
        Malformed: it is anything else.
    """
    if not isinstance(value, list):
        return raw(value, what)
    parts = [part for part in value if isinstance(part, Mapping)]
    if len(parts) < len(value):
        raise Malformed(f"{what} with a part that is not an object")
    return "".join(raw(part.get("text"), what) for part in parts if part.get("type") in TEXT_PARTS)


def member(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object in an object, empty when it is missing or null.

    Raises:
        Malformed: it is anything else.
    """
    found = data.get(name)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise Malformed(f"{name} that is not an object")
    return found


def real(value: object, what: str) -> float:
    """A finite number.

    Raises:
        Malformed: it is anything else.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e300:
        raise Malformed(f"{what} that is not a number")
    return float(value)


def count(value: object) -> int | None:
    """A count of tokens; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return int(value) if 0 <= value < MAX_COUNT else None


def json_text(value: object, what: str) -> str:
    """A JSON object as raw text: the text itself, or an object that was not sent as text.

    Raises:
        Malformed: it is anything else.
    """
    if not isinstance(value, Mapping):
        return raw(value, what)
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (RecursionError, TypeError, ValueError):
        raise Malformed(f"{what} that is not plain JSON") from None


def kept(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a provider wants back unchanged, checked: plain JSON that can be stored.

    Raises:
        Malformed: it is not, or it is too large.
    """
    try:
        checked: dict[str, Any] = json_copy("data", data, max_length=MAX_KEPT)
    except ValidationError as error:
        raise Malformed(f"additional data that cannot be kept: it {error!s}") from None
    return checked
