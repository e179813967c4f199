"""Splits a streamed reply into answer, reasoning and tool calls.

It only finds the tags; the caller parses the tool calls.
"""

import re
from collections.abc import Callable
from typing import Literal

__all__ = ["Kind", "RegionParser"]

Kind = Literal["text", "reasoning", "tool_call"]

_THINK = "<think>"
_CALL = "<tool_call>"
_END_CALL = "</tool_call>"
_END_THINK = ("</think>", "<|/think|>")
_NOT_SPACE = re.compile(r"\S").search


class _Tags:
    """A set of tags that is searched in one linear pass."""

    def __init__(self, *tags: str) -> None:
        self._search = re.compile("|".join(map(re.escape, tags)) or "(?!)").search
        self._starts = frozenset(tag[:end] for tag in tags for end in range(1, len(tag)))
        self._longest = max(map(len, tags), default=1) - 1

    def find(self, text: str, start: int) -> re.Match[str] | None:
        """The first whole tag from ``start`` on."""
        return self._search(text, start)

    def held(self, text: str, start: int) -> int:
        """How many of the last characters can be the start of a tag."""
        most = min(self._longest, len(text) - start)
        return next((n for n in range(most, 0, -1) if text[-n:] in self._starts), 0)


class RegionParser:
    """A push parser for ``<think>…</think>`` and ``<tool_call>…</tool_call>``.

    - ``<think>`` opens reasoning only before the answer. Later it is text, as is a ``</think>``
      that closes nothing. ``<|/think|>`` closes reasoning too.
    - Text and reasoning are returned as they arrive. A tool call is returned in one piece when it
      is complete. If the content of its tags is not a call, it is returned unchanged as text.
    - White space before a tag, line breaks after a tag, and white space around the body of a tool
      call belong to no region. Every other character is returned, in order.
    - A region that is never closed ends with the reply.

    The result does not depend on how the reply is cut into pieces. Time is linear in the reply.
    """

    def __init__(
        self,
        in_reasoning: bool = False,
        *,
        is_call: Callable[[str], bool] | None = None,
        tag_text: Callable[[str], str] = str,
        mark: str = "",
    ) -> None:
        """Start a reply.

        Args:
            in_reasoning: the prompt ends with an open ``<think>``.
            is_call: whether the body of ``<tool_call>`` is a call; None if no tools were offered,
                so that the tag is text.
            tag_text: the text of a tag in the pushed text.
            mark: a character in front of some tags that is not part of the text.
        """
        think, call = tag_text(_THINK), tag_text(_CALL)
        calls = [] if is_call is None else [call]
        self._first = _Tags(think, *calls)
        self._later = _Tags(*calls)
        self._closing = _Tags(*map(tag_text, _END_THINK))
        self._closing_call = _Tags(tag_text(_END_CALL))
        self._opens: dict[str, Kind] = {think: "reasoning", call: "tool_call"}
        self._think = think
        self._mark = mark
        self._is_call = is_call
        self._kind: Kind = "reasoning" if in_reasoning else "text"
        self._answered = False  # whether more than white space of the answer was returned
        self._after_tag = in_reasoning
        self._pending = ""  # possibly the start of a tag
        self._space: list[str] = []  # dropped if a tag follows
        self._call: list[str] = []
        self._is_object = False  # the body of the call begins as a JSON object
        self._opened = ""  # the white space and the tag that opened a call, as written
        self._out: list[tuple[Kind, str]] = []

    def push(self, text: str) -> list[tuple[Kind, str]]:
        """Take the next piece of the reply; return (kind, text) pieces that are complete."""
        undecided = self._kind == "tool_call" and not self._is_object
        marked = self._mark and self._mark in text
        if not self._pending and "<" not in text and not marked and not undecided:
            self._take(text)  # contains no part of a tag
            return self._given()
        text = self._pending + text
        start = self._enter_call(text, 0)
        while match := self._next_tag(text, start):
            self._take(text[start : match.start()])
            self._change(match[0])
            start = self._enter_call(text, match.end())
        end = len(text) - self._tags().held(text, start)
        self._pending = text[end:]
        self._take(text[start:end])
        return self._given()

    def finish(self) -> list[tuple[Kind, str]]:
        """End the reply; return the text that was held back."""
        pending, self._pending = self._pending, ""
        self._take(pending)
        if self._kind == "tool_call":
            self._close_call("")
        if self._space:
            self._out.append((self._kind, "".join(self._space)))
            self._space = []
        return self._given()

    def _tags(self) -> _Tags:
        if self._kind == "text":
            return self._later if self._answered else self._first
        return self._closing if self._kind == "reasoning" else self._closing_call

    def _next_tag(self, text: str, start: int) -> re.Match[str] | None:
        match = self._tags().find(text, start)
        if match and match[0] == self._think and text[start : match.start()].strip():
            return self._later.find(text, start)
        return match

    def _take(self, text: str) -> None:
        """Output text of the current region, except white space that a tag may follow."""
        if self._mark:
            text = text.replace(self._mark, "")
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
        """Leave the current region at its closing tag, or the answer at an opening tag."""
        if self._kind == "tool_call":
            self._close_call(_END_CALL)
            return
        self._kind = self._opens.get(tag, "text")
        if self._kind == "tool_call":
            self._opened = "".join(self._space) + _CALL
        self._space = []
        self._after_tag = True

    def _enter_call(self, text: str, start: int) -> int:
        """Decide from its first character whether this can be a call; return where to continue."""
        if self._kind != "tool_call" or self._is_object:
            return start
        found = _NOT_SPACE(text, start)
        end = found.start() if found else len(text)
        self._call.append(text[start:end])
        if found and found[0] == "{":
            self._is_object = True
        elif found:
            self._write_call("")
        return end

    def _close_call(self, tag: str) -> None:
        body = "".join(self._call).strip()
        if self._is_call is None or not self._is_call(body):
            self._write_call(tag)
            return
        self._out.append(("tool_call", body))
        self._call, self._is_object = [], False
        self._kind = "text"
        self._after_tag = True

    def _write_call(self, tag: str) -> None:
        """Return to the answer, and output what looked like a call as text."""
        text = self._opened + "".join(self._call) + tag
        self._call, self._is_object = [], False
        self._kind = "text"
        self._after_tag = False
        self._take(text)

    def _given(self) -> list[tuple[Kind, str]]:
        given, self._out = self._out, []
        return given
