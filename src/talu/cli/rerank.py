"""``talu rerank``: prints documents in the order of how well they answer a query."""

import sys

import click

from talu.cli.answer import write_json
from talu.cli.files import read_file
from talu.cli.options import POOLINGS, model_option, open_client
from talu.cli.stdin import MAX_BYTES, mention_unread, read_text
from talu.cli.terminal import counted, visible
from talu.cli.text import TEXT

__all__ = ["command"]


@click.command(name="rerank")
@click.argument("query", type=TEXT)
@click.argument("files", type=click.Path(exists=True, dir_okay=False), nargs=-1)
@model_option
@click.option(
    "--top-n", type=click.IntRange(min=1), help="Maximum number of documents; all are scored."
)
@click.option(
    "--pooling",
    type=click.Choice(list(POOLINGS)),
    default="model",
    show_default=True,
    help='For models that embed: which hidden states count; "model" takes what the model says.',
)
@click.option("--truncate", is_flag=True, help="Cut documents that are too long for the model.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each document.")
def command(
    query: str,
    files: tuple[str, ...],
    model: str | None,
    top_n: int | None,
    pooling: str,
    truncate: bool,
    as_json: bool,
) -> None:
    """Print documents with their scores for QUERY, the best one first.

    Each FILE is a document. Without FILE, each line of standard input is one. MODEL is a
    cross-encoder or a model for embeddings.
    """
    if files:
        mention_unread("FILE")
        documents = [read_file(path, MAX_BYTES) for path in files]
    else:
        documents = [] if sys.stdin is None or sys.stdin.isatty() else read_text().splitlines()
    if not documents:
        raise click.UsageError("There is nothing to rank: give a FILE, or pipe lines in.")
    with open_client(model) as client:
        ranking = client.rerank(
            query, documents, top_n=top_n, pooling=POOLINGS[pooling], truncate=truncate
        )
    if ranking.truncated:
        cut = counted(len(ranking.truncated), "document")
        click.echo(f"talu: {cut} had to be cut", err=True)
    for each in ranking:
        named = {"file": files[each.index]} if files else {"document": each.document}
        if as_json:
            write_json({"index": each.index, "score": each.score, **named})
            continue
        (text,) = named.values()
        click.echo(f"{each.score:.4f}  {visible(text) if sys.stdout.isatty() else text}")
