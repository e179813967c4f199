"""Reads standard input for commands.

A pipe with data for the command cannot be distinguished from one that belongs to another reader,
such as the loop of a shell script, or that never gets data. If an argument is given, standard
input is therefore read only if ``-`` is given too; otherwise a line on stderr says that it is not.
"""

import os
import stat
import sys
from typing import TextIO

import click

__all__ = ["DASH", "MAX_BYTES", "decoded", "mention_unread", "read_text"]

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


def decoded(data: bytes, name: str = "Standard input") -> str:
    """The input of that name decoded as UTF-8, without a byte order mark at its start."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{name} is not UTF-8: {error}.") from error


def mention_unread(argument: str, advice: str = "") -> None:
    """Report that standard input is not read, if it may hold data."""
    if sys.stdin is not None and _may_hold_data(sys.stdin):
        click.echo(f"talu: {argument} is given, so standard input is not read{advice}", err=True)


def _may_hold_data(stream: TextIO) -> bool:
    """Whether it is a pipe, a socket, or a file at its start."""
    try:
        number = stream.fileno()
        status = os.fstat(number)
        if stat.S_ISREG(status.st_mode):  # a shell loop has already read from its file
            return status.st_size > 0 and os.lseek(number, 0, os.SEEK_CUR) == 0
    except (OSError, ValueError):  # closed, or not a file
        return False
    return stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode)
