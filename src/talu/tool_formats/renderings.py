"""Compares renderings of a template, cutting at the borders of tags.

Two different tags may begin or end alike: ``<|start_text|>`` and ``<|start_call|>``.
"""

import re

__all__ = ["Ends", "common_end", "common_start", "cut"]

WORD = "Zq7"  # how all words begin that a template is given
_OPEN = re.compile(r"[<\[][^<>\[\]\s]*$")
_LAST_TAG = re.compile(r"(?:<[^<>\s]+>|\[[^\[\]\s]+\])\s*$")


class Ends:
    """How the template ends an answer, which is no part of a call."""

    def __init__(self, end: str) -> None:
        """Learn it from an answer that is a text."""
        self._end = end

    def strip(self, text: str, start: int = 0) -> str:
        """An answer without its end, which is looked for after ``start`` and all given words."""
        end = self._end
        mark = end.strip()
        if not mark:
            return text.rstrip()
        found = text.find(mark, max(start, text.rfind(WORD)))
        if found >= 0:  # some templates add more after it
            return text[:found].rstrip()
        common = common_end(text, end)
        if common.strip():
            return text[: len(text) - len(common)].rstrip()
        return _LAST_TAG.sub("", text).rstrip()


def cut(text: str, word: str) -> tuple[str, str]:
    """What is before and after the first occurrence of a word."""
    before, _, after = text.partition(word)
    return before, after


def common_start(one: str, other: str) -> str:
    """The common beginning of two texts, without the beginning of a tag."""
    most = min(len(one), len(other))
    size = next((n for n in range(most) if one[n] != other[n]), most)
    start = one[:size]
    unclosed = _OPEN.search(start)
    return start[: unclosed.start()] if unclosed else start


def common_end(one: str, other: str) -> str:
    """The common end of two texts, beginning with a tag or white space."""
    most = min(len(one), len(other))
    size = next((n for n in range(most) if one[-n - 1] != other[-n - 1]), most)
    starts = range(len(one) - size, len(one))
    return one[next((place for place in starts if _begins_tag(one, place)), len(one)) :]


def _begins_tag(text: str, place: int) -> bool:
    before = text[place - 1 : place]
    return text[place].isspace() or (
        text[place] in "<[" and not (before.isalnum() or before == "/")
    )
