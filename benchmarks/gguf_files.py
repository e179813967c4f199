"""Real GGUF files: prefill and decode of talu, llama.cpp and ik_llama.cpp, in turn.

    python benchmarks/gguf_files.py [--threads 2] [--rounds 5] [--json] [FILE ...]
    python benchmarks/gguf_files.py --ours FOLDER --weight-format q4 FILE

Each engine runs in a process of its own and sleeps while another one works. Without a file it
takes the two that the tests use. ik_llama.cpp takes part if ``ik-llama-cpp-python`` is installed.
``--ours`` gives talu the same network in another form, for example the folder that a file was made
of, which it quantises itself.
"""

import importlib.util
import statistics
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from command import Report, in_turn, options, spread
from files import default_files
from peers import IkLlamaCpp, Peer, Talu, llama_cpp, random_prompt
from workers import Maker, Worker

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


def talu(file: Path, threads: int, test: Test) -> Peer:
    """talu, as a program gets it."""
    return Talu(test.ours or file, threads, test.weight_format)


def llama(file: Path, threads: int, test: Test) -> Peer:
    """llama.cpp."""
    return llama_cpp()(file, threads, test.context)


def ik_llama_cpp(file: Path, threads: int, test: Test) -> Peer:
    """ik_llama.cpp's library."""
    return IkLlamaCpp(file, threads, test.context)


@dataclass(frozen=True)
class Rates:
    """What one engine reached with one file, in tokens per second; a figure for each round."""

    file: str
    engine: str
    agreement: str
    prefill: list[float]
    decode: list[float]


def measure(file: Path, threads: int, rounds: int, test: Test) -> list[Rates]:
    """Run every engine with the file, in turn in every round."""
    workers = [Worker(make, file, threads, test) for make in makers()]

    def rates(worker: Worker, number: int) -> tuple[float, float]:
        prefill = worker.ask("prefill", test.prefill, number)
        return prefill, worker.ask("decode", DECODE, number, test.after)

    try:
        agreements = [agreement(workers[0], worker) for worker in workers]
        found = in_turn([partial(rates, worker) for worker in workers], rounds)
        return [
            Rates(file.name, worker.name, same, *map(list, zip(*pairs, strict=True)))
            for worker, same, pairs in zip(workers, agreements, found, strict=True)
        ]
    finally:
        for worker in workers:
            worker.close()


def makers() -> list[Maker]:
    """What opens each engine that is installed."""
    found: list[Maker] = [talu, llama]
    return [*found, ik_llama_cpp] if importlib.util.find_spec("ik_llama_cpp") else found


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


def lines(rates: list[Rates]) -> list[str]:
    """The table of one file, with what talu reaches of each engine."""
    first = rates[0]
    found = ["", first.file]
    for rate in rates:
        figures = [
            f"{spread(values)}, {statistics.median(ours) / statistics.median(values):.2f}"
            for ours, values in ((first.prefill, rate.prefill), (first.decode, rate.decode))
        ]
        found.append(f"  prefill {figures[0]:<32} decode {figures[1]:<32} {rate.engine}")
        found.append(f"    {rate.agreement}")
    return found


def main() -> None:
    """Command line."""
    parser = options(__doc__, rounds=5)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--prefill", type=int, default=512, help="tokens of a prompt")
    parser.add_argument("--after", type=int, default=1, help="tokens before the decoded ones")
    parser.add_argument("--ours", type=Path, help="what talu opens instead of the file")
    parser.add_argument("--weight-format", choices=WEIGHT_FORMATS, default="auto")
    given = parser.parse_args()
    given.files = given.files or default_files()
    test = Test(given.prefill, given.after, given.ours, given.weight_format)
    title = "tokens per second: median (minimum to maximum), talu's median divided by this one"
    report = Report(given, title, decode=DECODE)
    results = []
    for file in given.files:
        rates = measure(file, given.threads, given.rounds, test)
        results += rates
        for line in lines(rates):
            report.line(line)
    report.end(results)


if __name__ == "__main__":
    main()
