"""Collects the rules of a grammar in llguidance's dialect of Lark.

In the texts of a description, tags that are tokens of the vocabulary become these tokens. All
other text is spelled, and can be spelled by no special token.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from talu.tool_formats.description import Id, Index, Part
from talu.tool_formats.schemas import resolved

__all__ = ["Rules", "escaped"]

_PLACES = {Id: "/[A-Za-z0-9]{9}/", Index: "/[0-9]{1,3}/"}
_SPECIAL = re.compile(r"([\\/.+*?()|\[\]{}^$&~\-#])")
ROOT = "talu-root"  # where a schema keeps the one that it was cut out of
MAX_LENGTH = 100_000  # characters of a string; a context holds no more

Schema = Mapping[str, Any]


class Rules:
    """The rules that are known so far.

    Attributes:
        tags: the ids of tags that are tokens.
    """

    def __init__(
        self,
        tags: Mapping[str, int],
        embed: Callable[[dict[str, Any]], str],
        takes_pattern: Callable[[str], bool],
    ) -> None:
        """Begin a grammar.

        Args:
            tags: the ids of tags that are tokens, by their text.
            embed: the text of a schema without what the grammar cannot hold.
            takes_pattern: whether a regular expression can be followed.
        """
        self.tags = tags
        self._embed = embed
        self._takes_pattern = takes_pattern
        self._rules: dict[str, str] = {}
        self._split = re.compile(
            "|".join(map(re.escape, sorted(tags, key=len, reverse=True))) or "(?!)"
        )

    def add(self, body: str, *, terminal: bool = False) -> str:
        """The name of a rule with this body."""
        for name, known in self._rules.items():
            if known == body and name.isupper() == terminal:
                return name
        name = f"{'T' if terminal else 'r'}{len(self._rules)}"
        self._rules[name] = body
        return name

    def reserve(self) -> str:
        """The name of a rule whose body ``define`` adds; rules may refer to themselves."""
        name = f"r{len(self._rules)}"
        self._rules[name] = ""
        return name

    def define(self, name: str, body: str) -> None:
        """Give the body of a reserved rule."""
        self._rules[name] = body

    def lazy(self, body: str) -> str:
        """The name of a rule that ends as soon as it can."""
        name = f"r{len(self._rules)}"
        self._rules[f"{name}[lazy]"] = body
        return name

    def text(self, start: str) -> str:
        """The whole grammar, whose answer is ``start``."""
        rules = (f"{name}: {body}" for name, body in self._rules.items())
        return "\n".join([f"start: {start}", *rules, ""])

    def literal(self, text: str) -> str:
        """What spells a text."""
        pieces = []
        at = 0
        for match in self._split.finditer(text):
            if match.start() > at:
                pieces.append(json.dumps(text[at : match.start()]))
            pieces.append(f"<[{self.tags[match[0]]}]>")
            at = match.end()
        if at < len(text):
            pieces.append(json.dumps(text[at:]))
        return " ".join(pieces)

    def parts(self, parts: Sequence[Part]) -> str:
        """What spells the parts of a description."""
        return " ".join(
            self.literal(part) if isinstance(part, str) else _PLACES[type(part)] for part in parts
        )

    def value(self, schema: Schema, root: Schema) -> str:
        """A value as JSON.

        Args:
            schema: of the value.
            root: the schema that it was cut out of, for its references.
        """
        return f"%json {self._embed(_cut_out(schema, root))}"

    def string(self, schema: Schema, root: Schema, closing: str) -> str:
        """A string that is written as it is, and what closes it, which it cannot contain."""
        schema = resolved(schema, root)
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        if isinstance(values, list):
            options = [self.literal(each + closing) for each in values if isinstance(each, str)]
            return f"({' | '.join(options)})"
        tag = self._split.search(closing)
        spelled = closing[: tag.start()] if tag else closing
        body = [self._length(schema)]
        pattern = schema.get("pattern")
        if isinstance(pattern, str) and self._takes_pattern(pattern):
            body.append(f"/{_anchored(pattern)}/")
        name = self.add(" & ".join(body), terminal=True)
        if spelled:  # one lexeme, because a lexeme takes as much as it can
            name = self.add(f"{name} {json.dumps(spelled)}", terminal=True)
        if tag is None:
            more = f"/(?s:.*){escaped(closing)}(?s:.+)/"
            name = self.add(f"{name} & ~{more}", terminal=True)
        return f"{name} {self.literal(closing[len(spelled) :])}".strip()

    def _length(self, schema: Schema) -> str:
        least, most = schema.get("minLength", 0), schema.get("maxLength", "")
        if not isinstance(least, int | float) or least > MAX_LENGTH:
            least = 0
        if not isinstance(most, int | float) or most > MAX_LENGTH:
            most = ""
        if not least and most == "":
            return "/(?s:.*)/"
        return f"/(?s:.{{{int(least)},{most if most == '' else int(most)}}})/"

    def in_order(self, items: Sequence[tuple[str, str, bool]], separator: str) -> str:
        """Items in this order, of which those may be missing that are not required.

        Args:
            items: the text that begins each, what spells the rest, and whether it is required.
            separator: the text between two of them. It is spelled as one with the next item:
                where two texts begin alike, the longer one would be expected.
        """
        first, later = '""', '""'  # what follows when nothing or something was written
        for text, value, required in reversed(items):
            rest = self.add(later)
            alone = f"{self.literal(text)} {value} {rest}"
            joined = f"{self.literal(separator + text)} {value} {rest}"
            if not required:
                alone, joined = f"{alone} | {self.add(first)}", f"{joined} | {rest}"
            first, later = alone, joined
        return self.add(first)


def escaped(text: str) -> str:
    """A regular expression that matches this text alone."""
    return (
        _SPECIAL.sub(r"\\\1", text).replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    )


def _anchored(pattern: str) -> str:
    """A regular expression for a whole string that contains what a schema's pattern matches."""
    start = "" if pattern.startswith("^") else "(?s:.*)"
    ends = pattern.endswith("$") and not pattern.endswith("\\$")
    middle = pattern.removeprefix("^")
    middle = middle[:-1] if ends else middle
    middle = re.sub(r"(?<!\\)/", r"\\/", middle)
    return f"{start}({middle}){'' if ends else '(?s:.*)'}"


def _cut_out(schema: Schema, root: Schema) -> dict[str, Any]:
    """A part of a schema that can stand alone."""
    if schema is root or '"$ref"' not in json.dumps(schema):
        return dict(schema)
    moved: dict[str, Any] = _moved(schema)
    return {**moved, "$defs": {**moved.get("$defs", {}), ROOT: _moved(root)}}


def _moved(schema: Any) -> Any:
    """A schema whose references lead to the place of its root."""
    if isinstance(schema, list):
        return [_moved(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    copy = {key: _moved(each) for key, each in schema.items()}
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        copy["$ref"] = f"#/$defs/{ROOT}{reference[1:]}"
    return copy
