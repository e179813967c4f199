"""The command line, the rounds and the output that the benchmarks share."""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, TypeVar

from machine import commit, machine

Measured = TypeVar("Measured")


def options(
    doc: str | None, *, rounds: int | None = None, threads: int | None = 2
) -> argparse.ArgumentParser:
    """The parser of a benchmark, with the options that most have.

    Args:
        doc: the docstring of the benchmark; its first line describes it.
        rounds: how many there are unless told; None for a benchmark without rounds.
        threads: of each engine unless told; None for a benchmark without engines.
    """
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    if threads is not None:
        parser.add_argument("--threads", type=int, default=threads, help="of each engine")
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds, help="after one that warms up")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON instead")
    return parser


class Report:
    """Writes lines as they come, or with ``--json`` one document at the end."""

    def __init__(self, arguments: argparse.Namespace, title: str, **more: object) -> None:
        """Write the title, the machine, the commit, the options, and what else is given."""
        given = {name: value for name, value in vars(arguments).items() if name != "json"}
        self._json = arguments.json
        self.machine = machine()
        self._about = {"machine": self.machine, "commit": commit(), **given, **more}
        self.line(title)
        for name, value in self._about.items():
            words = map(str, value) if isinstance(value, list) else (str(value),)
            self.line(f"{name}: {' '.join(words)}")

    def line(self, text: str = "") -> None:
        """Write a line of text, unless everything is written as JSON."""
        if not self._json:
            print(text, flush=True)

    def end(self, results: object) -> None:
        """Write the machine, the options and all results, if JSON is wanted."""
        if self._json:
            print(json.dumps({**self._about, "results": results}, default=plain))


def in_turn(
    measures: Sequence[Callable[[int], Measured]], rounds: int, *, warm: bool = False
) -> list[list[Measured]]:
    """Call functions in turn in every round, with the number of the round.

    Args:
        measures: the functions.
        rounds: whose results count.
        warm: whether an earlier call has warmed up; else a round more does.

    Returns:
        The results of each function.
    """
    found: list[list[Measured]] = [[] for _ in measures]
    for number in range(1 if warm else 0, rounds + 1):
        for measure, results in zip(measures, found, strict=True):
            result = measure(number)
            if number > 0:
                results.append(result)
    return found


def plain(value: object) -> Any:
    """What JSON has for a result or an option."""
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median, minimum and maximum."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
