"""Describes how a model writes tool calls; one description is used to constrain and to read.

A call is ``opening name after_name arguments``, and then ``closing``, or ``following``, which leads
to the name of another call. These parts are literal texts in which an id or the number of the call
may stand.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple, TypeAlias

__all__ = [
    "HARMONY_REASONING",
    "KEY",
    "Id",
    "Index",
    "Part",
    "Reasoning",
    "Style",
    "Tagged",
    "ToolFormat",
    "literal_of",
    "literals",
    "without_ends",
]

KEY = "\ufdd1"  # the name of the argument, in the literal texts around arguments in tags
Style: TypeAlias = Literal["json", "pythonic", "gemma", "tagged"]


class Id(NamedTuple):
    """The place of the id of a call, which the model writes itself."""


class Index(NamedTuple):
    """The place of the number of a call; ``first`` is that of the first one."""

    first: int


Part: TypeAlias = str | Id | Index


def literal_of(parts: tuple[Part, ...]) -> str:
    """The literal text before the first id or number."""
    return parts[0] if parts and isinstance(parts[0], str) else ""


class Reasoning(NamedTuple):
    """The texts around reasoning, without white space at their ends."""

    opening: str
    closing: str


HARMONY_REASONING = Reasoning("<|channel|>analysis<|message|>", "<|end|>")


class Tagged(NamedTuple):
    """Arguments that have a tag each: ``opening key values[type] value closing``.

    Attributes:
        opening: before the key.
        values: between the key and the value, by the JSON type of the value.
        closing: after the value.
        separator: between the closing of an argument and the opening of the next.
        quoted: strings are written as JSON, not as they are.
        python: truth values and null are written as Python does.
        wrapping: further texts around a string that could be mistaken for tags.
        odd: types of values that the template writes in another way than as JSON; here they are
            written as JSON too.
    """

    opening: str
    values: tuple[tuple[str, str], ...]
    closing: str
    separator: str = ""
    quoted: bool = False
    python: bool = False
    wrapping: tuple[str, str] = ("", "")
    odd: tuple[str, ...] = ()

    def value(self, kind: str) -> str:
        """The text between the key and a value of this JSON type."""
        return dict(self.values)[kind]


class ToolFormat(NamedTuple):
    """How a model writes calls, reasoning and text.

    Attributes:
        style: how arguments are written.
        opening: up to the name of the first call, beginning with its marker.
        after_name: between name and arguments.
        closing: after the arguments of the last call.
        following: from the arguments of a call to the name of the next; None if the template shows
            one call only.
        tagged: the tags of the style ``"tagged"``.
        quote: the text around strings in the style ``"gemma"``.
        anywhere: whether the marker is recognised within a text. Without a marker, as in
            ``{"name": ...``, a call is recognised at the beginning of an answer only.
        text: the texts around content, where the template writes any.
        code: the name of the module that reads the format, for one that the other fields do not
            describe.
    """

    style: Style = "json"
    opening: tuple[Part, ...] = ()
    after_name: tuple[Part, ...] = ()
    closing: tuple[Part, ...] = ()
    following: tuple[Part, ...] | None = None
    tagged: Tagged | None = None
    quote: str = ""
    anywhere: bool = True
    text: tuple[str, str] = ("", "")
    code: str = ""


def literals(form: ToolFormat) -> list[str]:
    """All texts that a model writes around names, arguments, ids and content."""
    parts = (*form.opening, *form.after_name, *form.closing, *(form.following or ()))
    found = [part for part in parts if isinstance(part, str)]
    found += [form.quote, *form.text]
    if form.tagged is not None:
        tagged = form.tagged
        found += [tagged.opening, tagged.closing, tagged.separator]
        found += [text for _, text in tagged.values]
    return found


def without_ends(form: ToolFormat, ends: Iterable[str]) -> ToolFormat:
    """A description whose closing stops before the tokens that end an answer."""
    closing: list[Part] = []
    for part in form.closing:
        if isinstance(part, str):
            found = [place for end in ends if end and (place := part.find(end)) >= 0]
            if found:
                closing.append(part[: min(found)])
                break
        closing.append(part)
    return form._replace(closing=tuple(part for part in closing if part != ""))
