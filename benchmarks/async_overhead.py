"""What ``AsyncClient`` adds to the bare engine for each streamed token, with many streams at once.

Both read the same tokens from the same engine in tasks of one event loop, in turn: the engine's own
tickets, with the prompt's ids made before the clock starts, and the streams of a client, with
everything that a chat does: template, tokenizer, regions, items, hooks.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from command import Report, options

from talu import AsyncClient
from talu.engine.engine import Engine
from talu.engine.registry import acquire
from talu.sampling import SamplingParams

QUESTION = "Tell me a story about a fox."
MICROSECONDS = 1e6


@dataclass
class Measured:
    """Microseconds a token of each round, by the clock and of the event loop's own thread."""

    clock: list[float] = field(default_factory=list)
    loop: list[float] = field(default_factory=list)


async def from_engine(engine: Engine, prompt: list[int], streams: int, tokens: int) -> int:
    """How many tokens the tickets of the bare engine gave."""
    params = SamplingParams(max_tokens=tokens, temperature=0.0)

    async def read() -> int:
        return sum([len(piece.tokens) async for piece in engine.submit(prompt, params)])

    return sum(await asyncio.gather(*(read() for _ in range(streams))))


async def from_client(client: AsyncClient, streams: int, tokens: int) -> int:
    """How many tokens the streams of the client gave."""
    settings = {"max_tokens": tokens, "temperature": 0.0, "stop_token_ids": []}

    async def read() -> int:
        response = await client.chat()(QUESTION, **settings)
        async for _ in response:
            pass
        return len(response.tokens)

    return sum(await asyncio.gather(*(read() for _ in range(streams))))


async def one_round(measured: Measured, work: Callable[[], Awaitable[int]], expected: int) -> None:
    """Time it; every token has to be there."""
    clock, thread = time.perf_counter(), time.thread_time()
    count = await work()
    assert count == expected
    measured.clock.append(MICROSECONDS * (time.perf_counter() - clock) / count)
    measured.loop.append(MICROSECONDS * (time.thread_time() - thread) / count)


async def measure(model: str, streams: int, tokens: int, rounds: int) -> tuple[Measured, Measured]:
    """The engine and the client, in turn."""
    bare, full, expected = Measured(), Measured(), streams * tokens
    lease = acquire(model)
    async with AsyncClient(model) as client:
        first = await client.ask(QUESTION, max_tokens=1)
        prompt = lease.engine.tokenizer.encode(first.prompt or "", special_tokens=False)
        for number in range(rounds + 1):
            if number == 1:  # the first round warms up
                bare, full = Measured(), Measured()
            await one_round(
                bare, lambda: from_engine(lease.engine, prompt, streams, tokens), expected
            )
            await one_round(full, lambda: from_client(client, streams, tokens), expected)
    lease.release()
    return bare, full


def lines(bare: Measured, full: Measured) -> list[str]:
    """Medians, minima and their differences."""
    found = [f"{'microseconds a token':44}{'engine':>9}{'client':>9}{'added':>9}"]
    for name, ours, theirs in (
        ("by the clock", bare.clock, full.clock),
        ("processor time of the loop's thread", bare.loop, full.loop),
    ):
        for kind, pick in (("median", statistics.median), ("minimum", min)):
            low, high = pick(ours), pick(theirs)
            found.append(f"{name + ', ' + kind:44}{low:9.1f}{high:9.1f}{high - low:9.1f}")
    pairs = statistics.median(b - a for a, b in zip(bare.clock, full.clock, strict=True))
    return [*found, f"{'by the clock, median of what a pair differs':62}{pairs:9.1f}"]


def main() -> None:
    """Command line of the benchmark."""
    parser = options(__doc__, rounds=15, threads=None)
    parser.add_argument("model", nargs="?", default="talu/pocket")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    given = parser.parse_args()
    report = Report(given, "streams through the engine and through AsyncClient")
    found = asyncio.run(measure(given.model, given.streams, given.tokens, given.rounds))
    for line in lines(*found):
        report.line(line)
    report.end(dict(zip(("engine", "client"), found, strict=True)))


if __name__ == "__main__":
    main()
