"""Decode of talu and llama.cpp while another process takes one of the cores, in turn.

    python benchmarks/busy.py [--threads 2] [--rounds 5] [--tokens 64] [--json] [FILE]

The share is the speed on the busy machine divided by the speed on the quiet one, in the same
round. Each engine runs in a process of its own and sleeps while another one works. Without a file
it takes SmolLM2-135M Q4_1.
"""

import argparse
import json
import multiprocessing
import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gguf_files import Worker, default_files
from machine import commit, machine
from peers import LlamaCpp, Talu

CONTEXT = 1024


def llama_cpp(file: Path, threads: int) -> LlamaCpp:
    """llama.cpp's own server code."""
    return LlamaCpp(file, threads, CONTEXT)


def spin(core: int) -> None:
    """Use all of one core for ever."""
    os.sched_setaffinity(0, {core})
    while True:
        pass


@contextmanager
def busy(core: int) -> Iterator[None]:
    """Another process that takes one core."""
    process = multiprocessing.get_context("spawn").Process(target=spin, args=(core,), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    file = arguments.file or default_files()[0]
    cores = sorted(os.sched_getaffinity(0))
    workers = [Worker(make, file, arguments.threads) for make in (Talu, llama_cpp)]
    quiet: dict[str, list[float]] = {worker.name: [] for worker in workers}
    loaded: dict[str, list[float]] = {worker.name: [] for worker in workers}
    for number in range(arguments.rounds + 1):
        for worker in workers:
            alone = worker.ask("decode", arguments.tokens, number)
            with busy(cores[0]):
                beside = worker.ask("decode", arguments.tokens, number)
            if number > 0:  # the first round warms up
                quiet[worker.name].append(alone)
                loaded[worker.name].append(beside)
    for worker in workers:
        worker.close()
    where = {"machine": machine(), "commit": commit(), "file": file.name}
    where |= {"threads": arguments.threads, "cores": len(cores)}
    if arguments.json:
        print(json.dumps(where | {"quiet": quiet, "busy": loaded}))
        return
    print(f"decode of {arguments.tokens} tokens beside a process that takes one core")
    print(*(f"{name}: {value}" for name, value in where.items()), sep="\n")
    for name, rates in quiet.items():
        shares = [b / q for b, q in zip(loaded[name], rates, strict=True)]
        print(
            f"{name}: quiet {statistics.median(rates):.1f} tokens/s, busy "
            f"{statistics.median(loaded[name]):.1f}, share {statistics.median(shares):.0%} "
            f"({min(shares):.0%} to {max(shares):.0%})"
        )


if __name__ == "__main__":
    main()
