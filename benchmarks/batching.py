"""Many chats at once, a long prompt beside running answers, and the prefix cache.

    python benchmarks/batching.py [FILE] [--threads 2] [--rounds 5] [--chats 16 64 256]
        [--parts chats pauses cache] [--json]

Each engine runs in a process of its own and sleeps while another one works. llama.cpp is its own
server with 16 slots and continuous batching. Without a file it takes SmolLM2-135M Q4_1.
"""

import asyncio
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from command import Report, options, spread
from files import default_files
from peers import LlamaCpp, random_prompt
from workers import Worker

from talu.cli.bench import prefill_rate
from talu.engine.engine import Engine
from talu.engine.loading import load_model
from talu.engine.registry import acquire
from talu.engine.ticket import Ticket
from talu.protocols import Executor
from talu.sampling import SamplingParams
from talu.sources import open_model
from talu.types import LocalBackend

PARTS = ("chats", "pauses", "cache")
SLOTS = 16
PROMPT, ANSWER = 32, 64
RUNNING = 15  # answers beside a long prompt
LONG = 4_000
HISTORY, TURN = 2_000, 50
GREEDY = SamplingParams(max_tokens=ANSWER, temperature=0.0)
FIRST = SamplingParams(max_tokens=1, temperature=0.0)


class TaluServer:
    """talu's engine, read in an event loop, as by a program with many users."""

    def __init__(self, file: Path, threads: int) -> None:
        self._file = str(file)
        self._options = LocalBackend(num_threads=threads)
        model = load_model(open_model(self._file)[0], self._options)
        self._executor = Timed(model.executor)
        self._engine = Engine(model._replace(executor=self._executor))
        self.name = f"talu ({self._engine.info.target}, {self._engine.info.weight_format})"

    def context(self) -> int:
        """The most tokens of a chat."""
        return self._engine.context_length

    def chats(self, count: int, seed: int) -> float:
        """Tokens per second of all answers together."""
        prompts = [random_prompt(PROMPT, seed * 1000 + number) for number in range(count)]

        async def run() -> float:
            start = time.perf_counter()
            tickets = [self._engine.submit(prompt, GREEDY) for prompt in prompts]
            await asyncio.gather(*(read(ticket) for ticket in tickets))
            return count * ANSWER / (time.perf_counter() - start)

        return asyncio.run(run())

    def pauses(self, length: int, seed: int) -> tuple[list[float], float]:
        """Seconds between tokens of running answers while a long prompt enters, and its wait."""
        long = random_prompt(length, seed)
        many = SamplingParams(max_tokens=10_000, temperature=0.0)

        async def run() -> tuple[list[float], float]:
            prompts = [random_prompt(PROMPT, seed * 1000 + number) for number in range(RUNNING)]
            tickets = [self._engine.submit(prompt, many) for prompt in prompts]
            times: list[list[float]] = [[] for _ in tickets]
            tasks = [
                asyncio.create_task(note(ticket, into))
                for ticket, into in zip(tickets, times, strict=True)
            ]
            while not all(times):
                await asyncio.sleep(0.01)
            start = time.perf_counter()
            await read(self._engine.submit(long, FIRST))
            end = time.perf_counter()
            for ticket in tickets:
                ticket.cancel()
            await asyncio.gather(*tasks)
            return between(times, start, end), end - start

        return asyncio.run(run())

    def turns(self, seed: int) -> tuple[float, float, float]:
        """Seconds to the first token of a second turn.

        Then the part of them in which the steps of the model ran, whose new tokens attend to the
        whole history; and the seconds for the new tokens alone, without a history.
        """
        history, turn = random_prompt(HISTORY, seed), random_prompt(TURN, seed)
        wait(self._engine, history)
        self._executor.seconds.clear()
        second = wait(self._engine, history + turn)
        steps = sum(self._executor.seconds)
        # The first turn left whole blocks of 16 tokens; what is beyond them is computed again.
        alone = wait(self._engine, random_prompt(TURN + HISTORY % 16, seed + 1))
        return second, steps, alone

    def yesterday(self, seed: int) -> tuple[float, float]:
        """Seconds to the first token of a chat that another engine computed, and without its files.

        Opening the model is not included.
        """
        history = random_prompt(HISTORY, seed + 500)
        with tempfile.TemporaryDirectory() as folder:
            before = os.environ.get("TALU_CACHE")
            os.environ["TALU_CACHE"] = folder
            options = LocalBackend(
                num_threads=self._options.num_threads, prefix_cache_bytes=4 << 30
            )
            waits = []
            for _ in range(2):
                lease = acquire(self._file, options)
                prefill_rate(lease.engine, 16, seed)  # warms up
                waits.append(wait(lease.engine, history))
                lease.release()
            if before is None:
                del os.environ["TALU_CACHE"]
            else:
                os.environ["TALU_CACHE"] = before
        return waits[1], waits[0]

    def close(self) -> None:
        """Free the model."""
        self._engine.close()


