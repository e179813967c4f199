"""Decides which keywords of a schema the grammar of an answer holds.

The others are checked in the complete answer. llguidance reads numbers as floats of 64 bits, and
some keywords not exactly: what it would not hold is found by trying it.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

from talu.exceptions import StructuredOutputError
from talu.structured.keywords import (
    ANNOTATIONS,
    ASSERTIONS,
    GENERATED,
    META_SCHEMAS,
    declares_draft,
    draft_of,
    effective,
    pointer,
)
from talu.structured.matching import is_followed, spells
from talu.structured.references import reachable
from talu.structured.report import SchemaReport
from talu.structured.string_formats import CHECKED_FORMATS, GENERATED_FORMATS, PATTERNS

__all__ = ["ENFORCER", "HeldKeywords", "refused"]

ENFORCER = "talu"
MAX_DIVISOR = 10_000  # of multipleOf; the automaton has as many states
MAX_COUNT = 100_000  # of repetitions; a context holds no more
MAX_EXACT = 2**53
LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
COUNTS = ("maxItems", "maxLength", "maxProperties", "minItems", "minLength", "minProperties")

Schema = dict[str, Any]


class HeldKeywords:
    """The part of a schema that a grammar holds, and what becomes of each keyword.

    Attributes:
        schema: that part, for llguidance.
    """

    def __init__(self, schema: Schema, takes_pattern: Callable[[str], bool]) -> None:
        """Take what no grammar holds out of a copy of the schema.

        Args:
            schema: a valid schema.
            takes_pattern: whether a grammar can follow a regular expression.

        Raises:
            StructuredOutputError: no answer is long enough.
        """
        self.schema: Schema = json.loads(json.dumps(schema))
        self._takes_pattern = takes_pattern
        self._enforced: dict[str, str] = {}  # keywords by pointer
        self._nodes: dict[str, str] = {}  # the schemas of these keywords
        self._checked: list[str] = []
        self._ignored: list[str] = []
        draft = draft_of(self.schema)
        for path, node in reachable(self.schema).items():
            in_effect = effective(node, draft)
            if declares_draft(node):  # llguidance knows each draft by one name
                node["$schema"] = META_SCHEMAS[draft]
            for key in list(node):
                if key in in_effect:
                    self._sort(path, node, key)
                elif key not in ANNOTATIONS:
                    self._ignored.append(pointer(path, key))
                    del node[key]
        left = reachable(self.schema)  # without those below a keyword that is only checked
        self._check(place for place, node in self._nodes.items() if node not in left)

    def _sort(self, path: str, node: Schema, key: str) -> None:
        place = pointer(path, key)
        if key in COUNTS and isinstance(node[key], float):  # such as 2.0
            node[key] = int(node[key])
        if key == "format" and node[key] not in GENERATED_FORMATS:
            (self._checked if node[key] in CHECKED_FORMATS else self._ignored).append(place)
            del node[key]
        elif key not in GENERATED or not self._holds(node, key):
            self._checked.append(place)
            del node[key]
        else:
            if key == "format" and node[key] in PATTERNS:  # llguidance allows days that no year has
                _add_pattern(node, PATTERNS[node[key]])
                del node[key]
            self._enforced[place] = key
            self._nodes[place] = path

    def _holds(self, node: Schema, key: str) -> bool:
        value = node[key]
        match key:
            case "pattern":
                return self._takes_pattern(value)
            case "patternProperties":
                return all(map(self._takes_pattern, value))
            case "minItems" | "minLength" | "minProperties" if value > MAX_COUNT:
                raise refused("json", f"{key} is {value:,}, and no answer is that long")
            case "maxItems" | "maxLength" | "maxProperties":
                return bool(value <= MAX_COUNT)
            case "const" | "enum":
                return _is_exact(value)
            case "multipleOf":
                return value <= MAX_DIVISOR and spells(_number(key, value), json.dumps(value))
            case "minimum" | "maximum":
                return _is_exact(value) and spells(_number(key, value), json.dumps(value))
            case "exclusiveMinimum" | "exclusiveMaximum":
                return self._excludes(node, key)
        return True

    def _excludes(self, node: Schema, key: str) -> bool:
        """Whether a grammar holds an exclusive limit, perhaps with an inclusive one beside it.

        llguidance lets the limit pass if the other one has the same whole part. Then a number very
        near to it is the limit.
        """
        limit = node[key]
        if isinstance(limit, bool) or not _is_exact(limit):
            return False
        held = {name: node[name] for name in LIMITS if name in node and _is_exact(node[name])}
        schema = {"type": "number", **held}
        texts = _spellings(limit)
        if not any(spells(schema, text) for text in texts):
            return is_followed(schema)
        name = key.replace("exclusiveM", "m")
        sign, stricter = (1, max) if name == "minimum" else (-1, min)
        near = _near(limit, sign)
        node[name] = schema[name] = stricter(near, held.get(name, near))
        return is_followed(schema) and not any(spells(schema, text) for text in texts)

    def drop(self, key: str) -> bool:
        """Check a keyword instead of generating it; False if there is none."""
        found = [node.pop(key, None) for node in reachable(self.schema).values()]
        self._check(place for place, keyword in self._enforced.items() if keyword == key)
        return any(each is not None for each in found)

    def learn(self, warnings: Sequence[str]) -> None:
        """Note the keywords that llguidance left out."""
        for warning in warnings:
            words = {*re.findall(r"[$\w]+", warning.replace("min/max", "minProperties max"))}
            keys = {"oneOf"} if "oneOf" in words else words & ASSERTIONS
            concerned = keys or ASSERTIONS
            self._check(place for place, key in self._enforced.items() if key in concerned)

    def _check(self, places: Iterable[str]) -> None:
        """Move enforced keywords to those that are checked."""
        for place in list(places):
            if self._enforced.pop(place, None) is not None:
                self._checked.append(place)

    def report(self) -> SchemaReport:
        """What became of each keyword."""
        return SchemaReport(
            tuple(self._enforced), tuple(self._checked), tuple(self._ignored), ENFORCER
        )


def _number(key: str, value: float) -> Schema:
    return {"type": "number", key: value}


def _is_exact(value: object) -> bool:
    """Whether llguidance, whose numbers have 64 bits, reads all numbers in a value exactly."""
    if isinstance(value, list):
        return all(map(_is_exact, value))
    if isinstance(value, dict):
        return all(map(_is_exact, value.values()))
    return not isinstance(value, int | float) or abs(value) <= MAX_EXACT


def _near(number: float, sign: int) -> float:
    """A number a little above or below another."""
    exact = Decimal(repr(number))
    places = max(0, -int(exact.as_tuple().exponent)) + 6
    return float(exact + sign * Decimal(1).scaleb(-places))


def _spellings(number: float) -> list[str]:
    """Texts of a number in JSON."""
    text = json.dumps(number)
    if number == 0:
        return ["0", "-0", "0.0", "-0.0"]
    if number == int(number):
        return [str(int(number)), f"{int(number)}.0"]
    return [text, f"{text}0"] if "e" not in text else [text]


def _add_pattern(node: Schema, pattern: str) -> None:
    """Demand that strings of a schema match a pattern as a whole."""
    added = {"pattern": f"^(?:{pattern})$"}
    if "pattern" in node:
        node["allOf"] = [*node.get("allOf", ()), added]
    else:
        node |= added


def refused(kind: str, problem: str) -> StructuredOutputError:
    """The error for a form that cannot be followed.

    Args:
        kind: of the form, or ``"calls"`` for calls of tools.
        problem: why.
    """
    what = {"json": "JSON Schema", "regex": "regular expression", "choice": "choice"}
    param = "tools" if kind == "calls" else "response_format"
    subject = (
        "parameters of a tool" if param == "tools" else f"{what.get(kind, 'grammar')} of {param}"
    )
    problem = " ".join(problem.replace("<non-verbose/>", "").split())
    return StructuredOutputError(
        f"the {subject} cannot be followed: {problem[:500] or 'nothing fits'}",
        details={"param": param, "problem": problem[:500]},
    )
