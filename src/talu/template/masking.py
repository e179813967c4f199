"""Distinguishes special tokens spelled in messages from those that a template writes.

While a template runs, each special token spelled in a message is replaced by a stand-in character.
The rendered prompt is then split at these characters, and the parts that they replace become plain
text.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from talu.exceptions import ValidationError

__all__ = ["Mask", "texts_of"]

_STAND_INS = range(0xE000, 0xF900)  # Unicode's private use area
_OPENING = "<think>"
_SHORT = 32  # characters of a text, such as a key or role, that is masked once


class Mask:
    """The stand-in characters of one request.

    A border character is added after a text that ends with the beginning of a special token, so
    that it does not form one together with the text that follows, and after a text that ends with
    ``<think>``, so that it is not mistaken for one written by the template.

    Attributes:
        tokens: the special tokens that occur in the texts.
    """

    def __init__(
        self, texts: Iterable[str], special: Iterable[str] = (), tags: Iterable[str] = ()
    ) -> None:
        """Choose characters that occur in none of the texts.

        Args:
            texts: all texts of the request, including its template.
            special: tokens that no text may spell.
            tags: tokens that only the assistant's messages may spell.

        Raises:
            ValidationError: the texts leave too few characters unused.
        """
        whole = "\0".join(texts)
        self._special = _longest_first(_found(special, whole))
        self._tags = _longest_first(_found(tags, whole))
        self.tokens = _longest_first({*self._special, *self._tags})
        self._beginnings, self._longest = _beginnings(frozenset(special), frozenset(tags))
        self._initials = {token[0] for token in (*special, *tags)}
        free = (
            chr(code)
            for code in _STAND_INS
            if chr(code) not in whole and f"\\u{code:04x}" not in whole
        )
        self._border = next(free, "")
        self._known: dict[tuple[str, bool], str] = {}
        self._stand_ins = dict(zip(self.tokens, free, strict=False))
        if not self._border or len(self._stand_ins) < len(self.tokens):
            raise ValidationError(
                "the messages contain nearly every character of Unicode's private use area "
                "(U+E000 to U+F8FF), and rendering the prompt needs some of them; remove a few",
                details={"param": "messages"},
            )

    def apply(self, value: Any, *, assistant: bool = False) -> Any:
        """A value with stand-ins in all texts; ``assistant``: it is the assistant's message."""
        if isinstance(value, str):
            if len(value) > _SHORT:
                return self._masked(value, assistant)
            known = self._known.get((value, assistant))
            if known is None:
                known = self._known[value, assistant] = self._masked(value, assistant)
            return known
        if isinstance(value, dict):
            return {
                self.apply(key, assistant=assistant): self.apply(item, assistant=assistant)
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [self.apply(item, assistant=assistant) for item in value]
        return value

    def parts(self, prompt: str) -> list[tuple[str, bool]]:
        """A rendered prompt in parts, each with whether it is a spelled token."""
        spelled = {stand_in: token for token, stand_in in self._stand_ins.items()}
        written = [self._border, *spelled]  # a template may have written them as JSON escapes
        find = "|".join([*written, *(f"\\\\u{ord(each):04x}" for each in written)])
        parts = []
        for number, piece in enumerate(re.split(f"({find})", prompt)):
            if number % 2 == 0:
                parts.append((piece, False))
                continue
            character = piece if len(piece) == 1 else chr(int(piece[2:], 16))
            if character in spelled:
                parts.append((spelled[character], True))
        return [part for part in parts if part[0]] or [("", False)]

    def _masked(self, text: str, assistant: bool) -> str:
        for token in self._special if assistant else self.tokens:
            text = text.replace(token, self._stand_ins[token])
        if self._ends_with_beginning(text):
            text += self._border
        body = text.rstrip()
        if body.endswith(_OPENING) and not assistant:
            text = body + self._border + text[len(body) :]
        return text

    def _ends_with_beginning(self, text: str) -> bool:
        end = text[-self._longest :] if self._longest else ""
        return any(initial in end for initial in self._initials) and any(
            end[place:] in self._beginnings
            for place, character in enumerate(end)
            if character in self._beginnings
        )


def texts_of(value: object) -> list[str]:
    """All texts in plain data, including keys, in no particular order."""
    texts = []
    rest = [value]
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, dict):
            rest += value
            rest += value.values()
        elif isinstance(value, list):
            rest += value
    return texts


@lru_cache(maxsize=8)
def _beginnings(special: frozenset[str], tags: frozenset[str]) -> tuple[frozenset[str], int]:
    """All proper prefixes of tokens that are not tokens, and the length of the longest."""
    tokens = special | tags
    longest = max(map(len, tokens), default=1) - 1
    return frozenset(token[:end] for token in tokens for end in range(1, len(token))), longest


def _found(tokens: Iterable[str], text: str) -> list[str]:
    """The tokens that occur in a text; searches for their common beginnings first."""
    tokens = list(tokens)
    beginnings = {token[:2] for token in tokens}
    present = {beginning for beginning in beginnings if beginning in text}
    return [token for token in tokens if token[:2] in present and token in text]


def _longest_first(tokens: Iterable[str]) -> list[str]:
    return sorted(tokens, key=lambda token: (-len(token), token))
