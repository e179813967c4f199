"""Reads values that are written almost as JSON, and gives them as JSON text as they arrive.

Python: ``name='text', flags=[True, None]``, between parentheses. Gemma: ``name:<|"|>text<|"|>,
flags:[true]``, between braces, where the quote is a token.
"""

import json
import re
from typing import NamedTuple

from talu.tool_formats.matching import MORE, Tags, starts
from talu.tool_formats.styles.style import Step

__all__ = ["GEMMA", "PYTHON", "LiteralArguments", "Notation", "python_value"]

WORDS = {"True": "true", "False": "false", "None": "null"}
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "0": "\0"}
CODES = {"x": 2, "u": 4, "U": 8}  # digits of a character's number
_WORD = re.compile(r"[^\s,:=\[\](){}'\"<]+")
_SPACE = re.compile(r"\s*")
_HEX = re.compile(r"[0-9a-fA-F]*")


class Notation(NamedTuple):
    """How values are written.

    Attributes:
        quotes: the texts around a string.
        escapes: whether a backslash in a string has a meaning.
        bare_keys: whether keys of objects within values stand without quotes.
        assignment: what stands between the name of an argument and its value.
        brackets: whether the arguments begin with a brace of their own, which ends them.
    """

    quotes: tuple[str, ...]
    escapes: bool
    bare_keys: bool
    assignment: str
    brackets: bool


PYTHON = Notation(("'", '"'), escapes=True, bare_keys=False, assignment="=", brackets=False)


def GEMMA(quote: str) -> Notation:
    """The notation of Gemma models with this quote."""
    return Notation((quote, '"'), escapes=False, bare_keys=True, assignment=":", brackets=True)


class LiteralArguments:
    """Translates one token of the notation at a time."""

    def __init__(self, notation: Notation) -> None:
        """Begin a call."""
        self._notation = notation
        self._open: list[str] = []  # brackets within the arguments
        self._begun = False
        self._is_key = True  # the next word is a key
        self._quote = ""  # of the string that is being read
        self._ends = Tags()
        self._high = ""  # the first half of a pair of surrogates
        self._ended = False

    def read(self, text: str, at: int) -> Step:
        """See ``ArgumentsReader``."""
        pieces: list[str] = []
        while not self._ended:
            step = self._in_string(text, at) if self._quote else self._outside(text, at)
            pieces.append(step.json)
            if step.at == at and not step.json and not step.ended:
                break
            at = step.at
            self._ended = step.ended
        return Step("".join(pieces), at, self._ended)

    def finish(self) -> str:
        """See ``ArgumentsReader``."""
        return ""

    def _outside(self, text: str, at: int) -> Step:
        if not self._begun:
            if self._notation.brackets:
                end = starts(text, at, "{")
                if end < 0:
                    return Step("{}" * (end != MORE), at, ended=end != MORE)
                at = end
            self._begun = True
            return Step("{", at)
        space = _SPACE.match(text, at)
        at = space.end() if space else at
        if at == len(text):
            return Step("", at)
        for quote in self._notation.quotes:
            end = starts(text, at, quote)
            if end == MORE:
                return Step("", at)
            if end >= 0:
                return self._open_string(quote, end)
        character = text[at]
        if character in ")]}":
            return self._close(character, at)
        return self._mark(character, at) or self._word(text, at)

    def _close(self, character: str, at: int) -> Step:
        if self._open:
            opened = self._open.pop()
            self._is_key = False
            return Step("}" if opened == "{" else "]", at + 1)
        own = self._notation.brackets and character == "}"
        return Step("}", at + own, ended=True)

    def _mark(self, character: str, at: int) -> Step | None:
        """Brackets and separators."""
        top = self._open[-1] if self._open else "{"
        if character in "[({":
            self._open.append("[" if character in "[(" else "{")
            self._is_key = character == "{"
            return Step(self._open[-1], at + 1)
        if character == ",":
            self._is_key = top == "{"
            return Step(", ", at + 1)
        if character in ":=" and top == "{":
            self._is_key = False
            return Step(": ", at + 1)
        return None

    def _word(self, text: str, at: int) -> Step:
        """A key, a number, or a name such as ``True``; it ends where something else begins."""
        found = _WORD.match(text, at)
        if found is None:  # a character that belongs nowhere
            return Step("", at, ended=True)
        if found.end() == len(text):
            return Step("", at)
        word = found[0]
        if not self._is_key:
            return Step(_scalar(word), found.end())
        return Step(json.dumps(word, ensure_ascii=False), found.end())

    def _open_string(self, quote: str, end: int) -> Step:
        self._quote = quote
        self._ends = Tags(quote, "\\") if self._notation.escapes else Tags(quote)
        return Step('"', end)

    def _in_string(self, text: str, at: int) -> Step:
        found = self._ends.find(text, at)
        end = found.start() if found else len(text) - self._ends.held(text, at)
        if end > at:
            return Step(self._text(text[at:end]), end)
        if found is None:
            return Step("", at)
        if found[0] == self._quote:
            self._quote = ""
            return Step(self._text("") + '"', found.end())
        return self._escape(text, found.end())

    def _escape(self, text: str, at: int) -> Step:
        """A backslash has been read."""
        if at == len(text):
            return Step("", at - 1)
        character = text[at]
        digits = CODES.get(character)
        if digits is None:
            if character == "\n":  # a line that goes on
                return Step(self._text(""), at + 1)
            known = character in "\\'\"/" or character in ESCAPES
            plain = ESCAPES.get(character, character) if known else "\\" + character
            return Step(self._text(plain), at + 1)
        found = _HEX.match(text, at + 1, at + 1 + digits)
        written = found[0] if found else ""
        end = at + 1 + len(written)
        if len(written) < digits:
            if end == len(text):
                return Step("", at - 1)
            return Step(self._text("\\" + character), at + 1)
        return self._character(int(written, 16), end)

    def _character(self, code: int, end: int) -> Step:
        if 0xD800 <= code < 0xDC00:
            pending = self._text("")
            self._high = chr(code)
            return Step(pending, end)
        if 0xDC00 <= code < 0xE000 and self._high:
            code = 0x10000 + ((ord(self._high) - 0xD800) << 10) + (code - 0xDC00)
            self._high = ""
        if code > 0x10FFFF or 0xD800 <= code < 0xE000:
            code = 0xFFFD
        return Step(self._text(chr(code)), end)

    def _text(self, text: str) -> str:
        """Text of a string, after half a character that was never completed."""
        before, self._high = ("\ufffd" if self._high else ""), ""
        return json.dumps(before + text, ensure_ascii=False)[1:-1]


def _scalar(word: str) -> str:
    word = WORDS.get(word, word)
    try:
        json.loads(word)
    except (ValueError, RecursionError):
        return json.dumps(word, ensure_ascii=False)
    return word if word not in ("NaN", "Infinity", "-Infinity") else json.dumps(word)


def python_value(text: str) -> str | None:
    """The JSON text of a value that is written as Python does; None if it is none."""
    step = LiteralArguments(PYTHON).read(f"x={text})", 0)
    value = step.json.removeprefix('{"x": ').removesuffix("}")
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return None
    return value if step.ended and step.at == len(text) + 2 else None
