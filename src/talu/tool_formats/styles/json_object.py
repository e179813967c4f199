"""Reads arguments that are a JSON object."""

import re

from talu.tool_formats.styles.style import Step

__all__ = ["JSONObject"]

_OUTSIDE = re.compile(r'["{}\[\]]')
_INSIDE = re.compile(r'["\\]')
_SPACE = re.compile(r"\s*")


class JSONObject:
    """Finds the end of the object, by its brackets."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def read(self, text: str, at: int) -> Step:
        """See ``ArgumentsReader``."""
        start = at
        if not self._depth:
            found = _SPACE.match(text, at)
            start = at = found.end() if found else at
            if at < len(text) and text[at] != "{":
                return Step("", at, ended=True)
        while at < len(text):
            if self._escaped:
                self._escaped = False
                at += 1
                continue
            found = (_INSIDE if self._in_string else _OUTSIDE).search(text, at)
            if found is None:
                break
            at = found.end()
            if found[0] == '"':
                self._in_string = not self._in_string
            elif found[0] == "\\":
                self._escaped = True
            else:
                self._depth += 1 if found[0] in "{[" else -1
                if self._depth == 0:
                    return Step(text[start:at], at, ended=True)
        return Step(text[start:], len(text))

    def finish(self) -> str:
        """See ``ArgumentsReader``."""
        return ""
