"""``talu ls``: lists the models in the caches of this machine."""

from dataclasses import asdict
from datetime import UTC, datetime

import click

from talu.cli.answer import write_json
from talu.cli.terminal import counted, visible
from talu.error_text import size_text
from talu.sources.hub_cache import cache_folder
from talu.sources.inventory import StoredModel, stored_models

__all__ = ["command"]

LEGEND = {
    "incomplete": "its download was interrupted: talu get continues it, talu rm removes it",
    "packed": "only packed weights, of a model elsewhere: talu rm --packed removes them",
    "other": "files of another program, or a model that talu cannot open",
}


@click.command(name="ls")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def command(as_json: bool) -> None:
    """List the models in the caches: name, format, size, packed weights, last use.

    The caches are that of the hub, which other programs use as well, and that of packed weights.
    """
    models = stored_models()
    if as_json:
        write_json([asdict(model) for model in models])
        return
    rows = [_row(model) for model in models]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if number in (2, 3) else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())
    for status, meaning in LEGEND.items():
        if any(model.status == status for model in models):
            click.echo(f"talu: {status}: {meaning}", err=True)
    size, packed = (sum(sizes) for sizes in ([m.bytes for m in models], _packed(models)))
    click.echo(
        f"talu: {counted(len(models), 'model')}: {size_text(size)} in {cache_folder()}, "
        f"{size_text(packed)} of packed weights",
        err=True,
    )


def _packed(models: list[StoredModel]) -> list[int]:
    return [model.packed_bytes for model in models]


def _row(model: StoredModel) -> list[str]:
    used = datetime.fromtimestamp(model.last_used, UTC).astimezone()
    return [
        visible(model.ref),
        visible(model.format or "-"),
        size_text(model.bytes) if model.bytes else "-",
        size_text(model.packed_bytes) if model.packed_bytes else "-",
        f"{used:%Y-%m-%d}",
        "" if model.status == "ready" else model.status,
    ]
