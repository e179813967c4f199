"""``talu convert``: converts a model to another format."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from talu.cli.completion import complete_model
from talu.cli.terminal import visible
from talu.cli.text import NOT_EMPTY
from talu.conversion.targets import TARGETS
from talu.error_text import size_text
from talu.router.conversion import convert

__all__ = ["command"]

FORMATS = "\b\nFormats:\n" + "\n".join(
    f"  {target.name:<10} {target.summary}" for target in TARGETS.values()
)


def complete_format(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The formats whose names begin like this."""
    return [
        CompletionItem(target.name, help=target.summary)
        for target in TARGETS.values()
        if target.name.startswith(incomplete.lower())
    ]


def complete_path(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Files and folders."""
    return [CompletionItem(incomplete, type="file")]


@click.command(name="convert", epilog=FORMATS)
@click.argument("model", type=NOT_EMPTY, shell_complete=complete_model)
@click.option(
    "--to",
    "name",
    type=NOT_EMPTY,
    required=True,
    metavar="FORMAT",
    shell_complete=complete_format,
    help="Format of the result.",
)
@click.option(
    "-o",
    "--output",
    type=NOT_EMPTY,
    required=True,
    metavar="PATH",
    shell_complete=complete_path,
    help="File to write, or folder for a format that is one.",
)
@click.option("--force", is_flag=True, help="Replace an existing result.")
@click.option("--offline", is_flag=True, help="Do not use the network.")
def command(model: str, name: str, output: str, force: bool, offline: bool) -> None:
    """Convert a model to another format, and print where it is.

    MODEL is a folder, a GGUF file, or a hub id, with F32, F16 or BF16 weights. What the format
    cannot hold is named on standard error.
    """
    with ended_by_signals():
        done = convert(model, to=name, output=output, force=force, offline=offline)
    for note in done.notes:
        click.echo(f"talu: {visible(note)}", err=True)
    size = f"{size_text(done.bytes)}, {done.bits_per_weight:.2f} bits per weight"
    click.echo(f"talu: {size}", err=True)
    print_path(done.path)


def print_path(path: Path) -> None:
    """Print a path so that people can read it on a terminal, and programs can open it."""
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None or sys.stdout.isatty():
        click.echo(visible(str(path)))
    else:
        sys.stdout.flush()
        buffer.write(os.fsencode(path) + b"\n")
        buffer.flush()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block like Ctrl-C does, so that nothing is left behind."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {
        number: signal.signal(number, end)
        for number in numbers
        if signal.getsignal(number) != signal.SIG_IGN  # such as under nohup
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
