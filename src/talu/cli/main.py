"""The command ``talu``: finds the verb, runs it, and makes of every failure one line and a status.

A verb is a file of this folder with a click command named ``command``, and its name in ``VERBS``.
Status 0 is success, 1 a failure, 2 wrong usage; 130 and 141 are what a shell gives for Ctrl-C
and for a reader that went away.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

import click

from talu.cli.terminal import visible
from talu.exceptions import EmptyPromptError, TaluError, ValidationError

__all__ = ["VERBS", "run"]

VERBS = ("ask", "bench")


class Verbs(click.Group):
    """A group that imports a verb when it is called for, so that the others cost nothing."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the order of the help page."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb of that name."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"talu.cli.{cmd_name}").command
        return command


@click.group(cls=Verbs, invoke_without_command=True)
@click.version_option(package_name="talu", prog_name="talu")
@click.pass_context
def talu(context: click.Context) -> None:
    """Talk to language models from the command line."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def run(arguments: Sequence[str]) -> int:
    """Run the command with these arguments and return its exit status."""
    if sys.stdout is None:
        return _fail("standard output is closed", 1)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what its encoding does not have
    try:
        with talu.make_context("talu", list(arguments)) as context:
            talu.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        return _fail(_with_hint(error), error.exit_code)
    except TaluError as error:
        return _fail(str(error), 2 if isinstance(error, ValidationError | EmptyPromptError) else 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # What is still buffered goes nowhere, so that the interpreter does not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        return _fail(str(error), 1)
    return 0


def _with_hint(error: click.ClickException) -> str:
    message = error.format_message()
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{message} Try '{context.command_path} --help'." if context else message


def _fail(message: str, status: int) -> int:
    click.echo(f"talu: {' '.join(visible(message).split())}", err=True)
    return status
