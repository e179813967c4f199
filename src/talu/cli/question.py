"""Puts a question together: arguments, standard input, files, a template."""

import sys
from collections.abc import Sequence

import click

from talu.cli.files import attached
from talu.cli.stdin import DASH, mention_unread, read_text
from talu.cli.templates import QuestionTemplate

__all__ = ["asked"]


def asked(
    arguments: Sequence[str],
    files: Sequence[str],
    template: QuestionTemplate | None,
    parameters: Sequence[tuple[str, str]],
) -> tuple[str, str | None]:
    """The question of a command line, and the system message of its template.

    Files come first, then the template or PROMPT, then standard input.

    Raises:
        click.UsageError: there is nothing to ask, or something has no place in the question.
    """
    contents = attached(files)
    if template is None and parameters:
        raise click.UsageError("--param needs a template, which --template gives.")
    if template is None:
        question, system = _words(arguments, required=not files), None
    elif template.takes_input:
        given = _words(arguments, required=not files)
        question, system = template.filled(given, dict(parameters))
    elif arguments:
        raise click.UsageError("The template has no $input, so that it takes no PROMPT.")
    else:
        mention_unread("a template without $input")
        question, system = template.filled("", dict(parameters))
    return "\n\n".join(part for part in (*contents, question) if part), system


def _words(arguments: Sequence[str], *, required: bool) -> str:
    """The prompt, standard input, or both; nothing only if it is not required."""
    words = list(arguments)
    dash = words[-1:] == [DASH]
    if dash:
        words.pop()
    if len(words) > 1:
        extra = " ".join(words[1:])
        raise click.UsageError(f"Got unexpected extra arguments ({extra}); put PROMPT in quotes.")
    terminal = sys.stdin is not None and sys.stdin.isatty()
    if dash or not (words or terminal):
        words.append(read_text())
    else:
        mention_unread("PROMPT", "; end the command with - to add it")
    question = "\n\n".join(part.rstrip("\n") for part in words if part.strip())
    if required and not question:
        raise click.UsageError("There is nothing to ask: give a prompt, or pipe one in.")
    return question
