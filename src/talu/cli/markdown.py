"""Styles Markdown for a terminal as it arrives: headings, bold text, code, lists.

Only a marker whose end has not come yet is held back, so that nothing on the screen is written
twice, and a marker without an end is shown as it is.
"""

import os
import re

__all__ = ["StyledMarkdown", "is_styled"]

BOLD, PLAIN = "\x1b[1m", "\x1b[22m"
CODE, TEXT = "\x1b[36m", "\x1b[39m"
MOST_HELD = 400  # characters between markers; beyond that, the first one is text
START = re.compile(r"( *)(?:(#{1,6}) +|([-*+]) +|(`{3,}|~{3,})[^\n]*\n)")
MAYBE_START = re.compile(r" *(?:#{0,6}|[-*+]?|(`+|~+)[^\n]*) *\Z")
MARKER = re.compile(r"\*\*|`+")


def is_styled() -> bool:
    """Whether the user wants styles on a terminal; see https://no-color.org."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


class StyledMarkdown:
    """Adds the styles to a text in pieces."""

    def __init__(self) -> None:
        self._held = ""
        self._at_start = True  # of a line
        self._heading = False
        self._fence = ""  # that ends the block of code

    def push(self, piece: str) -> str:
        """The part that can be shown now."""
        self._held += piece
        return self._shown(ended=False)

    def flush(self) -> str:
        """The rest; call it at the end of the text."""
        return self._shown(ended=True) + self._reset()

    def _shown(self, *, ended: bool) -> str:
        out = []
        while self._held:
            before = self._held, self._at_start
            out.append(self._line(ended) if self._at_start or self._fence else self._inline(ended))
            if (self._held, self._at_start) == before:  # more has to come
                break
        return "".join(out)

    def _line(self, ended: bool) -> str:
        """What can be shown at the start of a line, or in a block of code."""
        if self._fence:
            return self._code(ended)
        if MAYBE_START.match(self._held) and not ended:
            return ""
        self._at_start = False
        found = START.match(self._held)
        if found is None:
            return ""
        self._held = self._held[found.end() :]
        indent, heading, bullet, fence = found.groups()
        if heading:
            self._heading = True
            return BOLD
        if bullet:
            return f"{indent}• "
        self._fence, self._at_start = fence, True
        return CODE

    def _code(self, ended: bool) -> str:
        """The next lines of a block of code; its last line is not shown."""
        line, newline, rest = self._held.partition("\n")
        if self._at_start and not line.strip(" " + self._fence[0]):  # it may be the last line
            if not (newline or ended):
                return ""
            if line.strip().startswith(self._fence):
                self._fence, self._held = "", rest
                return TEXT
        self._held, self._at_start = rest, bool(newline)
        return line + newline

    def _inline(self, ended: bool) -> str:
        """Text up to the next marker or the end of the line."""
        line, newline, rest = self._held.partition("\n")
        found = MARKER.search(line)
        if found is None:
            cut = len(line) - line.endswith("*") if not (newline or ended) else len(line)
            if newline:
                self._held, self._at_start = rest, True
                return line + self._reset() + newline
            self._held = line[cut:]
            return line[:cut]
        if found.start():
            self._held = self._held[found.start() :]
            return line[: found.start()]
        if found.end() == len(line) and not (newline or ended):
            return ""  # the marker may become longer
        marker = found[0]
        close = line.find(marker, found.end())
        complete = newline or ended or len(line) > MOST_HELD
        if close < 0 and not complete:
            return ""
        inner = line[found.end() : close] if close > 0 else ""
        if not inner or (marker == "**" and (inner[0].isspace() or inner[-1].isspace())):
            self._held = self._held[len(marker) :]
            return marker
        self._held = self._held[close + len(marker) :]
        if marker == "**":
            return inner if self._heading else f"{BOLD}{inner}{PLAIN}"
        return f"{CODE}{inner}{TEXT}"

    def _reset(self) -> str:
        """Ends the styles of a heading and of a block of code."""
        ends = PLAIN * self._heading + TEXT * bool(self._fence)
        self._heading, self._fence = False, ""
        return ends
