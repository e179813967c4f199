"""Declares what turns answers into the bodies and events of a protocol. This module is pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from talu.chat.answer import Answer
from talu.chat.builder import Token
from talu.server.failures import Failure

__all__ = ["END", "Encoder", "Event", "Head", "about", "json_bytes"]


class Head(NamedTuple):
    """What every body of an answer has.

    Attributes:
        id: a unique text of letters and digits.
        created: seconds since 1970.
        model: the name of the model that was asked for.
    """

    id: str
    created: int
    model: str


class Event(NamedTuple):
    """A server-sent event.

    Attributes:
        data: JSON, or a text that is sent as it is.
        name: of the event; None for one without a name.
    """

    data: Mapping[str, Any] | str
    name: str | None = None

    def encoded(self) -> bytes:
        """The bytes of the event."""
        data = self.data.encode() if isinstance(self.data, str) else json_bytes(self.data)
        name = b"" if self.name is None else f"event: {self.name}\n".encode()
        return name + b"data: " + data + b"\n\n"


END = Event("[DONE]")  # of the streams of OpenAI


class Encoder(Protocol):
    """Encodes the answers to one request in a protocol."""

    def whole(self, answers: Sequence[Answer[Any]]) -> dict[str, Any]:
        """The body of the whole answers."""

    def piece(self, index: int, piece: Token, answer: Answer[Any]) -> list[Event]:
        """The events of a piece of the answer with this index."""

    def end(self, answers: Sequence[Answer[Any]]) -> list[Event]:
        """The events after the last piece of the last answer."""

    def failed(self, failure: Failure) -> list[Event]:
        """The last events of a stream that breaks."""


def about(answer: Answer[Any]) -> dict[str, Any]:
    """What only talu reports of an answer, as the field ``talu`` of all protocols."""
    report: dict[str, Any] = {"model": answer.model, "seed": answer.seed}
    if answer.stop_sequence is not None:
        report["stop_sequence"] = answer.stop_sequence
    return report | {"notes": list(answer.notes)}


def json_bytes(value: object) -> bytes:
    """The value as compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
