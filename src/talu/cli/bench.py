"""``talu bench``: measures prefill and decode speed of a model on this machine.

It measures single requests to the engine, so that programs get the same speed.
"""

import json
import os
import random
import statistics
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import click
from rich import box
from rich.table import Table
from rich.text import Text

from talu.cli.completion import complete_model
from talu.cli.roofline import show_profile
from talu.cli.tables import print_table
from talu.cli.text import NOT_EMPTY
from talu.client import Client
from talu.engine.engine import Engine
from talu.engine.machine import processor
from talu.engine.model import ModelInfo
from talu.engine.registry import acquire
from talu.engine.ticket import Result
from talu.exceptions import GenerationError
from talu.sampling import SamplingParams
from talu.types import KV_DTYPES, WEIGHT_FORMATS, KVDtype, LocalBackend, WeightFormat

__all__ = ["Rate", "command", "decode_rate", "prefill_rate"]

PREFILL = 512
DECODE = 64
REPETITIONS = 5
BUSY = 0.5  # load for each core


@dataclass(frozen=True, slots=True)
class Rate:
    """A test and the tokens per second of its repetitions."""

    test: str
    tokens: int
    tokens_per_second: list[float]

    @property
    def mean(self) -> float:
        """The mean of the repetitions."""
        return statistics.mean(self.tokens_per_second)

    @property
    def spread(self) -> float:
        """Their standard deviation, 0 for a single one."""
        return statistics.stdev(self.tokens_per_second) if len(self.tokens_per_second) > 1 else 0.0


@click.command(name="bench")
@click.argument("model", type=NOT_EMPTY, shell_complete=complete_model)
@click.option("--threads", type=click.IntRange(min=0), default=0, help="0 takes what is allowed.")
@click.option(
    "--weight-format",
    type=click.Choice(WEIGHT_FORMATS),
    default="auto",
    metavar="FORMAT",
    help="Quantise the weights, for example to q4.",
)
@click.option(
    "--kv-dtype",
    type=click.Choice(KV_DTYPES),
    default="auto",
    metavar="FORMAT",
    help="Format of keys and values, for example q8.",
)
@click.option("--repetitions", type=click.IntRange(min=1), help="Of each test; 5 unless given.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with all figures.")
@click.option(
    "--profile", "profiles", is_flag=True, help="Show what takes the time, beside the roofline."
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With --profile: draw the roofline in a .png or .svg file.",
)
def command(
    model: str,
    threads: int,
    weight_format: WeightFormat,
    kv_dtype: KVDtype,
    repetitions: int | None,
    as_json: bool,
    profiles: bool,
    plot: Path | None,
) -> None:
    """Measure a model: prefill of 512 tokens, decode of 64.

    MODEL is a folder, a GGUF file or a hub id. A shorter context makes a shorter prefill.
    """
    if plot is not None and not profiles:
        raise click.UsageError("--plot draws what --profile measures: give both.")
    if profiles and repetitions is not None:
        raise click.UsageError("--profile measures one run: leave --repetitions out.")
    with Client(model) as client:
        if client.router.resolve().provider is not None:
            raise click.UsageError(f"{model} runs behind an endpoint: bench measures this machine.")
    options = LocalBackend(num_threads=threads, weight_format=weight_format, kv_dtype=kv_dtype)
    load = os.getloadavg()[0]
    if profiles:
        show_profile(
            model,
            options,
            prompt=PREFILL,
            steps=DECODE,
            about=processor(),
            as_json=as_json,
            plot=plot,
        )
    else:
        _measure(model, options, repetitions or REPETITIONS, as_json=as_json)
    _warn_if_busy(load)


def _measure(model: str, options: LocalBackend, repetitions: int, *, as_json: bool) -> None:
    """Measure and print the speed of a prompt and of an answer."""
    lease = acquire(model, options)
    try:
        engine = lease.engine
        length = min(PREFILL, engine.context_length - 1)
        count = min(DECODE, engine.context_length - 2)
        prefill = [prefill_rate(engine, length, seed) for seed in range(repetitions + 1)]
        decode = [decode_rate(engine, count, seed) for seed in range(repetitions + 1)]
        # The first run of each test is a warm-up.
        rates = [Rate("prefill", length, prefill[1:]), Rate("decode", count, decode[1:])]
        if as_json:
            facts = lease.info._asdict() | {rate.test: _figures(rate) for rate in rates}
            about = {"model": model, "processor": processor()}
            sys.stdout.write(json.dumps(about | facts) + "\n")
        else:
            _print_table(model, lease.info, rates)
    finally:
        lease.release()


def _warn_if_busy(load: float) -> None:
    """Say that other work took much of the machine, which the figures show."""
    cores = os.cpu_count() or 1
    if load > BUSY * cores:
        click.echo(
            f"talu: the load of this machine was {load:.1f} in the minute before, with {cores} "
            "cores: other work makes all figures smaller",
            err=True,
        )


def prefill_rate(engine: Engine, length: int, seed: int) -> float:
    """Tokens per second for a prompt of ``length`` random tokens that are not cached."""
    result = _generate(engine, length, 1, seed)
    return 1000 * length / _known(result.timings.prefill_ms)


def decode_rate(engine: Engine, count: int, seed: int, after: int = 1) -> float:
    """Tokens per second for decoding ``count`` tokens, after a prompt of ``after`` tokens."""
    return _known(_generate(engine, after, count + 1, seed).timings.tokens_per_second)


def _known(time: float | None) -> float:
    if time is None:
        raise GenerationError("the engine did not report its times")
    return time


def _generate(engine: Engine, length: int, count: int, seed: int) -> Result:
    """Run one greedy request that ignores end tokens."""
    draw = random.Random(f"{length} {count} {seed}")
    prompt = [draw.randrange(engine.architecture.vocabulary_size) for _ in range(length)]
    params = SamplingParams(max_tokens=count, temperature=0.0)
    with closing(engine.submit(prompt, params)) as ticket:
        for _ in ticket:
            pass
    result = ticket.result
    if result is None or result.usage.completion_tokens != count or result.usage.cached_tokens:
        raise GenerationError(f"{count} tokens were requested, but the result differs: {result}")
    return result


def _figures(rate: Rate) -> dict[str, object]:
    figures = {"mean": rate.mean, "standard_deviation": rate.spread}
    return {"tokens": rate.tokens, "tokens_per_second": rate.tokens_per_second} | figures


def _print_table(model: str, info: ModelInfo, rates: list[Rate]) -> None:
    table = Table(box=box.MARKDOWN, header_style="")
    path = Path(model)
    name = path.name if path.exists() and path.name else model
    for title in ("model", "size", "parameters", "threads", "CPU", "test", "tokens/s"):
        numeric = title in ("size", "parameters", "threads", "tokens/s")
        table.add_column(title, justify="right" if numeric else "left", no_wrap=True)
    for rate in rates:
        table.add_row(
            Text(f"{name} ({info.model_type} {info.weight_format})"),
            f"{info.weight_bytes / 2**20:,.1f} MiB",
            f"{info.parameters / 1e6:,.2f} M",
            str(info.threads),
            f"{processor()} ({info.target})",
            f"{rate.test} {rate.tokens}",
            f"{rate.mean:,.1f}" + (f" ± {rate.spread:,.1f}" if rate.spread else ""),
        )
    print_table(table)
    for note in info.notes:
        click.echo(f"talu: {note}", err=True)
