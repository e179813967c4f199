"""Writes an answer to stdout and notes about it to stderr."""

import json
import re
import sys
from collections.abc import Iterable

import click

from talu.chat.sync_chat import StreamingResponse
from talu.cli.terminal import VisibleText, counted, visible
from talu.types import FinishReason

__all__ = ["report", "write", "write_json"]


def write(pieces: Iterable[str]) -> None:
    """Write to a terminal without control characters, to a pipe or a file unchanged."""
    terminal = sys.stdout.isatty()
    text = VisibleText()
    last = ""
    try:
        for piece in pieces:
            shown = text.push(piece) if terminal else piece
            last = shown or last
            sys.stdout.write(shown)
            sys.stdout.flush()
        sys.stdout.write(text.flush())
    finally:
        if last and not last.endswith("\n"):
            sys.stdout.write("\n")
            sys.stdout.flush()


def write_json(value: object) -> None:
    """Write one line of JSON without control characters."""
    readable = sys.stdout.encoding.lower() == "utf-8"
    text = json.dumps(value, ensure_ascii=not readable)
    # JSON escapes C0 characters, but not DEL and C1.
    text = re.sub(r"[\x7f-\x9f]", lambda match: f"\\u{ord(match[0]):04x}", text)
    sys.stdout.write(text + "\n")


def report(response: StreamingResponse) -> None:
    """Print the answer's notes, and whether it was cut off."""
    for note in response.notes:
        click.echo(f"talu: {visible(note)}", err=True)
    if response.finish_reason is FinishReason.LENGTH:
        tokens = response.usage.completion_tokens if response.usage is not None else None
        after = f" after {counted(tokens, 'token')}" if tokens is not None else ""
        click.echo(f"talu: cut off{after}; --max-tokens allows more", err=True)
