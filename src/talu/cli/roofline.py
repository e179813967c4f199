"""Shows what the operations of a model cost, for ``talu bench --profile``."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich import box
from rich.table import Table

from talu.cli.plot import check_plot, draw_roofline
from talu.cli.tables import print_table
from talu.engine.description import check_settings
from talu.engine.loading import load_model
from talu.engine.profiling import Ceilings, Cost, measure_ceilings, profile
from talu.sources import open_model
from talu.types import LocalBackend

__all__ = ["show_profile"]

TITLES = ("operation", "weights", "calls", "ms", "time", "GB/s", "G/s", "roofline")
Costs = Mapping[str, Sequence[Cost]]  # by the name of the test


def show_profile(
    model: str,
    options: LocalBackend,
    *,
    prompt: int,
    steps: int,
    about: str,
    as_json: bool,
    plot: Path | None = None,
) -> None:
    """Measure and print the costs of a prompt and of decode steps after it.

    Args:
        model: a folder, a GGUF file or a hub id.
        options: how it runs.
        prompt: tokens; fewer if the context of the model has no room.
        steps: decode steps.
        about: the processor, for people.
        as_json: print one JSON object.
        plot: a file in which the roofline is drawn.
    """
    if plot is not None:
        check_plot(plot)
    source, _ = open_model(model, check=check_settings)
    loaded = load_model(source, options)
    try:
        if (reason := loaded.architecture.embeds_only) is not None:
            raise click.UsageError(f"{model} cannot generate text: {reason}")
        length = loaded.architecture.context_length
        steps = max(1, min(steps, length // 2))
        prompt = max(1, min(prompt, length - steps - 1))
        ceilings = measure_ceilings(options.num_threads)
        of_prompt, of_tokens = profile(loaded, prompt, steps)
        costs = {f"prefill {prompt}": of_prompt, f"decode after {prompt}": of_tokens}
    finally:
        loaded.executor.close()
        loaded.weights.close()
    if plot is not None:
        draw_roofline(plot, f"{Path(model).name}\n{about}", costs, ceilings)
    if as_json:
        _write_json(costs, ceilings)
    else:
        _write_tables(costs, ceilings, about)


def _write_json(costs: Costs, ceilings: Ceilings) -> None:
    tests = {
        name: [asdict(cost) | {"least_seconds": cost.least_seconds(ceilings)} for cost in each]
        for name, each in costs.items()
    }
    sys.stdout.write(json.dumps({"ceilings": asdict(ceilings), "profile": tests}) + "\n")


def _write_tables(costs: Costs, ceilings: Ceilings, about: str) -> None:
    rates = ", ".join(
        f"{rate / 1e9:,.0f} G/s in {numbers}"
        for numbers, rate in ceilings.operations_per_second.items()
    )
    click.echo(
        f"{about}: reads {ceilings.bytes_per_second / 1e9:,.1f} GB/s, multiplies and adds {rates}."
    )
    for name, each in costs.items():
        whole = sum(cost.seconds for cost in each)
        click.echo(f"\n{name}: {whole * 1000:,.2f} ms a step\n")
        table = Table(box=box.MARKDOWN, header_style="")
        for title in TITLES:
            text = title in TITLES[:2]
            table.add_column(title, justify="left" if text else "right", no_wrap=True)
        for cost in each:
            table.add_row(*_cells(cost, whole, ceilings))
        print_table(table)


def _cells(cost: Cost, whole: float, ceilings: Ceilings) -> list[str]:
    seconds = max(cost.seconds, 1e-9)
    share = f"{cost.least_seconds(ceilings) / seconds:.0%}" if cost.operations else ""
    return [
        cost.name,
        cost.weights,
        str(cost.calls),
        f"{cost.seconds * 1000:,.3f}",
        f"{cost.seconds / whole:.1%}",
        f"{cost.bytes / seconds / 1e9:,.1f}" if cost.bytes else "",
        f"{cost.operations / seconds / 1e9:,.1f}" if cost.operations else "",
        share,
    ]
