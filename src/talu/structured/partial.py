"""Reads the beginning of a JSON text as far as its value is known."""

import json
from typing import Any

__all__ = ["NOTHING", "is_cut", "partial_value"]

NOTHING = object()
SPACE = " \t\n\r"
LITERALS = {"true": True, "false": False, "null": None}


class _End(Exception):
    """The text ends within the value; what is known of it is attached."""

    def __init__(self, value: object = NOTHING) -> None:
        super().__init__()
        self.value = value


def partial_value(text: str, *, ended: bool = False) -> object:
    """The value that a JSON text begins, as plain data; ``NOTHING`` before anything is known.

    Objects and arrays have what has arrived, and a string its first characters. A number, a
    literal or a key appears when it is complete, because ``1`` may become ``12``.

    Args:
        text: the beginning of a JSON text.
        ended: no more text can follow, so that a number at its end is complete.

    Raises:
        ValueError: the text is not the beginning of JSON.
    """
    reader = _Reader(text, ended=ended)
    try:
        return reader.value(reader.skip(0))[0]
    except _End as end:
        return end.value


def is_cut(text: str) -> bool:
    """Whether a text ends within a JSON value, or with a number, which might go on."""
    reader = _Reader(text, ended=False)
    try:
        reader.value(reader.skip(0))
    except _End:
        return True
    except (ValueError, RecursionError):
        pass
    return False


class _Reader:
    def __init__(self, text: str, *, ended: bool) -> None:
        self._text = text
        self._ended = ended
        self._decode = json.JSONDecoder().raw_decode

    def skip(self, at: int) -> int:
        while at < len(self._text) and self._text[at] in SPACE:
            at += 1
        if at == len(self._text):
            raise _End
        return at

    def value(self, at: int) -> tuple[Any, int]:
        first = self._text[at]
        if first == "{":
            return self._object(at + 1)
        if first == "[":
            return self._array(at + 1)
        if first == '"':
            return self._string(at)
        for literal, value in LITERALS.items():
            if self._text.startswith(literal, at):
                return value, at + len(literal)
            if literal.startswith(self._text[at:]):
                raise _End
        return self._number(at)

    def _number(self, at: int) -> tuple[Any, int]:
        end = at
        while end < len(self._text) and self._text[end] in "+-0123456789.eE":
            end += 1
        if end == at:
            raise ValueError(f"no JSON value begins at character {at}")
        if end == len(self._text) and not self._ended:
            raise _End
        return self._decode(self._text, at)

    def _string(self, at: int) -> tuple[str, int]:
        end = at + 1
        while end < len(self._text):
            if self._text[end] == '"':
                value, end = self._decode(self._text, at)
                return str(value), end
            end += 2 if self._text[end] == "\\" else 1
        raise _End(self._opened(at))

    def _opened(self, at: int) -> str:
        """The complete characters of a string that is not closed."""
        body = self._text[at:]
        for cut in range(len(body), max(0, len(body) - 12), -1):  # an escape may be cut
            try:
                text = str(self._decode(body[:cut] + '"', 0)[0])
            except ValueError:
                continue
            return text[:-1] if "\ud800" <= text[-1:] <= "\udbff" else text
        return ""

    def _array(self, at: int) -> tuple[list[Any], int]:
        found: list[Any] = []
        try:
            at = self.skip(at)
            if self._text[at] == "]":
                return found, at + 1
            while True:
                value, at = self.value(at)
                found.append(value)
                at = self.skip(at)
                if self._text[at] == "]":
                    return found, at + 1
                at = self.skip(self._after(at, ","))
        except _End as end:
            if end.value is not NOTHING:
                found.append(end.value)
            raise _End(found) from None

    def _object(self, at: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        key: str | None = None
        try:
            at = self.skip(at)
            if self._text[at] == "}":
                return found, at + 1
            while True:
                key = None
                name, at = self._string(self._after(at, '"') - 1)
                key = name
                at = self.skip(self._after(self.skip(at), ":"))
                found[key], at = self.value(at)
                key = None
                at = self.skip(at)
                if self._text[at] == "}":
                    return found, at + 1
                at = self.skip(self._after(at, ","))
        except _End as end:
            if key is not None and end.value is not NOTHING:
                found[key] = end.value
            raise _End(found) from None

    def _after(self, at: int, mark: str) -> int:
        if self._text[at] != mark:
            raise ValueError(f"character {at} is {self._text[at]!r} instead of {mark!r}")
        return at + 1
