"""Runs work in threads, and turns a thread that cannot be started into a typed error."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from talu.error_text import NO_THREAD
from talu.exceptions import ResourceError, TaluError

__all__ = ["InTurn", "beside_loop", "thread_starts"]

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def thread_starts() -> Generator[None]:
    """Raise ``ResourceError`` in place of Python's own error when no thread can be started."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, TaluError) or "start new thread" not in str(error):
            raise
        raise ResourceError(NO_THREAD) from error


async def beside_loop(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``function`` in a thread and return its result.

    Raises:
        ResourceError: the system cannot start another thread.
    """
    with thread_starts():
        return await asyncio.to_thread(function, *args, **kwargs)


class InTurn:
    """Calls functions in a thread, one at a time for each event loop.

    The work holds the GIL most of the time, so several threads would not be faster than one, but
    each of them would make the loop wait for the GIL, 5 ms at a time.
    """

    def __init__(self) -> None:
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
            WeakKeyDictionary()
        )

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of ``function``; cancelling the task lets the next call run."""
        turn = self._turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        async with turn:
            return await beside_loop(function, *args, **kwargs)
