"""What a router does when one of three replicas is killed under load, and when one of them stalls.

Requests begin at a steady rate. In the first part one replica is killed: the program counts the
requests that fail, and compares the wait for the first token before and after. In the second part
some requests at one replica wait for their first token, and the same load runs without and with
hedging. The replicas are servers that answer from memory, each in a process of its own.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from command import Report, options
from fast_server import MODEL, started

from talu import AsyncClient, ModelSpec, OpenAICompatibleBackend
from talu.exceptions import EndpointError
from talu.router import Policy, RoundRobin

REPLICAS = 3
TOKENS, PAUSE_S = 10, 0.02
STALL_S = 1.0
STALLED = 10  # every tenth request at the one replica that stalls


@dataclass
class Load:
    """What the requests saw.

    Attributes:
        waits: second of the start, and milliseconds to the first token, of each good request.
        failed: codes of the errors before the first token.
        broken: the number of answers that broke after their first token.
    """

    waits: list[tuple[float, float]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    broken: int = 0

    def p99(self, start: float = 0.0, end: float = float("inf")) -> float:
        """The 99th percentile of the waits of requests that began in this time."""
        waits = [wait for at, wait in self.waits if start <= at < end]
        return statistics.quantiles(waits, n=100)[98] if len(waits) > 1 else float("nan")


@contextmanager
def replicas(*every: int) -> Iterator[tuple[list[Any], list[ModelSpec]]]:
    """Servers, and the models of a client at them; ``every`` is who stalls how often."""
    servers = [started(TOKENS, PAUSE_S, STALL_S, each) for each in every]
    specs = [
        ModelSpec(MODEL, OpenAICompatibleBackend(url, max_retries=0), name=f"replica-{place}")
        for place, (_, url) in enumerate(servers)
    ]
    try:
        yield [process for process, _ in servers], specs
    finally:
        for process, _ in servers:
            process.kill()


async def run(client: AsyncClient, rate: float, seconds: float, at: Any = None) -> Load:
    """Begin requests at a steady rate; ``at`` is a second and what to do then."""
    load, began = Load(), time.perf_counter()

    async def ask() -> None:
        start, first = time.perf_counter(), None
        try:
            async for _ in await client.chat()("hi"):
                first = first or time.perf_counter()
        except EndpointError as error:
            if first is None:
                load.failed.append(error.code)
            else:
                load.broken += 1
            return
        load.waits.append((start - began, 1000 * ((first or start) - start)))

    tasks = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        if at is not None and number / rate >= at[0]:
            at[1]()
            at = None
        tasks.append(asyncio.create_task(ask()))
    await asyncio.gather(*tasks)
    return load


async def killed(given: argparse.Namespace) -> dict[str, float]:
    """One replica is killed after a third of the time."""
    with replicas(0, 0, 0) as (processes, specs):
        async with AsyncClient(specs, policy=RoundRobin()) as client:
            await run(client, given.rate, 2.0)  # warms up
            third = given.seconds / 3
            load = await run(client, given.rate, given.seconds, (third, processes[0].kill))
    return {
        "requests": len(load.waits) + len(load.failed) + load.broken,
        "failed": len(load.failed),
        "broken": load.broken,
        "p99_before_ms": load.p99(0.0, third),
        "p99_second_after_ms": load.p99(third, third + 1),
        "p99_later_ms": load.p99(third + 1),
    }


async def stalling(given: argparse.Namespace) -> dict[str, float]:
    """One replica in three stalls now and then, without and with hedging."""
    found: dict[str, float] = {}
    for name, hedge in (("plain", False), ("hedged", True)):
        policy: Policy = RoundRobin(hedge=hedge)
        with replicas(0, 0, STALLED) as (_, specs):
            async with AsyncClient(specs, policy=policy) as client:
                await run(client, given.rate, 2.0)
                load = await run(client, given.rate, given.seconds)
                found[f"{name}_p99_ms"] = load.p99()
                found[f"{name}_median_ms"] = statistics.median(wait for _, wait in load.waits)
                found[f"{name}_failed"] = len(load.failed) + load.broken
    return found


def main() -> None:
    """Command line of the benchmark."""
    parser = options(__doc__, threads=None)
    parser.add_argument("--rate", type=float, default=40.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each part")
    given = parser.parse_args()
    report = Report(given, f"{REPLICAS} replicas under a steady load")
    figures = {"killed": asyncio.run(killed(given)), "stalling": asyncio.run(stalling(given))}
    for part, values in figures.items():
        report.line(part)
        for name, value in values.items():
            report.line(f"    {name.replace('_', ' '):24}{value:10.1f}")
    report.end(figures)


if __name__ == "__main__":
    main()
