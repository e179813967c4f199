"""Finds the marker of calls: the beginning of what a model writes before the name of a call."""

import re

from talu.tool_formats.description import ToolFormat, literal_of

__all__ = ["marker_of"]

_TAG = re.compile(r"[^\w\s]*<[^<>\s=\"]+[>=]?|\[[^\[\]\s]+\]")
_WORDS = re.compile(r"[^{\"]*\S(?=\s*[{\"])")


def marker_of(form: ToolFormat) -> str:
    """The text by which a call is recognised; what follows it up to the name is expected.

    It is the first tag of the opening, or the opening up to its first bracket or quotation mark. A
    format without a marker is recognised by its whole opening.
    """
    opening = literal_of(form.opening)
    if not form.anywhere:
        return opening
    found = _TAG.match(opening) or _WORDS.match(opening)
    return found[0] if found else opening
