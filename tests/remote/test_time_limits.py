"""Time limits while other code keeps the event loop busy."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from unittest import mock

import pytest
from tests.remote.server import PATIENCE

from talu.backends.remote.attempts import Cancelled, Waiting
from talu.backends.remote.time_limits import TimeLimit
from talu.deadline import Deadline

HOUR = 3600.0
Busy = Callable[[float], None]


class LateError(Exception):
    """The error of a limit in these tests."""


def run(work: Callable[[Busy], Awaitable[Any]]) -> Any:
    """Run it on a loop whose clock ``busy`` moves, as code that blocks the loop would."""

    async def main() -> Any:
        loop, moved, real = asyncio.get_running_loop(), [0.0], asyncio.get_running_loop().time

        def busy(seconds: float) -> None:
            moved[0] += seconds

        def later() -> float:
            return real() + moved[0]

        with mock.patch.object(loop, "time", later):
            return await asyncio.wait_for(work(busy), PATIENCE + 2 * HOUR)

    return asyncio.run(main())


def waiting(deadline: Deadline | None = None, total: float | None = None) -> Waiting:
    return Waiting(deadline, total, LateError)


def test_a_wait_between_attempts_ends_well_after_the_loop_was_busy() -> None:
    async def work(busy: Busy) -> str:
        asyncio.get_running_loop().call_soon(busy, HOUR)
        await waiting(Deadline.after(HOUR), HOUR).pause(0.5)
        return "waited"

    assert run(work) == "waited"


def test_a_wait_between_attempts_is_not_begun_when_the_time_ends_before_it() -> None:
    async def work(_: Busy) -> list[bool]:
        return [
            waiting(Deadline.after(5.0)).allows(HOUR),
            waiting(total=5.0).allows(HOUR),
            waiting(Deadline.after(HOUR), 2 * HOUR).allows(5.0),
        ]

    assert run(work) == [False, False, True]


def test_a_wait_between_attempts_can_be_cancelled() -> None:
    async def work(_: Busy) -> None:
        wait = waiting()
        asyncio.get_running_loop().call_soon(wait.cancel)
        await wait.pause(HOUR)

    with pytest.raises(Cancelled):
        run(work)


def test_what_arrived_while_the_loop_was_busy_is_in_time() -> None:
    async def work(busy: Busy) -> str:
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()

        def blocked() -> None:
            busy(HOUR)
            loop.call_later(0.01, arrived.set)  # the loop reads it when it runs again

        loop.call_soon(blocked)
        async with waiting().within(5.0, LateError):
            await arrived.wait()
        return "in time"

    assert run(work) == "in time"


def test_a_busy_loop_delays_a_limit_only_once() -> None:
    async def work(busy: Busy) -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(busy, HOUR)
        loop.call_later(0.01, busy, HOUR)
        async with waiting().within(5.0, LateError):
            await asyncio.Event().wait()

    with pytest.raises(LateError):
        run(work)


def test_a_limit_of_a_loop_that_is_not_busy_ends_the_wait() -> None:
    async def work(_: Busy) -> None:
        async with TimeLimit(0.01):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        run(work)
