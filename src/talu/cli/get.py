"""``talu get``: downloads a model from the hub, or completes and verifies what the cache has."""

from pathlib import Path

import click

from talu.cli.completion import complete_model
from talu.cli.terminal import visible
from talu.cli.text import NOT_EMPTY
from talu.engine.description import check_settings, describe_network
from talu.sources import open_path
from talu.sources.hub import update
from talu.sources.resolve import BUNDLED, PATH_STARTS, exists, split_tag

__all__ = ["command"]


@click.command(name="get")
@click.argument("model", type=NOT_EMPTY, shell_complete=complete_model)
def command(model: str) -> None:
    """Download a model from the hub, and print where it is.

    MODEL is a hub id, with :QUANTISATION or :FILE to choose one of several GGUF models, as in
    org/name-GGUF:Q4_K_M. An interrupted download is continued. A model in the cache is brought up
    to date, and its files are verified.
    """
    named = split_tag(model)
    shown = visible(model)[:100]
    if model == BUNDLED or model.startswith(PATH_STARTS) or exists(model):
        raise click.UsageError(f"{shown} is on this machine; there is nothing to download.")
    if named is None:
        raise click.UsageError(f"{shown} is not the hub id of a model.")
    found = update(*named, check=_check)
    if found.note is not None:
        click.echo(f"talu: {visible(found.note)}", err=True)
    problem = describe_network(open_path(found.path)).problem
    click.echo(found.path)
    if problem is not None:
        raise click.ClickException(f"The model was downloaded, but cannot run: {visible(problem)}")


def _check(folder: Path) -> None:
    """Refuse a model that cannot run before its weights are downloaded."""
    check_settings(open_path(folder))
