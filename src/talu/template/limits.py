"""Limits the time and memory that chat templates may use.

Chat templates are untrusted programs. Each step and each character that a template produces is
charged here; work that could be large is charged before it is done.
"""

import re
import time
from collections.abc import (
    Generator,
    ItemsView,
    Iterator,
    KeysView,
    Mapping,
    Sequence,
    Set,
    ValuesView,
)
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from talu.deadline import Deadline
from talu.exceptions import TemplateError

__all__ = ["MAX_SOURCE", "MAX_TOKENS", "Clock", "Meter", "template_time"]

MAX_SOURCE = 64 * 1024  # characters of a template; the largest known has 17,000
MAX_TOKENS = 20_000  # of the template language in a template; the largest known has 2,400
SECONDS = 2.0  # of processor time for all template work of one request
# A unit is a character produced, kept or not: real templates append message after message to their
# text, which is quadratic. A template can therefore hold about 100 MB at most.
UNITS = 100_000_000
UNITS_PER_INPUT = 50  # for each character of the input, which templates read several times
INPUT_PER_SECOND = 1_000_000  # characters of the input that allow one second more
STEP = 5  # entering a block or an iteration of a loop
ELEMENT = 16  # of a new list
CALLS_PER_LOOK = 64  # charges between two checks of the clock,
UNITS_PER_LOOK = 100_000  # or this many units
SCANNED_PER_UNIT = 64  # characters of a text that is only compared or searched
MAX_WIDTH = 1000  # of padding, indentation, number formats
MAX_BITS = 10_000  # of an integer
MAX_RANGE = 100_000  # numbers of a range
MAX_PATH = 100  # parts of a dotted attribute
MAX_KEY = 2**60  # a template can make the hashes of larger integers collide

_CONTAINERS = (list, tuple, Set, KeysView, ValuesView, ItemsView)
_WIDTH = r"[-+ #0]*+(?:\*|\d{4}|\d{0,3}\.(?:\*|\d{4}))"
_WIDE = re.compile("%" + _WIDTH)
_WIDE_AFTER_NAME = re.compile(r"\)" + _WIDTH)
_TAKE_WIDTH = {"batch", "center", "indent", "round", "slice"}
_PADDING = {"center", "ljust", "rjust", "zfill"}
_SPLIT_INTO_WORDS = {"title", "wordcount"}
_TAKE_ATTRIBUTE = {
    *("attr", "groupby", "join", "map", "max", "min", "reject", "rejectattr", "select"),
    *("selectattr", "sort", "sum", "unique"),
}
# CPython takes time proportional to text x argument for these.
_SLOW_SEARCH = {"lstrip", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "strip"}
_SPLIT = {"rsplit", "split", "splitlines"}


class Clock:
    """Limits the processor time of this thread, without waiting, and checks the call's deadline."""

    def __init__(self, deadline: Deadline | None = None) -> None:
        self._deadline = deadline
        self._began = time.thread_time()
        self._allowed = SECONDS

    def allow_for(self, input_size: int) -> None:
        """Allow what a long conversation takes; rendering one again allows nothing more."""
        self._allowed = max(self._allowed, SECONDS + input_size / INPUT_PER_SECOND)

    def check(self) -> None:
        """Check the time against the limit.

        Raises:
            GenerationError: GENERATION_TIMEOUT if the deadline has passed.
            TemplateError: TEMPLATE_LIMIT_EXCEEDED if the processor time is used up.
        """
        if self._deadline is not None:
            self._deadline.check()
        if time.thread_time() - self._began > self._allowed:
            raise _exceeded(f"it needs more than {self._allowed:.3g} seconds")


_running: ContextVar[Clock | None] = ContextVar("_running", default=None)


@contextmanager
def template_time(deadline: Deadline | None = None) -> Generator[Clock]:
    """Set one time limit for all template work in the block; nested blocks share the outer one.

    Args:
        deadline: the deadline of the call, which may end before the template's own limit.
    """
    clock = _running.get()
    if clock is not None:
        yield clock
        return
    clock = Clock(deadline)
    token = _running.set(clock)
    try:
        yield clock
    finally:
        _running.reset(token)