class Timed:
    """An executor that records the seconds of its steps."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.seconds: list[float] = []

    def step(self, *arrays: Any) -> Any:
        """See ``Executor``."""
        start = time.perf_counter()
        logits = self._executor.step(*arrays)
        self.seconds.append(time.perf_counter() - start)
        return logits

    def close(self) -> None:
        """See ``Executor``."""
        self._executor.close()


def wait(engine: Engine, prompt: list[int]) -> float:
    """Seconds to the first token."""
    start = time.perf_counter()
    list(engine.submit(prompt, FIRST))
    return time.perf_counter() - start


async def read(ticket: Ticket) -> None:
    """Read an answer to its end."""
    async for _ in ticket:
        pass


async def note(ticket: Ticket, times: list[float]) -> None:
    """Record when each token arrives."""
    async for _ in ticket:
        times.append(time.perf_counter())


class LlamaServer(LlamaCpp):
    """llama.cpp's server with 16 slots, a thread for each request."""

    def __init__(self, file: Path, threads: int) -> None:
        super().__init__(file, threads, 16 * (LONG + 2 * ANSWER), slots=SLOTS)

    def chats(self, count: int, seed: int) -> float:
        """See ``TaluServer``."""
        prompts = [random_prompt(PROMPT, seed * 1000 + number) for number in range(count)]
        start = time.perf_counter()
        run_all(lambda prompt: self.complete(prompt, ANSWER), prompts)
        return count * ANSWER / (time.perf_counter() - start)

    def pauses(self, length: int, seed: int) -> tuple[list[float], float]:
        """See ``TaluServer``."""
        prompts = [random_prompt(PROMPT, seed * 1000 + number) for number in range(RUNNING)]
        times: list[list[float]] = [[] for _ in prompts]
        stopped = threading.Event()

        def answer(number: int) -> None:
            def arrived(_: object) -> bool:
                times[number].append(time.perf_counter())
                return stopped.is_set()

            self.stream(prompts[number], LONG, arrived)

        threads = [threading.Thread(target=answer, args=(n,)) for n in range(RUNNING)]
        for thread in threads:
            thread.start()
        while not all(times):
            time.sleep(0.01)
        start = time.perf_counter()
        self.complete(random_prompt(length, seed), 1)
        end = time.perf_counter()
        stopped.set()
        for thread in threads:
            thread.join()
        return between(times, start, end), end - start


def run_all(function: Any, arguments: Sequence[object]) -> None:
    """Call a function for each argument, in a thread each."""
    threads = [threading.Thread(target=function, args=(each,)) for each in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def between(times: list[list[float]], start: float, end: float) -> list[float]:
    """Seconds between neighbouring tokens of each answer, as far as they end in this time."""
    return [
        later - earlier
        for each in times
        for earlier, later in pairwise(each)
        if start <= later <= end
    ]


@dataclass
class Figures:
    """What one engine reached; a figure for each round."""

    engine: str
    tokens_per_second: dict[int, list[float]]
    pause_p50_ms: list[float] = field(default_factory=list)
    pause_p99_ms: list[float] = field(default_factory=list)
    long_prompt_s: list[float] = field(default_factory=list)
    second_turn_ms: list[float] = field(default_factory=list)
    second_turn_in_steps_ms: list[float] = field(default_factory=list)
    new_tokens_alone_ms: list[float] = field(default_factory=list)
    from_disk_ms: list[float] = field(default_factory=list)
    computed_ms: list[float] = field(default_factory=list)


def measure(
    worker: Worker, figures: Figures, length: int, number: int, parts: Sequence[str], report: Report
) -> None:
    """One round of one engine; a line for each part when it is measured.

    Args:
        worker: the engine.
        figures: where the results go.
        length: tokens of the long prompt.
        number: of the round.
        parts: what to measure: ``"chats"``, ``"pauses"``, ``"cache"``.
        report: gets the lines.
    """
    for count, rates in figures.tokens_per_second.items():
        rates.append(worker.ask("chats", count, number))
        report.line(f"round {number}, {figures.engine}: {count} chats {rates[-1]:.1f} tokens/s")
    if "pauses" in parts:
        pauses, seconds = worker.ask("pauses", length, number)
        cuts = statistics.quantiles(pauses, n=100)
        figures.pause_p50_ms.append(cuts[49] * 1e3)
        figures.pause_p99_ms.append(cuts[98] * 1e3)
        figures.long_prompt_s.append(seconds)
        report.line(f"round {number}, {figures.engine}: 99 % of pauses {cuts[98] * 1e3:.0f} ms")
    if "cache" in parts and not figures.engine.startswith("llama.cpp"):
        second, steps, alone = worker.ask("turns", number)
        figures.second_turn_ms.append(second * 1e3)
        figures.second_turn_in_steps_ms.append(steps * 1e3)
        figures.new_tokens_alone_ms.append(alone * 1e3)
        disk, computed = worker.ask("yesterday", number)
        figures.from_disk_ms.append(disk * 1e3)
        figures.computed_ms.append(computed * 1e3)


def lines(results: list[Figures]) -> list[str]:
    """All figures, and the ratio to the first engine."""
    found = []
    for figures in results:
        found += ["", figures.engine]
        for count, rates in figures.tokens_per_second.items():
            ratio = statistics.median(results[0].tokens_per_second[count])
            ratio /= statistics.median(rates)
            found.append(f"  {count:4} chats: {spread(rates)} tokens/s (talu / this: {ratio:.2f})")
        found += [
            f"  {name}: {spread(values)}"
            for name, values in vars(figures).items()
            if isinstance(values, list) and values
        ]
    return found


def main() -> None:
    """Command line."""
    parser = options(__doc__, rounds=5)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--chats", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    given = parser.parse_args()
    file = given.file = given.file or default_files()[0]
    title = f"{PROMPT} tokens in, {ANSWER} out; median (minimum to maximum)"
    report = Report(given, title)
    workers = [Worker(make, file, given.threads) for make in (TaluServer, LlamaServer)]
    chats = given.chats if "chats" in given.parts else []
    results = [Figures(each.name, {count: [] for count in chats}) for each in workers]
    length = min(LONG, workers[0].ask("context") - 64)
    for worker in workers:
        worker.ask("chats", SLOTS, 1_000_000)  # warms up
    for number in range(given.rounds):
        for worker, figures in zip(workers, results, strict=True):
            measure(worker, figures, length, number, given.parts, report)
    for worker in workers:
        worker.close()
    for line in lines(results):
        report.line(line)
    report.end(results)


if __name__ == "__main__":
    main()
