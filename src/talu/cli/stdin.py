"""Reads standard input, when a command has been told to.

A pipe that holds data for the command looks exactly like one that belongs to somebody else, such
as the loop of a shell script, and like one that nobody will ever write to. So input beside an
argument is read only when ``-`` asks for it; otherwise it is left alone, with a line on stderr.
"""

import os
import stat
import sys
from typing import TextIO

import click

__all__ = ["DASH", "decoded", "mention_unread", "read_text"]

DASH = "-"
MAX_BYTES = 64 << 20


def read_text() -> str:
    """All of standard input."""
    if sys.stdin is None:
        return ""
    data = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise click.UsageError(f"Standard input is longer than {MAX_BYTES >> 20} MiB.")
    return decoded(data)


def decoded(data: bytes) -> str:
    """Input as text."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise click.UsageError(f"Standard input is not UTF-8: {error}.") from error


def mention_unread(argument: str, advice: str = "") -> None:
    """Say that standard input is left alone, if somebody may have meant it to be read."""
    if sys.stdin is not None and _may_hold_data(sys.stdin):
        click.echo(f"talu: {argument} is given, so standard input is not read{advice}", err=True)


def _may_hold_data(stream: TextIO) -> bool:
    """Whether it is a pipe, a socket, or a file that nobody has begun to read."""
    try:
        number = stream.fileno()
        status = os.fstat(number)
        if stat.S_ISREG(status.st_mode):  # the file of a shell's loop has been read from
            return status.st_size > 0 and os.lseek(number, 0, os.SEEK_CUR) == 0
    except (OSError, ValueError):  # closed, or not a file
        return False
    return stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode)