class Meter:
    """The remaining work units of one rendering."""

    def __init__(self, variables: Mapping[str, Any], clock: Clock) -> None:
        """Allow work in proportion to the text in ``variables``."""
        self._clock = clock
        self._left = UNITS
        self._since_look = 0
        self._calls = 0
        input_size = sum(_sizes(variables))
        self._left += UNITS_PER_INPUT * input_size
        clock.allow_for(input_size)

    def charge(self, units: int) -> None:
        """Charge units of work.

        Raises:
            TemplateError: TEMPLATE_LIMIT_EXCEEDED if the units or the time are used up.
        """
        self._left -= units
        if self._left < 0:
            raise _exceeded("it produces too much text or loops too often")
        self._since_look += units
        self._calls += 1
        if self._since_look >= UNITS_PER_LOOK or self._calls >= CALLS_PER_LOOK:
            self._since_look = self._calls = 0
            self._clock.check()

    def size(self, value: object) -> int:
        """The approximate number of characters of a value as text.

        A shared part counts each time that it is written, because nested references to one list
        grow exponentially.

        Raises:
            TemplateError: TEMPLATE_LIMIT_EXCEEDED if that is more than the remaining units.
        """
        total = 0
        for at, size in enumerate(_sizes(value)):
            total += size
            if total > self._left:
                raise _exceeded("it produces too much text or loops too often")
            if at % CALLS_PER_LOOK == CALLS_PER_LOOK - 1:
                self._clock.check()
        return total

    def text(self, *values: object) -> None:
        """Charge for converting values to text."""
        self.charge(self.size(values))

    def compared(self, value: object) -> None:
        """Charge for comparing or searching a value, which may be nested."""
        if isinstance(value, str):
            self.charge(len(value) // SCANNED_PER_UNIT)
        elif value is not None and not isinstance(value, int):
            self.text(value)

    def key(self, value: object) -> None:
        """Check a value before it is hashed.

        Texts are hashed with a secret of the process; a template could choose other values so that
        their hashes collide, which takes quadratic time.
        """
        if isinstance(value, int | float) and not abs(value) < MAX_KEY:
            raise _exceeded("a number is too large for a key")
        if not isinstance(value, str | int | float | None):
            raise _exceeded("a key is neither a text nor a number")

    def elements(self, value: object) -> None:
        """Charge for a text or a container that was created."""
        if isinstance(value, str):
            self.charge(len(value))
        elif isinstance(value, list | tuple | dict):
            self.charge(ELEMENT * len(value))

    def multiply(self, left: Any, right: Any) -> None:
        """Charge for ``left * right`` before it is computed; one may be a text or a list."""
        for value, count in ((left, right), (right, left)):
            if isinstance(value, str | list | tuple) and isinstance(count, int):
                self.charge(ELEMENT * len(value) * max(count, 0))
        if isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() + right.bit_length())

    def numbers(self, numbers: range) -> None:
        """Refuse a range of too many numbers."""
        if numbers[MAX_RANGE:]:
            raise _exceeded(f"a range has more than {MAX_RANGE:,} numbers")

    def power(self, left: Any, right: Any) -> None:
        """Check ``left ** right`` before it is computed."""
        if isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() * abs(right))

    def percent(self, template: Any, values: object) -> None:
        """Charge for ``template % values`` of a text before it is computed."""
        if isinstance(template, str):
            named = "%(" in template and _WIDE_AFTER_NAME.search(template)
            if named or _WIDE.search(template):
                raise _exceeded(f"a format is wider than {MAX_WIDTH}")
            self.charge(template.count("%") * self.size(values) + len(template))

    def braces(self, template: str, specs: Sequence[str | None], values: object) -> None:
        """Charge for ``template.format(values)``; ``specs`` are the parts after the colons."""
        for spec in specs:
            if spec and ("{" in spec or re.search(r"\d{4}", spec)):
                raise _exceeded(f"a format is wider than {MAX_WIDTH}, or made by the template")
        self.charge((len(specs) + 1) * self.size(values) + len(template))

    def method(self, owner: str, name: str, args: Sequence[Any]) -> None:
        """Charge for a method of a text before it is called."""
        self.charge(len(owner))
        if name == "replace" and len(args) > 1 and isinstance(args[0], str):
            places = owner.count(args[0]) if args[0] else len(owner) + 1
            self.charge(places * self.size(args[1]))
        elif name == "join" and args:
            self.joined(owner, args[0])
        elif name in _PADDING:
            self.width(*args)
        elif name in _SLOW_SEARCH:
            self.charge(len(owner) * sum(len(arg) for arg in args if isinstance(arg, str)))
        if name in _SPLIT:
            separators = [arg for arg in args if isinstance(arg, str) and arg]
            places = owner.count(separators[0]) if separators else len(owner) // 2
            self.charge(ELEMENT * places)

    def filter(self, name: str, value: Any, args: Sequence[Any], named: Mapping[str, Any]) -> None:
        """Charge for a filter whose output can be larger than its input, before it is called."""
        self.text(args, named)
        options = (*args, *named.values())
        if name in _TAKE_WIDTH:
            self.width(*options)
        if name in _SPLIT_INTO_WORDS:
            self.charge(ELEMENT * self.size(value))
        if name in _TAKE_ATTRIBUTE:
            _check_paths(options)
        if name == "indent":
            widths = [len(o) if isinstance(o, str) else int(o) for o in options if o is not None]
            self.charge(str(value).count("\n") * max(widths, default=4))
        elif name == "replace":
            words = dict(zip(("old", "new"), map(str, args), strict=False)) | dict(named)
            self.method(str(value), name, (str(words.get("old")), str(words.get("new"))))
        elif name == "groupby" and hasattr(value, "__len__"):  # each element may get the default
            self.charge(self.size(options) * len(value))
        elif name == "trim":
            self.method(str(value), "strip", options)
        elif name == "format":
            self.percent(str(value), options)
        elif name == "join":
            self.joined(options[0] if options else "", value)
        elif name == "sum" and any(isinstance(option, list | tuple) for option in options):
            raise _exceeded("it adds up lists")

    def joined(self, separator: object, values: Any) -> None:
        """Charge for joining values, which must not be an iterator, before it is done."""
        self.text(values)
        if hasattr(values, "__len__"):
            self.charge(self.size(separator) * len(values))

    def width(self, *values: object) -> None:
        """Refuse widths that are too large, given as numbers or texts."""
        for value in values:
            size = len(value) if isinstance(value, str) else value
            if isinstance(size, int) and abs(size) > MAX_WIDTH:
                raise _exceeded(f"the width {size:.6g} is more than {MAX_WIDTH}")


