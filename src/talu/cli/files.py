"""Reads the text files that a question is about."""

import os
from collections.abc import Sequence

import click

from talu.cli.stdin import MAX_BYTES, decoded
from talu.cli.terminal import visible
from talu.cli.transcript import fenced
from talu.error_text import reason

__all__ = ["attached", "read_file"]


def read_file(path: str, limit: int) -> str:
    """The text of a file.

    Raises:
        click.UsageError: it cannot be read, is longer than ``limit`` bytes, or is no text in UTF-8.
    """
    name = visible(_text(path))
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise click.UsageError(f"{name} cannot be read: {why}.") from error
    if len(data) > limit:
        raise click.UsageError(f"{name} is longer than {limit >> 20} MiB.")
    if b"\0" in data:
        raise click.UsageError(f"{name} is a binary file; only text can be read.")
    return decoded(data, name)


def attached(paths: Sequence[str]) -> list[str]:
    """Each file as a part of a question: its name, and its text as a block of code."""
    parts = [f"{_text(path)}:\n{fenced(read_file(path, MAX_BYTES))}" for path in paths]
    if sum(map(len, parts)) > MAX_BYTES:
        raise click.UsageError(f"The files are longer than {MAX_BYTES >> 20} MiB together.")
    return parts


def _text(path: str) -> str:
    """A path as valid text; bytes that are not UTF-8 are replaced."""
    return os.fsencode(path).decode("utf-8", "replace")
