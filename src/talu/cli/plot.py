"""Draws the roofline of a model's operations with matplotlib, for ``talu bench --plot``."""

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from talu.engine.profiling import Ceilings, Cost
from talu.error_text import reason, shown
from talu.exceptions import DependencyError, IOError

__all__ = ["check_plot", "draw_roofline"]

SUFFIXES = (".png", ".svg")
SIZE, DPI = (9.0, 5.5), 150  # inches, and points in an inch
MARKERS = "osD^v"  # by test
LABELLED = 0.02  # share of a test's time from which an operation is named in the plot
MOST_CHARACTERS = 40  # of such a name
MARGIN = 4.0  # factor by which the axes exceed the points


def check_plot(path: Path) -> None:
    """Refuse a file that could not be written, before anything is measured.

    Raises:
        click.UsageError: its name has another ending, or its folder does not exist.
        DependencyError: matplotlib is not installed.
        IOError: the file cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        known = " or ".join(SUFFIXES)
        raise click.UsageError(f"--plot needs a name that ends in {known}, not {shown(str(path))}.")
    if not path.parent.is_dir():
        raise click.UsageError(f"--plot: there is no folder {shown(str(path.parent))}.")
    if path.is_dir():
        raise click.UsageError(f"--plot: {shown(str(path))} is a folder.")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise IOError(f"--plot: {shown(str(path))} cannot be written: permission denied")
    _figures()


def draw_roofline(
    path: Path, title: str, costs: Mapping[str, Sequence[Cost]], ceilings: Ceilings
) -> None:
    """Draw operations as points below the lines of memory and processor.

    The horizontal axis has the multiplications for each byte that is read, the vertical one the
    multiplications in a second. The larger a point, the more of its test's time it takes.

    Args:
        path: the file, which is replaced.
        title: the model and the processor.
        costs: of each test by its name.
        ceilings: what the processor can do.

    Raises:
        IOError: the file cannot be written.
    """
    module = _figures()
    figure: Any = module.Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    points = {name: [c for c in each if c.bytes and c.operations] for name, each in costs.items()}
    _draw_ceilings(axes, [cost for each in points.values() for cost in each], ceilings)
    for marker, (name, each) in zip(MARKERS, points.items(), strict=False):
        _draw_points(axes, name, marker, each, sum(cost.seconds for cost in costs[name]))
    axes.set(
        xscale="log",
        yscale="log",
        title=title,
        xlabel="multiplications for each byte that is read",
        ylabel="10⁹ multiplications in a second",
    )
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")
    try:
        figure.savefig(path)
    except OSError as error:
        raise IOError(f"{shown(str(path))} cannot be written: {reason(error)}") from error


def _draw_ceilings(axes: Any, costs: Sequence[Cost], ceilings: Ceilings) -> None:
    """The line of the memory, up to the lines of the formats that the operations multiply."""
    places = [_intensity(cost) for cost in costs] or [1.0]
    low, high = min(places) / MARGIN, max(places) * MARGIN
    memory = ceilings.bytes_per_second
    peaks = {c.numbers: ceilings.operations_per_second[c.numbers] for c in costs}
    high = max([high, *(MARGIN * peak / memory for peak in peaks.values())])
    top = max(peaks.values(), default=memory * high)
    axes.plot(
        [low, top / memory],
        [low * memory / 1e9, top / 1e9],
        color="tab:green",
        label=f"memory: {memory / 1e9:,.1f} GB/s",
    )
    for number, (numbers, peak) in enumerate(sorted(peaks.items(), key=lambda item: -item[1])):
        axes.plot(
            [peak / memory, high],
            [peak / 1e9] * 2,
            color="black",
            linestyle=("solid", "dashed", "dashdot", "dotted")[number % 4],
            label=f"{numbers}: {peak / 1e9:,.0f} · 10⁹/s",
        )


def _draw_points(axes: Any, name: str, marker: str, costs: Sequence[Cost], whole: float) -> None:
    shares = [cost.seconds / whole for cost in costs]
    rates = [cost.operations / max(cost.seconds, 1e-9) / 1e9 for cost in costs]
    places = [_intensity(cost) for cost in costs]
    axes.scatter(
        places,
        rates,
        s=[20 + 300 * share for share in shares],
        marker=marker,
        alpha=0.7,
        label=name,
    )
    for cost, share, place, rate in zip(costs, shares, places, rates, strict=True):
        if share >= LABELLED:
            text = cost.name
            if len(text) > MOST_CHARACTERS:
                text = text[: MOST_CHARACTERS - 1] + "…"
            axes.annotate(
                f"{text} ({share:.0%})",
                (place, rate),
                textcoords="offset points",
                xytext=(6, -9),
                fontsize="x-small",
            )


def _intensity(cost: Cost) -> float:
    return cost.operations / cost.bytes


def _figures() -> ModuleType:
    """matplotlib's figures, which need no display."""
    try:
        return importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError as missing:
        raise DependencyError(
            "--plot needs matplotlib, which is not installed: pip install 'talu[plot]'"
        ) from missing
