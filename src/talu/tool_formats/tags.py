"""Finds the tags around arguments, in renderings of calls with different arguments."""

import json
from collections.abc import Callable
from typing import Any, TypeAlias

from talu.tool_formats.description import KEY as PLACE
from talu.tool_formats.description import Tagged
from talu.tool_formats.probes import KEY, OTHER, VALUE
from talu.tool_formats.renderings import common_start, cut
from talu.tool_formats.unclear import Unclear

__all__ = ["Shown", "tagged_of"]

Shown: TypeAlias = Callable[[dict[str, object]], str | None]

SAMPLES: dict[str, Any] = {
    "integer": 5,
    "number": 2.5,
    "boolean": True,
    "null": None,
    "array": [1, "Zq7item"],
    "object": {"Zq7inner": 1},
}


def tagged_of(rest: str, shown: Shown) -> tuple[str, str, Tagged]:
    """The texts before and after all arguments, and the tags around each.

    Args:
        rest: what follows the name in a call with one argument.
        shown: what follows the name in a call with these arguments; None if rendering fails.

    Raises:
        Unclear: the arguments are written in another way.
    """
    empty, both = shown({}), shown({KEY: VALUE, OTHER: VALUE})
    if KEY not in rest or VALUE not in cut(rest, KEY)[1] or empty is None or both is None:
        raise Unclear("the arguments of a call are neither JSON nor tags")
    start, after_key = cut(rest, KEY)
    to_value, end = cut(after_key, VALUE)
    before = common_start(start, empty)
    opening, after = start[len(before) :], empty[len(before) :]
    if not opening or not end.endswith(after):
        raise Unclear("the tags of arguments cannot be told from those of the call")
    closing = end[: len(end) - len(after)]
    between = cut(cut(both, VALUE)[1], OTHER)[0]
    if not closing or not between.startswith(closing) or not between.endswith(opening):
        raise Unclear("the tags between two arguments differ from those around one")
    separator = between[len(closing) : len(between) - len(opening)]
    quoted = to_value.endswith('"') and closing.startswith('"')
    if quoted:
        to_value, closing = to_value[:-1], closing[1:]
    values = {"string": to_value}
    odd = []
    for kind, sample in SAMPLES.items():
        text = shown({KEY: sample}) or ""
        written = cut(text, KEY)[1]
        ending = closing + after
        found = _before_value(written[: len(written) - len(ending)], sample, to_value)
        if found is None or not written.endswith(ending):
            odd.append(kind)
        values[kind] = to_value if found is None else found
    return (
        before,
        after,
        Tagged(
            opening=opening,
            values=tuple(values.items()),
            closing=closing.replace(KEY, PLACE),
            separator=separator,
            quoted=quoted,
            python=cut(cut(shown({KEY: True}) or "", KEY)[1], closing)[0].endswith("True"),
            wrapping=_wrapping(shown({KEY: f"<{VALUE}>"}) or "", to_value, closing),
            odd=tuple(odd),
        ),
    )


def _wrapping(rest: str, before: str, after: str) -> tuple[str, str]:
    """What a template writes around a string with a tag in it."""
    start, end = cut(cut(rest, KEY)[1], f"<{VALUE}>")
    closing = end[: end.find(after)] if after in end else ""
    opening = start[len(before) :] if start.startswith(before) else ""
    return (opening, closing) if opening and closing else ("", "")


def _before_value(text: str, sample: Any, usual: str) -> str | None:
    """What stands before the value; None if it is not written as JSON."""
    for start in (usual, *(text[:size] for size in range(len(text) + 1))):
        if text.startswith(start) and _is_value(text[len(start) :], sample):
            return start
    return None


def _is_value(text: str, sample: Any) -> bool:
    if text == str(sample):  # True, None
        return True
    try:
        return bool(json.loads(text) == sample)
    except ValueError:
        return False
