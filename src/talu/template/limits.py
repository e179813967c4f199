"""Bounds what one rendering may make and how long it may take.

Chat templates are programs from strangers. Every step and every character that one makes is charged
here, before it is made where it could be large. This file knows values, no template language.
"""

import re
import time
from collections.abc import ItemsView, KeysView, Mapping, Sequence, Set, ValuesView
from typing import Any

from talu.exceptions import TemplateError

__all__ = ["MAX_SOURCE", "Meter", "text_size"]

MAX_SOURCE = 256 * 1024  # characters of a template; the largest known has 17,000
SECONDS = 10.0
# A unit is a character made, kept or not: real templates build their text by adding to it, message
# after message, which is quadratic. So the worst a template can keep is some 100 MB.
UNITS = 100_000_000
UNITS_PER_INPUT = 50  # for each character of the input: templates go over it several times
STEP = 5  # entering a block or a turn of a loop
ELEMENT = 16  # of a list made
MAX_WIDTH = 1000  # of padding, indentation, number formats
MAX_BITS = 10_000  # of an integer

_CONTAINERS = (list, tuple, Set, KeysView, ValuesView, ItemsView)
_WIDTH = r"[-+ #0]*+(?:\*|\d{4}|\d{0,3}\.(?:\*|\d{4}))"
_WIDE = re.compile("%" + _WIDTH)
_WIDE_AFTER_NAME = re.compile(r"\)" + _WIDTH)
_TAKE_WIDTH = {"batch", "center", "indent", "round", "slice"}
_PADDING = {"center", "ljust", "rjust", "zfill"}


class Meter:
    """What is left of one rendering's allowance."""

    def __init__(self, input_size: int) -> None:
        """Start the clock; ``input_size`` is the text size of what the template is given."""
        self._left = UNITS + UNITS_PER_INPUT * input_size
        self._deadline = time.monotonic() + SECONDS

    def charge(self, units: int) -> None:
        """Pay for units of work.

        Raises:
            TemplateError: TEMPLATE_LIMIT_EXCEEDED when they or the time are used up.
        """
        self._left -= units
        if self._left < 0:
            raise _exceeded("it makes too much text or loops too often")
        if time.monotonic() > self._deadline:
            raise _exceeded(f"it runs for more than {SECONDS:g} seconds")

    def text(self, *values: object) -> None:
        """Pay for writing out values."""
        self.charge(text_size(values, self._left))

    def elements(self, value: object) -> None:
        """Pay for a list or a text that was made."""
        if isinstance(value, str):
            self.charge(len(value))
        elif isinstance(value, list):
            self.charge(ELEMENT * len(value))

    def multiply(self, left: Any, right: Any) -> None:
        """Before ``left * right``, where one may be a text or a list."""
        for value, count in ((left, right), (right, left)):
            if isinstance(value, str | list | tuple) and isinstance(count, int):
                self.charge(ELEMENT * len(value) * max(count, 0))
        if isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() + right.bit_length())

    def power(self, left: Any, right: Any) -> None:
        """Before ``left ** right``."""
        if isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() * abs(right))

    def percent(self, template: Any, values: object) -> None:
        """Before ``template % values`` of a text."""
        if isinstance(template, str):
            named = "%(" in template and _WIDE_AFTER_NAME.search(template)
            if named or _WIDE.search(template):
                raise _exceeded(f"a format is wider than {MAX_WIDTH}")
            self.charge(template.count("%") * text_size(values, self._left) + len(template))

    def braces(self, template: str, specs: Sequence[str | None], values: object) -> None:
        """Before ``template.format(values)``; ``specs`` are its parts after the colons."""
        for spec in specs:
            if spec and ("{" in spec or re.search(r"\d{4}", spec)):
                raise _exceeded(f"a format is wider than {MAX_WIDTH}, or made by the template")
        self.charge((len(specs) + 1) * text_size(values, self._left) + len(template))

    def method(self, owner: str, name: str, args: Sequence[Any]) -> None:
        """Before a method of a text is called."""
        self.charge(len(owner))
        if name == "replace" and len(args) > 1 and isinstance(args[0], str):
            places = owner.count(args[0]) if args[0] else len(owner) + 1
            self.charge(places * text_size(args[1], self._left))
        elif name == "join" and args:
            self.joined(owner, args[0])
        elif name in _PADDING:
            self.width(*args)

    def filter(self, name: str, value: Any, args: Sequence[Any], named: Mapping[str, Any]) -> None:
        """Before a filter is used that can make more than it is given."""
        self.text(args, named)
        options = (*args, *named.values())
        if name in _TAKE_WIDTH:
            self.width(*options)
        if name == "indent":
            widths = [len(o) if isinstance(o, str) else int(o) for o in options if o is not None]
            self.charge(str(value).count("\n") * max(widths, default=4))
        elif name == "replace":
            words = dict(zip(("old", "new"), map(str, args), strict=False)) | dict(named)
            self.method(str(value), name, (str(words.get("old")), str(words.get("new"))))
        elif name == "format":
            self.percent(str(value), options)
        elif name == "join":
            self.joined(options[0] if options else "", value)
        elif name == "sum" and any(isinstance(option, list | tuple) for option in options):
            raise _exceeded("it adds up lists")

    def joined(self, separator: object, values: Any) -> None:
        """Before values are joined; they are no iterator."""
        self.text(values)
        if hasattr(values, "__len__"):
            self.charge(text_size(separator, self._left) * len(values))

    def width(self, *values: object) -> None:
        """Refuse numbers, and texts in their place, that are no sensible width."""
        for value in values:
            size = len(value) if isinstance(value, str) else value
            if isinstance(size, int) and abs(size) > MAX_WIDTH:
                raise _exceeded(f"the width {size:.6g} is more than {MAX_WIDTH}")


def text_size(value: object, most: int | None = None) -> int:
    """About how many characters a value has when it is written out.

    Shared parts count each time, as they are written: lists of the same list explode. Counting
    stops beyond ``most``.
    """
    total = 0
    stack = [value]
    while stack and (most is None or total <= most):
        value = stack.pop()
        total += 4
        if isinstance(value, str):
            total += len(value)
        elif isinstance(value, Mapping):
            total += 8 * len(value)
            stack += [*value.keys(), *value.values()]
        elif isinstance(value, _CONTAINERS):
            total += 4 * len(value)
            stack += value
    return total


def _check_bits(bits: int) -> None:
    if bits > MAX_BITS:
        raise _exceeded("a number grows too large")


def _exceeded(reason: str) -> TemplateError:
    return TemplateError(
        f"the chat template was stopped: {reason}; check where it comes from, or give another one "
        "as chat_template",
        code="TEMPLATE_LIMIT_EXCEEDED",
    )
