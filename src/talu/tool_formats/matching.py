"""Finds and matches literal texts in a text that arrives in pieces."""

import re

from talu.tool_formats.description import Id, Index, Part

__all__ = ["MORE", "NO", "Tags", "matched", "starts"]

NO, MORE = -1, -2  # instead of a position
LONGEST_SPACE = 64  # characters
_PLACES = {Id: re.compile(r"[\w.:\-]*"), Index: re.compile(r"[0-9]*")}


class Tags:
    """A set of literal texts that is searched in one linear pass."""

    def __init__(self, *tags: str) -> None:
        """Prepare for these texts; empty ones are left out."""
        tags = tuple(sorted(filter(None, tags), key=len, reverse=True))
        self._search = re.compile("|".join(map(re.escape, tags)) or "(?!)").search
        self._starts = frozenset(tag[:end] for tag in tags for end in range(1, len(tag)))
        self._longest = max(map(len, tags), default=1) - 1

    def find(self, text: str, start: int) -> re.Match[str] | None:
        """The first whole text from ``start`` on."""
        return self._search(text, start)

    def held(self, text: str, start: int) -> int:
        """How many of the last characters can be the start of one."""
        most = min(self._longest, len(text) - start)
        return next((n for n in range(most, 0, -1) if text[-n:] in self._starts), 0)


def starts(text: str, at: int, literal: str) -> int:
    """Where a literal ends that stands at a place; ``MORE`` if the text may go on to be it."""
    if text.startswith(literal, at):
        return at + len(literal)
    return MORE if literal.startswith(text[at:]) else NO


def matched(parts: tuple[Part, ...], text: str, at: int, *, loose: bool = False) -> int:
    """Where parts end that stand at a place.

    Args:
        parts: literals, ids and numbers.
        text: what has arrived.
        at: the place.
        loose: white space at the beginning may differ.

    Returns:
        the position after them; ``MORE`` if the text may go on to be them, ``NO`` if not.
    """
    for number, part in enumerate(parts):
        if not isinstance(part, str):
            found = _PLACES[type(part)].match(text, at)
            end = found.end() if found else at
            if end == len(text):
                return MORE
            at = end
            continue
        if loose and number == 0:
            part = part.lstrip()
            start = at
            while at < len(text) and text[at].isspace():
                at += 1
            if at - start > LONGEST_SPACE:
                return NO
        at = starts(text, at, part)
        if at < 0:
            return at
    return at
