"""Limits the time that a block waits for a server.

The time for which other code kept the event loop busy does not count: what the server sent
meanwhile has arrived, and nobody could read it.
"""

import asyncio
from types import TracebackType
from typing import Self

__all__ = ["TimeLimit"]

BUSY_S = 0.1  # a timer that fires later than this shows that the loop was busy


class TimeLimit:
    """Raises ``TimeoutError`` if the block takes longer; an asynchronous context manager.

    A block whose time ended while the loop was busy gets as much more time as the loop was late,
    once and at most doubled.

    Args:
        seconds: None for no limit.
    """

    _timer: asyncio.TimerHandle | None = None

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._limit = asyncio.timeout(None)
        self._loop = asyncio.get_running_loop()

    @property
    def expired(self) -> bool:
        """Whether the time has ended, or ``end`` was called."""
        return self._limit.expired()

    def end(self) -> None:
        """End the block now, as if its time was over. On the loop."""
        if not self.expired:
            self._limit.reschedule(self._loop.time())

    def _end_unless_busy(self, due: float, longest: float) -> None:
        late = self._loop.time() - due
        if late < BUSY_S:
            self.end()
        else:
            self._timer = self._loop.call_later(min(late, longest), self.end)

    async def __aenter__(self) -> Self:
        await self._limit.__aenter__()
        if self._seconds is not None:
            due = self._loop.time() + self._seconds
            longest = max(self._seconds, BUSY_S)
            self._timer = self._loop.call_at(due, self._end_unless_busy, due, longest)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._limit.__aexit__(kind, error, traceback)
