"""Defines the forms of answers that are no JSON: regular expressions, choices and grammars."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from talu.error_text import kind_of, shown
from talu.exceptions import StructuredOutputError, ValidationError
from talu.unicode import check_unicode

__all__ = ["Choice", "Grammar", "Regex"]

MAX_TEXT = 256 * 1024  # characters of a regular expression, a grammar, or all options together
MAX_OPTIONS = 10_000

Syntax = Literal["lark", "gbnf"]


@dataclass(frozen=True, slots=True)
class Regex:
    """The answer matches this regular expression as a whole.

    Attributes:
        pattern: in the syntax of Rust's ``regex``, which has neither look-around nor
            back-references, so that matching takes linear time.
    """

    pattern: str

    def __post_init__(self) -> None:
        _check_text("pattern", self.pattern)


@dataclass(frozen=True, slots=True, init=False)
class Choice:
    """The answer is one of these texts.

    ``response.parsed`` is the text, or the member if the options are those of an ``Enum``.

    Attributes:
        options: the texts.
        members: the members of the ``Enum``, in the order of ``options``; empty without one.
    """

    options: tuple[str, ...]
    members: tuple[Enum, ...]

    def __init__(self, options: Iterable[str] | type[Enum]) -> None:
        """Choose among texts, or among the members of an ``Enum`` whose values are texts."""
        members: tuple[Enum, ...] = ()
        if isinstance(options, type) and issubclass(options, Enum):
            members = tuple(options)
            values = [member.value for member in members]
        elif isinstance(options, str) or not isinstance(options, Iterable):
            raise _wrong("options", f"must be a list of texts, got {shown(options)}")
        else:
            values = list(options)
        for value in values:
            if not isinstance(value, str) or not value:
                raise _wrong("options", f"must be texts that are not empty, got {shown(value)}")
            check_unicode("options", value)
        if not values:
            raise _wrong("options", "must not be empty")
        if len(set(values)) < len(values):
            raise _wrong("options", "must not repeat a text")
        if len(values) > MAX_OPTIONS or sum(map(len, values)) > MAX_TEXT:
            raise too_large(
                f"the choice has {len(values):,} options with {sum(map(len, values)):,} "
                f"characters; the limits are {MAX_OPTIONS:,} and {MAX_TEXT:,}"
            )
        object.__setattr__(self, "options", tuple(values))
        object.__setattr__(self, "members", members)


@dataclass(frozen=True, slots=True, init=False)
class Grammar:
    """The answer is a text of this context-free grammar.

    Attributes:
        text: the grammar.
        syntax: ``"lark"`` (the variant of llguidance) or ``"gbnf"`` (that of llama.cpp).
    """

    text: str
    syntax: Syntax

    def __init__(self, text: str, syntax: Syntax | None = None) -> None:
        """Take a grammar; without ``syntax``, one with ``::=`` is GBNF and any other Lark."""
        _check_text("text", text)
        found: Syntax = ("gbnf" if "::=" in text else "lark") if syntax is None else syntax
        if found not in ("lark", "gbnf"):
            raise _wrong("syntax", f"must be 'lark' or 'gbnf', got {shown(syntax)}")
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "syntax", found)


def too_large(message: str) -> StructuredOutputError:
    """The error for a description that exceeds a limit."""
    return StructuredOutputError(message, details={"param": "response_format"})


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise _wrong(name, f"must be text, got {kind_of(value)}")
    if not value:
        raise _wrong(name, "must not be empty")
    check_unicode(name, value)
    if len(value) > MAX_TEXT:
        raise too_large(f"{name} has {len(value):,} characters; the limit is {MAX_TEXT:,}")


def _wrong(name: str, problem: str) -> ValidationError:
    return ValidationError(f"{name} {problem}", details={"param": name})
