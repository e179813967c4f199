"""Decode of talu and llama.cpp while another process takes one of the cores, in turn.

    python benchmarks/busy.py [--threads 2] [--rounds 5] [--tokens 64] [--json] [FILE]

The share is the speed on the busy machine divided by the speed on the quiet one, in the same
round. Each engine runs in a process of its own and sleeps while another one works. Without a file
it takes SmolLM2-135M Q4_1.
"""

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from command import Report, in_turn, options, spread
from files import default_files
from peers import LlamaCpp, Talu
from workers import Worker

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


def decode(worker: Worker, tokens: int, core: int, number: int) -> tuple[float, float]:
    """Tokens per second, alone and beside another process."""
    quiet = worker.ask("decode", tokens, number)
    with busy(core):
        return quiet, worker.ask("decode", tokens, number)


def main() -> None:
    """Command line."""
    parser = options(__doc__, rounds=5)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--tokens", type=int, default=64)
    given = parser.parse_args()
    given.file = given.file or default_files()[0]
    cores = sorted(os.sched_getaffinity(0))
    report = Report(given, "decode beside a process that takes one core", cores=len(cores))
    workers = [Worker(make, given.file, given.threads) for make in (Talu, llama_cpp)]
    measures = [partial(decode, worker, given.tokens, cores[0]) for worker in workers]
    results = []
    for worker, found in zip(workers, in_turn(measures, given.rounds), strict=True):
        worker.close()
        quiet, loaded = zip(*found, strict=True)
        shares = [100 * busy / alone for alone, busy in found]
        results.append({"engine": worker.name, "quiet": quiet, "busy": loaded})
        report.line(f"{worker.name}: quiet {spread(quiet)} tokens/s, busy {spread(loaded)}")
        report.line(f"  share {spread(shares, 0)} %")
    report.end(results)


if __name__ == "__main__":
    main()
