"""Knows the format of gpt-oss: an answer is messages, each with a header that names its channel.

Reasoning is in the channel ``analysis``, the answer in ``final``, text before a call in
``commentary``, and a call is a message to ``functions.NAME``.
"""

import json
import re
from collections.abc import Callable

from talu.tool_formats.description import ToolFormat
from talu.tool_formats.matching import Tags
from talu.tool_formats.reader import Kind, Read
from talu.tool_formats.rules import Rules

__all__ = ["HARMONY", "TOKENS", "HarmonyReader", "harmony_start", "is_harmony"]

TO = " to=functions."
HARMONY = ToolFormat(opening=(TO,), after_name=(" <|constrain|>json<|message|>",), code="harmony")
TOKENS = (
    *("<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"),
    *("<|end|>", "<|call|>", "<|return|>"),
)
HEADER, ENDS = ("<|start|>", "<|channel|>"), ("<|end|>", "<|call|>", "<|return|>")
THINKING = (
    "<|channel|>analysis<|message|>",
    "<|end|><|start|>assistant",
)
_NAME = re.compile(r"to=functions\.([\w.\-]+)")
_CHANNEL = re.compile(r"analysis|commentary|final")


def is_harmony(source: str) -> bool:
    """Whether a template writes this format."""
    return "<|channel|>" in source and "<|message|>" in source and "<|call|>" in source


def harmony_start(rules: Rules, calls: str | None, text: str | None) -> str:
    """What spells a whole answer after its reasoning.

    Args:
        rules: where rules are added.
        calls: what spells calls from their name on; None for no calls.
        text: what spells the final text; None for none.
    """
    before, after = map(rules.literal, THINKING)
    thinking = rules.add(f"({before} /(?s:.*)/ {after})?")
    options = []
    if calls is not None:
        opening = rules.literal(f"<|channel|>commentary{TO}")
        options.append(f"{thinking} {opening} {calls}")
    if text is not None:
        final = rules.literal("<|channel|>final<|message|>")
        options.append(f"{thinking} {final} {text}")
    return " | ".join(options)


class HarmonyReader:
    """Reads one answer as it arrives; see ``Reader``.

    Attributes:
        kind: what the last piece belonged to.
        notes: what in the answer could not be read as a call.
    """

    def __init__(
        self,
        *,
        with_tools: bool,
        mark_tags: Callable[[str], str] = str,
        mark: str = "",
    ) -> None:
        """Start an answer, of which the prompt has written ``<|start|>assistant``."""
        self.kind: Kind = "text"
        self.notes: tuple[str, ...] = ()
        self._with_tools = with_tools
        self._mark = mark
        self._message = Tags(mark_tags("<|message|>"))
        self._ends = Tags(*map(mark_tags, (*HEADER, *ENDS)))
        self._in_header = True
        self._header: list[str] = []
        self._buffer = ""
        self._arguments: list[str] = []
        self._space: list[str] = []  # at the end of a message it belongs to nothing

    def push(self, text: str) -> list[Read]:
        """Take the next piece of the answer; return what is complete of it."""
        self._buffer += text
        out: list[Read] = []
        while True:
            tags = self._message if self._in_header else self._ends
            found = tags.find(self._buffer, 0)
            end = found.start() if found else len(self._buffer) - tags.held(self._buffer, 0)
            piece, self._buffer = self._buffer[:end], self._buffer[end:]
            out += self._take(piece)
            if found is None:
                return out
            self._buffer = self._buffer[len(found[0]) :]
            out += self._begin() if self._in_header else self._end()

    def finish(self, *, cut: bool = False) -> list[Read]:
        """End the answer; return what was held back. ``cut`` changes nothing: a call is JSON."""
        rest, self._buffer = self._buffer, ""
        out = self._take(rest)
        return [*out, *self._end()] if not self._in_header else out

    def _take(self, text: str) -> list[Read]:
        text = text.replace(self._mark, "") if self._mark else text
        if self._in_header:
            self._header.append(text)
            return []
        if self.kind == "arguments":
            self._arguments.append(text)
            return [Read("arguments", text)] if text else []
        body = text.rstrip()
        found = [Read(self.kind, "".join([*self._space, body]))] if body else []
        self._space = [text[len(body) :]] if body else [*self._space, text]
        return found

    def _begin(self) -> list[Read]:
        """The header of a message is complete."""
        header, self._header = "".join(self._header), []
        self._in_header, self._space = False, []
        name, channel = _NAME.search(header), _CHANNEL.search(header)
        if name is not None and self._with_tools:
            self.kind, self._arguments = "arguments", []
            return [Read("name", name[1])]
        thinks = channel is not None and channel[0] == "analysis"
        self.kind = "reasoning" if thinks else "text"
        return []

    def _end(self) -> list[Read]:
        """A message is complete."""
        self._in_header, self._space = True, []
        was, self.kind = self.kind, "text"
        if was != "arguments":
            return []
        try:
            json.loads("".join(self._arguments))
        except (ValueError, RecursionError):
            self.notes = ("the answer ended within a call: the call is not complete",)
            return []
        return [Read("end", "")]
