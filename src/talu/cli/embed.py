"""``talu embed``: prints the embedding of each text as a line of JSON."""

import sys

import click
from click.core import ParameterSource

from talu.cli.answer import write_json
from talu.cli.options import POOLINGS, model_option, open_client
from talu.cli.stdin import mention_unread, read_text
from talu.cli.text import MAYBE_EMPTY, TEXT
from talu.types import DEFAULT_POOLING

__all__ = ["command"]


@click.command(name="embed")
@click.argument("texts", type=MAYBE_EMPTY, nargs=-1, metavar="[TEXT]...")
@model_option
@click.option(
    "--pooling",
    type=click.Choice(list(POOLINGS)),
    default="last",
    show_default=True,
    help='Which hidden states become the vector; "model" takes what the model says.',
)
@click.option(
    "--prompt-name", type=TEXT, help="Put the model's prompt of this name before each text."
)
@click.option("--no-normalize", is_flag=True, help="Leave the length of a vector as it is.")
@click.option("--truncate", is_flag=True, help="Cut texts that are too long for the model.")
def command(
    texts: tuple[str, ...],
    model: str | None,
    pooling: str,
    prompt_name: str | None,
    no_normalize: bool,
    truncate: bool,
) -> None:
    """Print the embedding of each TEXT.

    Each vector is a line of JSON. Without TEXT, each line of standard input is a text.
    """
    lines = list(texts)
    if lines:
        mention_unread("TEXT")
    elif sys.stdin is not None and not sys.stdin.isatty():
        lines = read_text().splitlines()
    if not lines:
        raise click.UsageError("There is nothing to embed: give a TEXT, or pipe lines in.")
    source = click.get_current_context().get_parameter_source("pooling")
    is_default = source is ParameterSource.DEFAULT
    with open_client(model) as client:
        vectors = client.embed_batch(
            lines,
            pooling=DEFAULT_POOLING if is_default else POOLINGS[pooling],
            normalize=not no_normalize,
            truncate=truncate,
            prompt_name=prompt_name,
        )
    for number in vectors.truncated:
        click.echo(f"talu: text {number} was cut", err=True)
    for vector in vectors:
        write_json(vector)
