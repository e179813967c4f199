"""Runs the ``talu`` command: dispatches to subcommands and reports failures.

A subcommand is a file of this folder with a click command named ``command``, listed in
``COMMANDS``.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

import click
from click.shell_completion import shell_complete

from talu.cli.terminal import visible
from talu.error_text import reason
from talu.exceptions import EmptyPromptError, TaluError, ValidationError

__all__ = ["COMMANDS", "run"]

COMMANDS = (
    "ask",
    "chat",
    "embed",
    "rerank",
    "batch",
    "tokenize",
    "log",
    "get",
    "ls",
    "rm",
    "describe",
    "convert",
    "bench",
    "doctor",
    "serve",
    "completion",
)
COMPLETE = "_TALU_COMPLETE"  # set by the scripts of ``talu completion``
STATUSES = """\b
Exit status:
  0    success
  1    failure, with one line on standard error that says why
  2    wrong usage
  130  interrupted with Ctrl-C
  141  the reader of the output has closed it
"""


class Commands(click.Group):
    """A group that imports subcommands on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The subcommands in the order of the help page."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the subcommand of that name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"talu.cli.{cmd_name}").command
        return command


@click.group(
    cls=Commands,
    invoke_without_command=True,
    epilog=STATUSES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
@click.version_option(None, "-V", "--version", package_name="talu", prog_name="talu")
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
        sys.stdout.reconfigure(errors="backslashreplace")  # for characters that its encoding lacks
    if instruction := os.environ.get(COMPLETE):
        return shell_complete(talu, {}, "talu", COMPLETE, instruction)
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
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # Discard buffered output, or the interpreter reports an error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        return _fail(f"cannot read the input or write the output: {reason(error)}", 1)
    return 0


def _with_hint(error: click.ClickException) -> str:
    message = error.format_message()
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{message} Try '{context.command_path} --help'." if context else message


def _fail(message: str, status: int) -> int:
    click.echo(f"talu: {' '.join(visible(message).split())}", err=True)
    return status
