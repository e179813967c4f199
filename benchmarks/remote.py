"""What talu adds to the bare SDK for models behind an endpoint, with many streams at once.

``AsyncClient`` and the bare ``AsyncOpenAI`` read the same answers, in turn, from a server in
another process that sends each token in a chunk of its own. Streams that come as fast as they are
read show the throughput. The wait for the first token is that of a single stream, and of streams
that begin one after the other and come at the pace of a model, until all of them run at once. Every
answer is compared with what was sent.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from command import Report, options
from fast_server import MODEL, started, words
from openai import AsyncOpenAI

from talu import AsyncClient

QUESTION = "Tell me a story about a fox."
SPREAD_S = 2.0
SHORTER = 4  # answers at the pace of a model have fewer tokens
Ask = Callable[[], AsyncIterator[str]]


@dataclass
class Figures:
    """What one client measured: medians of the rounds.

    Attributes:
        tokens_per_second: of all streams together, as fast as they are read.
        alone_ms: to the first token of a single stream.
        among_ms: to the first token, median of many streams at the pace of a model.
        among_p99_ms: the same, 99th percentile.
        lost: answers that were not those that the server sent.
    """

    tokens_per_second: float
    alone_ms: float
    among_ms: float
    among_p99_ms: float
    lost: int


class Reader:
    """One client of the server."""

    def __init__(self, ask: Ask, expected: str) -> None:
        self._ask = ask
        self._expected = expected
        self.lost = 0

    async def read(self) -> float:
        """Read one answer; the milliseconds to its first token."""
        began, first, pieces = time.perf_counter(), None, []
        async for piece in self._ask():
            if first is None and piece:
                first = time.perf_counter()
            pieces.append(piece)
        if "".join(pieces) != self._expected or first is None:
            self.lost += 1
            return float("inf")
        return 1000 * (first - began)

    async def together(self, streams: int, spread: float = 0.0) -> list[float]:
        """Read many answers; the first begins at once and the last after ``spread`` seconds."""

        async def one(number: int) -> float:
            await asyncio.sleep(spread * number / streams)
            return await self.read()

        return list(await asyncio.gather(*map(one, range(streams))))


def talu_reader(client: AsyncClient, expected: str) -> Reader:
    """Reads through talu, with everything that a chat does."""

    async def ask() -> AsyncIterator[str]:
        async for piece in await client.chat()(QUESTION):
            yield piece

    return Reader(ask, expected)


def bare_reader(sdk: AsyncOpenAI, expected: str) -> Reader:
    """Reads through the SDK alone."""
    options: Any = {"stream": True, "stream_options": {"include_usage": True}}
    messages: Any = [{"role": "user", "content": QUESTION}]

    async def ask() -> AsyncIterator[str]:
        stream = await sdk.chat.completions.create(model=MODEL, messages=messages, **options)
        async for chunk in stream:
            for choice in chunk.choices:
                yield choice.delta.content or ""

    return Reader(ask, expected)


async def in_turn(
    readers: dict[str, Reader], rounds: int, work: Callable[[Reader], Awaitable[float]]
) -> dict[str, list[float]]:
    """The results of the rounds after the first, which warms up."""
    results: dict[str, list[float]] = {name: [] for name in readers}
    for number in range(rounds + 1):
        for name, reader in readers.items():
            result = await work(reader)
            if number > 0:
                results[name].append(result)
    return results


async def measure(fast: str, paced: str, given: argparse.Namespace) -> dict[str, Figures]:
    """All figures of both clients."""
    streams, tokens = given.streams, given.tokens
    expected, shorter = "".join(words(tokens)), "".join(words(tokens // SHORTER))

    async def throughput(reader: Reader) -> float:
        began = time.perf_counter()
        await reader.together(streams)
        return streams * tokens / (time.perf_counter() - began)

    waits: dict[int, list[float]] = {}

    async def first_tokens(reader: Reader) -> float:
        found = await reader.together(streams, SPREAD_S)
        waits.setdefault(id(reader), []).extend(found)
        return statistics.median(found)

    async def alone(reader: Reader) -> float:
        return statistics.median([await reader.read() for _ in range(20)])

    async with (
        AsyncClient(MODEL, base_url=fast) as client,
        AsyncOpenAI(base_url=fast, api_key="none") as sdk,
        AsyncClient(MODEL, base_url=paced) as paced_client,
        AsyncOpenAI(base_url=paced, api_key="none") as paced_sdk,
    ):
        quick = {"talu": talu_reader(client, expected), "sdk": bare_reader(sdk, expected)}
        slow = {
            "talu": talu_reader(paced_client, shorter),
            "sdk": bare_reader(paced_sdk, shorter),
        }
        rates = await in_turn(quick, given.rounds, throughput)
        singles = await in_turn(quick, given.rounds, alone)
        together = await in_turn(slow, given.rounds, first_tokens)
    return {
        name: Figures(
            tokens_per_second=statistics.median(rates[name]),
            alone_ms=statistics.median(singles[name]),
            among_ms=statistics.median(together[name]),
            among_p99_ms=statistics.quantiles(waits[id(slow[name])], n=100)[98],
            lost=quick[name].lost + slow[name].lost,
        )
        for name in quick
    }


def lines(figures: dict[str, Figures]) -> list[str]:
    """Both clients side by side."""
    ours, theirs = figures["talu"], figures["sdk"]
    share = ours.tokens_per_second / theirs.tokens_per_second
    row = f"{ours.tokens_per_second:10.0f}{theirs.tokens_per_second:10.0f}{share:10.2f} of it"
    found = [f"{'':40}{'talu':>10}{'SDK':>10}", f"{'tokens per second, as fast as read':40}{row}"]
    for label, name in (
        ("first token of a single stream, ms", "alone_ms"),
        ("first token of many, median, ms", "among_ms"),
        ("first token of many, p99, ms", "among_p99_ms"),
    ):
        low, high = getattr(ours, name), getattr(theirs, name)
        found.append(f"{label:40}{low:10.2f}{high:10.2f}{low - high:+10.2f} ms")
    return [*found, f"{'answers lost':40}{ours.lost:10d}{theirs.lost:10d}"]


def main() -> None:
    """Command line of the benchmark."""
    parser = options(__doc__, rounds=7, threads=None)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--pause", type=float, default=0.2, help="of the paced server, seconds")
    given = parser.parse_args()
    report = Report(given, "streams of the same answers, through talu and the bare SDK")
    servers = [started(given.tokens), started(given.tokens // SHORTER, given.pause)]
    try:
        figures = asyncio.run(measure(servers[0][1], servers[1][1], given))
    finally:
        for process, _ in servers:
            process.kill()
    for line in lines(figures):
        report.line(line)
    report.end(figures)


if __name__ == "__main__":
    main()
