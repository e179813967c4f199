"""``talu batch``: answers a file of requests, and goes on where it was stopped."""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from talu.cli.completion import BUNDLED
from talu.cli.terminal import counted
from talu.cli.text import TEXT
from talu.first_use import loaded

__all__ = ["command"]

MOST = 1_024
UNLIMITED = 1_000_000  # rows at a time; there are never as many


@click.command(name="batch")
@click.argument(
    "source", metavar="INPUT", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.argument("target", metavar="OUTPUT", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "-m", "--model", "models", type=TEXT, multiple=True,
    help="Model; several may be given, and then each row names its own.",
)  # fmt: skip
@click.option(
    "--concurrency", type=click.IntRange(1, MOST), default=32, show_default=True,
    help="Rows at a time.",
)  # fmt: skip
@click.option("--timeout", type=float, default=3600.0, show_default=True, help="Seconds for a row.")
@click.option(
    "--keep-going", is_flag=True,
    help="Write failures of models and servers as results, instead of stopping at the first one.",
)  # fmt: skip
def command(
    source: Path,
    target: Path,
    models: tuple[str, ...],
    concurrency: int,
    timeout: float,
    keep_going: bool,
) -> None:
    """Answer the requests in INPUT, and write a line for each to OUTPUT.

    INPUT is a batch file of OpenAI's, or has lines such as {"prompt": "Hi"}, {"messages": [...]}
    and {"text": "to embed"}, perhaps with an "id" and settings. OUTPUT has the results in the same
    order. If it exists, its rows are not answered again. A row that is wrong has its error as its
    result.
    """
    began = time.monotonic()
    totals = asyncio.run(_run(source, target, models, concurrency, timeout, keep_going))
    seconds = time.monotonic() - began
    before = f", {totals.skipped:,} were done before" if totals.skipped else ""
    click.echo(
        f"talu: {counted(totals.done, 'row')} answered, {totals.failed:,} failed{before}; "
        f"{totals.prompt_tokens:,} tokens in, {totals.completion_tokens:,} out, {seconds:.1f} s",
        err=True,
    )


async def _run(
    source: Path,
    target: Path,
    models: tuple[str, ...],
    concurrency: int,
    timeout: float,
    keep_going: bool,
) -> Any:
    options = loaded("talu.server.options", "ServerOptions")(
        timeout=timeout, max_requests=1_000_000
    )
    held = loaded("talu.server.models", "Models")(models or (BUNDLED,), [])
    service = loaded("talu.server.service", "Service")(held, options)
    only = held.names[0] if len(models) == 1 else None
    async with AsyncExitStack() as stack:
        stack.push_async_callback(service.close)
        results = stack.enter_context(loaded("talu.batch.results", "Results")(target))
        update = stack.enter_context(_bar(source) if sys.stderr.isatty() else nullcontext(_nothing))
        return await loaded("talu.batch.run", "run")(
            loaded("talu.batch.rows", "read_rows")(source),
            results,
            service,
            model=only,
            concurrency=concurrency,
            keep_going=keep_going,
            progress=update,
        )


@contextmanager
def _bar(source: Path) -> Iterator[Callable[[Any], None]]:
    """A bar on standard error, and what moves it."""
    with source.open("rb") as file:
        rows = sum(1 for line in file if line.strip())
    columns = (
        TextColumn("{task.completed:,} of {task.total:,} rows"),
        BarColumn(),
        TextColumn("{task.fields[failed]:,} failed"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=rows, failed=0)

        def update(totals: Any) -> None:
            done = totals.skipped + totals.done + totals.failed
            progress.update(task, completed=done, failed=totals.failed)

        yield update


def _nothing(totals: Any) -> None:
    pass
