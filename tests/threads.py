"""Runs a function in several threads at once."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any


def in_threads(work: Callable[[Any], Any], arguments: Iterable[object]) -> list[Any]:
    """Call ``work`` with each argument in a thread of its own; their results, or an error."""
    given = list(arguments)
    together = Barrier(len(given))

    def run(argument: object) -> Any:
        together.wait()
        return work(argument)

    with ThreadPoolExecutor(len(given)) as pool:
        return list(pool.map(run, given))
