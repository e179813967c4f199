"""Splits a reply into answer, reasoning and tool calls while it arrives.

Pure: text pieces in, typed pieces out. It knows tags and white space; what a tool call says is for
others to read.
"""

import re
from typing import Literal

__all__ = ["Kind", "RegionParser"]

Kind = Literal["text", "reasoning", "tool_call"]

_OPENS: dict[str, Kind] = {"<think>": "reasoning", "<tool_call>": "tool_call"}


class _Tags:
    """Some tags, found in one linear pass."""

    def __init__(self, *tags: str) -> None:
        self._search = re.compile("|".join(map(re.escape, tags))).search
        self._starts = frozenset(tag[:end] for tag in tags for end in range(1, len(tag)))
        self._longest = max(map(len, tags)) - 1

    def find(self, text: str, start: int) -> re.Match[str] | None:
        """The first whole tag from ``start`` on."""
        return self._search(text, start)

    def held(self, text: str, start: int) -> int:
        """How many of the last characters may be the start of a tag."""
        most = min(self._longest, len(text) - start)
        return next((n for n in range(most, 0, -1) if text[-n:] in self._starts), 0)


_FIRST = _Tags("<think>", "<tool_call>")
_LATER = _Tags("<tool_call>")
_CLOSES: dict[Kind, _Tags] = {
    "reasoning": _Tags("</think>", "<|/think|>"),
    "tool_call": _Tags("</tool_call>"),
}


class RegionParser:
    """A push parser for ``<think>…</think>`` and ``<tool_call>…</tool_call>``.

    - ``<think>`` opens reasoning only before the answer: once the answer has begun it is text, as
      is a ``</think>`` that closes nothing. ``<|/think|>`` closes reasoning too.
    - Text and reasoning come as they arrive; a tool call comes in one piece when it is complete.
    - White space before a tag, line breaks after a tag, and white space around the body of a tool
      call belong to no region. Every other character comes out, in order.
    - A region that is never closed ends with the reply.

    The result does not depend on how the reply is cut into pieces. Time is linear in the reply.
    """

    def __init__(self, in_reasoning: bool = False) -> None:
        """Begin a reply; ``in_reasoning`` says that the prompt ends with an open ``<think>``."""
        self._kind: Kind = "reasoning" if in_reasoning else "text"
        self._answered = False  # some of the answer, not just white space, is out
        self._after_tag = in_reasoning
        self._pending = ""  # may be the start of a tag
        self._space: list[str] = []  # dropped if a tag follows
        self._call: list[str] = []
        self._out: list[tuple[Kind, str]] = []

    def push(self, text: str) -> list[tuple[Kind, str]]:
        """Take the next piece of the reply; return (kind, text) pieces that are certain now."""
        if not self._pending and "<" not in text:  # no tag ends or begins in here
            self._take(text)
            return self._given()
        text = self._pending + text
        start = 0
        while match := self._next_tag(text, start):
            self._take(text[start : match.start()])
            self._change(match[0])
            start = match.end()
        end = len(text) - self._tags().held(text, start)
        self._pending = text[end:]
        self._take(text[start:end])
        return self._given()

    def finish(self) -> list[tuple[Kind, str]]:
        """Say that the reply is over; return what was held back."""
        self._take(self._pending)
        self._pending = ""
        if self._kind == "tool_call":
            self._change("</tool_call>")
        elif self._space:
            self._out.append((self._kind, "".join(self._space)))
            self._space = []
        return self._given()

    def _tags(self) -> _Tags:
        if self._kind == "text":
            return _LATER if self._answered else _FIRST
        return _CLOSES[self._kind]

    def _next_tag(self, text: str, start: int) -> re.Match[str] | None:
        match = self._tags().find(text, start)
        if match and match[0] == "<think>" and text[start : match.start()].strip():
            return _LATER.find(text, start)
        return match

    def _take(self, text: str) -> None:
        """Give out text of the current region, but for white space that a tag may follow."""
        if self._kind == "tool_call":
            self._call.append(text)
            return
        if self._after_tag:
            text = text.lstrip("\r\n")
            self._after_tag = not text
        body = text.rstrip()
        if body:
            self._out.append((self._kind, "".join([*self._space, body])))
            self._space = []
            self._answered = self._answered or self._kind == "text"
        if len(body) < len(text):
            self._space.append(text[len(body) :])

    def _change(self, tag: str) -> None:
        """Leave the current region by its closing tag, or the answer by an opening one."""
        if self._kind == "tool_call":
            self._out.append(("tool_call", "".join(self._call).strip()))
            self._call = []
        self._space = []
        self._kind = _OPENS.get(tag, "text")
        self._after_tag = True

    def _given(self) -> list[tuple[Kind, str]]:
        given, self._out = self._out, []
        return given
