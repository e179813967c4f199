"""``talu rm``: removes models from the caches of this machine."""

import sys

import click

from talu.cli.completion import complete_model
from talu.cli.terminal import visible
from talu.cli.text import NOT_EMPTY
from talu.error_text import size_text
from talu.sources.removal import Removal, removal_of

__all__ = ["command"]


@click.command(name="rm")
@click.argument(
    "models",
    type=NOT_EMPTY,
    metavar="MODEL...",
    nargs=-1,
    required=True,
    shell_complete=complete_model,
)
@click.option("--packed", is_flag=True, help="Remove packed weights only, also of your own files.")
@click.option("-y", "--yes", is_flag=True, help="Remove without asking.")
def command(models: tuple[str, ...], packed: bool, yes: bool) -> None:
    """Remove models from the caches, with their packed weights.

    MODEL is a hub id. With :QUANTISATION or :FILE, only that GGUF model of a repository is removed.
    Files and folders outside of the caches are never removed.
    """
    removals = [removal_of(model, packed_only=packed) for model in models]
    if not yes and (sys.stdin is None or not sys.stdin.isatty()):
        raise click.UsageError("There is no terminal to ask on: give --yes to remove.")
    for removal in removals:
        if not yes:
            what = "the packed weights of " if packed else ""
            click.confirm(f"Remove {what}{_described(removal)}?", abort=True, err=True)
        removal.execute()
        click.echo(f"talu: removed {_described(removal)}", err=True)


def _described(removal: Removal) -> str:
    return f"{visible(removal.ref)} ({size_text(removal.bytes)})"
