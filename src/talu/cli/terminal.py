"""Prepares text for a terminal: removes control characters, and counts things in words.

A model can be made to write sequences that move the cursor, set the title or fill the clipboard.
"""

import re

__all__ = ["VisibleText", "counted", "visible"]

_LONGEST = 64  # characters; a longer control sequence is text
_SEQUENCE = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]")
_BEGUN = re.compile(r"(?:\x1b(?:\[[0-?]*[ -/]*)?|\x9b[0-?]*[ -/]*)\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def visible(text: str) -> str:
    """The text without control sequences (ECMA-48 CSI) and control characters (C0, DEL, C1).

    Line feeds and tabs stay. The payload of other sequences, such as a title or the address of a
    link, becomes plain text that can be seen.
    """
    return _CONTROL.sub("", _SEQUENCE.sub("", text))


def counted(number: int, noun: str) -> str:
    """The number with its noun, such as ``1 chat`` and ``2 chats``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


class VisibleText:
    """Like ``visible`` for a text in pieces, which may split a sequence."""

    def __init__(self) -> None:
        self._begun = ""

    def push(self, piece: str) -> str:
        """The part that can be shown now."""
        text = self._begun + piece
        begun = _BEGUN.search(text)
        cut = begun.start() if begun and len(text) - begun.start() <= _LONGEST else len(text)
        self._begun = text[cut:]
        return visible(text[:cut])

    def flush(self) -> str:
        """The text that was held back; call it at the end of the text."""
        rest, self._begun = self._begun, ""
        return visible(rest)
