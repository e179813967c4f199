"""Parts of error messages that several modules share."""

import difflib
from collections.abc import Iterable

__all__ = ["NOT_YET", "nearest"]

NOT_YET = {  # known names of features that this version does not have
    "allow_thinking": "structured output",
    "extra_body": "remote models",
    "inject_schema_prompt": "structured output",
    "max_thinking_tokens": "structured output",
    "response_format": "structured output",
    "tool_choice": "tools",
    "tools": "tools",
    "tools_json": "tools",
}


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence for an error message: the known name that looks most like ``name``, if any."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
