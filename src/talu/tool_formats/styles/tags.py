"""Reads arguments that have a tag each, such as ``<parameter=city>Paris</parameter>``."""

import json
from collections.abc import Sequence

from talu.tool_formats.description import KEY, Tagged
from talu.tool_formats.matching import MORE, NO, Tags, starts
from talu.tool_formats.schemas import JSON_TYPES, Types, type_of
from talu.tool_formats.styles.literals import python_value
from talu.tool_formats.styles.style import Step

__all__ = ["TaggedArguments"]

WORDS = {"True": "true", "False": "false", "None": "null"}
LONGEST_KEY = 256  # characters


class TaggedArguments:
    """Writes a JSON object: strings as they arrive, other values when they are complete."""

    def __init__(self, tagged: Tagged, types: Types, ends: Sequence[str] = ()) -> None:
        """Begin a call.

        Args:
            tagged: the tags.
            types: the JSON types that each argument may have.
            ends: what may follow the arguments.
        """
        self._tagged = tagged
        self._after = [each for each in ends if each]
        self._types = types
        self._kinds: dict[str, set[str]] = {}
        for kind, literal in tagged.values:
            self._kinds.setdefault(literal, set()).add(kind)
        self._literals = Tags(*self._kinds)
        self._step = self._next
        self._count = 0
        self._key = ""
        self._as_text = False  # the value is a string that is written as it is
        self._allowed: frozenset[str] = JSON_TYPES
        self._value: list[str] = []
        self._closing = Tags()

    def read(self, text: str, at: int) -> Step:
        """See ``ArgumentsReader``."""
        pieces: list[str] = []
        while True:
            before = self._step
            step = before(text, at)
            pieces.append(step.json)
            if step.ended or (step.at == at and self._step == before):
                return Step("".join(pieces), step.at, step.ended)
            at = step.at

    def finish(self) -> str:
        """See ``ArgumentsReader``."""
        return ("}" if self._count else "{}") if self._step == self._next else ""

    def _next(self, text: str, at: int) -> Step:
        """The next argument, or the end."""
        tagged = self._tagged
        follows = [starts(text, at, each) for each in self._after]
        opening = tagged.separator * bool(self._count) + tagged.opening
        end = NO if max(follows, default=NO) >= 0 else starts(text, at, opening)
        if end >= 0 and MORE in follows:
            end = MORE
        if end == MORE:
            return Step("", at)
        if end < 0:
            return Step("}" if self._count else "{}", at, ended=True)
        self._step = self._in_key
        return Step("", end)

    def _in_key(self, text: str, at: int) -> Step:
        found = self._literals.find(text, at)
        if found is None:
            broken = len(text) - at > LONGEST_KEY
            return Step("}" if self._count else "{}", at, ended=True) if broken else Step("", at)
        self._key = text[at : found.start()]
        kinds = self._kinds[found[0]]
        self._allowed = self._types.of(self._key) & kinds or frozenset(kinds)
        self._as_text = self._allowed == {"string"} and not self._tagged.quoted
        self._closing = Tags(self._tagged.closing.replace(KEY, self._key))
        self._step, self._value = self._before_value, []
        start = ", " if self._count else "{"
        self._count += 1
        quote = '"' if self._as_text else ""
        return Step(f"{start}{json.dumps(self._key, ensure_ascii=False)}: {quote}", found.end())

    def _before_value(self, text: str, at: int) -> Step:
        """A string may stand between further tags."""
        opening, closing = self._tagged.wrapping
        end = starts(text, at, opening) if opening and "string" in self._allowed else NO
        if end == MORE:
            return Step("", at)
        if end >= 0:
            self._closing = Tags(closing + self._tagged.closing.replace(KEY, self._key))
        self._step = self._in_value
        return Step("", max(at, end))

    def _in_value(self, text: str, at: int) -> Step:
        found = self._closing.find(text, at)
        end = found.start() if found else len(text) - self._closing.held(text, at)
        piece = text[at:end]
        after = found.end() if found else end
        if found:
            self._step = self._next
        if self._as_text:
            written = json.dumps(piece, ensure_ascii=False)[1:-1]
            return Step(written + '"' * bool(found), after)
        self._value.append(piece)
        return Step(self._json("".join(self._value)) if found else "", after)

    def _json(self, text: str) -> str:
        """A complete value: JSON if it is of a type that is allowed, else a string."""
        bare = text.strip()
        bare = WORDS.get(bare, bare)
        try:
            value = json.loads(bare)
        except (ValueError, RecursionError):
            if "string" in self._allowed:
                return json.dumps(text, ensure_ascii=False)
            return python_value(bare) or json.dumps(text, ensure_ascii=False)
        if type_of(value) & self._allowed or "string" not in self._allowed:
            return bare
        return json.dumps(text, ensure_ascii=False)
