"""Finds the functions of ``--tool``, and shows their calls on stderr."""

import importlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click

from talu.chat.builder import ReasoningPiece, ToolRunPiece
from talu.cli.terminal import visible
from talu.cli.text import TEXT

__all__ = ["shown", "tool_option", "tool_settings"]

MAX_ROUNDS = 8
SHOWN = 200  # characters of arguments and results


tool_option = click.option(
    "--tool",
    "tools",
    type=TEXT,
    multiple=True,
    metavar="MODULE:FUNCTION",
    help="A function that the model may call; its calls are carried out. Can be repeated.",
)


def tool_settings(names: Sequence[str]) -> dict[str, Any]:
    """The keywords of a chat that carries out the calls of these functions.

    Raises:
        click.UsageError: there is no such function.
    """
    if not names:
        return {}
    return {"tools": [_function(name) for name in names], "max_rounds": MAX_ROUNDS}


def _function(name: str) -> Any:
    module, colon, path = name.partition(":")
    if not (module and colon and path):
        raise click.UsageError(f"--tool must be MODULE:FUNCTION, got {visible(name)}")
    if os.getcwd() not in sys.path:  # as with python -m
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        problem = f"--tool {visible(name)} was not found: {visible(str(error))}"
        raise click.UsageError(problem) from error
    except (Exception, SystemExit) as error:  # of the module's own code
        problem = visible(f"{type(error).__name__}: {error}")
        wrong = f"--tool {visible(name)} cannot be imported: {problem}"
        raise click.UsageError(wrong) from error
    return found


def shown(pieces: Iterable[str]) -> Iterator[str]:
    """The pieces of text and reasoning; each call that was carried out is a line on stderr."""
    open_line = False
    for piece in pieces:
        if isinstance(piece, ToolRunPiece):
            if open_line:
                yield "\n"
                open_line = False
            run = piece.run
            call = f"{run.name}({run.call.arguments[:SHOWN]}) -> {run.output[:SHOWN]}"
            click.echo(f"talu: {visible(call)}", err=True)
        elif isinstance(piece, ReasoningPiece):
            yield piece
        elif piece:
            open_line = not piece.endswith("\n")
            yield piece
