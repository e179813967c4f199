"""Splits the bytes of an answer into server-sent events, or takes them as one JSON value.

https://html.spec.whatwg.org/multipage/server-sent-events.html. What an answer is shows in its first
bytes: some servers name another content type. This module is pure.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from talu.backends.remote.answers import Malformed

__all__ = ["Part", "Parts"]

MAX_LINE = 1 << 24  # bytes, also of all lines of an event together
LINE_END = re.compile(rb"\r\n|\n|\r")
MARK = b"\xef\xbb\xbf"  # a byte order mark
BEGINNING = re.compile(rb"(data|event|id|retry)?:|(data|event|id|retry)[\r\n]")
LONGEST_BEGINNING = 10  # characters that decide what an answer is
DONE = b"[DONE]"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an answer: an event, or all of it.

    Attributes:
        data: its bytes, which are JSON if they are of the protocol.
        name: of the event.
        is_event: whether it is one.
    """

    data: bytes = field(repr=False)  # a server may repeat a key in it
    name: str = ""
    is_event: bool = True

    @property
    def is_last(self) -> bool:
        """Whether it says that nothing comes after it."""
        return self.data.strip() == DONE or self.name == "message_stop"

    def value(self) -> Any:
        """The JSON value.

        Raises:
            Malformed: it is not one; the error does not hold the bytes.
        """
        try:
            text = self.data.decode()
        except UnicodeDecodeError:
            text = None
        if text is None:
            raise Malformed("text that is not UTF-8")
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass
        if self.name == "error":
            return {"error": text}
        raise Malformed("text that is not JSON")


class Parts:
    """The parts of one answer.

    Attributes:
        ended: the answer has said that nothing comes any more; what follows is ignored.
    """

    def __init__(self, *, streamed: bool) -> None:
        """An answer of which no byte has come.

        Args:
            streamed: the content type is that of server-sent events.
        """
        self.ended = False
        self._streamed = streamed
        self._is_stream: bool | None = None  # not known yet
        self._pieces: list[bytes] = []  # of the line, or the answer, that is not complete
        self._size = 0
        self._skips_newline = False
        self._data: list[bytes] = []
        self._name = ""

    def feed(self, data: bytes) -> Iterator[Part]:
        """The parts that are complete with these bytes.

        Raises:
            Malformed: a line is too long.
        """
        if self._is_stream is None:
            data = b"".join((*self._pieces, data))
            self._pieces, self._size = [], 0
            self._is_stream = self._recognized(data)
            data = data.removeprefix(MARK) if self._is_stream is not None else data
        if not self._is_stream:
            self._pieces.append(data)
            return
        yield from self._events(data)

    def finish(self) -> Iterator[Part]:
        """The part that is complete because the answer has ended."""
        last, self._pieces = b"".join(self._pieces), []
        if self._is_stream or (self._is_stream is None and self._streamed):
            # Some servers leave out the empty line after the last event.
            yield from filter(_is_whole, self._lines([last, b""] if last else [b""]))
        else:
            yield Part(last, is_event=False)

    def _recognized(self, data: bytes) -> bool | None:
        """Whether an answer that begins like this is a stream; None if that is not clear yet."""
        start = data.removeprefix(MARK).lstrip()
        if not start or (len(start) < LONGEST_BEGINNING and MARK.startswith(start)):
            return None
        if start[:1] in b"{[<":
            return False
        if self._streamed or BEGINNING.match(start):
            return True
        return False if len(start) >= LONGEST_BEGINNING else None

    def _events(self, data: bytes) -> Iterator[Part]:
        if self._skips_newline:
            data = data.removeprefix(b"\n")
        self._skips_newline = False
        self._size += len(data)
        if self._size > MAX_LINE:
            raise Malformed(f"more than {MAX_LINE:,} bytes in one line")
        self._pieces.append(data)
        if LINE_END.search(data) is None:
            return
        whole = b"".join(self._pieces)
        self._skips_newline = whole.endswith(b"\r")
        *lines, rest = LINE_END.split(whole)
        self._pieces = [rest]
        yield from self._lines(lines)
        self._size = len(rest) + sum(map(len, self._data))

    def _lines(self, lines: list[bytes]) -> Iterator[Part]:
        for line in lines:
            if not line:
                yield from self._dispatched()
                continue
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                self._data.append(value)
            elif field == b"event":
                self._name = value.decode(errors="replace")

    def _dispatched(self) -> Iterator[Part]:
        """The event whose lines have come, unless it has no data, or nothing is to come."""
        part = Part(b"\n".join(self._data), self._name)
        has_data, self._data, self._name = bool(self._data), [], ""
        if not has_data or self.ended:
            return
        self.ended = part.is_last
        if part.data.strip() != DONE:
            yield part


def _is_whole(part: Part) -> bool:
    """Whether the last event of an answer was not cut off."""
    try:
        part.value()
    except Malformed:
        return False
    return True
