"""Work of many tasks that would keep their event loop busy, in a thread beside it.

Knows nothing of what is done there.
"""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar
from weakref import WeakKeyDictionary

__all__ = ["InTurn"]

P = ParamSpec("P")
T = TypeVar("T")


class InTurn:
    """Calls functions in a thread, for each event loop one after the other.

    The work holds the interpreter most of the time, so that several threads would not be faster
    than one; but each of them would keep the loop waiting for the interpreter, 5 ms at a time.
    """

    def __init__(self) -> None:
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
            WeakKeyDictionary()
        )

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``function`` returns; cancelling the task gives the turn to the next one."""
        turn = self._turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        async with turn:
            return await asyncio.to_thread(function, *args, **kwargs)
