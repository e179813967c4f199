"""``talu tokenize``: prints the token ids of a text, or their number."""

import sys

import click

from talu.cli.answer import write_json
from talu.cli.options import model_option, open_client
from talu.cli.stdin import mention_unread, read_text
from talu.cli.text import MAYBE_EMPTY

__all__ = ["command"]


@click.command(name="tokenize")
@click.argument("text", type=MAYBE_EMPTY, required=False)
@model_option
@click.option("--count", is_flag=True, help="Print the number of tokens only.")
def command(text: str | None, model: str | None, count: bool) -> None:
    """Print the token ids of TEXT as one line of JSON.

    Without TEXT, standard input is read. No chat template is applied.
    """
    if text is not None:
        mention_unread("TEXT")
    elif sys.stdin is not None and not sys.stdin.isatty():
        text = read_text()
    if not text:
        raise click.UsageError("There is nothing to tokenize: give a TEXT, or pipe one in.")
    with open_client(model) as client:
        ids = client.tokenize(text)
    write_json(len(ids) if count else ids)
