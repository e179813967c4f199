"""Shows an answer in a terminal: Markdown styled, and before it the reasoning, dimmed."""

import sys
from collections.abc import Iterable

from talu.chat.builder import ReasoningPiece
from talu.cli.answer import write
from talu.cli.markdown import StyledMarkdown, is_styled
from talu.cli.terminal import VisibleText

__all__ = ["show"]

DIM, BRIGHT = "\x1b[2m", "\x1b[22m"


def show(pieces: Iterable[str]) -> None:
    """Write an answer; a pipe, or a user without styles, gets its text alone."""
    if not (sys.stdout.isatty() and is_styled()):
        write(pieces)
        return
    screen = _Screen()
    try:
        for piece in pieces:
            if isinstance(piece, ReasoningPiece):
                screen.put(piece.reasoning, reasoning=True)
            else:
                screen.put(piece, reasoning=False)
    finally:
        screen.finish()


class _Screen:
    """A terminal to which reasoning and text are written in turn."""

    def __init__(self) -> None:
        self._reasoning = False
        self._begin()

    def put(self, piece: str, *, reasoning: bool) -> None:
        """Write a piece, without the control characters in it."""
        if not piece:
            return
        if reasoning != self._reasoning:
            self.finish()
            self._reasoning = reasoning
        self._write(self._visible.push(piece))

    def finish(self) -> None:
        """Write what is held back, and end the line."""
        self._write(self._visible.flush())
        end = "" if self._reasoning else self._markdown.flush()
        if self._last and not self._last.endswith("\n"):
            end += "\n"
        sys.stdout.write(end)
        sys.stdout.flush()
        self._begin()

    def _begin(self) -> None:
        self._visible, self._markdown, self._last = VisibleText(), StyledMarkdown(), ""

    def _write(self, text: str) -> None:
        if not text:
            return
        self._last = text
        styled = f"{DIM}{text}{BRIGHT}" if self._reasoning else self._markdown.push(text)
        sys.stdout.write(styled)
        sys.stdout.flush()