def _sizes(value: Any) -> Iterator[int]:
    """The sizes of all parts of a value, in characters."""
    stack = [value]
    while stack:
        value = stack.pop()
        kind = type(value)
        if kind is str:
            yield 4 + len(value)
        elif kind is int or value is None:
            yield 4
        elif kind is dict:
            stack += value
            stack += value.values()
            yield 4 + 8 * len(value)
        elif isinstance(value, str):
            yield 4 + len(value)
        elif isinstance(value, Mapping):
            stack += [*value.keys(), *value.values()]
            yield 4 + 8 * len(value)
        elif isinstance(value, _CONTAINERS):
            stack += value
            yield 4 + 4 * len(value)
        else:
            yield 4


def _check_paths(options: Sequence[object]) -> None:
    for option in options:
        if isinstance(option, str) and option.count(".") >= MAX_PATH:
            raise _exceeded(f"an attribute has more than {MAX_PATH} parts")


def _check_bits(bits: int) -> None:
    if bits > MAX_BITS:
        raise _exceeded("a number grows too large")


def _exceeded(reason: str) -> TemplateError:
    return TemplateError(
        f"the chat template was stopped: {reason}; check where it comes from, or give another one "
        "as chat_template",
        code="TEMPLATE_LIMIT_EXCEEDED",
    )
