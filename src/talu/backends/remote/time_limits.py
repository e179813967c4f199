"""Limits the time that a block waits for a server.

The time for which other code kept the event loop busy does not count: what the server sent
meanwhile has arrived, and nobody could read it.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

__all__ = ["time_limit"]

BUSY_S = 0.1  # a timer that fires later than this shows that the loop was busy


@asynccontextmanager
async def time_limit(seconds: float | None) -> AsyncGenerator[asyncio.Timeout]:
    """Raise ``TimeoutError`` if the block takes longer; ``reschedule`` of the result ends it.

    A block whose time ended while the loop was busy gets as much more time as the loop was late,
    once and at most doubled.

    Args:
        seconds: None for no limit.
    """
    loop, limit = asyncio.get_running_loop(), asyncio.timeout(None)
    timer: asyncio.TimerHandle | None = None

    def end() -> None:
        if not limit.expired():
            limit.reschedule(loop.time())

    def end_unless_busy(due: float, seconds: float) -> None:
        nonlocal timer
        late = loop.time() - due
        if late < BUSY_S:
            end()
        else:
            timer = loop.call_later(min(late, seconds), end)

    try:
        async with limit:
            if seconds is not None:
                due = loop.time() + seconds
                timer = loop.call_at(due, end_unless_busy, due, max(seconds, BUSY_S))
            yield limit
    finally:
        if timer is not None:
            timer.cancel()
